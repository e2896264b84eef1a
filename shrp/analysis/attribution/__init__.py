"""How much of a model's output is due to each word of its input, and to each expert (captum)."""
