"""Plans of what to keep, how they are chosen, the static models that they make, and what these score."""
