"""What a model's score is worth, in shares of its dense teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from shrp.checkpoints.score_rows import measured, share_of
from shrp.errors import TrainingError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import paired_difference


def of_teacher(evaluations: Sequence[Evaluation], teacher: Evaluation) -> dict[str, Any]:
    """`measured`, and beside it the share of the teacher's score on the same data, and what the best constant answer
    scores there (None where that is not defined).
    """
    row = measured(evaluations)
    floor = teacher.constant
    return row | {
        "teacher": teacher.score,
        "retained": share_of(row["score"], teacher.score),
        "constant": None if math.isnan(floor) else floor,
    }


def worth_keeping(found: Evaluation, model: str = "the teacher") -> Evaluation:
    """The evaluation of a model, of whose score there can be shares.

    Args:
        model: what an error calls it.

    Raises:
        TrainingError: there can't, as of Matthews' correlation where all inputs get one answer.
    """
    if not found.score > 0:
        raise TrainingError(
            f"{model} has a score of {found.score:g} on {found.data}, so there is nothing to retain; "
            "have it learn for longer."
        )
    return found


def lead(mine: Evaluation, control: Evaluation, teacher: Evaluation) -> dict[str, Any]:
    """By what share of the teacher's score one model leads another on the same inputs, with the paired 95% interval;
    None for that where a bootstrap's draws are all alike, as of two models that give every answer alike.
    """
    value, ends = paired_difference(mine, control)
    known = [end / teacher.score for end in ends] if all(map(math.isfinite, ends)) else None
    return {"lead": value / teacher.score, "lead_interval": known}
