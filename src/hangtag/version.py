"""The version, read by the package, by run folders and by the build."""

__all__ = ["__version__"]

__version__ = "0.1.0"
