"""The boxes for an upload and for a path on the app's machine, and where such a path may lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.errors import ShrpError
from ui.text import escape


def upload_limit(ours: int) -> int:
    """The largest upload in MB: `ours`, or the server's own limit where that is lower."""
    return min(ours, int(st.get_option("server.maxUploadSize")))


def draw(
    key: str,
    label: str,
    types: Sequence[str],
    limit: int,
    help: str,
    roots: Sequence[Path],
    take: Callable[[Any], object],
) -> None:
    """Draw the boxes and read what is given there, once.

    Args:
        key: what the widgets' keys begin with.
        types, limit: of an upload, its extensions and most MB.
        roots: folders below which a path may lead; without any there is no box for one.
        take: reads an uploaded file or a path (text).
    """
    session, uploads, taken = st.session_state, f"{key}-uploads", f"{key}-path-taken"
    # Not by `on_change`: touching anything while it is read would end that for good.
    number = session.setdefault(uploads, 0)  # a new key empties the box
    file = st.file_uploader(
        label, types, key=f"{uploads}-{number}", max_upload_size=upload_limit(limit), help=help
    )
    if file is not None:
        take(file)
        session[uploads] += 1
        st.rerun()
    if not roots:
        return
    below = f"Below {named(roots)}."
    path = st.text_input("or its path on the app's machine", key=f"{key}-path", help=escape(below))
    if path != session.get(taken, ""):
        if path.strip():
            take(path)
        session[taken] = path
        st.rerun()


def named(paths: Sequence[Path]) -> str:
    """Paths in words."""
    return " or ".join(f"'{path}'" for path in paths) or "any folder (none was named)"


def find(text: str, roots: Sequence[Path], kind: str, error: type[ShrpError]) -> Path:
    """The file or folder (`kind`) that a path names below one of the roots, resolved; a relative one is tried in each.

    Raises:
        error: the path leads elsewhere (links are followed first), to nothing, or cannot be looked at.
    """
    text, wanted = text.strip(), Path.is_dir if kind == "folder" else Path.is_file
    try:
        inside = [path for root in roots if (path := (root / text).resolve()).is_relative_to(root)]
        found = next((path for path in inside if wanted(path)), None)
    except PermissionError as denied:
        raise error(f"'{text:.200}' can't be read: {denied.strerror}.") from denied
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        inside, found = [], None
    if not inside:
        raise error(f"'{text:.200}' is not under {named(roots)}: put it there, or upload it.")
    if found is None:
        raise error(f"There is no {kind} '{text:.200}' under {named(roots)}.")
    return found
