"""Load data sets (shipped probe sets, GLUE, a person's own table) and read their labels."""

import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.data import tabular
from shrp.data.tabular import is_list, is_missing, is_unicode
from shrp.data.tasks import (
    LABEL,
    QUESTION_COLUMNS,
    SPANS,
    TASKS,
    TEXT,
    TEXTS,
    UNLABELLED,
    WORD_COLUMN,
    WORDS,
    Task,
    custom_task,
    get_task,
)
from shrp.data.text_data import TextData
from shrp.errors import DataError, RowError, first_line

DATA_DIR = "SHRP_DATA_DIR"
"""Environment variable: a folder of GLUE's Parquet files, read instead of the hub."""
TIMEOUT, RETRY = 3.0, 60.0
"""Seconds that the hub has to answer, and until a silent one is asked again."""
NO_SLICE = "(no name)"
TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "labels")
"""Usual columns of lists of labels."""
ANSWER_COLUMNS, ANSWER_START = ("answers", "answer", "answer_text"), "answer_start"
"""Usual columns of answers to questions, and of the character where an answer that is one text begins."""
PROBES = Path(__file__).parent.parent / "probes"
SPLITS = ("train", "validation")

Meanings = Mapping[str, str | None]
"""Label of a table -> its class, or None for rows to leave out."""

_LOADING = threading.Lock()
_silent: dict[str, float] = {}  # address -> when it last gave no answer
_WHOLE = re.compile(r"\s*([+-]?\d{1,4000})(?:\.0*)?\s*")  # Python reads no more than 4,300 digits
_MISSING = {"nan", "na", "n/a", "none", "null", "-", "--", "?"}
_MISSING |= {"inf", "-inf", "+inf", "infinity", "-infinity"}
_MOST_FRACTIONS = 20
"""Different numbers, some not whole, above which labels are numbers rather than names of classes."""


def load_data(source: str, task: str | Task, split: str = "validation") -> TextData:
    """Load the data of a GLUE task, "probe" or "glue" (whose `split` is "train" or "validation"); errors as below."""
    if source not in ("probe", "glue"):
        raise DataError(f"The source is 'probe' or 'glue', not '{source}'; load_file reads a file.")
    name = task.name if isinstance(task, Task) else task
    return load_probe(name) if source == "probe" else load_glue(name, split)


def load_probe(task: str) -> TextData:
    """The probe set shipped for a task: sentences written for this project, each with a slice.

    Raises:
        DataError: there is none for this task.
    """
    path = PROBES / f"{task}.jsonl"
    if task not in TASKS or not path.is_file():
        names = sorted(p.stem for p in PROBES.glob("*.jsonl") if p.stem in TASKS)
        raise DataError(f"No probe set for '{task}', only for: {', '.join(names)}. Take glue or a file.")
    frame = tabular.read_table(path)
    pair = "pair" if "pair" in frame.columns else None
    return from_frame(frame, TASKS[task], f"probe/{task}", LABEL, "slice", pair_column=pair)


def probe_for(task: Task) -> tuple[TextData, ...]:
    """The task's shipped probe set, if there is one."""
    try:
        probe = load_probe(task.name)
    except DataError:
        return ()
    # Another task may have the same name by chance.
    return (probe,) if probe.task.label_names == task.label_names else ()


def load_glue(task: str, split: str = "validation") -> TextData:
    """A split of a GLUE task; "validation" is the matched one for MNLI.

    Read from `<dir>/<task>/<split>.parquet` if SHRP_DATA_DIR names a folder, else from the hub's nyu-mll/glue through
    `datasets`, which keeps a copy.

    Raises:
        DataError: unknown task or split, no such file, or the hub can't be reached.
    """
    known = get_task(task)
    if split not in SPLITS:
        raise DataError(f"GLUE has the labelled splits {' and '.join(SPLITS)}; there is no '{split}'.")
    folder = os.environ.get(DATA_DIR)
    if not folder:
        frame = _glue_from_hub(known.name, split)
    elif (path := Path(folder) / known.name / f"{split}.parquet").is_file():
        frame = tabular.read_table(path)
    else:
        raise DataError(f"{DATA_DIR} is set, but there is no '{path}'; put it there or unset {DATA_DIR}.")
    return from_frame(frame, known, f"glue/{known.name} {split}", LABEL, None, allow_empty=True)


def _glue_from_hub(task: str, split: str) -> pd.DataFrame:
    import datasets  # slow to import, and not needed for the other sources

    hub_split = "validation_matched" if (task, split) == ("mnli", "validation") else split
    with _LOADING:  # the setting below is one for the whole process
        was_offline = datasets.config.HF_HUB_OFFLINE
        # Without a network `datasets` retries for half a minute before it reads its cache, unless it is offline.
        datasets.config.HF_HUB_OFFLINE = was_offline or not _reachable(datasets.config.HF_ENDPOINT)
        try:
            return datasets.load_dataset("nyu-mll/glue", task, split=hub_split).to_pandas()
        except Exception as error:  # a connection that breaks raises whatever the HTTP client has
            raise DataError(
                f"GLUE's '{task}' can't be read from the hub and no copy is kept here; connect to the "
                f"network, or set {DATA_DIR} to a folder that holds {task}/{split}.parquet. ({first_line(error)})"
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = was_offline


def _reachable(url: str) -> bool:
    """Whether the hub answers at all; a silent one is not asked again for a while."""
    if time.monotonic() - _silent.get(url, -math.inf) < RETRY:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError):
        _silent[url] = time.monotonic()
        return False
    return True


def load_file(path: str | Path, task: str | Task | None = None, *args, **columns) -> TextData:
    """Read a CSV, TSV, JSONL or Parquet file (`tabular.read_table`); arguments and errors are those of `from_table`."""
    return from_table(tabular.read_table(path), Path(path).name, task, *args, **columns)


def from_table(
    frame: pd.DataFrame,
    source: str,
    task: str | Task | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = LABEL,
    slice_column: str | None = None,
    meanings: Meanings | None = None,
    skip_incomplete: bool = False,
) -> TextData:
    """The data in a table that `tabular.read_table` has read.

    Args:
        source: the file's name, which the data get, and its stem the new task, unless that is the name of a known task.
        task: what the labels mean; None makes a task of the labels found.
        text_columns: columns of the one or two texts; None takes the task's, or without a task "text", or "tokens" for lists
            of words, or "question" and "context".
        label_column: column of the labels: names, ids, or numbers. If it is "label" and there is no such column, the
            task's own (`Task.label_column`). No labels if there is neither, or it is None.
        slice_column: column of the slices, or None.
        meanings: as for `from_frame`; without a task they are the classes of the new one.
        skip_incomplete: leave out rows that lack a text or a label, instead of an error.

    Raises:
        DataError: a column is missing, a text is empty, or a label is unknown. Rows count from 1, without a header.
    """
    task = get_task(task) if task is not None else None
    if task == TEXTS:  # unlabelled texts, whatever else the table holds
        if meanings or label_column not in (None, LABEL):
            raise DataError(f"'{source}' is read for its texts alone: leave label columns and meanings out.")
        label_column = None
    usual = (("text",), (WORD_COLUMN,), QUESTION_COLUMNS)
    found = next((names for names in usual if set(names) <= set(frame.columns)), usual[0])
    texts = tuple(text_columns or (task.text_columns if task else found))
    if label_column == LABEL and label_column not in frame.columns:
        own = (task.label_column,) if task else (LABEL,)
        own += TAG_COLUMNS if (task.on_words if task else texts == (WORD_COLUMN,)) else ()
        own += ANSWER_COLUMNS if (task.on_spans if task else texts == QUESTION_COLUMNS) else ()
        label_column = next((name for name in own if name in frame.columns), None)
    if meanings and label_column is None:
        raise DataError(
            f"'{source}' has no labels to give meanings to; name their column (label_column, --label-column); its "
            f"columns: {', '.join(map(str, frame.columns))}."
        )
    if skip_incomplete:
        with complete_rows(frame, texts, label_column, source) as complete:
            return from_table(complete, source, task, texts, label_column, slice_column, meanings)
    if task is None:
        if label_column is None:
            raise DataError(f"'{source}' has no labels to infer the task from; name a task or label column.")
        cells, name = tabular.column(frame, label_column, source), Path(source).stem
        name = source if name == TEXTS.name or name in TASKS else name  # those have meanings of their own
        if len(texts) == 2 and _are_answers(label_column, cells, tabular.column(frame, texts[1], source)):
            task = custom_task(name, texts, kind=SPANS)
        else:
            labels, rows, kind = _labels_and_rows(cells, source, meanings or {})
            with counted_in_the_whole(rows):
                task = infer_task(labels, name, texts, source)
            if kind == WORDS:
                task = custom_task(name, texts, task.label_names, kind=WORDS)
        task = replace(task, label_column=label_column)
    data = from_frame(frame, task, source, label_column, slice_column, texts, meanings=meanings)
    # Scores are found whether slices are read or not.
    return data if data.slices is None else replace(data, origin=replace(data, slices=None))


@contextmanager
def complete_rows(
    frame: pd.DataFrame, texts: Sequence[str], label_column: str | None, name: str
) -> Iterator[pd.DataFrame]:
    """The rows that lack neither a text nor a label; errors inside count rows as the whole table does.

    Raises:
        DataError: a column is missing, or no row is complete.
    """
    rows = np.flatnonzero(~tabular.incomplete(frame, texts, label_column, name))
    if not len(rows):
        raise DataError(f"of '{name}' no row is left: each lacks a text or a label.")
    with counted_in_the_whole(rows):
        yield frame.iloc[rows]


@contextmanager
def counted_in_the_whole(rows: Sequence[int] | np.ndarray) -> Iterator[None]:
    """Errors inside, of these rows (places from 0) of a table, count rows as the whole table does."""
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
    meanings: Meanings | None = None,
    pair_column: str | None = None,
) -> TextData:
    """A task's data from a table that `tabular.read_table` has read.

    Args:
        name: what the data are called, in errors too.
        label_column, slice_column: None for data without.
        text_columns: None takes the task's.
        allow_empty: allow empty texts, of which GLUE has some.
        meanings: of labels that are not the task's; the task's own need not be named. For a regression they can only be
            left out.
        pair_column: column that names minimal pairs, or None.

    Raises:
        DataError: a column is missing, a text is empty, a label is unknown, or no row is left.
    """
    columns = text_columns or task.text_columns
    if len(columns) != len(task.text_columns):
        raise DataError(f"'{task.name}' reads {len(task.text_columns)} text column(s), not {len(columns)}.")
    labels, rows = None, list(range(len(frame)))
    cells = None if label_column is None else tabular.column(frame, label_column, name)
    if cells is not None and meanings:
        if task.on_tokens:
            raise DataError(f"'{name}' has no classes of texts, so its labels can't be given meanings here: edit the file.")
        cells = _translated(cells, task, name, meanings)
        rows = [row for row in rows if cells[row] is not None]
    kept = frame if len(rows) == len(frame) else frame.iloc[rows]
    with counted_in_the_whole(rows):
        texts = tabular.text_rows(kept, columns, name, allow_empty)
        if cells is not None and task.on_spans:
            starts = tabular.column(kept, ANSWER_START, name) if ANSWER_START in kept else [None] * len(kept)
            labels = answer_spans([cells[row] for row in rows], starts, [text for _, text in texts], name)
        elif cells is not None:
            parse = word_labels if task.on_words else parse_labels
            labels = parse([cells[row] for row in rows], task, name)
        slices, pairs = (
            None if of is None else tabular.names(kept, of, name) for of in (slice_column, pair_column)
        )
    if task.on_words and labels is not None:
        words, tags = np.array([len(text.split()) for (text,) in texts]), (labels >= 0).sum(1)
        for row in np.flatnonzero(words != tags):
            raise RowError(name, int(rows[row]) + 1, f": {words[row]:,} words, but {tags[row]:,} labels.")
    if slices is not None:
        slices = tuple(one or NO_SLICE for one in slices)
    return TextData(task, name, texts, labels, slices, pairs)


# Labels


def parse_labels(cells: Sequence[Any], task: Task, source: str) -> np.ndarray:
    """Labels as int64 ids or float64 numbers. If any label is one of the task's label names, all must be; else all ids.

    Raises:
        RowError: a label is missing, not a number (regression), or neither a name nor an id of the task.
    """
    keys = _keys(cells, source)
    if task.is_regression:
        numbers = [_number(key) for key in keys]
        if None in numbers:
            row = numbers.index(None)
            raise RowError(source, row + 1, f": the label of '{task.name}' is a number, not '{keys[row]}'.")
        return np.array(numbers, dtype=np.float64)
    names, ids = _names(task), {str(index): index for index in range(task.num_labels)}
    shown = ", ".join([*names][:20]) + f" and {len(names) - 20} more" * (len(names) > 20)
    known = ids if names.keys().isdisjoint(keys) else names
    for row, key in enumerate(keys, 1):
        if key not in known:
            what = f": the label '{key:.40}' is not among those of '{task.name}': {shown}"
            raise RowError(source, row, f"{what} (or their ids, 0 to {task.num_labels - 1}); say which of them it means.")
    return np.array([known[key] for key in keys], dtype=np.int64)


def word_labels(cells: Sequence[Any], task: Task, source: str) -> np.ndarray:
    """Labels of words, int64 `(N, W)`, from lists of them or texts with blanks between; `UNLABELLED` after the last word.

    Raises:
        RowError: as `parse_labels`.
    """
    rows = [cell.split() if isinstance(cell, str) else [cell] if not is_list(cell) else list(cell) for cell in cells]
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    with counted_in_the_whole(np.repeat(np.arange(len(rows)), sizes)):
        flat = parse_labels([label for row in rows for label in row], task, source)
    found = np.full((len(rows), sizes.max(initial=0)), UNLABELLED, dtype=np.int64)
    found[np.arange(found.shape[1]) < sizes[:, None]] = flat
    return found


def _are_answers(name: str, cells: Sequence[Any], texts: Sequence[Any]) -> bool:
    """Whether a column holds answers that are parts of texts, not classes such as yes and no."""
    if any(isinstance(cell, dict) for cell in cells):
        return True
    several = [is_list(cell) or str(cell).startswith('{"text": [') for cell in cells]
    inside = [str(cell) in str(text) for cell, text in zip(cells, texts, strict=True)]
    return name in ANSWER_COLUMNS and 2 * sum(map(max, several, inside)) >= len(cells)


def answer_spans(cells: Sequence[Any], starts: Sequence[Any], texts: Sequence[str], source: str) -> np.ndarray:
    """Known answers as spans of characters of their texts, `(N, A, 2)`, `UNLABELLED` after the last one.

    Args:
        cells: an answer as its text; or several, as SQuAD's `{"text": [...], "answer_start": [...]}`, also as JSON, or a list of
            texts.
        starts: the first character of an answer that is a text; None for the place where the text first occurs.

    Raises:
        RowError: there is no answer, or it is not where it should be.
    """
    found = []
    for row, (cell, start, text) in enumerate(zip(cells, starts, texts, strict=True), 1):
        if isinstance(cell, str) and cell.startswith('{"text": ['):
            with suppress(ValueError):
                cell = json.loads(cell)
        answers, places = (cell.get("text"), cell.get(ANSWER_START)) if isinstance(cell, dict) else (cell, start)
        answers = list(answers) if is_list(answers) else [answers]
        places = list(places) if is_list(places) else [places] * len(answers)
        if not answers or len(places) != len(answers) or any(map(is_missing, answers)):
            raise RowError(source, row, ": the question has no answer; only questions with one are read, so leave it out.")
        spans = []
        for answer, place in zip(map(str, answers), places, strict=True):  # a year may be a number in JSON
            begin = text.find(answer) if is_missing(place) else _whole(place)
            if begin is None or begin < 0 or text[begin : begin + len(answer)] != answer:
                at = "" if is_missing(place) else f" at character {place}"
                raise RowError(source, row, f": the answer {answer!r:.40} does not stand in the text{at}.")
            spans.append((begin, begin + len(answer)))
        found.append(spans)
    labels = np.full((len(found), max(map(len, found), default=1), 2), UNLABELLED, dtype=np.int64)
    for line, spans in zip(labels, found, strict=True):
        line[: len(spans)] = spans
    return labels


def _labels_and_rows(cells: Sequence[Any], source: str, meanings: Meanings) -> tuple[list[Any], list[int], str]:
    """All labels of a column that are not left out, the row of each, and whether they are of texts or of words."""
    if any(map(is_list, cells)):
        pairs = [(label, row) for row, cell in enumerate(cells) if is_list(cell) for label in cell]
        labels, rows = zip(*pairs) if pairs else ((), ())
        return list(labels), list(rows), WORDS
    labels = _renamed(cells, source, meanings)
    rows = [row for row, label in enumerate(labels) if label is not None]
    return [labels[row] for row in rows], rows, TEXT


def class_ids(cells: Sequence[Any], task: Task, source: str) -> list[int]:
    """The different ids in a column that `parse_labels` reads as ids, ascending; else, and for a regression, none."""
    if task.is_regression or not _names(task).keys().isdisjoint(_keys(cells, source)):
        return []
    return np.unique(parse_labels(cells, task, source)).tolist()


def foreign_labels(cells: Sequence[Any], task: Task, source: str) -> list[str]:
    """The different labels of a column that `parse_labels` would refuse, in order; none for a regression."""
    found = list(dict.fromkeys(_keys(cells, source)))
    ids = map(str, range(task.num_labels))
    return [] if task.is_regression or set(found) <= _names(task).keys() or set(found) <= set(ids) else found


def infer_task(cells: Sequence[Any], name: str, text_columns: Sequence[str], source: str) -> Task:
    """A task that fits the labels: regression if they are numbers, not all whole; else sorted classes.

    Raises:
        DataError: a label is missing, or says so (`nan`, `N/A`) among numbers, or is a word among many numbers that are
            not all whole; or there is only one class.
    """
    rows = _keys(cells, source)
    keys = sorted(set(rows))
    numbers = [_number(key) for key in keys]
    odd = {key for key, number in zip(keys, numbers, strict=True) if number is None}
    fractions = any(number is not None and not number.is_integer() for number in numbers)
    if len(keys) == 1 and not fractions:
        raise DataError(f"'{source}' has only one label, {keys[0]!r:.40}; a task needs at least two classes.")
    if odd:
        missing = all(key.lower() in _MISSING for key in odd)
        if len(odd) < len(keys) and (missing or (fractions and len(keys) - len(odd) > _MOST_FRACTIONS)):
            row = next(row for row, key in enumerate(rows, 1) if key in odd)
            what = f": the label '{rows[row - 1]:.40}' is no number, as others are; repair it or leave the row out."
            how = " If it is a class, give it another name." if missing else ""
            raise RowError(source, row, what + how)
        return custom_task(name, text_columns, keys)
    if fractions:
        return custom_task(name, text_columns, regression=True)
    return custom_task(name, text_columns, sorted(keys, key=float))


def _names(task: Task) -> dict[str, int]:
    return {name.strip(): index for index, name in enumerate(task.label_names)}


def _translated(cells: Sequence[Any], task: Task, source: str, meanings: Meanings) -> list[str | None]:
    """Labels in the task's own names (or numbers); None for rows to leave out."""
    classes = ", ".join(task.label_names)
    for label, meaning in meanings.items():
        if meaning is not None and task.is_regression:
            raise DataError(f"'{task.name}' has numbers for labels; they can be left out, not mean a class.")
        if meaning is not None and meaning not in task.label_names:
            raise DataError(f"'{label:.40}' can't mean '{meaning:.40}'; classes of '{task.name}': {classes}.")
    if not task.is_regression:
        known = _names(task).keys() | _by_key(meanings, source).keys()
        for row, key in enumerate(_keys(cells, source), 1):
            if key not in known:
                what = f": '{key:.40}' needs a meaning in '{task.name}': {classes}, or to be left out."
                raise RowError(source, row, what)
    return _renamed(cells, source, meanings)


def _renamed(cells: Sequence[Any], source: str, meanings: Meanings) -> list[str | None]:
    """Labels by their meanings; others as they are, and None for rows to leave out."""
    known = _by_key(meanings, source)
    found = [known.get(key, key) for key in _keys(cells, source)]
    if not any(label is not None for label in found):
        raise DataError(f"of '{source}' no row is left: every label is left out.")
    return found


def _by_key(meanings: Meanings, source: str) -> dict[str, str | None]:
    known: dict[str, str | None] = {}
    for key, meaning in zip(_keys(list(meanings), source), meanings.values(), strict=True):
        if known.get(key, meaning) != meaning:  # 1 and 1.0 are one label
            raise DataError(f"the label '{key:.40}' has two meanings; give it one.")
        known[key] = meaning
    return known


def _number(key: str) -> float | None:
    try:
        number = float(key) if "_" not in key else math.nan  # in Python's own syntax "1_0" is 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _keys(cells: Sequence[Any], source: str) -> list[str]:
    """Labels as strings: whole numbers without a decimal point, so that 1, 1.0, "1" and true agree."""
    keys = []
    for row, cell in enumerate(cells, 1):
        if is_missing(cell):
            what = ": the label is missing; fill it in, or leave out the row or the column"
            raise RowError(source, row, f"{what} (rows count from 1, without a header).")
        infinite = isinstance(cell, (float, Decimal)) and math.isinf(cell)
        if isinstance(cell, (dict, list, np.ndarray)) or infinite:
            raise RowError(source, row, f": a label is a word or a number, not {cell!r:.40}.")
        if isinstance(cell, str) and not is_unicode(cell):
            raise RowError(source, row, ": the label is not valid Unicode; repair it.")
        whole = _whole(cell)
        keys.append(str(cell if whole is None else whole).strip())  # blanks do not make another class
    return keys


def _whole(cell: Any) -> int | None:
    """The whole number that a label is or that it spells, exactly."""
    if isinstance(cell, str):
        match = _WHOLE.fullmatch(cell)
        return int(match[1]) if match else None
    if isinstance(cell, (float, np.floating)):
        return int(cell) if float(cell).is_integer() else None
    if isinstance(cell, Decimal):  # of a Parquet file
        return int(cell) if cell == int(cell) else None
    return int(cell) if isinstance(cell, (bool, int, np.integer)) else None
