"""Files are written all of them or not at all, with the permissions that whoever runs this gives to new ones."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

UMASK = os.umask(0)  # which can be read only by setting it: once, before there are threads
os.umask(UMASK)
FILE_MODE = 0o666 & ~UMASK


def write_text(file: Path, text: str) -> None:
    """Put a text, in UTF-8, in place of what is there; a write that fails leaves that as it was.

    Raises:
        OSError: it can't be written.
    """
    handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            written.write(text)
        os.chmod(partial, FILE_MODE)
        os.replace(partial, file)
    finally:
        Path(partial).unlink(missing_ok=True)
