"""Read a person's table (CSV, TSV, JSONL, Parquet) without changing what is in it."""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.tasks import Task, custom_task

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_BYTES = 200 * 2**20
MAX_FIELDS = 2_000
"""Of a JSONL file: a table of lines that share no field grows with the square of their number."""
_WHOLE = re.compile(r"\s*([+-]?\d{1,4000})(?:\.0*)?\s*")  # Python reads no more than 4,300 digits


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table by its file's extension.

    Nothing is guessed: the cells of a CSV or TSV file are strings as they stand ("NA", "null" and "007" too).
    A TSV file is read as GLUE's are, a quotation mark being a character like any other.

    Returns:
        A frame with at least one row; missing JSON and Parquet values are None or NaN.

    Raises:
        DataError: The file is missing, of another kind, too large, not UTF-8, malformed, or empty.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"There is no file '{path}'; give the path of a {', '.join(EXTENSIONS)} file.")
    if suffix not in EXTENSIONS:
        raise DataError(f"'{path.name}' is not a kind of table that is read here: {', '.join(EXTENSIONS)}.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(
            f"'{path.name}' is {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read here, "
            "so take a sample."
        )
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    try:
        frame = readers.get(suffix, _read_delimited)(path)
    except UnicodeDecodeError as error:
        raise DataError(f"'{path.name}' is not in UTF-8; save it in that encoding.") from error
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except (ValueError, OSError) as error:  # pandas' ParserError and pyarrow's errors are among these.
        reason = _in_plain_words(" ".join(str(error).split())[:200], suffix)
        raise DataError(f"'{path.name}' is not a well-formed {suffix[1:].upper()} file: {reason}") from error
    if frame.empty:
        raise DataError(f"'{path.name}' holds no rows; at least one is needed.")
    return frame


def _in_plain_words(reason: str, suffix: str) -> str:
    """What pandas' parser says, for one who has the file in front of them; other reasons as they are.

    It counts rows and not lines: a quoted text with line breaks is one row.
    """
    counted = "the header being row 1 and a text with line breaks one row"
    if found := re.search(r"EOF inside string starting at row (\d+)", reason):
        return f"a quotation mark in row {int(found[1]) + 1:,} ({counted}) is never closed"
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
        expected, row, saw = (int(number) for number in found.groups())
        hint = "is there a tab in a text?" if suffix == ".tsv" else "are texts with commas quoted?"
        return f"row {row:,} ({counted}) has {saw:,} cells, those before it {expected:,}; {hint}"
    return reason


def _read_delimited(path: Path) -> pd.DataFrame:
    tabs = path.suffix.lower() == ".tsv"
    frame = pd.read_csv(
        path,
        sep="\t" if tabs else ",",
        quoting=3 if tabs else 0,  # csv.QUOTE_NONE, csv.QUOTE_MINIMAL
        dtype=str,
        keep_default_na=False,
        na_filter=False,
        encoding="utf-8-sig",
    )
    if not isinstance(frame.index, pd.RangeIndex):  # pandas then takes the first column for an index.
        raise ValueError("its rows have more fields than its header (are texts with commas quoted?)")
    return frame


def header_size(path: str | Path) -> int:
    """How many columns the first row of a CSV or TSV file has, without reading on; what is not to be read has 0."""
    tabs = Path(path).suffix.lower() == ".tsv"
    options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines: list[str] = []
        reader = csv.reader((lines.append(line) or line for line in file), **options)
        try:
            return len(next((row for row in reader if row), ()))  # empty lines are passed over
        except csv.Error:  # a cell of more than 131,072 characters, so what is in quotation marks counts too
            return lines[-1].count(options["delimiter"]) + 1


def _read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file's columns as they stand: what pandas noted of an index, and of types, is not followed."""
    import pyarrow.parquet as pq

    try:
        frame = pq.read_table(path).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    return frame.drop(columns=[name for name in frame if str(name).startswith("__index_level_")])


def _read_jsonl(path: Path) -> pd.DataFrame:
    # pandas' own reader turns numbers with gaps into floats and says nothing about which line is wrong.
    rows, names = [], set()
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except RecursionError as error:
                raise ValueError(f"line {number} is nested too deeply") from error
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object with named fields")
            rows.append(row)
            names.update(row)
            if len(names) > MAX_FIELDS:
                raise ValueError(f"its lines have more than {MAX_FIELDS:,} different fields")
    return pd.DataFrame(rows, dtype=object)


def column(frame: pd.DataFrame, name: str, source: str) -> list[Any]:
    """A column's cells.

    Raises:
        DataError: There is no such column; the message names those that there are.
    """
    if name not in frame.columns:
        names = ", ".join(map(str, frame.columns))
        hint = (
            " Are its cells parted by semicolons? Commas (CSV) and tabs (TSV) are read."
            if ";" in names
            else ""
        )
        raise DataError(f"'{source}' has no column '{name}'; its columns are {names}.{hint}")
    return frame[name].tolist()


def names(frame: pd.DataFrame, name: str, source: str) -> tuple[str, ...]:
    """A column's cells as names; a missing one is empty.

    Raises:
        DataError: There is no such column, or a name is not valid Unicode.
    """
    found = tuple("" if is_missing(cell) else str(cell) for cell in column(frame, name, source))
    for row, one in enumerate(found, 1):
        if not is_unicode(one):
            raise DataError(
                f"'{source}', row {row}, column '{name}': the name is not valid Unicode; repair it."
            )
    return found


def text_rows(
    frame: pd.DataFrame, names: Sequence[str], source: str, allow_empty: bool = False
) -> tuple[tuple[str, ...], ...]:
    """The texts of each row, exactly as they stand.

    Raises:
        DataError: A column is missing, or a cell is not a string of valid Unicode, or (unless `allow_empty`)
            is empty or blank.
    """
    columns = [column(frame, name, source) for name in names]
    for name, cells in zip(names, columns):
        for row, cell in enumerate(cells, 1):
            if wrong := _text_fault(cell, allow_empty):
                raise DataError(f"'{source}', row {row}, column '{name}': {wrong}")
    return tuple(zip(*columns))


def _text_fault(cell: Any, allow_empty: bool) -> str | None:
    if not isinstance(cell, str):
        if is_missing(cell):
            return "the text is missing; fill it in or leave the row out."
        return f"a text is needed, not {cell!r:.40}; is it the right column?"
    if not allow_empty and not cell.strip():
        return "the text is empty; fill it in or leave the row out."
    if not is_unicode(cell):
        return "the text is not valid Unicode; repair it or leave the row out."
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written down; half of a surrogate pair, as from a cut emoji in JSON, can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, NaT, or an empty string."""
    if isinstance(cell, str):
        return cell == ""
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))


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
                raise DataError(
                    f"'{source}', row {row}: the label of '{task.name}' is a number, not '{key}'."
                )
        return np.array(numbers, dtype=np.float64)
    names = {name: index for index, name in enumerate(task.label_names)}
    ids = {str(index): index for index in range(task.num_labels)}
    known = ids if names.keys().isdisjoint(keys) else names
    unknown = next((row for row, key in enumerate(keys) if key not in known), None)
    if unknown is not None:
        raise DataError(
            f"'{source}', row {unknown + 1}: the label '{keys[unknown]:.40}' is not among those of "
            f"'{task.name}': {_some(names)} (or their ids, 0 to {task.num_labels - 1}); on the command line "
            "--label-means says what it means."
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
    if task.is_regression or not set(task.label_names).isdisjoint(_keys(cells, source)):
        return []
    return np.unique(parse_labels(cells, task, source)).tolist()


def foreign_labels(cells: Sequence[Any], task: Task, source: str) -> list[str]:
    """The different labels of a column that `parse_labels` would not take as it is, in the order of their first rows.

    Returns:
        Labels as `translated` reads them; empty where the column is the task's, and for a regression.

    Raises:
        DataError: A label is missing.
    """
    found = list(dict.fromkeys(_keys(cells, source)))
    ids = map(str, range(task.num_labels))
    return (
        [] if task.is_regression or set(found) <= set(task.label_names) or set(found) <= set(ids) else found
    )


def translated(
    cells: Sequence[Any], task: Task, source: str, meanings: Mapping[str, str | None]
) -> list[str | None]:
    """Labels of another vocabulary in the task's own names.

    Args:
        meanings: What each label of the column means: a class of the task, or None for rows to leave out. A label that
            is the name of a class need not be in it.

    Returns:
        The name of a class for each cell, or None.

    Raises:
        DataError: It is not a classification, a label is missing or has no meaning, or a meaning is no class.
    """
    if task.is_regression:
        raise DataError(f"'{task.name}' has numbers for labels and no classes, so none can mean another.")
    classes = ", ".join(task.label_names)
    for label, meaning in meanings.items():
        if meaning is not None and meaning not in task.label_names:
            raise DataError(
                f"'{label:.40}' can't mean '{meaning:.40}': the classes of '{task.name}' are {classes}."
            )
    known = {name: name for name in task.label_names} | _by_key(meanings, source)
    found = _keys(cells, source)
    if (unknown := next((row for row, key in enumerate(found) if key not in known), None)) is not None:
        raise DataError(
            f"'{source}', row {unknown + 1}: nothing says what the label '{found[unknown]:.40}' means in "
            f"'{task.name}': {classes}, or that it is to be left out."
        )
    return [known[key] for key in found]


def renamed(cells: Sequence[Any], source: str, meanings: Mapping[str, str | None]) -> list[Any]:
    """Labels of a task that is yet to be told from them, by what they mean; those without a meaning as they are.

    Args:
        meanings: What labels mean, or None for rows to leave out.

    Returns:
        The labels of the rows that stay.

    Raises:
        DataError: A label is missing, or has two meanings, or no row is left.
    """
    if not meanings:
        return list(cells)
    known = _by_key(meanings, source)
    found = [known.get(key, key) for key in _keys(cells, source)]
    if not (left := [label for label in found if label is not None]):
        raise DataError(f"of '{source}' no row is left: every label is to be left out.")
    return left


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
        said_missing = all(key.strip().lower() in _SAID_MISSING for key in odd)
        if len(odd) < len(keys) and (said_missing or (fractions and len(keys) - len(odd) > _MOST_FRACTIONS)):
            row = next(row for row, key in enumerate(rows, 1) if key in odd)
            raise DataError(
                f"'{source}', row {row}: the label '{rows[row - 1]:.40}' is no number, as others are; mend it or leave "
                "the row out."
                + (" If it is a class, give it another name (--label-means)." if said_missing else "")
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
            raise DataError(
                f"'{source}', row {row}: the label is missing; fill it in, or leave out the row, or the whole column "
                "(rows count from 1, without a header)."
            )
        if isinstance(cell, (dict, list)) or (isinstance(cell, float) and math.isinf(cell)):
            raise DataError(f"'{source}', row {row}: a label is a word or a number, not {cell!r:.40}.")
        if isinstance(cell, str) and not is_unicode(cell):
            raise DataError(f"'{source}', row {row}: the label is not valid Unicode; repair it.")
        whole = _whole(cell)
        keys.append(str(cell if whole is None else whole))
    return keys


def _whole(cell: Any) -> int | None:
    """A label that is written as a whole number or is one, exactly; floats can't tell large ones apart."""
    if isinstance(cell, str):
        match = _WHOLE.fullmatch(cell)
        return int(match[1]) if match else None
    if isinstance(cell, (float, np.floating)):
        return int(cell) if float(cell).is_integer() else None
    return int(cell) if isinstance(cell, (bool, int, np.integer)) else None
