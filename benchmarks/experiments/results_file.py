"""The JSON file of one experiment, which several runs fill, each with its tasks and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import rows_file
from benchmarks.machine import machine, versions
from shrp.errors import DataError


class ResultsFile:
    """Rows and what they are of, replaced whole after each addition so that a killed run loses nothing.

    Raises:
        DataError: a file of that name is there, but is of something else.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path, self.command = path, command
        self.data: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self._described: dict[str, Mapping[str, Any]] = {}
        """Task -> the settings that this command makes its rows with."""
        self._read()

    def refuse_another(self, base: str) -> None:
        """Raise `DataError` where the rows are of another base, before anything is trained for nothing."""
        theirs = {self.settings.get(row["task"], {}).get("base", base) for row in self.rows}
        if others := sorted(theirs - {base}):
            raise DataError(f"{self.path} has rows of the base {others[0]}, not {base}; name another --out.")

    def describe(self, task: str, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Say what the rows of a task are of and how they were made.

        Raises:
            DataError: the file has rows of that task that were made otherwise.
        """
        settings = json.loads(json.dumps(settings))  # lists for tuples, as in the file
        self._check(task, settings, self.settings, self.rows)
        self.data[task], self.settings[task] = dict(data), settings
        self._described[task] = settings

    def _check(
        self,
        task: str,
        ours: Mapping[str, Any],
        settings: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """Raise `DataError` where some rows of a task were made otherwise."""
        theirs = settings.get(task)
        if theirs is not None and theirs != ours and any(row["task"] == task for row in rows):
            names = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            raise DataError(
                f"{self.path} has rows of {task} with another {', '.join(names)}; "
                "repeat those options, or name another --out."
            )

    def put(self, rows: Sequence[Mapping[str, Any]], **which: Any) -> None:
        """Add rows in place of those that an earlier run wrote of the same `which` (task, seed and so on)."""
        with rows_file.alone(self.path):
            self._put(rows, which)

    def _put(self, rows: Sequence[Mapping[str, Any]], which: Mapping[str, Any]) -> None:
        self._read()  # another command may have added its own
        kept = [row for row in self.rows if any(row.get(key) != value for key, value in which.items())]
        self.rows = kept + [{**which, **row} for row in rows]
        about = {
            "command": self.command,
            "versions": versions(),
            "machine": machine(),
            "data": self.data,
            "settings": self.settings,
            "seeds": sorted({row["seed"] for row in self.rows if "seed" in row}),
        }
        rows_file.write(self.path, about | {"rows": self.rows})

    def _read(self) -> None:
        found = rows_file.read(self.path)
        if not found:
            return
        theirs = found["command"]
        if theirs.split(" --")[0] != self.command.split(" --")[0]:
            raise DataError(f"{self.path} was written by {theirs}; name another --out.")
        for task, ours in self._described.items():  # another command may have begun the file meanwhile
            self._check(task, ours, found.get("settings", {}), found["rows"])
        # What was described here and has no rows yet is not in the file.
        self.data = {**found.get("data", {}), **self.data}
        self.settings = {**found.get("settings", {}), **self.settings}
        self.rows = found["rows"]
