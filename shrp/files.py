"""Files are written all of them or not at all, with the permissions of new files; and the place for caches."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable
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


def _new(beside: Path, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """A hidden place of its own beside another, and what making it returned."""
    while True:
        path = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}")
        try:
            return path, make(path)
        except FileExistsError:
            continue


def _open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less what the umask says


def new_folder(beside: Path) -> Path:
    """An empty folder with a hidden name of its own beside a place, in which to make what is to be there.

    Raises:
        OSError: it can't be made.
    """
    return _new(beside, os.mkdir)[0]


def write_text(file: Path, text: str) -> None:
    """As `write_bytes`, of a text in UTF-8."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file; a write that fails leaves it as it was; an `OSError` if it can't be written."""
    partial, handle = _new(file, _open_new)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def as_others(file: Path) -> None:
    """Give a file, which some library made for its owner alone, the permissions of any new file."""
    other, handle = _new(file, _open_new)
    try:
        file.chmod(stat.S_IMODE(os.fstat(handle).st_mode))
    finally:
        os.close(handle)
        other.unlink()
