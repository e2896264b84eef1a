"""The warning at an accuracy cliff: far less of the dense teacher's score is left than pruning should cost."""

from __future__ import annotations

from shrp.checkpoint import Checkpoint
from shrp.data import TextData
from shrp.evaluation import Evaluation
from shrp.usage import CLIFF_SHARE
from ui.lab_reference import teacher_on
from ui.text import escape, metric_name, percent, score_text


def cliff_warning(checkpoint: Checkpoint, data: TextData, found: Evaluation) -> str:
    """What is wrong, as Markdown; empty where enough is left, or no score of the teacher on `data` is known.

    Args:
        found: the checkpoint's evaluation on `data`.
    """
    rows = checkpoint.info.scores_on(data.name, data.fingerprint)
    stored = [row["score"] for row in rows if row["kind"] == "teacher"]
    teacher = teacher_on(checkpoint, data)
    best = teacher.score if teacher is not None else stored[0] if stored else float("nan")
    if not best > 0 or not found.score / best < CLIFF_SHARE - 1e-9:
        return ""
    return (
        f"**Accuracy cliff** on {escape(data.name)} (n = {found.n:,}): "
        f"{percent(found.score / best)} of the dense teacher's {metric_name(found.metric)} is left "
        f"({score_text(found.score, found.metric)} of {score_text(best, found.metric)}); below "
        f"{percent(CLIFF_SHARE, 0)} counts. A task may fall far where next to all layers are converted."
    )
