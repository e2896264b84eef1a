"""Rows of checkpoints, which stand under the names of their tasks and depths: those of two of a name don't mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shrp.checkpoints import checkpoint
from shrp.errors import PlanError
from studies.table import Table

SAME = 5e-4
"""Scores that differ by less may be of one routed model; of rows that don't say which one they are of."""


def base_of(folders: Sequence[Path]) -> str:
    """The base that checkpoints are of.

    Raises:
        CheckpointError: one can't be read.
        PlanError: they are of several.
    """
    found = {checkpoint.read_config(folder)[1].base_model: folder for folder in folders}
    if len(found) > 1:
        told = ", ".join(f"{folder} is of {base}" for base, folder in found.items())
        raise PlanError(f"{told}: rows of one base stand in one file, so name those of one alone.")
    return next(iter(found))


def check_alone(common: Mapping[str, Any], path: Path, table: Table, done: set[str]) -> None:
    """Raise `PlanError` where rows would stand under the name of another checkpoint's; else add the name to `done`.

    Args:
        common: of the rows to come: `checkpoint`, the name; `routed`, its score, with `n`; `fingerprint`.
        path: the checkpoint's.
        done: names of checkpoints that this run has measured.
    """
    name = common["checkpoint"]
    others = [row for row in table.rows if row["checkpoint"] == name and not _alike(row, common)]
    if name in done or others:
        raise PlanError(
            f"{path} is one more {name}, and {table.path.name} has rows of one; name another file with --out."
        )
    done.add(name)


def _alike(row: Mapping[str, Any], common: Mapping[str, Any]) -> bool:
    """Whether a row is of the same checkpoint and as many inputs, as far as it says."""
    if row.get("n", common["n"]) != common["n"]:
        return False
    if "fingerprint" in row:
        return row["fingerprint"] == common["fingerprint"]
    return abs(row["routed"] - common["routed"]) <= SAME
