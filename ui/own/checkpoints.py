"""A person's own models: a folder, an uploaded zip of one, or what the lab made.

On a server that others reach they are this session's alone: a folder below the allowed roots, or an archive unpacked
(`shrp.checkpoints.archive`) into a temporary folder that lives as long as the session holds it. On localhost any folder can
be opened, and what was opened stays among the app's models, a folder as links to its files. Only what loads is offered; a
refusal says why, and what was loaded before stays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import streamlit as st

from shrp.checkpoints import archive
from shrp.checkpoints import info as reading
from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import CheckpointError, ShrpError
from shrp.files import new_folder, write_text
from ui import jobs, loaders
from ui.own import boxes
from ui.own.kept import is_local
from ui.text import escape

PICK = "own-checkpoint-picked"
"""Key of the session's state: the name of a checkpoint that was just loaded and is to be picked."""
MB = 2**20
MAX_UPLOAD_MB = 2048
MOST_HELD = 3
"""Uploads, and checkpoints made here, that a session keeps, so that they can be compared."""
_BROUGHT = ".brought"
"""An empty file in a folder of the app's models that a person has brought."""
_UNNAMED = re.compile(r"LABEL_\d+")
"""A label that `config.json` has no name for."""
_HELD, _LET_GO, PROBLEM, BUSY = (f"own-checkpoint-{part}" for part in ("held", "let-go", "problem", "busy"))


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
    """Draw the dialog's step. What is loaded is among `loaders.discover_all`'s from then on."""
    session = st.session_state
    stays = "It stays on this machine." if is_local() else "Only this session sees it."
    boxes.draw(
        "own-checkpoint",
        "or a zip of its folder",
        ["zip"],
        MAX_UPLOAD_MB,
        f"A Hugging Face classifier's or an SHRP checkpoint's files: {', '.join(archive.SUFFIXES)}; weights as "
        f"{reading.WEIGHTS} only. Nothing in it is executed. {stays}",
        _roots(),
        "folder",
        _take,
    )
    for problem in filter(None, (session.get(PROBLEM), session.get(BUSY))):
        st.error(escape(problem), icon=":material/error:")
    if gone := session.get(_LET_GO):
        st.caption(f"{escape(', '.join(gone))} was let go: the last {MOST_HELD} stay loaded.")


def is_own(name: str) -> bool:
    """Whether a checkpoint is the session's own, or was brought or made here."""
    if name in st.session_state.setdefault(loaders.OWN_CHECKPOINTS, {}):
        return True
    known = name in loaders.discover_all() and jobs.allowed()
    return known and loaders.path_of(name).parent == jobs.models().resolve()


def draw_removal(name: str) -> None:
    """Draw a button that removes a model that a person has brought, or the app made for the session."""
    if is_own(name) and (
        name in st.session_state[loaders.OWN_CHECKPOINTS] or _is_brought(loaders.path_of(name))
    ):
        st.button(
            f"Remove {escape(name)}",
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
    """The name and folder of a checkpoint by its path: below one of the allowed roots, on localhost anywhere.

    Raises:
        CheckpointError: the path leads elsewhere, or there is no sound checkpoint.
    """
    path = boxes.find(text, _roots(), "folder", CheckpointError, anywhere=is_local())
    loaders.load_folder(path)
    known = {_weights(loaders.path_of(name)): name for name in loaders.discover_all()}
    if name := known.get(_weights(path)):
        return name, path
    return (_bring(path, path.name, os.symlink), path) if _stays() else (_free_name(path.name), path)


def _weights(folder: Path) -> Path:
    return (folder / reading.WEIGHTS).resolve()


def _stays() -> bool:
    """Whether what is brought stays among the app's models."""
    return is_local() and jobs.allowed()


def _is_brought(folder: Path) -> bool:
    """Whether a folder is of a model that a person has brought, and may be changed: by nobody on a server."""
    return _stays() and (folder / _BROUGHT).is_file()


def _bring(source: Path, name: str, put: Callable[[Path, Path], object]) -> str:
    """Put a folder's files among the app's models; returns the name that it is listed by."""
    wanted, number = _printable(name), 2
    folder = jobs.models() / wanted
    while folder.exists():
        folder, number = folder.with_name(f"{wanted} {number}"), number + 1
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = new_folder(folder)
        try:
            for file in archive.files_of(source):
                put(file.absolute(), partial / file.name)
            (partial / _BROUGHT).touch()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # nothing once it is renamed
    except OSError as error:
        raise CheckpointError(f"'{name:.80}' can't be kept: {error.strerror or error}.") from error
    return loaders.name_of(folder)


def unnamed_labels(info: CheckpointInfo) -> Sequence[str]:
    """A plain classifier's labels where they are mere numbers, such as LABEL_0; else none."""
    labels = info.task.label_names
    return labels if info.training.get("adopted") and all(map(_UNNAMED.fullmatch, labels)) else ()


def name_labels(name: str, labels: Sequence[str]) -> str:
    """Give a plain classifier's labels names, in a copy by links where it is not the app's own; returns its name.

    Raises:
        CheckpointError: they are no names for its labels, or can't be kept.
    """
    source = loaders.path_of(name)
    config = json.loads((source / reading.CONFIG).read_text(encoding="utf-8"))
    config |= {"id2label": dict(enumerate(labels)), "label2id": {one: i for i, one in enumerate(labels)}}
    reading.info_of_classifier(name, config)  # refuses what are no labels

    def write(folder: Path) -> Path:
        # In place of the link, if that is one.
        write_text(folder / reading.CONFIG, json.dumps(config, indent=2))
        return folder

    def linked(folder: Path) -> Path:
        folder.mkdir()
        for file in archive.files_of(source):
            os.symlink(file.absolute(), folder / file.name)
        return write(folder)

    try:
        if name in st.session_state.get(_HELD, {}) or _is_brought(source):
            write(source)
            return name
        if not _stays():
            return make(f"{source} named", name, linked, name)
        name = _bring(source, name, os.symlink)
        write(loaders.path_of(name))
    except OSError as error:
        raise CheckpointError(f"The names can't be kept: {error.strerror or error}.") from error
    return name


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
            path = Path(folder.name).resolve()
            name = _bring(path, name, shutil.copyfile) if _stays() else _hold(name, name, folder)
    except CheckpointError as error:
        session[PROBLEM] = str(error)
        return
    if name not in loaders.discover_all():
        _list(name, path)
    session[PROBLEM], session[PICK] = "", name


def _free_name(name: str) -> str:
    """A name that no checkpoint has yet, printable and short; it stands in the URL and in file names."""
    name = _printable(name)
    known, free, number = loaders.discover_all(), f"{name} (yours)", 2
    while free in known:
        free, number = f"{name} (yours {number})", number + 1
    return free


def _printable(name: str) -> str:
    return "".join(c for c in name if c.isprintable() and c not in "/\\")[:60].strip(" .") or "checkpoint"


def pick(name: str) -> None:
    """Have the sidebar pick a checkpoint from the next run on."""
    st.session_state[PICK] = name


def pick_folder(folder: Path) -> None:
    """As `pick`, by the checkpoint's folder."""
    pick(loaders.name_of(folder))


def why_no_job(name: str) -> str:
    """Why no job can be started on a checkpoint, in a sentence; empty where one can."""
    held = name in st.session_state.get(_HELD, {})
    return jobs.why_not() or "This model is deleted with the session; for a job put it in a folder of the app." * held


def _removed(name: str) -> None:
    used = name in loaders.discover_all() and jobs.reads(loaders.path_of(name))
    st.session_state[BUSY] = f"A job needs '{name}': cancel the job, or wait for its end." if used else ""
    if used:
        return
    remove(name)
    st.session_state[_LET_GO] = []
    boxes.empty("own-checkpoint")


def remove(name: str) -> None:
    """Take a person's own checkpoint out of the list; what was unpacked, linked or made for it is deleted."""
    session = st.session_state
    if name in loaders.discover_all() and _is_brought(path := loaders.path_of(name)):
        loaders.forget(path)
        shutil.rmtree(path, ignore_errors=True)  # of links, not what they lead to
    known = session.get(loaders.OWN_CHECKPOINTS, {})
    session[loaders.OWN_CHECKPOINTS] = {k: v for k, v in known.items() if k != name}
    if (held := session.get(_HELD, {}).pop(name, None)) is not None:
        loaders.forget(known[name])
        held.folder.cleanup()
