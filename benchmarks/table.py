"""Rows of a study in a JSON file, replaced whole after each addition so that a killed run loses none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.throughput import machine, versions


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
        if path.is_file():
            self.rows = json.loads(path.read_text(encoding="utf-8"))["rows"]

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row in place of an earlier one of the same thing."""
        kept = [old for old in self.rows if any(old.get(k) != row.get(k) for k in self.key)]
        self.rows = sorted([*kept, dict(row)], key=lambda r: [str(r.get(k, "")) for k in self.key])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({**self.about, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)
