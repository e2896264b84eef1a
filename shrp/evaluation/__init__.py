"""Scores with intervals, paired comparisons, and costs in parameters, FLOPs and time."""
