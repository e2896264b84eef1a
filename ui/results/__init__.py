"""The Results page: the GLUE table, its chart, and what was asked of the method."""
