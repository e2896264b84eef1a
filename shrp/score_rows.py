"""A row of the scores that a checkpoint carries."""

from __future__ import annotations

from typing import Any

from shrp.evaluation import Evaluation


def score_row(
    label: str, kind: str, evaluations: list[Evaluation], teacher_score: float | None
) -> dict[str, Any]:
    """One row of a checkpoint's scores.

    Args:
        kind: `teacher`, `routed`, `static` or `control`.
        evaluations: one, or several draws of the same thing, whose scores are averaged; the interval of an
            average is its lowest and highest draw.
        teacher_score: for the retained share; None leaves it out.
    """
    scores = [e.score for e in evaluations]
    first, mean = evaluations[0], sum(scores) / len(scores)
    row: dict[str, Any] = {
        "model": label,
        "kind": kind,
        "data": first.data,
        "metric": first.metric,
        "score": mean,
        "n": first.n,
        "interval": list(first.interval) if len(scores) == 1 else [min(scores), max(scores)],
        "interval_is": "95%" if len(scores) == 1 else f"range of {len(scores)} draws",
    }
    if teacher_score:
        row["retained"] = mean / teacher_score
    return row
