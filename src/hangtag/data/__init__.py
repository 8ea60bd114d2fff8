"""From anything a user has to `LabelledImages`, and what is wrong with them. Never imports torch; knows no model."""
