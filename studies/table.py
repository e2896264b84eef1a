"""Rows of a study in a JSON file, replaced whole after each addition so that a killed run loses none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shrp.errors import DataError
from studies import rows_file
from studies.machine import machine, versions

_OF_A_TEACHER = ("base", "task", "recipe", "depth")
"""Rows alike in these are compared with one another, and so stand beside one teacher. Another kind of processor trains
another teacher from the same seed: recipes and depths may be measured on different ones."""


class Table:
    """The rows measured so far.

    Args:
        command: that writes the file.
        key: the fields by which two rows are of the same thing, and are sorted.
        about: further facts that hold for all rows.

    Raises:
        DataError: the file's rows are of something else than `about` says.
    """

    def __init__(self, path: Path, command: str, key: tuple[str, ...], **about: Any) -> None:
        self.path, self.key = path, key
        found = rows_file.read(path)
        self.about = {"command": command, **about, "versions": versions()}
        self.rows: list[dict[str, Any]] = found.get("rows", [])
        self._of = about
        self._check(found)

    def _check(self, found: Mapping[str, Any]) -> None:
        """Raise `DataError` where a file's rows are of something else than these."""
        for name, value in self._of.items():
            if found.get("rows") and found.get(name, value) != value:
                raise DataError(
                    f"{self.path.name} has rows with {name} {found[name]}, not {value}: name another file."
                )

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Add rows, all or none, in place of earlier ones of the same things; those that others added meanwhile stay.

        Raises:
            DataError: the file's rows are of something else by now; or rows of the same base, task, recipe and depth
                stand beside another teacher's score, so that shares of it can't be compared.
        """
        with rows_file.alone(self.path):
            file = rows_file.read(self.path)
            self._check(file)  # another command may have begun it meanwhile
            found = file.get("rows", [])
            for row in rows:
                found = self._with(found, row)
            self.rows = found
            # Of several sittings: which rows are of which machine, they don't say.
            here = machine()
            machines = [*(one for one in file.get("machines", ()) if one != here), here]
            rows_file.write(self.path, {**self.about, "machines": machines, "rows": self.rows})

    def _with(self, rows: list[dict[str, Any]], row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Some rows and one more, sorted."""
        of = [row.get(name) for name in _OF_A_TEACHER]
        theirs = {old.get("teacher") for old in rows if [old.get(name) for name in _OF_A_TEACHER] == of}
        if others := [score for score in theirs if not _same(score, row.get("teacher"))]:
            raise DataError(
                f"{self.path.name} has rows of {row.get('task')} beside a teacher that scores {others[0]}, this one "
                f"scores {row.get('teacher')}: take those rows out, or name another file."
            )
        kept = [old for old in rows if any(old.get(k) != row.get(k) for k in self.key)]
        return sorted([*kept, dict(row)], key=lambda r: [str(r.get(k, "")) for k in self.key])


def _same(a: float | None, b: float | None) -> bool:
    """Whether two scores are one, but for how processors round: their outputs differ in the sixth digit."""
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-5))
