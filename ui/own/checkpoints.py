"""Checkpoints of this session alone: a folder below the allowed roots, an uploaded zip of one, or what the lab made.

An archive is unpacked (`shrp.checkpoints.archive`) into a temporary folder that lives as long as the session holds it. Only
what loads is offered; a refusal says why, and what was loaded before stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import streamlit as st

from shrp.checkpoints import archive
from shrp.checkpoints import info as reading
from shrp.errors import CheckpointError, ShrpError
from ui import loaders
from ui.own import boxes
from ui.text import escape

PICK = "own-checkpoint-picked"
"""Key of the session's state: the name of a checkpoint that was just loaded and is to be picked."""
MB = 2**20
MAX_UPLOAD_MB = 2048
MOST_HELD = 3
"""Uploads, and checkpoints made here, that a session keeps, so that they can be compared."""
_HELD, _LET_GO, _PROBLEM = (f"own-checkpoint-{part}" for part in ("held", "let-go", "problem"))


class Held(NamedTuple):
    """An unpacked upload, or what the app made; a later one that is `known_as` the same takes its place."""

    known_as: str
    folder: TemporaryDirectory
    """Deleted with this object, which the session's state holds."""


@contextmanager
def _new_folder(refused: str) -> Iterator[TemporaryDirectory]:
    """A temporary folder, deleted where it cannot be filled: any error becomes a CheckpointError beginning with `refused`."""
    try:
        folder = TemporaryDirectory(prefix="shrp-checkpoint-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CheckpointError(f"{refused}: there is no place for it ({error.strerror}).") from error
    try:
        yield folder
    except (ShrpError, OSError) as error:
        folder.cleanup()
        # The temporary folder means nothing to the reader.
        path = Path(folder.name).resolve()
        said = str(error).replace(f"{path}/", "").replace(str(path), "it")
        raise CheckpointError(f"{refused}: {said}") from error


def open_upload(name: str, file) -> tuple[TemporaryDirectory, str]:
    """Unpack an uploaded zip file, as named by the browser, and try the checkpoint in it; returns its folder and name.

    Raises:
        CheckpointError: the archive is refused or holds no sound checkpoint; nothing of it stays on disk.
    """
    name = PurePosixPath(name.replace("\\", "/")).name
    size = file.seek(0, 2)
    if size > (most := boxes.upload_limit(MAX_UPLOAD_MB) * MB):
        raise CheckpointError(f"'{name:.80}' is {size / MB:.0f} MB; at most {most // MB} MB are taken.")
    with _new_folder(f"'{name:.80}' is not loaded") as folder:
        path = Path(folder.name).resolve()
        top = archive.unpack(file, path)
        loaders.load_folder(path)
    return folder, top or PurePosixPath(name).stem


def draw() -> None:
    """Draw the section in the sidebar. What is loaded is among `loaders.discover_all`'s from the next run on."""
    session = st.session_state
    with st.expander("Load a checkpoint", icon=":material/folder_open:"):
        boxes.draw(
            "own-checkpoint",
            "A zip of a checkpoint's folder",
            ["zip"],
            MAX_UPLOAD_MB,
            f"An SHRP checkpoint's own files: {', '.join(archive.SUFFIXES)}; weights as {reading.WEIGHTS} only. Nothing "
            f"in it is executed. Only this session sees it. The last {MOST_HELD} stay loaded; of one name the last one.",
            _roots(),
            _take,
        )
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


def _hold(known_as: str, name: str, folder: TemporaryDirectory, spared: str = "") -> str:
    """Keep a folder for the session, in the place of one `known_as` the same and, of too many, the oldest not `spared`.

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
    """List a checkpoint that the app makes among the session's own, like an upload; returns the name that it is listed by.

    Args:
        known_as: what tells it from others that are made: a later one of the same takes its place.
        name: what it is called, as far as that is free.
        write: makes the checkpoint in a folder that is not there yet, and returns that.
        of: the name of the checkpoint that it is made of, which stays.

    Raises:
        CheckpointError: it can't be written, or not be read again; nothing of it stays on disk.
    """
    with _new_folder(f"'{name:.80}' could not be made") as folder:
        path = write(Path(folder.name).resolve() / "made")
        loaders.load_folder(path)
    listed = _hold(known_as, name, folder, of)
    _list(listed, path)
    return listed


def _roots() -> list[Path]:
    return list(dict.fromkeys(root.resolve() for root in loaders.checkpoint_roots()))


def open_path(text: str) -> tuple[str, Path]:
    """The name and folder of a checkpoint by its path below one of the allowed roots.

    Raises:
        CheckpointError: the path leads elsewhere, or there is no sound checkpoint.
    """
    path = boxes.find(text, _roots(), "folder", CheckpointError)
    loaders.load_folder(path)
    known = {loaders.path_of(name).resolve(): name for name in loaders.discover_all()}
    return known.get(path) or _free_name(path.name), path


def _list(name: str, path: Path) -> None:
    session = st.session_state
    session[loaders.OWN_CHECKPOINTS] = session.get(loaders.OWN_CHECKPOINTS, {}) | {name: path}


def _take(given: Any) -> None:
    """Load an upload or a path, and have it picked."""
    session = st.session_state
    try:
        if isinstance(given, str):
            name, path = open_path(given)
        else:
            folder, name = open_upload(given.name, given)
            name, path = _hold(name, name, folder), Path(folder.name).resolve()
    except CheckpointError as error:
        session[_PROBLEM] = str(error)
        return
    if name not in loaders.discover_all():
        _list(name, path)
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


def pick_folder(folder: Path) -> None:
    """As `pick`, by the checkpoint's folder."""
    pick(loaders.name_of(folder))


def _removed(name: str) -> None:
    remove(name)
    st.session_state[_LET_GO] = []
    st.session_state["own-checkpoint-path"] = ""  # so that the same path can be given again


def remove(name: str) -> None:
    """Take a checkpoint of this session out of the list; what was unpacked or made for it is deleted."""
    session = st.session_state
    known = session.get(loaders.OWN_CHECKPOINTS, {})
    session[loaders.OWN_CHECKPOINTS] = {k: v for k, v in known.items() if k != name}
    if (held := session.get(_HELD, {}).pop(name, None)) is not None:
        loaders.forget(known[name])
        held.folder.cleanup()
