"""A seeded, resumable reliability campaign: `python -m tests.campaign --help`; docs/reliability.md has what it found."""
