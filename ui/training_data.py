"""What the dialogs that start a job share: its name, the data that it trains on (the picked ones, or a file), its start."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.sources import ANSWER_START
from shrp.data.tabular import EXTENSIONS, distinct
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, JobError
from ui import jobs
from ui.own import data as own_data
from ui.own import dialog
from ui.own import labels as own_labels
from ui.own.fit import complete, fit, guess
from ui.own.table import read_upload
from ui.text import escape, file_name

PICKED, FILE = "picked", "file"
_KEPT_BACK = 5
"""One in so many examples is kept for validation where there are no other labelled ones."""
Made = TypeVar("Made")


def ask_name(start: str) -> str:
    """Ask what the job's checkpoint is called, by default `start` as far as that is free."""
    free = jobs.free_name(file_name(start))
    return file_name(st.text_input("Name", placeholder=free) or free).strip(".")


def start(
    title: str,
    name: str,
    arguments: Sequence[str],
    files: Mapping[str, str | TextData],
    checkpoint: Checkpoint,
    about: Mapping[str, Any] | None = None,
    label: str = "Start",
    key: str = "job-start",
) -> None:
    """Draw the button that starts a job and closes the dialog.

    Args:
        arguments, files: of `python -m shrp`, without `--out`, and what they name.
        checkpoint: whose size says what memory and room on the disk it takes.
        about: what the job's list is to know.
        label, key: the button's.
    """
    if not st.button(label, type="primary", key=key, icon=":material/play_arrow:"):
        return
    parameters = sum(one.numel() for one in checkpoint.model.parameters())
    try:
        jobs.start(title, arguments, name, about=about, files=exported(files), **jobs.needs(parameters))
    except JobError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return
    dialog.close()
    st.rerun()


def choose(
    task: Task, picked: TextData | None, scored: TextData | None, key: str, *, labelled: bool
) -> tuple[TextData, TextData | None] | None:
    """Draw a box for the data, one for a file where that is picked, and a caption on what is validated on.

    Args:
        picked: the app's picked data, where they are offered too.
        scored: what to validate on, where it has labels and is not all that is trained on.

    Returns:
        What to train on and what to validate on, if anything; None until data are given.
    """
    names = {PICKED: "" if picked is None else f"{picked.name} ({len(picked):,})"}
    if picked is None or (labelled and picked.labels is None):
        del names[PICKED]
    names[FILE] = "a file …"
    label = "Training data" if labelled else "Texts"
    source = st.selectbox(label, list(names), format_func=names.get, key=f"{key}-source")
    try:
        found = picked if source == PICKED else _file(task, key, labelled)
        if found is None:
            return None
        train, validation, said = _split(found if labelled else replace(found, labels=None), scored)
    except (DataError, OSError) as error:
        st.error(escape(str(error)), icon=":material/error:")
        return None
    st.caption(escape(said))
    return train, validation


def _split(data: TextData, scored: TextData | None) -> tuple[TextData, TextData | None, str]:
    """What to train on, what to validate on, and a sentence on that: no example is in both with its label."""
    validation = None if scored is None or scored.labels is None else scored
    known = frozenset() if validation is None else frozenset(validation.texts)
    if data.labels is None:
        if validation is None:
            return data, None, "Without labelled data the result is not scored."
        seen = "" if known.isdisjoint(data.texts) else " Its texts are trained on too, its labels are not."
        return data, validation, f"Scored on {validation.name}.{seen}"
    rest = [i for i, texts in enumerate(data.texts) if texts not in known]
    if validation is not None and rest:
        left = len(data) - len(rest)
        said = f"; {left:,} examples that are in it, too, are not trained on" if left else ""
        return (data.subset(rest) if left else data), validation, f"Validated on {validation.name}{said}."
    if len(data) < 2:
        raise DataError(f"'{data.name}' has one example; give at least two.")
    order, few = data.stratified_order(), max(len(data) // _KEPT_BACK, 1)
    said = f"1 in {_KEPT_BACK} of these examples is kept for validation."
    if validation is not None:
        said += f" The others are in {validation.name}, so scores on that will be too high."
    return data.subset(np.sort(order[few:])), data.subset(np.sort(order[:few])), said


def _file(task: Task, key: str, labelled: bool) -> TextData | None:
    given = st.file_uploader("A table of texts", [one[1:] for one in EXTENSIONS], key=f"{key}-file")
    if given is None:
        return None
    table = _last(f"{key}-table", given.file_id, lambda: read_upload(given.name, given.getbuffer()))
    columns = replace(guess(table, task), slice=None, skip_incomplete=True)
    if not labelled:
        columns = replace(columns, label=None)
    elif columns.label is None:
        raise DataError(f"'{table.name}' has no label column; call it '{task.label_column}'.")
    else:
        labels = complete(table, columns)[columns.label].tolist()
        unknown = own_labels.unknown(labels, task, table.name)
        name = f"{key}-{table.fingerprint[:16]}"
        meanings = own_labels.choose(unknown, task, name, own_data.drawn)
        if meanings is None:
            return None
        columns = replace(columns, meanings=meanings)
    return _last(f"{key}-fitted", (given.file_id, task, columns), lambda: fit(table, task, columns))


def exported(files: Mapping[str, str | TextData]) -> dict[str, str]:
    """Texts of files; data become JSONL, labels in the column `label`."""

    def text(data: TextData) -> str:
        frame = replace(data, slices=None, pairs=None).to_frame()
        if data.task.on_spans and data.labels is not None:  # where answers stand, as in SQuAD's files
            places = [[start for start, _ in spans if start >= 0] for spans in data.labels.tolist()]
            frame["label"] = [{"text": list(one), ANSWER_START: at} for one, at in zip(data.known, places, strict=True)]
        return frame.to_json(orient="records", lines=True, force_ascii=False)

    return {name: one if isinstance(one, str) else text(one) for name, one in files.items()}


def columns(data: TextData) -> list[str]:
    """The names of the text columns of exported data."""
    return distinct(data.task.text_columns, () if data.labels is None else ("label",))


def _last(name: str, key: Hashable, make: Callable[[], Made]) -> Made:
    """What the session made of this key last, or makes now; it ends with the session, as what a person gives must."""
    known = st.session_state.get(name)
    if known is None or known[0] != key:
        st.session_state[name] = known = key, make()
    return known[1]
