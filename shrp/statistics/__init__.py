"""Statistics that know nothing of models: intervals, rank correlation, groups dealt anew."""
