"""The files that `studies` writes, read as tables, and what they show in sentences."""
