"""What tells that files changed, so that what is cached of them is read anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Stamp = tuple[tuple[str, int, int], ...]


def stamp_of(folder: Path, names: Sequence[str]) -> Stamp:
    """Name, time and size of files in a folder: cheap to take, and it changes when they do."""
    stamp = []
    for name in names:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        stamp.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(stamp)
