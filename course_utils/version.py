"""The version of the course, where nothing needs to be imported for it."""

__version__ = "0.1.0"
