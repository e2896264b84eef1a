"""Reference marks on the pruning lab's curve: teacher, routed model, shipped prunings and controls."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.score_costs import row_cost
from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS, Cost, cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.statistics import NO_INTERVAL, stored_interval
from shrp.evaluation.verdicts import KINDS_OF_CONTROL
from ui import measurements

DROPPED, RANDOM, NO_ROUTER = KINDS_OF_CONTROL
"""What the names of controls begin with."""


@dataclass(frozen=True)
class Mark:
    """A reference on the curve: a score that was measured before, with what it costs."""

    label: str
    kind: str
    """`teacher`, `routed`, `static` or `control`."""
    score: float
    interval: tuple[float, float] | tuple[()]
    interval_is: str
    n: int
    cost: Cost
    recovered: bool = False
    """Whether training went on after pruning."""


def marks(checkpoint: Checkpoint, data: TextData, routed: Evaluation) -> list[Mark]:
    """The routed model as evaluated here, and the scores that the checkpoint carries for these data."""
    price = cost(checkpoint.model, TOKENS)
    here = Mark("routed", "routed", routed.score, routed.interval, "95%", routed.n, price)
    return [here, *shipped(checkpoint, data)]


def shipped(checkpoint: Checkpoint, data: TextData) -> list[Mark]:
    """The scores that the checkpoint carries for these data, but for the routed model's."""
    found = []
    for row in measurements.score_rows(checkpoint, data):
        if row.get("metric", data.task.metric) != data.task.metric:
            continue
        kind, price = str(row.get("kind", "")), row_cost(row, checkpoint)
        if kind == "routed" or price is None or row.get("score") is None:
            continue
        found.append(
            Mark(
                str(row.get("model", kind)),
                kind,
                float(row["score"]),
                stored_interval(row),
                str(row.get("interval_is", "95%")),
                int(row.get("n", len(data))),
                price,
                bool(row.get("recovered")),
            )
        )
    return found


def teacher_mark(found: list[Mark]) -> Mark | None:
    """The dense teacher among the references, if it was scored on these data."""
    return next((mark for mark in found if mark.kind == "teacher"), None)


def marks_frame(found: list[Mark], dense: Cost) -> pd.DataFrame:
    """One row a reference, in the columns of `attempts_frame` as far as they apply."""
    rows = []
    for mark in found:
        low, high = mark.interval or NO_INTERVAL
        rows.append(
            {
                "setting": mark.label,
                "kind": mark.kind,
                "recovered": mark.recovered,
                "score": mark.score,
                "low": low,
                "high": high,
                "interval is": mark.interval_is,
                "n": mark.n,
            }
            | mark.cost.relative_to(dense)
        )
    return pd.DataFrame(rows)
