"""Read a person's table (CSV, TSV, JSONL, Parquet) without changing what is in it."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import ColumnError, DataError, IncompleteError, RowError

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_BYTES = 200 * 2**20
MAX_FIELDS = 2_000
"""Of a JSONL file: a table of lines that share no field grows with the square of their number."""


def read_table(path: str | Path, most_rows: int | None = None, most_fields: int = MAX_FIELDS) -> pd.DataFrame:
    """Read a table by its file's extension.

    Nothing is guessed: the cells of a CSV or TSV file are strings as they stand ("NA", "null" and "007" too). A blank
    line between rows is passed over where there are several columns; where there is one, it is a row with a blank cell.
    A CSV file's cells are parted by commas or, where its header is so, by semicolons; numbers have a point even then.
    A TSV file is read as GLUE's are, a quotation mark being a character like any other.

    Args:
        most_rows: of a CSV or TSV file, read no more than so many.
        most_fields: of a JSONL file, refuse more different ones than that.

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
    try:
        if suffix == ".parquet":
            frame = _read_parquet(path)
        elif suffix == ".jsonl":
            frame = _read_jsonl(path, most_fields)
        else:
            frame = _read_delimited(path, most_rows)
    except UnicodeDecodeError as error:
        raise DataError(f"'{path.name}' is not in UTF-8; save it in that encoding.") from error
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except (ValueError, OSError) as error:  # pandas' ParserError and pyarrow's errors are among these.
        delimiter = _delimiter(path) if suffix in (".csv", ".tsv") else ","
        reason = _in_plain_words(" ".join(str(error).split())[:200], delimiter)
        raise DataError(f"'{path.name}' is not a well-formed {suffix[1:].upper()} file: {reason}") from error
    if frame.empty:
        raise DataError(f"'{path.name}' holds no rows; at least one is needed.")
    return frame


_HINTS = {
    "\t": "is there a tab in a text?",
    ",": "are texts with commas quoted?",
    ";": "are texts with semicolons quoted?",
}
"""Why a row may have more cells than its header, by what parts them."""


def _in_plain_words(reason: str, delimiter: str) -> str:
    """What pandas' parser says, for one who has the file in front of them; other reasons as they are.

    It counts rows and not lines: a quoted text with line breaks is one row.
    """
    counted = "the header being row 1 and a text with line breaks one row"
    if found := re.search(r"EOF inside string starting at row (\d+)", reason):
        return f"a quotation mark in row {int(found[1]) + 1:,} ({counted}) is never closed"
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
        expected, row, saw = (int(number) for number in found.groups())
        hint = _HINTS[delimiter]
        return f"row {row:,} ({counted}) has {saw:,} cells, those before it {expected:,}; {hint}"
    return reason


def _read_delimited(path: Path, most_rows: int | None) -> pd.DataFrame:
    tabs = path.suffix.lower() == ".tsv"
    delimiter = _delimiter(path)
    options: dict[str, Any] = {
        "sep": delimiter,
        "quoting": 3 if tabs else 0,  # csv.QUOTE_NONE, csv.QUOTE_MINIMAL
        "dtype": str,
        "keep_default_na": False,
        "na_filter": False,
        "encoding": "utf-8-sig",
    }
    names = pd.read_csv(path, header=None, nrows=1, **options).iloc[0]
    check_names(names, path.name)
    blank = 0
    if len(names) == 1:  # a blank line is a row then; passed over, it would move the numbers of all after it
        header, blank = _blank_ends(path, delimiter)
        options |= {"header": header, "skip_blank_lines": False}
    frame = pd.read_csv(path, nrows=None if most_rows is None else most_rows + blank, **options)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas then takes the first column for an index.
        raise ValueError(f"its rows have more fields than its header ({_HINTS[delimiter]})")
    return frame.iloc[: len(frame) - blank]


def _blank_ends(path: Path, delimiter: str) -> tuple[int, int]:
    """How many lines are blank before a table's header, and after its last row; `""` is a row with a blank cell."""
    space = " \t\n".replace(delimiter, "")  # what pandas takes for blank
    before, after = None, 0
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file):
            after += 1
            if line.strip(space):
                before, after = number if before is None else before, 0
    return before or 0, after


def _delimiter(path: Path) -> str:
    """What parts a file's cells: tabs in TSV, in CSV commas, or semicolons where its header has these alone."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next((line for line in file if line.strip()), "").strip()
    parts = [part.strip() for part in header.split(";")]
    return (
        ";" if "," not in header and len(parts) > 1 and all(parts) and len(set(parts)) == len(parts) else ","
    )


def header_size(path: str | Path) -> int:
    """How many columns the first row of a CSV or TSV file has, without reading on; what is not to be read has 0."""
    tabs = Path(path).suffix.lower() == ".tsv"
    options: dict[str, Any] = {"delimiter": _delimiter(Path(path))} | (
        {"quoting": csv.QUOTE_NONE} if tabs else {}
    )
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines: list[str] = []
        reader = csv.reader((lines.append(line) or line for line in file), **options)
        try:
            return len(next((row for row in reader if row), ()))  # empty lines are passed over
        except csv.Error:  # a cell of more than 131,072 characters, so what is in quotation marks counts too
            return lines[-1].count(options["delimiter"]) + 1


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse columns that are called alike, but those without a name: which one is meant nobody can tell.

    Raises:
        DataError: so are two; or a name is not valid Unicode.
    """
    names = list(names)
    if broken := [name for name in names if not is_unicode(name)]:
        shown = broken[0].encode("utf-8", "backslashreplace").decode()
        raise DataError(
            f"'{source}' has a column whose name is not valid Unicode, '{shown:.80}'; give it another."
        )
    if twice := [name for name, times in Counter(names).items() if times > 1 and name]:
        raise DataError(f"'{source}' has two columns named '{twice[0]:.80}'; give each its own name.")


def _read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file's columns as they stand: what pandas noted of an index, and of types, is not followed."""
    import pyarrow.parquet as pq

    try:
        check_names(pq.read_schema(path).names, path.name)
        frame = pq.read_table(path).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    return frame.drop(columns=[name for name in frame if str(name).startswith("__index_level_")])


def _read_jsonl(path: Path, most_fields: int) -> pd.DataFrame:
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
            if len(names) > most_fields:
                raise DataError(
                    f"'{path.name}' has more than {most_fields:,} different fields, of which each is a column; leave "
                    "out those that are not needed."
                )
    check_names(names, path.name)
    return pd.DataFrame(rows, dtype=object)


def column(frame: pd.DataFrame, name: str, source: str) -> list[Any]:
    """A column's cells.

    Raises:
        DataError: There is no such column; the message names those that there are.
    """
    if name not in frame.columns:
        names = ", ".join(map(str, frame.columns))
        hint = (
            " Are its cells parted by semicolons? A header that has commas too is parted by these."
            if ";" in names
            else ""
        )
        raise ColumnError(name, f"'{source}' has no column '{name}'; its columns are {names}.{hint}")
    return frame[name].tolist()


def names(frame: pd.DataFrame, name: str, source: str) -> tuple[str, ...]:
    """A column's cells as names; a missing one is empty.

    Raises:
        DataError: There is no such column, or a name is not valid Unicode.
    """
    found = tuple("" if is_missing(cell) else str(cell) for cell in column(frame, name, source))
    for row, one in enumerate(found, 1):
        if not is_unicode(one):
            raise RowError(source, row, f", column '{name}': the name is not valid Unicode; repair it.")
    return found


def incomplete(frame: pd.DataFrame, texts: Sequence[str], label: str | None, source: str) -> np.ndarray:
    """Which rows lack a text, or have a blank one, or lack the label, where there is a column for it; bool `(rows,)`.

    Raises:
        DataError: A column is missing.
    """
    lacking = np.zeros(len(frame), dtype=bool)
    for name in (*texts, *([] if label is None else [label])):
        lacking |= [is_missing(cell) for cell in column(frame, name, source)]
    return lacking


def text_rows(
    frame: pd.DataFrame, names: Sequence[str], source: str, allow_empty: bool = False
) -> tuple[tuple[str, ...], ...]:
    """The texts of each row, exactly as they stand.

    Raises:
        IncompleteError: A cell is missing or, unless `allow_empty`, empty or blank.
        RowError: A cell is not a string of valid Unicode.
        DataError: A column is missing.
    """
    columns = [column(frame, name, source) for name in names]
    for name, cells in zip(names, columns):
        for row, cell in enumerate(cells, 1):
            if wrong := _text_fault(cell, allow_empty):
                kind = IncompleteError if is_missing(cell) else RowError
                raise kind(source, row, f", column '{name}': {wrong}")
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
    """Whether a cell is None, NaN, NaT, or an empty or blank string."""
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, Decimal):
        return cell.is_nan()
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))


def distinct(names: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Names that a person gave to columns, for a table that has reserved ones too: `input` becomes `input (text)`.

    Without this the one would take the other's place. Equal names among the person's own are told apart as well.
    """
    taken, found = set(reserved), []
    for name in names:
        free, number = name, 1
        while free in taken:
            free, number = f"{name} (text)" if number == 1 else f"{name} (text {number})", number + 1
        taken.add(free)
        found.append(free)
    return found


def csv_options(frame: pd.DataFrame) -> dict[str, Any]:
    """What `DataFrame.to_csv` needs to be told of a table: everything is quoted where a text has a carriage return,
    which ends a row to whoever reads it, and which Python's writer leaves bare.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    bare = any("\r" in value for name in texts for value in texts[name] if isinstance(value, str))
    return {"quoting": csv.QUOTE_ALL} if bare else {}
