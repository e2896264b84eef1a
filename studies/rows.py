"""Files of measured rows: a JSON list with one row per line, replaced whole so that a killed command loses none."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock

from shrp.cli.output import stderr
from shrp.errors import DataError, ShrpError
from shrp.files import write_text

DATA = Path(__file__).parent.parent / "docs" / "data"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file; none if it does not exist; a `DataError` if the file is not a list of rows."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(row) for row in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is not a file of rows; name another --out, or delete it.") from error


class Rows:
    """Rows of a study, keyed by some of their fields; safe for several processes that add rows at once.

    `key`: Fields that identify a row. A row added later replaces one with the same key.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)
        read_rows(path)  # refuse a wrong file now, not after hours

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return self._key(row) in map(self._key, read_rows(self.path))

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Add rows, all or none, in place of earlier ones with the same keys; the file stays sorted."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            found = {self._key(row): row for row in [*read_rows(self.path), *map(dict, rows)]}
            ordered = [found[key] for key in sorted(found, key=lambda key: [str(part) for part in key])]
            write_text(self.path, as_json(ordered))

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in self.key)


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """A list of rows, one per line, numbers to six digits."""
    return "[\n" + ",\n".join(json.dumps(_rounded(dict(row))) for row in rows) + "\n]\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if value == value else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def run(main: Callable[..., Any]) -> None:
    """Run a function with typer's options as the program; errors end in one sentence."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or every forked process warns
    try:
        typer.run(main)
    except ShrpError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.")


def _fail(text: str) -> None:
    stderr.print(f"error: {text}")
    sys.exit(1)


def names(text: str, known: Sequence[str], option: str) -> list[str]:
    """Names from an option such as `sst2,cola`; raise `BadParameter` unless each is known."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}.", param_hint=option)
    if not found:
        raise typer.BadParameter(f"name at least one of {', '.join(known)}.", param_hint=option)
    return found


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers, from an option such as `0,1,2`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"give numbers such as 0,1,2, not {text!r}.", param_hint=option) from error
