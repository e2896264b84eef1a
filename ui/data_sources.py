"""Cached access to the data sets that can be had for a task."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from shrp.data.sources import DATA_DIR, PROBES, load_glue, load_probe
from shrp.data.tabular import EXTENSIONS
from shrp.data.tasks import TASKS, Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui.loaders import Stamp, stamp_of
from ui.own.fit import fit, guess
from ui.own.table import read_file
from ui.text import escape

OWN, HUB, FOLDER = "own", "hub", "folder"
"""Sources: a person's own table, GLUE over the network, and a file of a custom task in the folder of SHRP_DATA_DIR."""
OWN_DATA = "own-data"
"""Key of the session's state: its own `TextData`."""


def available_sources(task: Task) -> dict[str, str]:
    """The data sets that can be had for a task: source -> label. The hub is last, and never a default."""
    sources, own = {}, {}
    mine: TextData | None = st.session_state.get(OWN_DATA)
    if mine is not None and mine.task == task:
        labels = "without labels, so nothing is scored" if mine.labels is None else "with labels"
        own = {OWN: f"Your own {escape(mine.name)}: {len(mine):,} examples, {labels}"}
    if not is_known(task):
        if left := _left_for(task):
            sources[FOLDER] = f"{escape(left.name)} in the data folder, of {escape(task.name)}"
        return sources | own
    if os.path.isfile(_file_of("probe", task.name)):
        sources["probe"] = "The shipped probe set: sentences tagged by phenomenon"
    if not os.environ.get(DATA_DIR):
        return sources | own | {HUB: "GLUE from the hub: validation split, needs a network once"}
    if os.path.isfile(_file_of("glue", task.name)):
        sources["glue"] = "GLUE, validation split"
    return sources | own


def is_known(task: Task) -> bool:
    """Whether the task is a known one: one of the same name but with other labels cannot be scored on its data."""
    known = TASKS.get(task.name)
    return known is not None and known.label_names == task.label_names


def _left_for(task: Task) -> Path | None:
    """The validation data that lie in the data folder for a custom task; None where there are none."""
    folder, name = os.environ.get(DATA_DIR), task.name
    # The name comes with a checkpoint, from anywhere, and must not lead elsewhere.
    if not folder or name in (*TASKS, "", "..") or Path(name).name != name or not name.isprintable():
        return None
    files = (Path(folder) / name / f"validation{suffix}" for suffix in EXTENSIONS)
    return next(filter(os.path.isfile, files), None)


def default_source(sources: Iterable[str]) -> str | None:
    """The source that is used until a person picks one; None where there is only the hub, which may take long."""
    return next((source for source in sources if source != HUB), None)


def _file_of(source: str, task_name: str) -> Path | None:
    """Where a source is read from; None for the hub, whose splits never change."""
    if source == "probe":
        return PROBES / f"{task_name}.jsonl"
    folder = os.environ.get(DATA_DIR)
    return Path(folder) / task_name / "validation.parquet" if folder else None


def load_dataset(source: str, task: Task) -> TextData:
    """The data of one of `available_sources`; a DataError says in one sentence why they cannot be read."""
    if source == OWN:
        return st.session_state[OWN_DATA]
    file = _left_for(task) if source == FOLDER else _file_of(source, task.name)
    if source == FOLDER and file is None:
        raise DataError(f"The data of '{task.name}' are not in the data folder any more.")
    stamp = stamp_of(file.parent, (file.name,)) if file is not None else ()
    return _dataset(source, task, str(task.to_dict()), str(file), stamp)


@st.cache_resource(max_entries=6, show_spinner="Reading the data …")
def _dataset(source: str, _task: Task, about_task: str, file: str, stamp: Stamp) -> TextData:
    # Streamlit hashes all arguments but `_task`, for which `about_task` stands.
    if source == "probe":
        return load_probe(_task.name)
    if source in ("glue", HUB):
        return load_glue(_task.name)
    try:  # under the limits of an upload
        table = read_file(Path(file))
    except OSError as error:
        raise DataError(f"'{Path(file).name}' can't be read: {error.strerror or error}.") from error
    return fit(table, _task, replace(guess(table, _task), texts=_task.text_columns))
