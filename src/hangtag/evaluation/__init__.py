"""How good a model is and how far to trust it. Never imports torch."""
