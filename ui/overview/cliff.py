"""The warning at an accuracy cliff: far less of the dense teacher's score is left than pruning should cost."""

from __future__ import annotations

import math

from shrp.analysis.usage import CLIFF_SHARE
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from ui import measurements
from ui.floor import floor_of
from ui.teacher import teacher_on
from ui.text import escape, metric_name, percent, score_text


def cliff_warning(checkpoint: Checkpoint, data: TextData, found: Evaluation) -> str:
    """What is wrong, as Markdown; empty where enough is left, or no score of the teacher on `data` is known.

    A cliff is a score of which also the interval lies below `CLIFF_SHARE` of the teacher's, or, with the interval below
    the teacher's, one that a constant answer reaches: where such an answer has most of it there is not far to fall.

    Args:
        found: the checkpoint's evaluation on `data`.
    """
    rows = measurements.score_rows(checkpoint, data)
    stored = [row["score"] for row in rows if row["kind"] == "teacher" and row.get("score") is not None]
    teacher = teacher_on(checkpoint, data)
    best = teacher.score if teacher is not None else stored[0] if stored else float("nan")
    if not best > 0:
        return ""
    high = found.score if math.isnan(found.interval[1]) else found.interval[1]
    floor, left, why = floor_of(data), found.score / best, ""
    if high / best < CLIFF_SHARE - 1e-9:
        why = f"a score whose 95% interval ends below {percent(CLIFF_SHARE, 0)} counts"
    elif found.score <= floor < best and high < best:
        why = f"a constant answer has {score_text(floor, found.metric)}"
    if not why:
        return ""
    return (
        f"**Accuracy cliff** on {escape(data.name)} (n = {found.n:,}): "
        f"{percent(left)} of the dense teacher's {metric_name(found.metric)} is left "
        f"({score_text(found.score, found.metric)} of {score_text(best, found.metric)}); {why}. "
        "A task may fall far where next to all layers are converted."
    )
