"""A person's own table fitted to a task: which columns are probably what, and the rows as data, within limits."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import pandas as pd

from shrp.data import tabular
from shrp.data.sources import ANSWER_COLUMNS, complete_rows, from_frame
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, RowError
from ui.own import labels as own_labels
from ui.own.table import Table

MAX_CHARACTERS = 20_000
"""Of one text."""
MAX_SLICES, MAX_SLICE_NAME = 100, 200
"""Different values of a slice column, for which pages have a bar, a row or an option each; and characters of one."""
_TEXT_NAMES = ("text", "sentence", "review", "content")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are for; None: there is none."""

    texts: tuple[str, ...]
    label: str | None
    slice: str | None
    meanings: own_labels.Meanings = ()
    """Of labels that are not the task's own."""
    skip_incomplete: bool = False
    """Whether rows that lack a text or a label are left out."""


def complete(table: Table, columns: Columns) -> pd.DataFrame:
    """The rows that lack neither a text nor a label."""
    return table.frame[~tabular.incomplete(table.frame, columns.texts, columns.label, table.name)]


def guess(table: Table, task: Task) -> Columns:
    """What the columns are probably for: by the task's names, else the usual ones, else the longest texts.

    The label is the column called `label` or as the task's own file has it, else the only one of nothing but class names.
    """
    names = list(table.frame.columns)
    texts = list(task.text_columns)
    if not set(texts) <= set(names):
        usual = [name for name in names if name.lower() in _TEXT_NAMES]
        strings = [n for n in names if all(isinstance(cell, str) for cell in table.frame[n].iloc[:50])]
        strings.sort(key=lambda n: -sum(map(len, table.frame[n].iloc[:50])))  # stable: ties keep their order
        best = list(dict.fromkeys([*usual, *strings, *names]))[: len(texts)]
        texts = sorted(best, key=names.index)
    usual = ("label", task.label_column, *ANSWER_COLUMNS * task.on_spans)
    label = next((name for name in usual if name in names and name not in texts), None)
    piece = "slice" if "slice" in names and "slice" not in texts else None
    piece = None if piece == label else piece
    if label is None and not task.is_regression and not task.on_spans:
        left = [name for name in names if name not in (*texts, piece)]
        named = [name for name in left if _names_classes(table.frame[name], task)]
        label = named[0] if len(named) == 1 else None
    return Columns(tuple(texts), label, piece)


def _names_classes(column: pd.Series, task: Task) -> bool:
    """Whether every cell names one of the task's classes, if in other words, or one for each word."""
    if task.on_words:
        names = {name.strip() for name in task.label_names}
        return len(column) > 0 and all(set(str(cell).split()) <= names for cell in column)
    return len(column) > 0 and all(isinstance(one, str) and own_labels.guess(one.strip(), task) for one in column.unique())


def fit(table: Table, task: Task, columns: Columns) -> TextData:
    """The table's rows as data of a task; a DataError says in one sentence which column or row does not fit."""
    if len(set(columns.texts)) != len(task.text_columns):
        raise DataError(
            f"'{task.name}' reads {len(task.text_columns)} texts an example, so it needs as many different columns."
        )
    used = [*columns.texts, *filter(None, (columns.label, columns.slice))]
    if len(set(used)) != len(used):
        raise DataError("One column can't be a text, the label and the slice at once; choose different ones.")
    if columns.slice is not None:
        values, of = table.frame[columns.slice].unique(), f"Column '{columns.slice}' of '{table.name}' has"
        longest = max(len(str(cell)) for cell in values)
        if len(values) > MAX_SLICES:
            raise DataError(
                f"{of} {len(values):,} different values, and slices at most {MAX_SLICES}; choose another column."
            )
        if longest > MAX_SLICE_NAME:
            raise DataError(
                f"{of} a value of {longest:,} characters, and slices at most {MAX_SLICE_NAME}; choose another."
            )
    parts = columns.texts, columns.label, table.name
    whole = complete_rows(table.frame, *parts) if columns.skip_incomplete else nullcontext(table.frame)
    with whole as frame:
        parts = table.name, columns.label, columns.slice, columns.texts
        data = from_frame(frame, task, *parts, meanings=dict(columns.meanings))
        for row, texts in enumerate(data.texts, 1):
            if (longest := max(map(len, texts))) > MAX_CHARACTERS:
                said = f": a text has {longest:,} characters; at most {MAX_CHARACTERS:,} are taken, so cut it."
                raise RowError(table.name, row, said)
    if data.slices is not None:
        # Scores and teachers of these examples are found whatever they are grouped by.
        data = replace(data, origin=replace(data, slices=None))
    return data
