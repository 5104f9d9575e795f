"""The version: here and nowhere else, so that what a run notes is that of the code that ran."""

__version__ = "0.2.0"
