"""Where data sets come from: the shipped probe sets, GLUE, or a person's own file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from shrp.data import tabular
from shrp.data.hub import DATA_DIR, load_glue_frame
from shrp.data.labels import infer_task, parse_labels, renamed, translated
from shrp.data.tasks import LABEL, TASKS, TEXTS, Task, get_task
from shrp.data.text_data import TextData
from shrp.errors import DataError, RowError

NO_SLICE = "(no name)"
"""The slice of inputs of which a table says none."""
PROBES = Path(__file__).parent.parent / "probes"
SPLITS = ("train", "validation")


def load_data(source: str | Path, task: str | Task | None, split: str = "validation", **columns) -> TextData:
    """Load from a source that a person chose.

    Args:
        source: "probe", "glue", or the path of a table.
        task: A GLUE task's name, or a `Task`; None only with a path.
        split: "train" or "validation"; only GLUE has splits.
        columns: as for `from_table`; only with a path.

    Raises:
        DataError: As the loaders below.
    """
    if source not in ("probe", "glue"):
        return load_file(source, task, **columns)
    name = task.name if isinstance(task, Task) else task
    if name is None:
        raise DataError(f"The source '{source}' needs a task: {', '.join(TASKS)}.")
    return load_probe(name) if source == "probe" else load_glue(name, split)


def load_probe(task: str) -> TextData:
    """The probe set shipped for a task: sentences written for this project, each with a slice.

    Raises:
        DataError: No probe set for this task; the message names those that there are.
    """
    path = PROBES / f"{task}.jsonl"
    if task not in TASKS or not path.is_file():
        names = sorted(p.stem for p in PROBES.glob("*.jsonl") if p.stem in TASKS)
        raise DataError(
            f"There is no probe set for '{task}'; there is one for: {', '.join(names) or 'no task'}. "
            "Take glue or a file."
        )
    frame = tabular.read_table(path)
    pair = "pair" if "pair" in frame.columns else None
    return from_frame(frame, TASKS[task], f"probe/{task}", "label", "slice", pair_column=pair)


def probe_for(task: Task) -> tuple[TextData, ...]:
    """The task's shipped probe set, if there is one, for a model to be scored on as well."""
    try:
        probe = load_probe(task.name)
    except DataError:
        return ()
    # A person's own task may have the same name by chance; then the labels tell.
    return (probe,) if probe.task.label_names == task.label_names else ()


def load_glue(task: str, split: str = "validation") -> TextData:
    """A split of a GLUE task; "validation" is the matched one for MNLI.

    Read from `<dir>/<task>/<split>.parquet` if the variable SHRP_DATA_DIR names a folder, else from the
    hub's nyu-mll/glue through `datasets`, which keeps a copy for later, offline too.

    Raises:
        DataError: Unknown task or split, no such file in the folder, or the hub can't be reached.
    """
    known = get_task(task)
    if split not in SPLITS:
        raise DataError(
            f"GLUE is read in its labelled splits, {' and '.join(SPLITS)}; there is no '{split}'."
        )
    folder = os.environ.get(DATA_DIR)
    if not folder:
        frame = load_glue_frame(known.name, split)
    elif (path := Path(folder) / known.name / f"{split}.parquet").is_file():
        frame = tabular.read_table(path)
    else:
        raise DataError(
            f"{DATA_DIR} is set, but there is no '{path}'; put the split there or unset {DATA_DIR}."
        )
    return from_frame(frame, known, f"glue/{known.name} {split}", "label", None, allow_empty=True)


def load_file(
    path: str | Path,
    task: str | Task | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = "label",
    **columns,
) -> TextData:
    """A person's own CSV, TSV, JSONL or Parquet file; the arguments and errors are those of `from_table`.

    How the file is written is detected (`tabular.detect`). Row numbers in errors count from 1, without a header.
    """
    frame, name = tabular.read_table(path), Path(path).name
    return from_table(frame, name, task, text_columns, label_column, **columns)


def from_table(
    frame: pd.DataFrame,
    source: str,
    task: str | Task | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = "label",
    slice_column: str | None = None,
    meanings: Mapping[str, str | None] | None = None,
    pair_column: str | None = None,
    skip_incomplete: bool = False,
) -> TextData:
    """What a person's own file holds, once `tabular.read_table` has read it.

    Args:
        source: The file's name, which the data get, and the task too where it is made of the labels (without its
            ending, unless that is the name of a task that is known).
        task: What the labels mean; None makes a task of the labels found.
        text_columns: Columns of the one or two texts; None takes the task's, or "text" without a task.
        label_column: Column of the labels: names, ids, or numbers. Where it is "label" and the file has no such
            column, the task's own (`Task.label_column`); no labels if it has none of that name either, or it is None.
        slice_column: Column of the slices, or None.
        meanings: As for `from_frame`; without a task what labels mean is a class of the new one.
        pair_column: Column that names minimal pairs, or None.
        skip_incomplete: Leave out rows that lack a text or a label (`complete_rows`), instead of an error.

    Raises:
        DataError: A column is missing, a text is empty, or a label is unknown.
    """
    task = get_task(task) if task is not None else None
    if task == TEXTS:  # unlabelled texts, whatever else the table holds
        if meanings or label_column not in (None, LABEL):
            raise DataError(f"'{source}' is read for its texts alone: leave label columns and meanings out.")
        label_column = None
    texts = tuple(text_columns or (task.text_columns if task else ("text",)))
    if label_column == LABEL and label_column not in frame.columns:
        own = task.label_column if task else LABEL
        label_column = own if own in frame.columns else None
    if meanings and label_column is None:
        named = ", ".join(map(str, frame.columns))
        raise DataError(
            f"'{source}' has no labels that could mean anything, as long as no column is named for them "
            f"(label_column, --label-column); its columns: {named}."
        )
    if skip_incomplete:
        with complete_rows(frame, texts, label_column, source) as complete:
            return from_table(
                complete,
                source,
                task,
                text_columns=texts,
                label_column=label_column,
                slice_column=slice_column,
                meanings=meanings,
                pair_column=pair_column,
            )
    if task is None:
        if label_column is None:
            raise DataError(f"'{source}' has no labels to tell the task from; name a task or a label column.")
        labels = renamed(tabular.column(frame, label_column, source), source, meanings or {})
        rows = [row for row, label in enumerate(labels) if label is not None]
        name = Path(source).stem
        # Those of texts without labels and of GLUE's tasks have meanings of their own.
        name = source if name == TEXTS.name or name in TASKS else name
        with _counted_in_the_whole(rows):
            task = infer_task([labels[row] for row in rows], name, texts, source)
        task = replace(task, label_column=label_column)
    data = from_frame(
        frame, task, source, label_column, slice_column, texts, meanings=meanings, pair_column=pair_column
    )
    # Where a model was trained nobody asked for slices: its scores are of the same data all the same.
    return data if data.slices is None else replace(data, origin=replace(data, slices=None))


@contextmanager
def complete_rows(
    frame: pd.DataFrame, texts: Sequence[str], label_column: str | None, name: str
) -> Iterator[pd.DataFrame]:
    """The rows that lack neither a text nor a label; errors inside count rows as the whole table does.

    Raises:
        DataError: A column is missing, or no row is complete.
    """
    rows = np.flatnonzero(~tabular.incomplete(frame, texts, label_column, name))
    if not len(rows):
        raise DataError(f"of '{name}' no row is left: each lacks a text or a label.")
    with _counted_in_the_whole(rows):
        yield frame.iloc[rows]


@contextmanager
def _counted_in_the_whole(rows: Sequence[int] | np.ndarray) -> Iterator[None]:
    """Errors inside, which count some rows of a table alone, count as the whole table does: that is what a person has
    in front of them.

    Args:
        rows: The places of these rows in the whole, from 0.
    """
    try:
        yield
    except RowError as error:
        raise error.at(int(rows[error.row - 1]) + 1) from None


def from_frame(
    frame: pd.DataFrame,
    task: Task,
    name: str,
    label_column: str | None,
    slice_column: str | None,
    text_columns: Sequence[str] | None = None,
    allow_empty: bool = False,
    meanings: Mapping[str, str | None] | None = None,
    pair_column: str | None = None,
) -> TextData:
    """A task's data from a table that `tabular.read_table` has read.

    Args:
        name: What the data are called, in errors too.
        label_column: Column of the labels, or None for data without.
        slice_column: Column of the slices, or None.
        text_columns: Columns of the one or two texts; None takes the task's.
        allow_empty: Whether a text may be empty, as some of GLUE's are.
        meanings: What labels of another vocabulary mean: a class of the task, or None for rows to leave out.
        pair_column: Column that names minimal pairs, or None.

    Raises:
        DataError: A column is missing, a text is empty, a label is unknown, or no row is left.
    """
    columns = text_columns or task.text_columns
    if len(columns) != len(task.text_columns):
        raise DataError(f"'{task.name}' reads {len(task.text_columns)} text column(s), not {len(columns)}.")
    labels, rows = None, list(range(len(frame)))
    cells = None if label_column is None else tabular.column(frame, label_column, name)
    if cells is not None and meanings:
        cells = translated(cells, task, name, meanings)
        rows = [row for row in rows if cells[row] is not None]
        if not rows:
            raise DataError(f"of '{name}' no row is left: every label is to be left out.")
    kept = frame if len(rows) == len(frame) else frame.iloc[rows]
    with _counted_in_the_whole(rows):
        texts = tabular.text_rows(kept, columns, name, allow_empty)
        if cells is not None:
            labels = parse_labels([cells[row] for row in rows], task, name)
        slices, pairs = (
            None if of is None else tabular.names(kept, of, name) for of in (slice_column, pair_column)
        )
    if slices is not None:
        slices = tuple(one or NO_SLICE for one in slices)
    return TextData(task, name, texts, labels, slices, pairs)
