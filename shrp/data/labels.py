"""A column of labels, read as a task's classes or numbers, and the task that labels of one's own make."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from shrp.data.tabular import is_missing, is_unicode
from shrp.data.tasks import Task, custom_task
from shrp.errors import DataError, IncompleteError, RowError

_WHOLE = re.compile(r"\s*([+-]?\d{1,4000})(?:\.0*)?\s*")  # Python reads no more than 4,300 digits


def parse_labels(cells: Sequence[Any], task: Task, source: str) -> np.ndarray:
    """Labels as ids or numbers.

    If any label is one of the task's label names, all must be; otherwise all must be ids.

    Returns:
        int64 class ids, or float64 numbers for regression; shape (rows,).

    Raises:
        DataError: A label is missing, not a number (regression), or neither a name nor an id of the task.
    """
    keys = _keys(cells, source)
    if task.is_regression:
        numbers = [_number(key) for key in keys]
        for row, (key, number) in enumerate(zip(keys, numbers), 1):
            if number is None:
                raise RowError(source, row, f": the label of '{task.name}' is a number, not '{key}'.")
        return np.array(numbers, dtype=np.float64)
    names = {name.strip(): index for index, name in enumerate(task.label_names)}
    ids = {str(index): index for index in range(task.num_labels)}
    known = ids if names.keys().isdisjoint(keys) else names
    unknown = next((row for row, key in enumerate(keys) if key not in known), None)
    if unknown is not None:
        raise RowError(
            source,
            unknown + 1,
            f": the label '{keys[unknown]:.40}' is not among those of "
            f"'{task.name}': {_some(names)} (or their ids, 0 to {task.num_labels - 1}); on the command line "
            "--label-means says what it means.",
        )
    return np.array([known[key] for key in keys], dtype=np.int64)


def _some(names: Iterable[str], most: int = 20) -> str:
    """The first names of a list that may be long."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def class_ids(cells: Sequence[Any], task: Task, source: str) -> list[int]:
    """The ids in a column whose labels `parse_labels` takes for ids, as none of them is a class's name; ascending.

    Returns:
        Empty where they are names, and for a regression.

    Raises:
        DataError: as `parse_labels`.
    """
    if task.is_regression or not _names(task).isdisjoint(_keys(cells, source)):
        return []
    return np.unique(parse_labels(cells, task, source)).tolist()


def _names(task: Task) -> set[str]:
    """What the task's classes are called, without blanks around them, as `_keys` has labels."""
    return {name.strip() for name in task.label_names}


def foreign_labels(cells: Sequence[Any], task: Task, source: str) -> list[str]:
    """The different labels of a column that `parse_labels` would not take as it is, in the order of their first rows.

    Returns:
        Labels as `translated` reads them; empty where the column is the task's, and for a regression.

    Raises:
        DataError: A label is missing.
    """
    found = list(dict.fromkeys(_keys(cells, source)))
    ids = map(str, range(task.num_labels))
    return [] if task.is_regression or set(found) <= _names(task) or set(found) <= set(ids) else found


def translated(
    cells: Sequence[Any], task: Task, source: str, meanings: Mapping[str, str | None]
) -> list[str | None]:
    """Labels of another vocabulary in the task's own names.

    Args:
        meanings: What each label of the column means: a class of the task, or None for rows to leave out. A label that
            is the name of a class need not be in it; of a regression those can be alone that are to be left out.

    Returns:
        The name of a class, or the number, for each cell, or None.

    Raises:
        DataError: A label is missing or has no meaning, or a meaning is no class.
    """
    if task.is_regression:
        if any(meaning is not None for meaning in meanings.values()):
            raise DataError(
                f"'{task.name}' has numbers for labels and no classes, so none can mean another; it can be left out."
            )
        return renamed(cells, source, meanings)
    classes = ", ".join(task.label_names)
    for label, meaning in meanings.items():
        if meaning is not None and meaning not in task.label_names:
            raise DataError(
                f"'{label:.40}' can't mean '{meaning:.40}': the classes of '{task.name}' are {classes}."
            )
    known = {name.strip(): name for name in task.label_names} | _by_key(meanings, source)
    found = _keys(cells, source)
    if (unknown := next((row for row, key in enumerate(found) if key not in known), None)) is not None:
        raise RowError(
            source,
            unknown + 1,
            f": nothing says what the label '{found[unknown]:.40}' means in '{task.name}': {classes}, or that it is to "
            "be left out.",
        )
    return [known[key] for key in found]


def renamed(cells: Sequence[Any], source: str, meanings: Mapping[str, str | None]) -> list[str | None]:
    """Labels of a task that is yet to be told from them, by what they mean; those without a meaning as they are.

    Args:
        meanings: What labels mean, or None for rows to leave out.

    Returns:
        A label for each cell, as `infer_task` reads it, or None for a row to leave out.

    Raises:
        DataError: A label is missing, or has two meanings, or no row is left.
    """
    known = _by_key(meanings, source)
    found = [known.get(key, key) for key in _keys(cells, source)]
    if not any(label is not None for label in found):
        raise DataError(f"of '{source}' no row is left: every label is to be left out.")
    return found


def _by_key(meanings: Mapping[str, str | None], source: str) -> dict[str, str | None]:
    known: dict[str, str | None] = {}
    for key, meaning in zip(_keys(list(meanings), source), meanings.values(), strict=True):
        if known.get(key, meaning) != meaning:  # 1 and 1.0 are one label
            raise DataError(f"the label '{key:.40}' has two meanings; give it one.")
        known[key] = meaning
    return known


_SAID_MISSING = {
    "nan",
    "na",
    "n/a",
    "none",
    "null",
    "-",
    "--",
    "?",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "-infinity",
}
"""What stands for no number among numbers."""
_MOST_FRACTIONS = 20
"""Different numbers, some not whole, beyond which labels are numbers and not the names of classes."""


def infer_task(cells: Sequence[Any], name: str, text_columns: Sequence[str], source: str) -> Task:
    """A task that fits the labels: regression if they are numbers, not all whole; else sorted classes.

    Raises:
        DataError: A label is missing; or is no number where others are, by what it says (`nan`, `N/A`) or since these
            are many and not all whole; or there is only one class.
    """
    rows = _keys(cells, source)
    keys = sorted(set(rows))
    numbers = [_number(key) for key in keys]
    if len(keys) == 1 and (numbers[0] is None or numbers[0].is_integer()):
        raise DataError(
            f"'{source}' has one label alone, {keys[0]!r:.40}; a task needs two classes at least."
        )
    if None in numbers:
        odd = {key for key, number in zip(keys, numbers, strict=True) if number is None}
        fractions = any(number is not None and not number.is_integer() for number in numbers)
        said_missing = all(key.lower() in _SAID_MISSING for key in odd)
        if len(odd) < len(keys) and (said_missing or (fractions and len(keys) - len(odd) > _MOST_FRACTIONS)):
            row = next(row for row, key in enumerate(rows, 1) if key in odd)
            raise RowError(
                source,
                row,
                f": the label '{rows[row - 1]:.40}' is no number, as others are; mend it or leave the row out."
                + (" If it is a class, give it another name (--label-means)." if said_missing else ""),
            )
        return custom_task(name, text_columns, keys)
    if any(not number.is_integer() for number in numbers):
        return custom_task(name, text_columns, regression=True)
    return custom_task(name, text_columns, sorted(keys, key=float))


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
            raise IncompleteError(
                source,
                row,
                ": the label is missing; fill it in, or leave out the row, or the whole column (rows count from 1, "
                "without a header).",
            )
        infinite = isinstance(cell, (float, Decimal)) and math.isinf(cell)
        if isinstance(cell, (dict, list, np.ndarray)) or infinite:
            raise RowError(source, row, f": a label is a word or a number, not {cell!r:.40}.")
        if isinstance(cell, str) and not is_unicode(cell):
            raise RowError(source, row, ": the label is not valid Unicode; repair it.")
        whole = _whole(cell)
        keys.append(str(cell if whole is None else whole).strip())  # blanks around a word make no other class
    return keys


def _whole(cell: Any) -> int | None:
    """A label that is written as a whole number or is one, exactly; floats can't tell large ones apart."""
    if isinstance(cell, str):
        match = _WHOLE.fullmatch(cell)
        return int(match[1]) if match else None
    if isinstance(cell, (float, np.floating)):
        return int(cell) if float(cell).is_integer() else None
    if isinstance(cell, Decimal):  # of a Parquet file
        return int(cell) if cell == int(cell) else None
    return int(cell) if isinstance(cell, (bool, int, np.integer)) else None
