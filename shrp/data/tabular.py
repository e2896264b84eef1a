"""Read a person's table (CSV, TSV, JSONL, Parquet) without changing what is in it."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import ColumnError, DataError, RowError

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_BYTES = 200 * 2**20
PART = 10_000
"""Rows of a part of a table (`read_parts`)."""
MAX_FIELDS = 2_000
"""Most columns of a table."""
DELIMITERS = {",": "comma", ";": "semicolon", "|": "vertical bar", "\t": "tab"}
_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NAMES = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "utf-16": "UTF-16", "cp1252": "Windows-1252 (Latin-1)"}
_FIRST_ROWS = 50  # compared to find the delimiter
_ACCENTS = 0.4  # most accents among the letters of words that have any
_SIGNS = set("‘’“”‚„–—…€£¥¢°«»‹›¿¡§©®™·•²³¹½¼¾µ±´¨¸ˆ˜\xa0\xad")
_BARE_CR = re.compile(rb"\r(?!\n)")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_UNQUOTED = "put quotation marks around a text that holds the delimiter"


@dataclass(frozen=True)
class Format:
    """How a file is written: its kind, and where it is text, its encoding and delimiter as Python names them."""

    kind: str
    encoding: str | None = None
    delimiter: str | None = None

    def __str__(self) -> str:
        parts = [self.kind, _NAMES.get(self.encoding, self.encoding)]
        if self.delimiter:
            parts.append(f"{DELIMITERS[self.delimiter]}-separated")
        return ", ".join(filter(None, parts))


def detect(path: str | Path) -> Format:
    """Detect how a table is written.

    The extension gives the kind. Text is UTF-8, UTF-16 with a byte order mark, or Windows-1252, which includes Latin-1. The
    cells of a CSV file are separated by commas, semicolons, vertical bars or tabs.

    Raises:
        DataError: the file is missing, too large or of another kind, or its encoding or delimiter is ambiguous.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"There is no file '{path}'; give the path of a {', '.join(EXTENSIONS)} file.")
    if suffix not in EXTENSIONS:
        raise DataError(f"'{path.name}' is not a known kind of table: {', '.join(EXTENSIONS)}.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(
            f"'{path.name}' is {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read, so take a sample."
        )
    kind = suffix[1:].upper()
    if suffix == ".parquet":
        return Format("Parquet")
    encoding = _encoding(path)
    if suffix == ".jsonl":
        return Format(kind, encoding)
    return Format(kind, encoding, "\t" if suffix == ".tsv" else _delimiter(path, encoding))


def _encoding(path: Path) -> str:
    data = path.read_bytes()
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            return encoding
    if b"\0" in data:
        raise DataError(f"'{path.name}' is not a text file, or is UTF-16 without a byte order mark; save the table as UTF-8.")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    else:
        return "utf-8"
    decoded = data.decode("utf-8", "replace")
    bad = decoded.count("\ufffd")
    if sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", decoded))) >= bad:
        raise DataError(f"'{path.name}' is UTF-8 but for line {line:,}; repair the characters there.")
    if _is_western(data):
        return "cp1252"
    raise DataError(f"'{path.name}' is not in UTF-8 and its encoding is not clear; save it as UTF-8.")


def _is_western(data: bytes) -> bool:
    """Whether bytes read well as Windows-1252: accents within words of mostly ASCII letters, and Western signs.

    Detectors guess wrongly on the few accents of a short table.
    """
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    words = [word for word in re.findall(r"[^\W\d_]{2,}", text) if not word.isascii()]
    letters = "".join(words)
    accents = sum(not letter.isascii() for letter in letters)
    signs = set(re.sub(r"[\x00-\x7f]|[^\W\d_]", "", text))
    long_run = re.search(r"[^\x00-\x7f]{4,}", text)
    return not long_run and accents <= _ACCENTS * len(letters) and signs <= _SIGNS


def _first_rows(path: Path, encoding: str, delimiter: str, most: int = 1) -> list[list[str]]:
    """The first rows that are not blank, at most up to a cell that is too long for the `csv` module."""
    quoting = csv.QUOTE_NONE if path.suffix.lower() == ".tsv" else csv.QUOTE_MINIMAL
    rows: list[list[str]] = []
    with open(path, encoding=encoding, errors="replace", newline="") as file, contextlib.suppress(csv.Error):
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        for row in itertools.islice(filter(None, reader), most):
            rows.append(row)
    return rows


def _delimiter(path: Path, encoding: str) -> str:
    """The delimiter that gives a header of several different names and rows of its length; else a comma."""
    found = {}
    for delimiter in DELIMITERS:
        rows = _first_rows(path, encoding, delimiter, _FIRST_ROWS)
        header = [name.strip() for name in rows[0]] if rows else []
        if len(header) > 1 and all(header) and len(set(header)) == len(header):
            found[delimiter] = all(len(row) == len(header) for row in rows[1:])
    fitting = [delimiter for delimiter, fits in found.items() if fits]
    if len(fitting) > 1:
        names = " or ".join(f"{DELIMITERS[one]}s" for one in fitting)
        raise DataError(f"'{path.name}' may be separated by {names}; quote the texts or save it as .tsv.")
    return next(iter([*fitting, *found]), ",")


def read_table(path: str | Path, most_rows: int | None = None, most_fields: int = MAX_FIELDS) -> pd.DataFrame:
    """Read a table; how it is written is detected (`detect`).

    The cells of a CSV or TSV file are strings as they stand ("NA" and "007" too); blank lines are skipped. In TSV files,
    as in GLUE's, quotation marks have no meaning.

    Args:
        most_rows: of a CSV or TSV file, read no more rows.
        most_fields: refuse more columns.

    Returns:
        A frame with at least one row, its `attrs["format"]` a `Format`; missing JSON and Parquet values are None or NaN.

    Raises:
        DataError: as `detect`; or the file is malformed, has too many columns, or is empty.
    """
    path = Path(path)
    how, frame = detect(path), pd.DataFrame()
    with _in_plain_words(path.name, how.kind):
        if how.kind == "Parquet":
            frame = _read_parquet(path, most_fields)
        elif how.kind == "JSONL":
            frame = pd.DataFrame(list(_jsonl_rows(path, how.encoding, most_fields)), dtype=object)
        else:
            frame = _read_delimited(path, how, most_rows, most_fields)
    if frame.empty:
        raise DataError(f"'{path.name}' holds no rows; at least one is needed.")
    frame.attrs["format"] = how
    return frame


def read_parts(path: str | Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Read some columns of a table in parts of `PART` rows: a Parquet or JSONL file may be larger than memory.

    A JSONL file above `MAX_BYTES` is taken for UTF-8. Other files are one part.

    Raises:
        DataError: as `read_table`; or a column is missing.
    """
    path = Path(path)
    large = path.is_file() and path.stat().st_size > MAX_BYTES
    if path.suffix.lower() == ".parquet" and path.is_file():
        with _in_plain_words(path.name, "Parquet"):
            yield from _parquet_parts(path, columns)
    elif path.suffix.lower() == ".jsonl" and path.is_file():
        with _in_plain_words(path.name, "JSONL"):
            rows = _jsonl_rows(path, "utf-8" if large else detect(path).encoding, MAX_FIELDS)
            first: pd.DataFrame | None = None
            while part := list(itertools.islice(rows, PART)):
                frame = pd.DataFrame(part, dtype=object)
                first = frame[:0] if first is None else first
                yield frame.reindex(columns=first.columns.union(frame.columns, sort=False))
    else:
        yield read_table(path)


@contextlib.contextmanager
def _in_plain_words(name: str, kind: str) -> Iterator[None]:
    """Raise what is wrong with a file as `DataError`; a file without a header is left to its reader's caller."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"'{name}' has text that is not valid {error.encoding.upper()}.") from error
    except pd.errors.EmptyDataError:
        pass
    except (ValueError, OSError) as error:  # those of pandas and pyarrow too
        reason = _plain_reason(" ".join(str(error).split())[:200])
        raise DataError(f"'{name}' is not a well-formed {kind} file: {reason}") from error


def _plain_reason(reason: str) -> str:
    """What pandas' parser reports, in plain words; other reasons as they are."""
    counted = "the header being row 1 and a text with line breaks one row"
    if found := re.search(r"EOF inside string starting at row (\d+)", reason):
        return f"a quotation mark in row {int(found[1]) + 1:,} ({counted}) is never closed"
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
        expected, row, saw = (int(number) for number in found.groups())
        return f"row {row:,} ({counted}) has {saw:,} cells, those before it {expected:,}; {_UNQUOTED}"
    return reason


def _read_delimited(path: Path, how: Format, most_rows: int | None, most_fields: int) -> pd.DataFrame:
    check_count(_columns(path, how), path.name, most_fields)
    _check_line_ends(path, how)
    options: dict[str, Any] = {
        "sep": how.delimiter,
        "quoting": csv.QUOTE_NONE if how.kind == "TSV" else csv.QUOTE_MINIMAL,
        "dtype": str,
        "keep_default_na": False,
        "na_filter": False,
        "encoding": how.encoding,
    }
    names = pd.read_csv(path, header=None, nrows=1, **options).iloc[0]
    check_names(names, path.name)
    frame = pd.read_csv(path, nrows=most_rows, **options)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas made the first column an index
        raise ValueError(f"its rows have more fields than its header; {_UNQUOTED}")
    return frame


def _check_line_ends(path: Path, how: Format) -> None:
    """Refuse a carriage return outside quotation marks if lines end otherwise, as it would split a row."""
    data = path.read_bytes()
    if how.encoding == "utf-16":
        data = data.decode("utf-16").encode("utf-8", "replace")
    if b"\n" not in data or not _BARE_CR.search(data):  # the only line ends may be bare
        return
    wrong = "has a carriage return inside a text; quote the text or replace the character"
    if how.kind == "TSV":
        row = data.count(b"\n", 0, _BARE_CR.search(data).start()) + 1
        raise DataError(f"'{path.name}', line {row:,}, {wrong}.")
    with open(path, encoding=how.encoding, newline="\n") as file:
        reader = csv.reader(file, delimiter=how.delimiter)
        try:
            for _ in reader:
                pass
        except csv.Error as error:
            if "new-line" in str(error):
                raise DataError(f"'{path.name}', line {reader.line_num:,}, {wrong}.") from error


def header_size(path: str | Path) -> int:
    """How many columns the first row of a CSV or TSV file has; the rest is not read."""
    return _columns(Path(path), detect(path))


def _columns(path: Path, how: Format) -> int:
    return len(next(iter(_first_rows(path, how.encoding, how.delimiter)), []))


def check_count(columns: int, source: str, most: int = MAX_FIELDS) -> None:
    """Raise `DataError` if there are more columns than `most`."""
    if columns > most:
        raise DataError(f"'{source}' has {columns:,} columns; at most {most:,} are read, so leave some out.")


def check_names(names: Iterable[str], source: str) -> None:
    """Raise `DataError` if two columns have one name, except none, or a name is not valid Unicode."""
    names = list(names)
    if broken := [name for name in names if not is_unicode(name)]:
        shown = broken[0].encode("utf-8", "backslashreplace").decode()
        raise DataError(f"'{source}' has a column whose name is not valid Unicode, '{shown:.80}'; rename it.")
    if twice := [name for name, times in Counter(names).items() if times > 1 and name]:
        raise DataError(f"'{source}' has two columns named '{twice[0]:.80}'; give each its own name.")


def _read_parquet(path: Path, most_fields: int) -> pd.DataFrame:
    """A Parquet file's columns as they stand, without pandas' metadata."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_count(len(names), path.name, most_fields)
            check_names(names, path.name)
            table = file.read().replace_schema_metadata(None)
        table.validate(full=True)  # or text that is not UTF-8 fails only where it is looked at
        frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    return frame.drop(columns=[name for name in frame if str(name).startswith("__index_level_")])


def _parquet_parts(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_names(file.schema_arrow.names, path.name)
        header = pd.DataFrame(columns=file.schema_arrow.names)
        for name in columns:
            column(header, name, path.name)
        for part in file.iter_batches(PART, columns=list(columns)):
            yield part.to_pandas()


def _jsonl_rows(path: Path, encoding: str, most_fields: int) -> Iterator[dict[str, Any]]:
    # pandas' reader turns numbers with gaps into floats and does not say which line is wrong.
    names: set[str] = set()
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding) as lines:
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
            names.update(row)
            if len(names) > most_fields:
                raise DataError(f"'{path.name}' has more than {most_fields:,} fields; leave some out.")
            if _SURROGATE.search(line):
                _check_unicode(row, path.name, number)
            yield row
    check_names(names, path.name)


def _check_unicode(row: dict[str, Any], source: str, line: int) -> None:
    """Refuse half of a surrogate pair in any field: it can't be written or shown."""
    for name, value in row.items():
        if is_unicode(name) and not is_unicode(json.dumps(value, ensure_ascii=False)):
            raise DataError(
                f"'{source}', line {line:,}: the field '{name:.80}' is not valid Unicode (half of a character, as from a "
                "cut emoji); repair it or leave it out."
            )


def column(frame: pd.DataFrame, name: str, source: str) -> list[Any]:
    """A column's cells; a `ColumnError` if there is no such column."""
    if name not in frame.columns:
        names = ", ".join(map(str, frame.columns))
        raise ColumnError(name, f"'{source}' has no column '{name}'; its columns are {names}.")
    return frame[name].tolist()


def names(frame: pd.DataFrame, name: str, source: str) -> tuple[str, ...]:
    """A column's cells as names of valid Unicode; a missing one is empty."""
    found = tuple("" if is_missing(cell) else str(cell) for cell in column(frame, name, source))
    for row, one in enumerate(found, 1):
        if not is_unicode(one):
            raise RowError(source, row, f", column '{name}': the name is not valid Unicode; repair it.")
    return found


def incomplete(frame: pd.DataFrame, texts: Sequence[str], label: str | None, source: str) -> np.ndarray:
    """Which rows lack a text, or have a blank one, or lack the label if it has a column; bool `(rows,)`."""
    lacking = np.zeros(len(frame), dtype=bool)
    for name in (*texts, *([] if label is None else [label])):
        lacking |= [is_missing(cell) for cell in column(frame, name, source)]
    return lacking


def text_rows(
    frame: pd.DataFrame, names: Sequence[str], source: str, allow_empty: bool = False
) -> tuple[tuple[str, ...], ...]:
    """The texts of each row, exactly as they stand; of lists of words, with a blank between words.

    Raises:
        RowError: a cell is missing, or not a string of valid Unicode, or unless `allow_empty` empty or blank.
    """
    columns = [joined(column(frame, name, source), source) for name in names]
    for name, cells in zip(names, columns):
        for row, cell in enumerate(cells, 1):
            where = f", column '{name}': "
            if is_missing(cell) and not (allow_empty and isinstance(cell, str)):
                what = "empty" if isinstance(cell, str) else "missing"
                raise RowError(source, row, f"{where}the text is {what}; fill it in or drop the row.")
            if not isinstance(cell, str):
                what = f"a text is needed, not {cell!r:.40}; is it the right column?"
                raise RowError(source, row, where + what)
            if not is_unicode(cell):
                raise RowError(source, row, f"{where}the text is not valid Unicode; repair or leave it out.")
    return tuple(zip(*columns))


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded; half of a surrogate pair, as from a cut emoji, can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, NaT, an empty list, or an empty or blank string."""
    if isinstance(cell, str):
        return not cell.strip()
    if is_list(cell):
        return not len(cell)
    return bool(pd.isna(cell))


def is_list(cell: Any) -> bool:
    """Whether a cell holds several values, as a JSON list or Parquet's."""
    return isinstance(cell, (list, tuple, np.ndarray))


def joined(cells: Sequence[Any], source: str) -> list[Any]:
    """Lists of words as texts with a blank between words; other cells as they are.

    Raises:
        RowError: a word is no string, or empty, or holds a blank.
    """
    found = []
    for row, cell in enumerate(cells, 1):
        if is_list(cell):
            if odd := [word for word in cell if not isinstance(word, str) or word.split() != [word]]:
                raise RowError(source, row, f": a word without blanks is needed, not {odd[0]!r:.40}.")
            cell = " ".join(cell)
        found.append(cell)
    return found


def distinct(names: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Column names made different from reserved ones and from each other: `index` becomes `index (text)`."""
    taken, found = set(reserved), []
    for name in names:
        more = (f"{name} (text {n})" for n in itertools.count(2))
        found.append(next(one for one in itertools.chain([name, f"{name} (text)"], more) if one not in taken))
        taken.add(found[-1])
    return found


def csv_options(frame: pd.DataFrame) -> dict[str, Any]:
    """Options of `DataFrame.to_csv`: all is quoted if a text has a carriage return, which the writer leaves bare."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    bare = any("\r" in value for name in texts for value in texts[name] if isinstance(value, str))
    return {"quoting": csv.QUOTE_ALL} if bare else {}
