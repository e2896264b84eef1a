"""Unpack an untrusted zip file of a checkpoint folder.

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
from pathlib import Path
from typing import BinaryIO

from shrp.checkpoints.info import CONFIG, WEIGHTS
from shrp.errors import CheckpointError, first_line

MB = 2**20
SUFFIXES = (".safetensors", ".json", ".jsonl", ".txt", ".md")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENCRYPTED = 0x1
_END, _ZIP64 = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _ZIP64_SIZE, _LONGEST_COMMENT = 22, 20, 0xFFFF
_ALONE = "zip only the checkpoint's folder."
MOST_FILES = 40
"""Entries of an archive, including folders and files that stay in it."""
TOTAL, TEXT = 1024 * MB, 64 * MB
"""Most bytes after unpacking, of all files and of one other than weights."""
RATIO = 100.0
"""Unpacked over packed size of one file larger than 1 MB; trained weights are near 1, JSON under 20."""


def files_of(folder: Path) -> list[Path]:
    """The files in a folder that a checkpoint may consist of, as `unpack` takes them; links are followed."""
    files = (one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    return sorted(one for one in files if one.suffix.lower() in SUFFIXES)


def unpack(archive: BinaryIO, folder: Path) -> str:
    """Unpack the one checkpoint in a zip file.

    Its files may stand at the top or in one folder. Files of other kinds than `SUFFIXES` stay in the archive: what
    macOS adds, states of a trainer, weights in formats that can carry code.

    Args:
        archive: the zip file, opened for reading and seekable.
        folder: an existing empty folder; the files are written straight into it.

    Returns:
        The name of the archive's folder, or "" where the files stand at its top. Only for display: it is untrusted and
        may hold any printable characters.

    Raises:
        CheckpointError: not a zip file, or one that is refused; one sentence says why. `folder` may then hold some of
            the files.
    """
    _check_directory(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_count(len(opened.infolist()))  # the directory's end may name fewer
            files, top = _checked(opened.infolist())
            needed = sum(entry.file_size for entry in files.values())
            _require(
                shutil.disk_usage(folder).free >= needed + 64 * MB,
                f"the archive needs {_mb(needed)} on disk, more than is free; nothing was unpacked.",
            )
            for name, entry in files.items():
                _write(opened, entry, folder / name)
    except OSError as error:
        raise CheckpointError(f"the archive can't be unpacked: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the archive is damaged ({first_line(error)}); make it again as a plain zip file."
        ) from error
    return top


def _require(met: bool, otherwise: str) -> None:
    if not met:
        raise CheckpointError(otherwise)


def _check_directory(archive: BinaryIO) -> None:
    """Refuse a directory of too many entries before `zipfile` makes an object of each."""
    size = archive.seek(0, 2)
    archive.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT - _ZIP64_SIZE))
    tail = archive.read()
    place = tail.rfind(_END)
    _require(
        place >= 0 and len(tail) - place >= _END_SIZE,
        "the file is not a zip archive, or was cut off; send a zip of the checkpoint's folder.",
    )
    _require(
        not tail[max(0, place - _ZIP64_SIZE) : place].startswith(_ZIP64),
        f"the archive is in the Zip64 form for huge archives, which is not read; {_ALONE}",
    )
    (count,) = struct.unpack_from("<H", tail, place + 10)
    (directory,) = struct.unpack_from("<I", tail, place + 12)
    _check_count(count)
    _require(
        directory <= MOST_FILES * MB // 4,  # an entry has at most 3 * 64 kB of names
        f"the archive's directory takes {_mb(directory)}, more than {MOST_FILES} entries need; {_ALONE}",
    )


def _check_count(count: int) -> None:
    _require(count <= MOST_FILES, f"the archive holds {count:,} entries, more than {MOST_FILES}; {_ALONE}")


def _checked(entries: Iterable[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The files to unpack, by the name that they are written under, and the folder they share."""
    files: dict[str, zipfile.ZipInfo] = {}
    tops, total = set(), 0
    for entry in entries:
        *above, name = entry.filename.split("/")
        if "__MACOSX" in above[:1] or (name and Path(name).suffix.lower() not in SUFFIXES):
            continue
        _check_path(entry)
        if entry.is_dir():
            continue
        shown = f"{entry.orig_filename!r:.80}"
        _require(len(above) <= 1, f"{shown} lies more than one folder deep; {_ALONE}")
        _require(
            _FILE_NAME.fullmatch(name) is not None,
            f"the file name {shown} is not a checkpoint's; names have letters A to Z, digits, '.', '-' and '_'.",
        )
        limit = TOTAL if name.endswith(".safetensors") else min(TEXT, TOTAL)
        _require(
            entry.file_size <= limit,
            f"{shown} unpacks to {_mb(entry.file_size)}; the limit for such a file is at most {_mb(limit)}.",
        )
        packed = max(entry.compress_size, 1)
        _require(
            entry.file_size <= max(MB, RATIO * packed),
            f"{shown} is packed {entry.file_size / packed:,.0f} to 1, as no checkpoint's file is; it was not unpacked.",
        )
        _require(
            name.lower() not in (known.lower() for known in files),
            f"the archive holds {name!r} twice; zip one checkpoint's folder, with each file once.",
        )
        files[name] = entry
        tops.add(above[0] if above else "")
        total += entry.file_size
        _require(total <= TOTAL, f"the archive unpacks to more than {_mb(TOTAL)}, the limit.")
    _require(len(tops) <= 1, f"the archive holds files of several folders; {_ALONE}")
    for needed in (CONFIG, WEIGHTS):
        _require(
            needed in files,
            f"the archive has no {needed}, so it is not a checkpoint's; weights must be in {WEIGHTS}.",
        )
    return files, tops.pop()


def _check_path(entry: zipfile.ZipInfo) -> None:
    """Refuse what could point outside the folder, or is no plain file."""
    name = entry.orig_filename
    shown = f"{name!r:.80}"
    _require(
        "\\" not in name and name.isprintable(),
        f"the name {shown} holds a backslash or a control character; make the zip with another tool.",
    )
    parts = name.removesuffix("/").split("/")
    _require(
        not (re.match(r"[A-Za-z]:", name) or {"", ".", ".."} & {*parts}),
        f"the name {shown} could point outside the archive, so nothing was unpacked.",
    )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    what = "a link" if kind == stat.S_IFLNK else "not a plain file"
    _require(
        kind in (0, stat.S_IFREG, stat.S_IFDIR), f"{shown} is {what}; put the file itself into the archive."
    )
    _require(not entry.flag_bits & _ENCRYPTED, "the archive is encrypted; make it without a password.")
    _require(
        entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"{shown} is packed by a method that is not read; make a plain zip (stored or deflated).",
    )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one file, and stop where it has more than it says; the checksum is `zipfile`'s to check."""
    with opened.open(entry) as source, target.open("xb") as sink:
        while chunk := source.read(MB):
            sink.write(chunk)
            if sink.tell() > entry.file_size:
                break
        _require(
            sink.tell() == entry.file_size,
            f"{entry.orig_filename!r:.80} is not as large as its archive says.",
        )


def _mb(size: int) -> str:
    return f"{size / MB:,.0f} MB"
