"""Training: the two stages, conversion on texts, the teacher, recipes, and runs that resume."""
