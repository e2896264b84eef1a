"""What a person brings along: data, slices and checkpoints of their own."""
