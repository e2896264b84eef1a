"""The Expert usage page."""
