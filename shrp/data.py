"""Data sets: texts with labels, from the shipped probe sets, GLUE, or a person's own file."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from shrp import tabular
from shrp.columns import distinct
from shrp.errors import DataError, RowError
from shrp.hub import DATA_DIR, load_glue_frame
from shrp.labels import infer_task, parse_labels, renamed, translated
from shrp.phrases import counted
from shrp.tasks import LABEL, TASKS, TEXTS, Task, get_task

NO_SLICE = "(no name)"
"""The slice of inputs of which a table says none."""
PROBES = Path(__file__).parent / "probes"
PROBE_PREFIX = "probe/"
SPLITS = ("train", "validation")
REGRESSION_STRATA = 10


@dataclass(frozen=True, eq=False)
class TextData:
    """Texts of one task, in a fixed order.

    Attributes:
        task: The task that the labels belong to.
        name: Where the data are from, such as "glue/sst2 validation"; figures name it.
        texts: One tuple an input, of one text or two, exactly as in the source.
        labels: int64 class ids, float64 numbers for regression, or None; shape (inputs,).
        slices: The phenomenon of each input, such as "negation", or None.
        pairs: A name for each input, or None: two inputs of one name are a minimal pair (`shrp.minimal_pairs`); one
            without a name ("") belongs to no other.
        origin: Of data that were given slices, by words or by a column of a person's own table: the same without them,
            or as they were shipped.
        slice_words: What these slices are, a line each (`shrp.slices`).

    Raises:
        DataError: The parts differ in length, or a label is not one of the task's, such as a class id with a fraction
            or a number that is not finite.
    """

    task: Task
    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray | None = None
    slices: tuple[str, ...] | None = None
    pairs: tuple[str, ...] | None = None
    origin: "TextData | None" = None
    slice_words: str = ""

    def __post_init__(self) -> None:
        for part, values in (
            ("labels", self.labels),
            ("slices", self.slices),
            ("names of pairs", self.pairs),
        ):
            if values is not None and len(values) != len(self.texts):
                raise DataError(f"'{self.name}' has {len(self.texts)} texts but {len(values)} {part}.")
        if any(len(text) != len(self.task.text_columns) for text in self.texts):
            raise DataError(f"An input of '{self.task.name}' has {len(self.task.text_columns)} text(s).")
        if self.labels is None:
            return
        labels = np.asarray(self.labels, dtype=np.float64)
        if not self.task.is_regression:
            if len(wrong := labels[labels != np.floor(labels)]):  # nan is unequal to itself
                raise DataError(f"The labels of '{self.task.name}' are class ids; {wrong[0]:g} is none.")
            labels = np.asarray(self.labels, dtype=np.int64)
        elif len(wrong := labels[~np.isfinite(labels)]):
            raise DataError(f"The labels of '{self.task.name}' are numbers; {wrong[0]:g} is none.")
        top = self.task.num_labels - 1
        if not self.task.is_regression and len(labels) and not 0 <= labels.min() <= labels.max() <= top:
            raise DataError(f"The class ids of '{self.task.name}' go from 0 to {top}.")
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:  # one line: the texts are long
        parts = [counted(len(self), "input"), "without labels" if self.labels is None else "labelled"]
        if self.slices is not None:
            parts.append(counted(len(set(self.slices)), "slice"))
        if self.pairs is not None:
            paired = sum(inputs > 1 for name, inputs in Counter(self.pairs).items() if name)
            parts.append(counted(paired, "minimal pair"))
        return f"<TextData {self.name!r}: task {self.task.name!r}, {', '.join(parts)}>"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over task, texts, labels and slices; equal content gives equal fingerprints.

        Pairs are not in it: no output or score of a model hangs on them.
        """
        labels = None if self.labels is None else self.labels.tolist()
        content = json.dumps([self.task.to_dict(), self.texts, labels, self.slices])
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def texts_fingerprint(self) -> str:
        """SHA-256 (hex) over the texts alone: whose inputs have the same numbers, whatever task they are read for."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    @property
    def source_fingerprint(self) -> str:
        """Of the data without slices that a person gave: by it is kept what hangs on none, such as scores."""
        return self.fingerprint if self.origin is None else self.origin.fingerprint

    def subset(self, indices: Sequence[int] | np.ndarray) -> "TextData":
        """The inputs of these indices, in this order; its name says how many of how many they are."""
        rows = np.asarray(indices, dtype=np.int64)
        return TextData(
            self.task,
            f"{self.name} ({len(rows)} of {len(self)})",
            tuple(self.texts[i] for i in rows),
            None if self.labels is None else self.labels[rows],
            None if self.slices is None else tuple(self.slices[i] for i in rows),
            None if self.pairs is None else tuple(self.pairs[i] for i in rows),
            None if self.origin is None else self.origin.subset(rows),
            self.slice_words,
        )

    def stratified_order(self, seed: int = 0) -> np.ndarray:
        """A random order in which every prefix has about the whole's share of each class.

        A prefix's count of a class differs from its due by about one input. Numeric labels are balanced over
        ten equally large bins; without labels the order is plainly random.

        Returns:
            int64 permutation of the inputs, a function of the labels and the seed alone.
        """
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(len(self))
        if self.labels is None:
            return shuffled
        strata = self.labels
        if self.task.is_regression:
            ranks = np.argsort(np.argsort(strata, kind="stable"))
            strata = ranks * REGRESSION_STRATA // max(len(ranks), 1)
        # The k-th of a class's n members goes to a random place in the k-th n-th of the whole.
        position = np.empty(len(self))
        for stratum in np.unique(strata):
            members = shuffled[strata[shuffled] == stratum]
            position[members] = (np.arange(len(members)) + generator.random(len(members))) / len(members)
        return np.argsort(position, kind="stable")

    def to_frame(self) -> pd.DataFrame:
        """One row an input: the text columns, then `label` (its name, or the number) and `slice` if known.

        A text column of the same name as one of these is called `label (text)`.
        """
        ours = [name for name, part in (("label", self.labels), ("slice", self.slices)) if part is not None]
        frame = pd.DataFrame(list(self.texts), columns=distinct(self.task.text_columns, ours))
        if self.labels is not None:
            names = self.task.label_names
            frame["label"] = [names[i] for i in self.labels] if names else self.labels
        if self.slices is not None:
            frame["slice"] = list(self.slices)
        return frame


def load_data(source: str | Path, task: str | Task | None, split: str = "validation", **columns) -> TextData:
    """Load from a source that a person chose.

    Args:
        source: "probe", "glue", or the path of a table.
        task: A GLUE task's name, or a `Task`; None only with a path.
        split: "train" or "validation"; only GLUE has splits.
        columns: `text_columns`, `label_column`, `slice_column`, `meanings`, `pair_column`, `skip_incomplete` of
            `load_file`; only with a path.

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
    return from_frame(frame, TASKS[task], f"{PROBE_PREFIX}{task}", "label", "slice", pair_column=pair)


def probe_for(task: Task) -> tuple[TextData, ...]:
    """The task's shipped probe set, if there is one, for a model to be scored on as well."""
    try:
        probe = load_probe(task.name)
    except DataError:
        return ()
    # A person's own task may have the same name by chance; then the labels tell.
    return (probe,) if probe.task.label_names == task.label_names else ()


def is_probe(data: TextData) -> bool:
    """Whether `data` are a shipped probe set, by their name: a file's name has no slash."""
    return data.name.startswith(PROBE_PREFIX)


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
    slice_column: str | None = None,
    meanings: Mapping[str, str | None] | None = None,
    pair_column: str | None = None,
    skip_incomplete: bool = False,
) -> TextData:
    """A person's own CSV, TSV, JSONL or Parquet file.

    Args:
        path: The file; its extension says what it is. Row numbers in errors count from 1, without a header.
        others: As for `from_table`.

    Raises:
        DataError: The file can't be read; or as `from_table`.
    """
    return from_table(
        tabular.read_table(path),
        Path(path).name,
        task,
        text_columns=text_columns,
        label_column=label_column,
        slice_column=slice_column,
        meanings=meanings,
        pair_column=pair_column,
        skip_incomplete=skip_incomplete,
    )


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
