"""The data that a job trains on: the picked ones, GLUE's training split where it is at hand, or a file given here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st

from shrp.data.sources import DATA_DIR, load_glue
from shrp.data.tabular import EXTENSIONS
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui import data_sources
from ui.loaders import Stamp, stamp_of
from ui.own import data as own_data
from ui.own import labels as own_labels
from ui.own.fit import complete, fit, guess
from ui.own.table import MAX_ROWS, read_upload
from ui.text import escape

PICKED, TRAIN, FILE = "picked", "train", "file"


def choose(label: str, task: Task, picked: TextData | None, key: str, *, labelled: bool) -> TextData | None:
    """Draw a box for the data, and one for a file where that is picked; None until there are any.

    Args:
        label: of the box.
        picked: the app's picked data, where they are offered too.
        key: what the widgets' keys begin with.
        labelled: whether labels are needed; else they are left out.
    """
    names = {PICKED: "" if picked is None else f"{picked.name} ({len(picked):,})"}
    if picked is None or (labelled and picked.labels is None):
        del names[PICKED]
    if (folder := _train_folder(task)) is not None:
        names[TRAIN] = f"GLUE, training split (at most {MAX_ROWS:,})"
    names[FILE] = "a file …"
    source = st.selectbox(label, list(names), format_func=names.get, key=f"{key}-source")
    try:
        if source == PICKED:
            found = picked
        elif source == TRAIN:
            found = _train(task.name, stamp_of(folder, ("train.parquet",)))
        else:
            found = _file(task, key, labelled)
    except DataError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return None
    return found if found is None or labelled else replace(found, labels=None)


def _train_folder(task: Task) -> Path | None:
    folder = Path(os.environ.get(DATA_DIR) or ".") / task.name
    here = os.environ.get(DATA_DIR) and data_sources.is_known(task) and (folder / "train.parquet").is_file()
    return folder if here else None


@st.cache_resource(max_entries=2, show_spinner="Reading the data …")
def _train(task_name: str, stamp: Stamp) -> TextData:
    whole = load_glue(task_name, "train")
    return whole.subset(np.sort(whole.stratified_order()[:MAX_ROWS])) if len(whole) > MAX_ROWS else whole


def _file(task: Task, key: str, labelled: bool) -> TextData | None:
    given = st.file_uploader("A table of texts", [one[1:] for one in EXTENSIONS], key=f"{key}-file")
    if given is None:
        return None
    table = read_upload(given.name, given.getbuffer())
    columns = replace(guess(table, task), slice=None, pair=None, skip_incomplete=True)
    if not labelled:
        columns = replace(columns, label=None)
    elif columns.label is None:
        raise DataError(f"'{table.name}' has no label column; call it '{task.label_column}'.")
    else:
        labels = complete(table, columns)[columns.label].tolist()
        unknown = own_labels.unknown(labels, task, table.name)
        name = f"{key}-{table.fingerprint[:16]}"
        meanings = own_labels.choose(unknown, task, name, own_data.drawn) if unknown else ()
        if meanings is None:
            return None
        columns = replace(columns, meanings=meanings)
    return fit(table, task, columns)


def exported(data: TextData) -> tuple[str, list[str]]:
    """Data as the text of a JSONL file, labels in its column `label`, and the names of its text columns."""
    frame = replace(data, slices=None, pairs=None).to_frame()
    columns = list(map(str, frame.columns[: len(data.task.text_columns)]))
    return frame.to_json(orient="records", lines=True, force_ascii=False), columns
