"""Analyses of a model: each takes a model, a tokenizer and data or a text, and returns a frozen result."""
