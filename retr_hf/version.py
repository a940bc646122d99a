"""The version of the package, readable without importing anything else (setup.py does)."""

__version__ = "0.1.0"
