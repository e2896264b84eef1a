"""The Pruning lab."""
