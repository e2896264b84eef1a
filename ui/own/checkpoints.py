"""Checkpoints of this session alone: a folder below the allowed roots, an uploaded zip of one, or what the lab made.

An uploaded archive is unpacked (`shrp.checkpoints.archive`) into a temporary folder that lives as long as the session
holds it. Only what loads is offered; a refusal says why, and the checkpoint that was loaded before stays.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import streamlit as st

from shrp.checkpoints import archive
from shrp.checkpoints import info as reading
from shrp.errors import CheckpointError, ShrpError
from ui import loaders
from ui.own.data import upload_limit
from ui.own.table import below
from ui.text import escape

PICK = "own-checkpoint-picked"
"""Key of the session's state: the name of a checkpoint that was just loaded and is to be picked."""
MB = 2**20
MAX_UPLOAD_MB = 2048
MOST_HELD = 3
"""Uploads, and checkpoints made here, that a session keeps, so that they can be compared."""
_HELD, _LET_GO, _PROBLEM, _UPLOADS, _PATH, _TAKEN = (
    "own-checkpoint-held",
    "own-checkpoint-let-go",
    "own-checkpoint-problem",
    "own-checkpoint-uploads",
    "own-checkpoint-path",
    "own-checkpoint-path-taken",
)


class TemporaryFolder:
    """A folder that is deleted with this object: when it is let go of, or at the end of the process.

    A session's state holds it, so that it goes with the session.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="shrp-checkpoint-")).resolve()
        self.delete = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Held(NamedTuple):
    """An unpacked upload, or what the app made."""

    known_as: str
    """What tells it from others: a later one of the same takes its place."""
    folder: TemporaryFolder


@contextmanager
def _new_folder(refused: str) -> Iterator[TemporaryFolder]:
    """A temporary folder, deleted again where it can't be filled.

    Raises:
        CheckpointError: for any error of the library or the disk; it begins with `refused`.
    """
    try:
        folder = TemporaryFolder()
    except OSError as error:
        raise CheckpointError(f"{refused}: there is no place for it ({error.strerror}).") from error
    try:
        yield folder
    except (ShrpError, OSError) as error:
        folder.delete()
        # The temporary folder means nothing to the reader.
        said = str(error).replace(f"{folder.path}/", "").replace(str(folder.path), "it")
        raise CheckpointError(f"{refused}: {said}") from error


def open_upload(name: str, file) -> tuple[TemporaryFolder, str]:
    """Unpack an uploaded zip file and try the checkpoint in it.

    Args:
        name: the file's name, as the browser gave it.
        file: the file, binary and seekable.

    Returns:
        The folder, and the name of the checkpoint.

    Raises:
        CheckpointError: the archive is not taken or holds no sound checkpoint; nothing of it stays on disk.
    """
    name = PurePosixPath(name.replace("\\", "/")).name
    size = file.seek(0, 2)
    if size > (most := upload_limit(MAX_UPLOAD_MB) * MB):
        raise CheckpointError(f"'{name:.80}' is {size / MB:.0f} MB; at most {most // MB} MB are taken.")
    with _new_folder(f"'{name:.80}' is not loaded") as folder:
        top = archive.unpack(file, folder.path)
        loaders.load_folder(folder.path)
    return folder, top or PurePosixPath(name).stem


def open_path(text: str) -> Path:
    """The checkpoint folder of a path below one of the allowed roots, at any depth; a relative path is tried in each.

    Raises:
        CheckpointError: the path leads elsewhere (links are followed first), or there is no sound checkpoint.
    """
    text = text.strip()
    roots = list(dict.fromkeys(root.resolve() for root in loaders.checkpoint_roots()))
    try:
        inside, found = below(roots, text, Path.is_dir)
    except PermissionError as error:
        raise CheckpointError(f"'{text:.200}' can't be read: {error.strerror}.") from error
    named = " or ".join(f"'{root}'" for root in roots)
    if not inside:
        raise CheckpointError(f"'{text:.200}' is not under {named}: move it there, or upload a zip of it.")
    if found is None:
        raise CheckpointError(f"There is no folder '{text:.200}' under {named}.")
    loaders.load_folder(found)
    return found


def draw() -> None:
    """Draw the section in the sidebar. What is loaded is among `loaders.discover_all`'s from the next run on."""
    session = st.session_state
    key = f"{_UPLOADS}-{session.setdefault(_UPLOADS, 0)}"
    with st.expander("Load a checkpoint", icon=":material/folder_open:"):
        # Not by `on_change`: touching anything while it is read would end that for good.
        file = st.file_uploader(
            "A zip of a checkpoint's folder",
            type="zip",
            key=key,  # a new key empties the box; what was loaded is listed below it
            max_upload_size=upload_limit(MAX_UPLOAD_MB),
            help=f"An SHRP checkpoint's own files: {', '.join(archive.SUFFIXES)}; weights as "
            f"{reading.WEIGHTS} only. Nothing in it is executed. It is for this session alone and is "
            f"deleted with it. The last {MOST_HELD} stay loaded; of one name the last one.",
        )
        if file is not None:
            _take(partial(_from_upload, file))
            session[_UPLOADS] += 1
            st.rerun()
        path = st.text_input(
            "or its path on the app's machine",
            key=_PATH,
            help=escape(f"A folder below {' or '.join(str(root) for root in loaders.checkpoint_roots())}."),
        )
        if path != session.get(_TAKEN, ""):
            if path.strip():
                _take(partial(_from_path, path))
            session[_TAKEN] = path
            st.rerun()
        if session.get(_PROBLEM):
            st.error(escape(session[_PROBLEM]), icon=":material/error:")
        if gone := session.get(_LET_GO):
            st.caption(f"{escape(', '.join(gone))} was let go: the last {MOST_HELD} stay loaded.")
        for name in session.get(loaders.OWN_CHECKPOINTS, {}):
            st.button(
                f"Remove {escape(name)}",  # there may be several, and a screen reader reads this alone
                key=f"own-checkpoint-remove-{name}",
                on_click=_removed,
                args=(name,),
                icon=":material/delete:",
            )


def _hold(known_as: str, name: str, folder: TemporaryFolder, spared: str = "") -> str:
    """Keep a folder for the session, in the place of one of the same identity and, of too many, the oldest.

    Args:
        spared: the name of a checkpoint that stays, however old it is.

    Returns:
        The name that the folder is listed by.
    """
    held: dict[str, Held] = st.session_state.setdefault(_HELD, {})
    for before in [listed for listed, one in held.items() if one.known_as == known_as]:
        remove(before)
    st.session_state[_LET_GO] = []
    while len(held) >= MOST_HELD:
        oldest = next(listed for listed in held if listed != spared)
        st.session_state[_LET_GO] += [oldest]
        remove(oldest)
    free = _free_name(name)
    held[free] = Held(known_as, folder)
    return free


def make(known_as: str, name: str, write: Callable[[Path], Path], of: str) -> str:
    """List a checkpoint that the app itself makes among the session's own, as if it had been uploaded.

    Args:
        known_as: what tells it from others that are made: a later one of the same takes its place.
        name: what it is called, as far as that is free.
        write: makes the checkpoint in a folder that is not there yet, and returns that.
        of: the name of the checkpoint that it is made of, which stays.

    Returns:
        The name that it is listed by. Which checkpoint is picked stays as it is.

    Raises:
        CheckpointError: it can't be written, or not be read again; nothing of it stays on disk.
    """
    with _new_folder(f"'{name:.80}' could not be made") as folder:
        path = write(folder.path / "made")
        loaders.load_folder(path)
    listed, session = _hold(known_as, name, folder, of), st.session_state
    session[loaders.OWN_CHECKPOINTS] = session.get(loaders.OWN_CHECKPOINTS, {}) | {listed: path}
    return listed


def _from_upload(file) -> tuple[str, Path]:
    folder, name = open_upload(file.name, file)
    return _hold(name, name, folder), folder.path


def _from_path(text: str) -> tuple[str, Path]:
    path = open_path(text)
    known = {loaders.path_of(name).resolve(): name for name in loaders.discover_all()}
    return known.get(path) or _free_name(path.name), path


def _take(take: Callable[[], tuple[str, Path]]) -> None:
    session = st.session_state
    try:
        name, path = take()
    except CheckpointError as error:
        session[_PROBLEM] = str(error)
        return
    if name not in loaders.discover_all():
        session[loaders.OWN_CHECKPOINTS] = session.get(loaders.OWN_CHECKPOINTS, {}) | {name: path}
    session[_PROBLEM], session[PICK] = "", name


def _free_name(name: str) -> str:
    """A name that no checkpoint has yet, printable and short; it stands in the URL and in file names."""
    name = "".join(c for c in name if c.isprintable() and c not in "/\\")[:60].strip() or "checkpoint"
    known, free, number = loaders.discover_all(), f"{name} (yours)", 2
    while free in known:
        free, number = f"{name} (yours {number})", number + 1
    return free


def pick(name: str) -> None:
    """Have the sidebar pick a checkpoint from the next run on."""
    st.session_state[PICK] = name


def _removed(name: str) -> None:
    remove(name)
    st.session_state[_LET_GO] = []
    st.session_state[_PATH] = ""  # so that the same path can be given again


def remove(name: str) -> None:
    """Take a checkpoint of this session out of the list; what was unpacked or made for it is deleted."""
    session = st.session_state
    known = session.get(loaders.OWN_CHECKPOINTS, {})
    session[loaders.OWN_CHECKPOINTS] = {k: v for k, v in known.items() if k != name}
    if (held := session.get(_HELD, {}).pop(name, None)) is not None:
        loaders.forget(known[name])
        held.folder.delete()
