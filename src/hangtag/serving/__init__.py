"""A prediction server: model files behind HTTP, batched and bounded. It never imports torch."""
