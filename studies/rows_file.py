"""Small JSON files of measured rows, replaced whole so that a killed command loses none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from shrp.errors import DataError
from shrp.files import write_text


def read(path: Path) -> dict[str, Any]:
    """What is there, as an object; empty where there is no file yet.

    Raises:
        DataError: the file is not of rows, or none can be written there.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["rows"], list) and isinstance(found["command"], str):
            return found
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        _check_place(path)
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is not a file of results; name another --out, or delete it.")


def _check_place(path: Path) -> None:
    """Raise `DataError` where no file can be written. Another command may write it meanwhile: that is no fault."""
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        wrong = f"{path} is a folder"
    elif not existing.is_dir() or not os.access(existing, os.W_OK):
        wrong = f"{existing} is no folder that can be written to"
    else:
        return
    raise DataError(f"{path} can't be written: {wrong}; name another file with --out.")


def alone(path: Path) -> FileLock:
    """A lock to hold from reading a file until it is written: two commands that add rows at once lose none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def write(path: Path, data: Any) -> None:
    """Put `data`, of what JSON has, in place of what is there, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(data, indent=1) + "\n")
