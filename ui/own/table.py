"""A person's own table as a file: an upload, or a path below the allowed folders, read under limits.

What is small as a file but huge once read is refused before it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shrp.data import tabular
from shrp.data.sources import ANSWER_COLUMNS, DATA_DIR
from shrp.errors import DataError

DATA_ROOTS = "SHRP_DATA_ROOTS"
MB = 2**20
MAX_BYTES, MAX_ROWS, MAX_COLUMNS = 20 * MB, 20_000, 200
"""Of a table: its file, its rows and columns."""
MAX_VALUES = MAX_ROWS * MAX_COLUMNS
"""Of a Parquet file, the words of lists among them."""
_MAX_PARQUET = 8 * MAX_BYTES
"""Of a Parquet file's texts once they are unpacked."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read; what its columns are for is not said yet."""

    name: str
    frame: pd.DataFrame
    fingerprint: str
    """SHA-256 (hex) of the file."""


def clean_name(name: str) -> str:
    """A file's name for display and for a temporary file: without folders, printable, and not too long."""
    name = PurePosixPath(name.replace("\\", "/")).name
    name = "".join(c for c in name if c.isprintable() and not "\ud800" <= c <= "\udfff").strip()
    path = PurePosixPath(name.lstrip(".") or "table")
    suffix = path.suffix[:12]
    return path.stem.encode()[:100].decode(errors="ignore") + suffix


def read_upload(name: str, content: bytes | memoryview) -> Table:
    """Read an uploaded file; the extension of its name says what kind of table it is.

    Raises:
        DataError: the file is too large, or can't be read as a table; one sentence says why.
    """
    name = clean_name(name)
    _check_size(name, memoryview(content).nbytes)
    with tempfile.TemporaryDirectory(prefix="shrp-table-") as folder:
        path = Path(folder) / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise DataError(f"'{name}' could not be put aside for reading: {error.strerror}.") from error
        return read_file(path)


def data_roots() -> list[Path]:
    """The folders below which a file may be named by its path: SHRP_DATA_DIR, then those of SHRP_DATA_ROOTS."""
    named = [os.environ.get(DATA_DIR, ""), *os.environ.get(DATA_ROOTS, "").split(os.pathsep)]
    return list(dict.fromkeys(Path(name).resolve() for name in named if name.strip()))


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(
            f"'{name}' is {size / MB:.1f} MB; at most {MAX_BYTES // MB} MB are taken; take a sample."
        )


def read_file(path: Path) -> Table:
    """Read a file of the machine.

    Raises:
        DataError: it is too large, or can't be read as a table.
        OSError: it can't be opened.
    """
    _check_size(path.name, path.stat().st_size)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        _check_parquet(path)
    elif suffix == ".jsonl":  # each line becomes objects many times its size
        # As text, which is how it is read: a carriage return ends a line there.
        with path.open(encoding="utf-8", errors="replace") as file:
            _check(path.name, sum(1 for line in file if line.strip()), MAX_ROWS, "rows")
    elif suffix in (".csv", ".tsv"):  # a column costs far more than its few characters
        _check(path.name, tabular.header_size(path), MAX_COLUMNS, "columns")
    frame = tabular.read_table(path, most_rows=MAX_ROWS + 1, most_fields=MAX_COLUMNS)
    frame.columns = [str(name) for name in frame.columns]
    _check(path.name, len(frame), MAX_ROWS, "rows")
    _check(path.name, len(frame.columns), MAX_COLUMNS, "columns")
    tabular.check_names(list(frame.columns), path.name)
    for name in [name for name in frame if frame[name].map(_is_words).any()]:
        frame[name] = tabular.joined(frame[name].tolist(), path.name)
    if suffix == ".jsonl":
        for name in [name for name in ANSWER_COLUMNS if name in frame]:  # as SQuAD has them
            frame[name] = [json.dumps(cell) if isinstance(cell, dict) else cell for cell in frame[name]]
        nested = frame.columns[frame.map(lambda cell: isinstance(cell, (dict, list))).any()]
        if len(nested):
            raise DataError(
                f"The column '{nested[0]:.80}' of '{path.name}' is nested; keep only plain columns."
            )
    return Table(path.name, frame, hashlib.sha256(path.read_bytes()).hexdigest())


def _check(name: str, number: int, most: int, what: str) -> None:
    if number > most:
        raise DataError(f"'{name}' has more than {most:,} {what}, the most that are taken here; leave some out.")


def _check_parquet(path: Path) -> None:
    """Refuse a Parquet file that is small packed but huge once read, without reading it so."""
    try:
        file = pq.ParquetFile(path)
        schema, leaves = file.schema_arrow, [file.schema.column(i).path for i in range(len(file.schema))]
        words = [field for field in schema if pa.types.is_list(field.type) and _is_text(field.type.value_type)]
        strings = [field.name for field in schema if _is_text(field.type) or field in words]
        others = [one for one in schema if not (one.name in strings or _is_small(one.type))]
        # As dictionaries, repeated texts stay packed, so that their full size can be counted first.
        file = pq.ParquetFile(path, read_dictionary=leaves)
        _check(path.name, file.metadata.num_rows, MAX_ROWS, "rows")
        _check(path.name, len(schema.names), MAX_COLUMNS, "columns")
        tabular.check_names(list(schema.names), path.name)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        values = sum(g.column(c).num_values for g in groups for c in range(g.num_columns))
        _check(path.name, values, MAX_VALUES, "values")
        packed = sum(group.total_byte_size for group in groups)
        known = packed > _MAX_PARQUET or others
        size = packed if known else sum(map(_text_bytes, file.read(strings).columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"'{path.name}' is not a well-formed PARQUET file: {reason}") from error
    if others:
        raise DataError(
            f"The column '{others[0].name:.80}' of '{path.name}' holds values of type {others[0].type}; keep only "
            "columns of texts, numbers, true and false, and dates."
        )
    if size > _MAX_PARQUET:
        most = _MAX_PARQUET // MB
        raise DataError(
            f"'{path.name}' unpacks to {size / MB:.0f} MB; at most {most} MB are taken; take a sample."
        )


def _is_words(cell: Any) -> bool:
    return tabular.is_list(cell) and all(isinstance(word, str) for word in cell)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_small(kind: pa.DataType) -> bool:
    """Whether each value takes a few bytes, however it is packed."""
    of = pa.types
    numbers = of.is_boolean(kind) or of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind)
    return numbers or of.is_null(kind) or of.is_temporal(kind)


def _text_bytes(column: pa.ChunkedArray) -> int:
    total = 0
    for chunk in column.chunks:
        if pa.types.is_list(chunk.type):
            chunk = chunk.flatten()
        if isinstance(chunk, pa.DictionaryArray):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        else:
            total += chunk.nbytes
    return total
