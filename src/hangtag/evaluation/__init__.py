"""How good a model is, and whether its guarantees hold. Never imports torch."""
