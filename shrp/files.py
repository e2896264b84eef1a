"""Files are written all of them or not at all, with the permissions of new files; and the place for caches."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE = "SHRP_CACHE"
"""Variable of the environment that names the folder; without it, the platform's usual place for caches."""


def cache_folder() -> Path | None:
    """The folder that SHRP_CACHE names, or the platform's place for caches; None where there is no home folder."""
    try:
        if named := os.environ.get(CACHE, "").strip():
            return Path(named).expanduser().absolute()
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "shrp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "shrp" / "Cache"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else home / ".cache") / "shrp"


def _hidden(beside: Path) -> Path:
    """A hidden name next to a place, which nothing else has, with the same ending."""
    return beside.with_name(f".{secrets.token_hex(8)}.{beside.name}")


def new_folder(beside: Path) -> Path:
    """An empty folder with a hidden name of its own beside a place, in which to make what is to be there.

    Raises:
        OSError: it can't be made.
    """
    folder = _hidden(beside)
    folder.mkdir()
    return folder


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A new place for a file, to be written inside, which then takes the place of `file`; a failure leaves that as it was."""
    partial = _hidden(file)
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """As `write_bytes`, of a text in UTF-8."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file; a write that fails leaves it as it was; an `OSError` if it can't be written."""
    with replacing(file) as partial:
        partial.write_bytes(content)


def read_object(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; empty where there is none, or it can't be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # not JSON, no UTF-8, or nested too deeply
        return {}
    return found if isinstance(found, dict) else {}


def as_others(file: Path) -> None:
    """Give a file, which some library made for its owner alone, the permissions of any new file."""
    other = _hidden(file)
    other.touch()
    try:
        file.chmod(stat.S_IMODE(other.stat().st_mode))
    finally:
        other.unlink()
