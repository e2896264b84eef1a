"""A path that a person gave, held to the folders that are allowed: it can't lead elsewhere, by dots or by links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def below(roots: Sequence[Path], text: str, wanted: Callable[[Path], bool]) -> tuple[bool, Path | None]:
    """Follow a path's links and see where it leads; a relative one is tried in each of the roots.

    Args:
        roots: the allowed folders, resolved.
        text: the path.
        wanted: whether a path below a root is what was asked for; it may raise an OSError.

    Returns:
        Whether it leads below a root, and what was asked for there, or None.

    Raises:
        PermissionError: a folder on the way can't be looked into.
    """
    try:
        inside = [path for root in roots if (path := (root / text).resolve()).is_relative_to(root)]
        return bool(inside), next((path for path in inside if wanted(path)), None)
    except PermissionError:
        raise
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        return False, None
