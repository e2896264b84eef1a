"""Families of encoders: how each is called, converted and restated."""
