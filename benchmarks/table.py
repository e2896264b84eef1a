"""Rows of a study in a JSON file, replaced whole after each addition so that a killed run loses none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.throughput import machine, versions
from shrp.errors import DataError


class Table:
    """The rows measured so far.

    Args:
        command: that writes the file.
        key: the fields by which two rows are of the same thing, and are sorted.
        about: further facts that hold for all rows.
    """

    def __init__(self, path: Path, command: str, key: tuple[str, ...], **about: Any) -> None:
        self.path, self.key = path, key
        self.about = {"command": command, **about, "versions": versions(), "machine": machine()}
        self.rows: list[dict[str, Any]] = []
        self._read()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row in place of an earlier one of the same thing; rows that others added meanwhile stay.

        Raises:
            DataError: rows of the same base and task stand beside another teacher's score, so that shares of it can't
                be compared.
        """
        self._read()
        of = [row.get(name) for name in ("base", "task")]
        theirs = {
            old.get("teacher") for old in self.rows if [old.get(name) for name in ("base", "task")] == of
        }
        if theirs - {row.get("teacher")}:
            raise DataError(
                f"{self.path.name} has rows of {row.get('task')} beside a teacher that scores {theirs.pop()}, this one "
                f"scores {row.get('teacher')}: take those rows out, or name another file."
            )
        kept = [old for old in self.rows if any(old.get(k) != row.get(k) for k in self.key)]
        self.rows = sorted([*kept, dict(row)], key=lambda r: [str(r.get(k, "")) for k in self.key])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({**self.about, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def _read(self) -> None:
        if self.path.is_file():
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]
