"""The training engine: it knows arrays, networks and recipes, and neither data sets nor evaluation."""
