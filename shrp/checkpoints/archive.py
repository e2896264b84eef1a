"""Take a checkpoint folder out of a zip file that a stranger may have made.

Only plain files are written, flat, under names checked against a short alphabet; every size is checked in the
archive's directory before a byte is unpacked, and again while unpacking. Nothing is executed or unpickled.
"""

from __future__ import annotations

import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shrp.checkpoints.info import CONFIG, WEIGHTS
from shrp.errors import CheckpointError

MB = 2**20
SUFFIXES = (".safetensors", ".json", ".jsonl", ".txt", ".md")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_END, _ZIP64 = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _ZIP64_SIZE, _LONGEST_COMMENT = 22, 20, 0xFFFF
_CHUNK = MB


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, sizes in bytes after unpacking."""

    files: int = 40
    """Entries, folders and those that are passed over included."""
    total: int = 1024 * MB
    text: int = 64 * MB
    """Of one file other than weights."""
    ratio: float = 100.0
    """Unpacked over packed size of one file larger than 1 MB; trained weights are near 1, JSON under 20."""


def unpack(archive: BinaryIO, folder: Path, limits: Limits = Limits()) -> str:
    """Unpack the one checkpoint in a zip file.

    Its files may stand at the top or in one folder. Files of other kinds than `SUFFIXES` stay in the archive: what
    macOS adds, states of a trainer, weights in formats that can carry code.

    Args:
        archive: the zip file, opened for reading and seekable.
        folder: an existing empty folder; the files are written straight into it.

    Returns:
        The name of the archive's folder, or "" where the files stand at its top. Only for display: it is a
        stranger's text and may hold any printable characters.

    Raises:
        CheckpointError: not a zip file, or one that is not taken; one sentence says why. `folder` may then hold
            some of the files.
    """
    _check_directory(archive, limits)
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_count(len(opened.infolist()), limits)  # the directory's end may name fewer
            entries = [entry for entry in opened.infolist() if not _passed_over(entry.filename)]
            files, top = _checked(entries, limits)
            needed = sum(entry.file_size for entry in files.values())
            if shutil.disk_usage(folder).free < needed + 64 * MB:
                raise CheckpointError(
                    f"the archive needs {_mb(needed)} on disk, more than is free; nothing was unpacked."
                )
            for name, entry in files.items():
                _write(opened, entry, folder / name)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"the archive is damaged ({_reason(error)}); make or send it again.") from error
    except (zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the archive can't be unpacked ({_reason(error)}); make it again as a plain zip file."
        ) from error
    except OSError as error:
        raise CheckpointError(f"the archive can't be unpacked: {error.strerror or error}.") from error
    return top


def _check_directory(archive: BinaryIO, limits: Limits) -> None:
    """Refuse a directory of too many entries before `zipfile` makes an object of each."""
    size = archive.seek(0, 2)
    archive.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT - _ZIP64_SIZE))
    tail = archive.read()
    place = len(tail) - _END_SIZE
    if not (place >= 0 and tail[place:].startswith(_END) and tail.endswith(b"\0\0")):  # else it has a comment
        place = tail.rfind(_END)
    if place < 0 or len(tail) - place < _END_SIZE:
        raise CheckpointError(
            "the file is not a zip archive, or was cut off; send a zip of the checkpoint's folder."
        )
    if tail[max(0, place - _ZIP64_SIZE) : place].startswith(_ZIP64):
        raise CheckpointError(
            "the archive is in the Zip64 form for huge archives, which is not read; zip only the checkpoint's folder."
        )
    (count,) = struct.unpack_from("<H", tail, place + 10)
    (directory,) = struct.unpack_from("<I", tail, place + 12)
    _check_count(count, limits)
    if directory > limits.files * MB // 4:  # an entry has at most 3 * 64 kB of names
        raise CheckpointError(
            f"the archive's directory takes {_mb(directory)}, more than {limits.files} entries need; zip only the "
            "checkpoint's folder."
        )


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.files:
        raise CheckpointError(
            f"the archive holds {count:,} entries, more than the {limits.files} that are taken; zip only the "
            "checkpoint's folder."
        )


def _passed_over(name: str) -> bool:
    parts = name.split("/")
    other = not name.endswith("/") and Path(parts[-1]).suffix.lower() not in SUFFIXES
    return parts[0] == "__MACOSX" or other


def _checked(entries: Iterable[zipfile.ZipInfo], limits: Limits) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The files by the name that they are written under, and the folder they share."""
    files: dict[str, zipfile.ZipInfo] = {}
    tops, total = set(), 0
    for entry in entries:
        _check_path(entry)
        if entry.is_dir():
            continue
        *above, name = entry.filename.split("/")
        if len(above) > 1:
            raise CheckpointError(
                f"{_shown(entry)} lies more than one folder deep; zip one checkpoint's folder alone."
            )
        _check_file(name, entry, limits)
        if name.lower() in (known.lower() for known in files):
            raise CheckpointError(
                f"the archive holds {_quoted(name)} twice; zip one checkpoint's folder, with each file once."
            )
        files[name] = entry
        tops.add(above[0] if above else "")
        total += entry.file_size
        if total > limits.total:
            raise CheckpointError(
                f"the archive unpacks to more than {_mb(limits.total)}, the most that is taken."
            )
    if len(tops) > 1:
        raise CheckpointError(
            "the archive holds files of several folders; zip one checkpoint's folder alone."
        )
    for needed in (CONFIG, WEIGHTS):
        if needed not in files:
            raise CheckpointError(
                f"the archive has no {needed}, so it is not a checkpoint's; weights are taken as {WEIGHTS} alone."
            )
    return files, tops.pop()


def _check_path(entry: zipfile.ZipInfo) -> None:
    """Refuse what could point outside the folder, or is no plain file."""
    name = entry.orig_filename
    if "\0" in name or "\\" in name or not name.isprintable():
        raise CheckpointError(
            f"the name {_shown(entry)} holds a backslash or a control character; make the zip with another tool."
        )
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or any(p in ("", ".", "..") for p in parts):
        raise CheckpointError(
            f"the name {_shown(entry)} could point outside the archive, so nothing was unpacked."
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "not a plain file"
        raise CheckpointError(f"{_shown(entry)} is {what}; put the file itself into the archive.")
    if entry.flag_bits & _ENCRYPTED:
        raise CheckpointError("the archive is encrypted; make it without a password.")
    if entry.compress_type not in _METHODS:
        raise CheckpointError(
            f"{_shown(entry)} is packed by a method that is not read; make a plain zip (stored or deflated)."
        )


def _check_file(name: str, entry: zipfile.ZipInfo, limits: Limits) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise CheckpointError(
            f"the file name {_shown(entry)} is not a checkpoint's; names have letters A to Z, digits, '.', '-' and '_'."
        )
    limit = limits.total if name.endswith(".safetensors") else min(limits.text, limits.total)
    if entry.file_size > limit:
        raise CheckpointError(
            f"{_shown(entry)} unpacks to {_mb(entry.file_size)}; at most {_mb(limit)} are taken for such a file."
        )
    if entry.file_size > MB and entry.file_size > limits.ratio * max(entry.compress_size, 1):
        raise CheckpointError(
            f"{_shown(entry)} is packed {entry.file_size / max(entry.compress_size, 1):,.0f} to 1, as no checkpoint's "
            "file is, so it was not unpacked."
        )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one file, and stop where it has more than it says; the checksum is `zipfile`'s to check."""
    written = 0
    with opened.open(entry) as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise CheckpointError(
                    f"{_shown(entry)} holds more than its archive says, so it was not unpacked."
                )
            sink.write(chunk)
    if written != entry.file_size:
        raise CheckpointError(f"{_shown(entry)} is cut off; make or send the archive again.")


def _shown(entry: zipfile.ZipInfo) -> str:
    return _quoted(entry.orig_filename)


def _quoted(name: str) -> str:
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return f"'{name if len(name) <= 80 else name[:79] + '…'}'"


def _reason(error: Exception) -> str:
    return _quoted(str(error)).strip("'")


def _mb(size: int) -> str:
    return f"{size / MB:,.0f} MB"
