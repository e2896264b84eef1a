"""The files that `benchmarks` writes, read as tables, and what they show in sentences."""
