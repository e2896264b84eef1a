"""The dense teacher of a checkpoint: its outputs on the picked data, where the checkpoint carries them."""

from __future__ import annotations

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation
from ui import measurements
from ui.store import kept

TEACHER, ROUTED = "dense teacher", "routed model"
"""What a pruned model is compared with, as pages call them."""


def teacher_key(checkpoint: Checkpoint, data: TextData) -> str:
    """A key of the dense teacher: its own fingerprint, where that is known."""
    known = checkpoint.teacher.get(data.source_fingerprint)
    return known.teacher if known is not None and known.teacher else f"{checkpoint.fingerprint} {TEACHER}"


def teacher_on(checkpoint: Checkpoint, data: TextData) -> Evaluation | None:
    """The dense teacher's evaluation on exactly these data.

    Returns:
        None where the checkpoint does not carry it, or truncated the texts elsewhere than the app does now.
    """
    known = checkpoint.teacher.get(data.source_fingerprint)
    if known is None or _truncated_elsewhere(checkpoint, data):
        return None
    # The outputs may be replaced without the weights, so the object itself is part of the key.
    key = (checkpoint.fingerprint, data.fingerprint, data.name, id(known.logits))
    try:
        return kept("teacher", 16, key, lambda: known.evaluation(data))
    except DataError:
        return None


def why_no_teacher(checkpoint: Checkpoint, data: TextData) -> str:
    """Why `teacher_on` returns None, as a clause of plain text."""
    if checkpoint.problem:
        return f"the teacher's outputs cannot be used ({checkpoint.problem.rstrip('.')})"
    if data.source_fingerprint not in checkpoint.teacher:
        return f"the checkpoint has no outputs of its dense teacher on {data.name}"
    return (
        f"the stored outputs of its dense teacher on {data.name} do not fit the data, or were computed on texts "
        f"truncated elsewhere than at {checkpoint.info.max_length} tokens"
    )


def _truncated_elsewhere(checkpoint: Checkpoint, data: TextData) -> bool:
    """Whether the teacher read more or fewer tokens of these data. For older files its stored score tells."""
    if cut := checkpoint.teacher[data.source_fingerprint].cut:
        now = checkpoint.info.max_length
        return cut != now and int(measurements.token_lengths(checkpoint, data).max()) > min(cut, now)
    scored = {row["kind"] for row in checkpoint.info.scores_on(data.source_fingerprint)}
    now = {row["kind"] for row in measurements.score_rows(checkpoint, data)}
    return "teacher" in scored - now
