"""The boxes for an upload and for a path on the app's machine, and where such a path may lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.errors import ShrpError
from ui.own.kept import is_local
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
    kind: str,
    take: Callable[[Any], object],
) -> None:
    """Draw the boxes side by side and read what is given there, once.

    Args:
        key: what the widgets' keys begin with.
        types, limit: of an upload, its extensions and most MB.
        roots: folders below which a path may lead on a server; without any it has no box for one.
        kind: what a path names, a `folder` or a `file`.
        take: reads an uploaded file or a path (text).
    """
    session = st.session_state
    uploads, taken, last = (f"{key}-{of}" for of in ("uploads", "path-taken", "file"))
    # Not by `on_change`: touching anything while it is read would end that for good.
    number = session.setdefault(uploads, 0)
    anywhere = is_local()
    with_path = bool(roots) or anywhere
    places = st.columns(2) if with_path else [st.container()]
    if with_path:
        below = f"Any {kind} of this machine." if anywhere else f"Below {named(roots)}."
        label_of_path = f"Path of a {kind} on the app's machine"
        path = places[0].text_input(label_of_path, key=f"{key}-path", help=escape(below))
        if path != session.get(taken, ""):
            if path.strip():
                take(path)
            session[taken] = path
    limits = {"max_upload_size": upload_limit(limit), "help": help}
    file = places[-1].file_uploader(label, types, key=f"{uploads}-{number}", **limits)
    if file is not None and file.file_id != session.get(last):
        take(file)
        session[last] = file.file_id


def empty(key: str) -> None:
    """Empty the boxes, so that the same can be given again."""
    st.session_state[f"{key}-uploads"] = st.session_state.get(f"{key}-uploads", 0) + 1  # a new key
    st.session_state[f"{key}-path"] = ""  # not taken out, which would leave the browser's box as it is


def named(paths: Sequence[Path]) -> str:
    """Paths in words."""
    return " or ".join(f"'{path}'" for path in paths) or "any folder (none was named)"


def find(
    text: str, roots: Sequence[Path], kind: str, error: type[ShrpError], *, anywhere: bool = False
) -> Path:
    """The file or folder (`kind`) that a path names below one of the roots, resolved; a relative one is tried in each.

    Args:
        anywhere: whether it may lie elsewhere, too.

    Raises:
        error: the path leads elsewhere (links are followed first), to nothing, or cannot be looked at.
    """
    text, wanted = text.strip(), Path.is_dir if kind == "folder" else Path.is_file
    try:
        inside = [path for root in roots if (path := (root / text).resolve()).is_relative_to(root)]
        inside += [Path(text).expanduser().resolve()] * anywhere
        found = next((path for path in inside if wanted(path)), None)
        other = any(path.exists() for path in inside)
    except PermissionError as denied:
        raise error(f"'{text:.200}' can't be read: {denied.strerror}.") from denied
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        inside, found, other = [], None, False
    if not inside:
        raise error(f"'{text:.200}' is not under {named(roots)}: put it there, or upload it.")
    if found is None and other:
        raise error(f"'{text:.200}' is not a {kind}; give the path of one.")
    if found is None:
        raise error(f"There is no {kind} '{text:.200}'{'' if anywhere else f' under {named(roots)}'}.")
    return found
