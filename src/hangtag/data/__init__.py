"""Any form of labelled images -> `LabelledImages`, and the problems in them. Never imports torch; knows no model."""
