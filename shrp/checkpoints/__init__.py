"""Checkpoints on disk: written whole, read with suspicion, rebuilt; and what they say of themselves."""
