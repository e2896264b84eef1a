"""What models cost: parameters, FLOPs and time."""
