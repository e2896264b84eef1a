"""Which experts a model uses, on what, and what that goes by."""
