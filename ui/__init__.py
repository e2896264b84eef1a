"""What the pages are made of: here what they share, in a package per page its parts; `own`: a person's own files."""
