"""The rows of scores that `prune` stores with what it writes, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shrp.cli.data_options import evaluation_data
from shrp.cli.output import bar, stderr
from shrp.data.tasks import TASKS, Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, ShrpError, first_line

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from transformers import PreTrainedModel

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.pruning.plan import PruningPlan


def scores_of(
    model: PreTrainedModel,
    source: Checkpoint,
    plan: PruningPlan,
    known: Sequence[TextData | None],
    max_length: int,
    **how: bool,
) -> list[dict[str, Any]]:
    """A row of scores for each of the data at hand; why there is none is said on stderr, as the result is worth having
    without.
    """
    rows = []
    try:
        for data in _at_hand(source.info.task, known):
            rows.append(_scored(model, source, plan, data, max_length, **how))
    except (ShrpError, ValueError, RuntimeError) as error:  # out of memory, for one
        reason = f"not scored{' on all of the data' * bool(rows)}: {first_line(error).rstrip('.')}"
        stderr.print(f"{reason}; `python -m shrp evaluate` scores it on data of yours")
    return rows


def _at_hand(task: Task, known: Sequence[TextData | None]) -> list[TextData]:
    """The data that a pruned model is scored on: those that it was made with, or else its task's probe set.

    Raises:
        DataError: none of them has labels, or there are none and no probe set of the task comes with SHRP.
    """
    found = {data.fingerprint: data for data in known if data is not None}
    if found:
        if labelled := [data for data in found.values() if data.labels is not None]:
            return labelled
        raise DataError(
            f"{next(iter(found.values())).name} has no column of labels; --label-column names it."
        )
    if task.name not in TASKS:
        raise DataError(f"the task, '{task.name}', is one of your own, and no data of it were given.")
    return [evaluation_data("probe", task)]


def _scored(
    model: PreTrainedModel,
    source: Checkpoint,
    plan: PruningPlan,
    data: TextData,
    max_length: int,
    *,
    matched: bool,
    recovered: bool,
) -> dict[str, Any]:
    """A pruned model's row of scores, as the app's pruning lab writes it.

    Raises:
        DataError: the metric is not defined on these data, or the outputs are not all numbers.
    """
    from shrp.checkpoints.score_rows import pruned_row, rows_as_now
    from shrp.data.batching import token_counts
    from shrp.evaluation.evaluate import evaluate_stream

    with bar("score") as shown:
        task = shown.add_task(f"scoring on {data.name}", total=len(data))
        for each in evaluate_stream(model, source.tokenizer, data, max_length=max_length):
            found = each
            shown.update(task, completed=found.n)
    if not math.isfinite(found.score):
        raise DataError(f"{found.metric} is not defined for what it answers on {data.name}.")
    rows = rows_as_now(
        source.info, data, lambda: max(token_counts(source.tokenizer, data.texts), default=0), max_length
    )
    teacher = [row.get("score") for row in rows if row["kind"] == "teacher"]
    best = teacher[0] if teacher else None
    return pruned_row(plan, found, best, data, max_length, matched=matched, recovered=recovered)


def what_to_know(
    source: Checkpoint,
    chosen: PruningPlan,
    measured_on: TextData | None,
    scores: Sequence[Mapping[str, Any]],
    *,
    by_file: bool,
    matched: bool,
    recovered: bool,
) -> list[str]:
    """What to know of a pruning's scores: by what its experts were chosen, and what is no better than no model.

    Args:
        by_file: whether a plan says what is kept.
        matched: whether its threshold was, by answer shares.
        recovered: whether it was trained on.
    """
    said, task = [], source.info.task
    if measured_on is not None and scores and chosen.selection != "random":
        said.append(
            f"experts were chosen on {measured_on.name}, so its score flatters a little; `sweep --held-out` "
            "parts the two"
        )
    elif measured_on is None and not by_file and chosen.selection == "usage":
        of = source.info.training.get("validation_data", "its training's validation data")
        said.append(
            f"experts were chosen by the usage that the checkpoint carries, of {of}; --data counts it on what you "
            "name, as `sweep` does unless it is told --selection recorded"
        )
    layers = [kept for _, kept in chosen.layers]
    if (idle := sum(weight == 0 for kept in layers for weight in kept.weights)) and not recovered:
        why = ", as no input's first choice," * (not by_file)
        so = ": fewer would score the same" + "; --combination mean weighs all alike" * (not by_file)
        said.append(
            f"{idle} of these experts {'has' if idle == 1 else 'have'} a weight of 0{why} and "
            f"{'adds' if idle == 1 else 'add'} nothing{so}"
        )
    for row in scores:
        if (constant := row.get("constant")) is not None and row["score"] <= constant:
            hint = "; --match-shares may mend it, or --recover" * (
                not (matched or recovered or task.is_regression)
            )
            said.append(f"on {row['data']} it is not above a constant answer's {constant:.4f}{hint}")
    return said
