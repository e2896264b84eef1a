"""The profile of one expert, on Expert usage."""
