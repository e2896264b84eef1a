"""The JSON file of one experiment, which several runs fill, each with its tasks and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shrp.errors import DataError
from studies import rows_file
from studies.machine import machine, versions


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
        self.machine: Mapping[str, Any] = {}
        """What the rows that were there were measured on."""
        self._beside: list[tuple[float, dict[str, Any]]] = []
        """Teachers' scores, and what rows stand beside each."""
        self._described: dict[str, dict[str, Mapping[str, Any]]] = {}
        """Task -> `data`, what this command's rows are of, and `settings`, with which it makes them."""
        self._read()

    def refuse_another(self, base: str) -> None:
        """Raise `DataError` where the rows are of another base, before anything is trained for nothing."""
        theirs = {self.settings.get(row["task"], {}).get("base", base) for row in self.rows}
        if others := sorted(theirs - {base}):
            raise DataError(f"{self.path} has rows of the base {others[0]}, not {base}; name another --out.")

    def refuse_another_teacher(self, score: float, **which: Any) -> None:
        """Raise `DataError` where rows of the same `which` (task, depth and so on) stand beside another teacher's, now
        or when rows are added.
        """
        self._beside.append((score, which))
        self._check_teachers(self.rows)

    def _check_teachers(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for score, which in self._beside:
            theirs = [row["teacher"] for row in rows if which.items() <= row.items() and "teacher" in row]
            if others := [one for one in theirs if not _same(one, score)]:
                raise DataError(
                    f"{self.path} has rows of {', '.join(map(str, which.values()))} beside a teacher that scores "
                    f"{others[0]}, this one scores {score}: name another --out."
                )

    def refuse_another_machine(self) -> None:
        """Raise `DataError` where times are another machine's, or of another number of threads."""
        here = machine()
        if self.rows and (names := sorted(k for k in here if self.machine.get(k) != here[k])):
            theirs, ours = (
                ", ".join(f"{k} {of.get(k, 'unknown')}" for k in names) for of in (self.machine, here)
            )
            raise DataError(
                f"{self.path} has times of another machine or number of threads ({theirs}; here {ours}); name another "
                "--out."
            )

    def describe(self, task: str, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Say what the rows of a task are of and how they were made.

        Raises:
            DataError: the file has rows of that task that were made otherwise, or are of other data or of another
                teacher.
        """
        ours = json.loads(
            json.dumps({"data": data, "settings": settings})
        )  # lists for tuples, as in the file
        self._check(task, ours, {"data": self.data, "settings": self.settings, "rows": self.rows})
        self.data[task], self.settings[task] = ours["data"], ours["settings"]
        self._described[task] = ours

    def _check(self, task: str, ours: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Raise `DataError` where some rows of a task were made otherwise."""
        if not any(row.get("task") == task for row in found["rows"]):
            return
        names, way_out = [], "name another --out"
        if (theirs := found.get("settings", {}).get(task)) is not None:
            mine = ours["settings"]
            names += sorted(k for k in {*theirs, *mine} if theirs.get(k) != mine.get(k))
            way_out = "repeat those options, or name another --out" if names else way_out
        theirs, mine = found.get("data", {}).get(task, {}), ours["data"]
        names += sorted(k for k in {*theirs} & {*mine} if not _same(theirs[k], mine[k]))
        if names:
            raise DataError(f"{self.path} has rows of {task} with another {', '.join(names)}; {way_out}.")

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
            self._check(task, ours, found)
        self._check_teachers(found["rows"])
        # What was described here and has no rows yet is not in the file.
        self.data = {**found.get("data", {}), **self.data}
        self.settings = {**found.get("settings", {}), **self.settings}
        self.rows, self.machine = found["rows"], found.get("machine", {})


def _same(theirs: Any, ours: Any) -> bool:
    """Whether two facts are one, but for how processors round: a teacher's outputs differ in the sixth digit; and for
    the interval of a score, in which versions may differ.
    """
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(theirs, ours, rel_tol=1e-5)
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return all(_same(theirs[k], ours[k]) for k in {*theirs} & {*ours} - {"interval"})
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_same, theirs, ours))
    return theirs == ours
