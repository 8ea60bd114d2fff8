"""The command line. A leaf: nothing else in the package imports it."""
