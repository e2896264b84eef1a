"""Measurements behind the tables in `docs`, each one command: `python -m studies.NAME --help`."""
