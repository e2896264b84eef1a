"""Cached access to checkpoints, keyed on fingerprints of their bytes.

A checkpoint that is trained again is loaded again, and sessions that look at the same one share a model.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import re
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from shrp.checkpoints import info as reading
from shrp.checkpoints.info import CheckpointInfo, discover
from shrp.data.tabular import is_unicode
from shrp.errors import CheckpointError
from ui import jobs, store

if TYPE_CHECKING:  # else torch and transformers, which take seconds to import
    from shrp.checkpoints.checkpoint import Checkpoint

OWN_CHECKPOINTS = "own-checkpoints"
"""Key of the session's state: its own checkpoints' folders by name."""
MODELS = 3
"""How many models are kept in memory."""
CHECKPOINT_DIRS = "SHRP_CHECKPOINTS"
SHIPPED = Path(__file__).parent.parent / "checkpoints"
_FILES = (*reading.MADE_OF, reading.HISTORY, "teacher.safetensors")
_LIBRARIES = ("shrp.checkpoints.checkpoint", "shrp.results_store", "transformers.models.bert.modeling_bert")
"""What takes seconds to import, and all pages need that run a model."""
_ARENA_MAX = -8
"""A parameter of glibc's `mallopt`: the most pools of memory, which threads share."""


@st.cache_resource(show_spinner=False)
def _importing() -> threading.Thread:
    # Each run of a page is a thread. With pools of their own, these would keep the tensors that others have freed.
    with suppress(AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)

    def work() -> None:
        for name in _LIBRARIES:
            with suppress(ImportError):  # said where it is needed
                importlib.import_module(name)
        # Python collects garbage when it is a quarter of all that is not frozen: of the imports, that of 200 runs.
        gc.freeze()
        gc.collect()

    thread = threading.Thread(target=work, daemon=True, name="imports")
    thread.start()
    return thread


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[None]:
    """What a server does from its start: it imports what takes seconds, while the browser opens."""
    _importing()
    yield


def libraries() -> None:
    """Wait until torch and transformers are imported, once a server and in one thread.

    Two sessions that import transformers at the same time would see parts of it half made.
    """
    if (thread := _importing()).is_alive():
        with st.spinner("Loading PyTorch and Transformers …"):
            thread.join()


Stamp = tuple[tuple[str, int, int], ...]


def stamp_of(folder: Path, names: Sequence[str]) -> Stamp:
    """Name, time and size of files in a folder: cheap to take, and it changes when they do."""
    stamp = []
    for name in names:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        stamp.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(stamp)


def checkpoint_roots() -> list[Path]:
    """Folders whose subfolders are offered: the shipped ones, those that SHRP_CHECKPOINTS names, and what jobs made."""
    named = os.environ.get(CHECKPOINT_DIRS, "").split(os.pathsep)
    made = [jobs.models()] if jobs.allowed() else []
    return [SHIPPED, *(Path(name) for name in named if name.strip()), *made]


def _stamp(folder: Path) -> Stamp:
    return stamp_of(folder, _FILES)


def _folders() -> list[Path]:
    found = []
    for root in checkpoint_roots():
        with suppress(OSError):  # a folder that is not there offers nothing
            found += sorted(p for p in root.iterdir() if os.path.isdir(p) and not p.name.startswith("."))
    return [folder for folder in found if is_unicode(folder.name)]  # others can't be shown


Entries = dict[str, tuple[Path, CheckpointInfo | CheckpointError]]


@lru_cache(maxsize=4)  # asked several times a run: Streamlit's cache would hash all of this each time
def _discover(roots: tuple[Path, ...], stamps: tuple[Stamp, ...]) -> Entries:
    found: Entries = {}
    for root in roots:
        for name, info in sorted(discover(root).items(), key=lambda entry: _counting(entry[0])):
            key, number = name, 2
            while key in found:  # the same name under two roots
                key, number = f"{name} ({root.name})" if number == 2 else f"{name} ({number})", number + 1
            found[key] = (root / name, info)
    return found


def _counting(name: str) -> list[str | int]:
    """A key that sorts names with numbers in them as people count: `6of12` before `11of12`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _entries() -> Entries:
    roots = tuple(dict.fromkeys(root.resolve() for root in checkpoint_roots()))
    found = _discover(roots, tuple((*_stamp(folder), (str(folder), 0, 0)) for folder in _folders()))
    own: dict[str, Path] = st.session_state.get(OWN_CHECKPOINTS, {})
    return found | {name: (path, _info(path)) for name, path in own.items()}


def _info(path: Path) -> CheckpointInfo | CheckpointError:
    try:
        return _config(path, _stamp(path))[1]
    except CheckpointError as error:
        return error


def discover_all() -> dict[str, CheckpointInfo | CheckpointError]:
    """Every checkpoint on the disk now by name, the session's own last; a broken one maps to its error."""
    return {name: info for name, (_, info) in _entries().items()}


def path_of(name: str) -> Path:
    """The folder of a checkpoint; a CheckpointError where there is none of this name any more."""
    entries = _entries()
    if name not in entries:
        raise CheckpointError(f"There is no checkpoint '{name}' any more; pick another one.")
    return entries[name][0]


def name_of(folder: Path) -> str | None:
    """The name that a checkpoint's folder is listed by; None where it is not."""
    found = (name for name, (path, _) in _entries().items() if path == folder.resolve())
    return next(found, None)


def load_checkpoint(name: str) -> Checkpoint:
    """A checkpoint's model, shared by all sessions: never change it. A CheckpointError says why it can't be loaded."""
    return load_folder(path_of(name))


def load_folder(path: Path) -> Checkpoint:
    """A checkpoint's model by its folder, as `load_checkpoint`."""
    return _load(path, _stamp(path))


def forget(path: Path) -> None:
    """Let go of a model that only one session could reach, and of what was made of it, before its folder is deleted."""
    with suppress(OSError):  # its files may be gone already
        store.forget(reading.fingerprint(path))
    _load.clear(path, _stamp(path))


@st.cache_resource(max_entries=MODELS, show_spinner="Loading the checkpoint …")
def _load(path: Path, stamp: Stamp) -> Checkpoint:
    libraries()
    from shrp.checkpoints.checkpoint import load

    return load(path)


def config_of(name: str) -> dict[str, Any]:
    """The encoder's part of a checkpoint's `config.json`; a CheckpointError where it can't be read."""
    path = path_of(name)
    return _config(path, _stamp(path))[0]


@lru_cache(maxsize=32)
def _config(path: Path, stamp: Stamp) -> tuple[dict[str, Any], CheckpointInfo]:
    return reading.read_config(path)
