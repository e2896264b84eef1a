"""What a pruned model is held against: its dense teacher where that is known for these data, or the routed model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation
from ui import measurements
from ui.store import results

TEACHER, ROUTED = "dense teacher", "routed model"


def teacher_key(checkpoint: Checkpoint, data: TextData) -> str:
    """What tells the dense teacher from other models: its own fingerprint, where that is known."""
    known = checkpoint.teacher.get(data.source_fingerprint)
    return known.teacher if known is not None and known.teacher else f"{checkpoint.fingerprint} {TEACHER}"


@dataclass(frozen=True, eq=False)
class Against:
    """The model that losses and flips are counted against."""

    name: str
    evaluation: Evaluation
    why: str
    """One sentence, plain text."""


def teacher_on(checkpoint: Checkpoint, data: TextData) -> Evaluation | None:
    """The dense teacher's evaluation on exactly these data, or None where the checkpoint doesn't carry it, or made it
    of texts that were cut elsewhere than they are here.
    """
    known = checkpoint.teacher.get(data.source_fingerprint)
    if known is None or _cut_elsewhere(checkpoint, data):
        return None
    # The outputs may be made anew beside the same weights, so the object itself is part of the key.
    store, key = (
        results("teacher", 16),
        (checkpoint.fingerprint, data.fingerprint, data.name, id(known.logits)),
    )
    if (found := store.get(key)) is None:
        try:
            found = known.evaluation(data)
        except DataError:
            return None
        store.put(key, found)
    return found


def with_part(checkpoint: Checkpoint, data: TextData, part: TextData, rows: np.ndarray) -> Checkpoint:
    """The checkpoint with its teacher's outputs on some inputs of the data, where it has them on all, which have the
    score that tells whether they fit.

    Args:
        part: those inputs.
        rows: their numbers in the data.
    """
    if teacher_on(checkpoint, data) is None:
        return checkpoint
    teacher = checkpoint.teacher[data.source_fingerprint]
    # The same object each time, by which its evaluation is kept.
    store, key = (
        results("parts of teachers", 16),
        (checkpoint.fingerprint, data.fingerprint, part.fingerprint),
    )
    found = store.get(key)
    if found is None or found[0] is not teacher:  # made anew beside the same weights
        found = teacher, replace(teacher, data=part.name, logits=teacher.logits[rows])
        store.put(key, found)
    return replace(checkpoint, teacher={**checkpoint.teacher, part.source_fingerprint: found[1]})


def why_no_teacher(checkpoint: Checkpoint, data: TextData) -> str:
    """Why `teacher_on` gives none, as a clause of plain text."""
    if checkpoint.problem:
        return f"the teacher's outputs can't be used ({checkpoint.problem.rstrip('.')})"
    if data.source_fingerprint not in checkpoint.teacher:
        return f"the checkpoint carries no outputs of its dense teacher on {data.name}"
    return (
        f"the outputs of its dense teacher on {data.name} are of texts that were cut elsewhere than here, at "
        f"{checkpoint.info.max_length} tokens, or don't fit the data; `python -m shrp reference` makes them anew"
    )


def _cut_elsewhere(checkpoint: Checkpoint, data: TextData) -> bool:
    """Whether the teacher's outputs on the data are of other cuts; of earlier versions' its score there tells."""
    if cut := checkpoint.teacher[data.source_fingerprint].cut:
        now = checkpoint.info.max_length
        return cut != now and int(measurements.token_lengths(checkpoint, data).max()) > min(cut, now)
    scored = {row["kind"] for row in checkpoint.info.scores_on(data.source_fingerprint)}
    now = {row["kind"] for row in measurements.score_rows(checkpoint, data)}
    return "teacher" in scored - now


def references(checkpoint: Checkpoint, data: TextData, routed: Evaluation) -> list[Against]:
    """What a pruned model can be held against on these data, the first by default, each with a sentence on it.

    Args:
        routed: the routed model's evaluation on `data`.
    """
    if (teacher := teacher_on(checkpoint, data)) is not None:
        return [
            Against(
                TEACHER,
                teacher,
                "The reference is the dense teacher, the model before conversion: its outputs on exactly these data "
                "travel with the checkpoint.",
            ),
            Against(
                ROUTED,
                routed,
                "The reference is the routed model, evaluated here: what differs from it is due to the pruning alone.",
            ),
        ]
    missing = why_no_teacher(checkpoint, data)
    return [Against(ROUTED, routed, f"The reference is the routed model, evaluated here: {missing}.")]
