"""What was measured of a checkpoint on data: lengths, usage, evaluations, groups of examples.

All of it is measured once and shared by sessions that look at the same checkpoint and data: never change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shrp.data.text_data import TextData
from shrp.errors import DataError
from ui.store import Progress, disk, kept, once, results
from ui.text import escape

if TYPE_CHECKING:
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.evaluation.evaluation import Evaluation


def score_rows(checkpoint: Checkpoint, data: TextData) -> list[Mapping[str, Any]]:
    """The rows of scores that a checkpoint carries of these data, measured with texts cut where they are cut here."""
    from shrp.checkpoints.score_rows import rows_as_now

    return rows_as_now(checkpoint.info, data, lambda: int(token_lengths(checkpoint, data).max()))


def token_lengths(checkpoint: Checkpoint, data: TextData) -> np.ndarray:
    """Tokens of each example `(N,)`, not truncated."""
    from shrp.data.batching import token_counts

    key = (checkpoint.fingerprint, data.source_fingerprint)
    return kept("lengths", 48, key, lambda: np.array(token_counts(checkpoint.tokenizer, data.texts)))


def read_lengths(checkpoint: Checkpoint, data: TextData) -> np.ndarray:
    """Tokens of each example that usage and scores read `(N,)`: what a model can tell lengths by."""
    return np.minimum(token_lengths(checkpoint, data), longest(checkpoint))


def longest(checkpoint: Checkpoint) -> int:
    """Tokens at which usage and scores truncate an example."""
    from shrp.data.batching import longest_input

    return longest_input(checkpoint.model, checkpoint.tokenizer, checkpoint.info.max_length)


def usage_stats(checkpoint: Checkpoint, data: TextData, *, norms: bool = False):
    """How the checkpoint's routers treat the data (`shrp.analysis.usage.UsageStats`), with a progress bar the first time.

    Args:
        norms: also the norms of all experts' outputs, which takes longer.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the data are empty.
    """
    from shrp.analysis.usage import measure_usage
    from shrp.model.convert import expert_layers, num_experts_of

    def work(progress: Progress):
        model, tokenizer, info = checkpoint.model, checkpoint.tokenizer, checkpoint.info
        layers, experts = len(expert_layers(model)), num_experts_of(model)
        stats = disk().usage(checkpoint.fingerprint, data, layers, experts, norms=norms)
        if stats is None:
            options = {"max_length": info.max_length, "output_norms": norms}
            stats = measure_usage(model, tokenizer, data, **options, progress=progress)
            disk().keep_usage(checkpoint.fingerprint, data, stats)
        return stats

    # The name is part of the result, and may be that of a person's own file: equal content is not enough.
    key = (checkpoint.fingerprint, data.source_fingerprint, data.name)
    what = "every expert's output norm" if norms else "expert usage"
    store = ("usage with norms", 8) if norms else ("usage", 12)
    return once(*store, key, f"Measuring {what} on {escape(data.name)}", work)


def evaluation(checkpoint: Checkpoint, data: TextData, stats=None):
    """The checkpoint's own model evaluated on all of the data, with a progress bar the first time.

    Args:
        stats: `usage_stats` of the same data, where known: its passes may have kept the outputs.

    Raises:
        DataError: the data are empty or do not fit the model.
    """
    from shrp.evaluation.evaluate import evaluate_stream
    from shrp.results_store import ROUTED

    def work(progress: Progress):
        store, key = disk(), (checkpoint.fingerprint, data, ROUTED)
        if (found := store.evaluation(*key)) is not None:
            return found
        if stats is not None and stats.data == data.name and len(stats.logits) == len(data):
            estimate = routed_evaluation(checkpoint, data, stats, with_interval=True)
            store.keep_evaluation(*key, estimate)
            return estimate
        length = checkpoint.info.max_length
        for estimate in evaluate_stream(checkpoint.model, checkpoint.tokenizer, data, max_length=length):
            progress(estimate.n, estimate.total)
        store.keep_evaluation(*key, estimate)
        return estimate

    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    return once("evaluation", 24, key, f"Evaluating on {escape(data.name)}", work)


def evaluation_known(checkpoint: Checkpoint, data: TextData):
    """`evaluation`, where it is in memory; None where it must be made, or read from the disk, first."""
    return results("evaluation", 24).get((checkpoint.fingerprint, data.fingerprint, data.name))


def routed_evaluation(checkpoint: Checkpoint, data: TextData, stats, *, with_interval: bool):
    """The routed model's `evaluation`, from the outputs that measuring its usage has kept, if it has.

    Raises:
        DataError: the model's outputs are not finite.
    """
    from shrp.evaluation.evaluate import label_columns, summarise
    from shrp.evaluation.metrics import to_predictions

    if len(stats.logits) != len(data):
        return evaluation(checkpoint, data)
    logits = stats.logits[..., label_columns(checkpoint.model, data.task)]
    to_predictions(data.task, logits)  # raises where they are not finite, also without labels
    return summarise(data, np.arange(len(data)), logits, with_interval)


def groups(checkpoint: Checkpoint, data: TextData, stats) -> dict[str, dict[str, np.ndarray]]:
    """Every grouping of the data that can be made, with the routed model's answers (`shrp.data.slices.input_groups`)."""
    from shrp.data.slices import input_groups

    def work(_: Progress) -> dict[str, dict[str, np.ndarray]]:
        return input_groups(data, answers(checkpoint, data, stats), read_lengths(checkpoint, data))

    key = (checkpoint.fingerprint, data.fingerprint)
    return once("groups", 6, key, "Grouping the examples", work)


def answers(checkpoint: Checkpoint, data: TextData, stats) -> np.ndarray | None:
    """What the routed model predicts of each example, a class or a number `(N,)`; None where its outputs are not finite."""
    try:
        return routed_evaluation(checkpoint, data, stats, with_interval=False).predictions
    except DataError:
        return None


def live_evaluator(checkpoint: Checkpoint, data: TextData):
    """The `LiveEvaluator` of a checkpoint on the data."""

    def work():
        from shrp.pruning.live import LiveEvaluator

        return LiveEvaluator(checkpoint.model, checkpoint.tokenizer, data, max_length=checkpoint.info.max_length)

    # Two, as each may hold hundreds of megabytes.
    return kept("live evaluators", 2, (checkpoint.fingerprint, data.fingerprint, data.name), work)


# The dense teacher, whose outputs on known data a checkpoint may carry

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
    # The outputs may be replaced without the weights, so they are part of the key.
    outputs = hashlib.sha1(known.logits.tobytes(), usedforsecurity=False).hexdigest()
    key = (checkpoint.fingerprint, data.fingerprint, data.name, outputs)
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
    """Whether the teacher read more or fewer tokens of these data."""
    cut, now = checkpoint.teacher[data.source_fingerprint].cut, checkpoint.info.max_length
    return cut not in (0, now) and int(token_lengths(checkpoint, data).max()) > min(cut, now)
