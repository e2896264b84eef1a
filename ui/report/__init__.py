"""The report of a checkpoint, one HTML file."""
