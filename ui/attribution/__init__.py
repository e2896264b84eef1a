"""What knocking out every expert, or every head of the dense layers, does on a data set."""
