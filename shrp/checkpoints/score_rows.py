"""A row of scores, as checkpoints carry them and studies collect them, and what its model costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from shrp.checkpoints.info import CALIBRATED, FINE_TUNED, CheckpointInfo
from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost, static_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.statistics import stored_interval
from shrp.pruning.plan import PruningPlan

SHARES = ("encoder_params", "model_params", "encoder_flops", "model_flops")
_DROPPED, _RANDOM = "layers dropped", "random experts"
"""How the names of the controls begin (docs/method.md, "Controls")."""
_COLUMNS = (
    "model", "kind", "data", "metric", "score", "low", "high", "interval_is", "n", "retained", "constant", "per_layer",
    "budget", "recovered", "seeds",
)


def share_of(score: float, teacher_score: float | None) -> float | None:
    """A score divided by the teacher's; None where that is not known, or not above 0.

    The quotient of two negative correlations would be larger for the worse one.
    """
    return score / teacher_score if teacher_score is not None and teacher_score > 0 else None


def score_row(
    label: str,
    kind: str,
    evaluations: Sequence[Evaluation],
    teacher_score: float | None,
    data: TextData,
    max_length: int,
) -> dict[str, Any]:
    """One row of a checkpoint's scores, with the majority-class baseline (`constant`) where it is defined.

    A data set may change under its name: with its fingerprint, readers compare scores only where the content is the same.

    Args:
        kind: `teacher`, `routed`, `static` or `control`.
        evaluations: one, or several draws of the same thing, whose scores are averaged; the interval of an average is
            its lowest and highest draw, and `interval_is` says so.
        max_length: tokens at which texts were cut.
        teacher_score: for the retained share (`share_of`), which is left out where there is none.
    """
    scores, first = [one.score for one in evaluations], evaluations[0]
    row = {"model": label, "kind": kind, "data": first.data, "metric": first.metric}
    row |= {"score": sum(scores) / len(scores), "n": first.n}
    row["interval"] = first.ends() if len(scores) == 1 else [min(scores), max(scores)]
    row["interval_is"] = "95%" if len(scores) == 1 else f"range of {len(scores)} draws"
    if (retained := share_of(row["score"], teacher_score)) is not None:
        row["retained"] = retained
    if not math.isnan(constant := first.majority_score):
        row["constant"] = constant
    return row | {"data_fingerprint": data.source_fingerprint, "max_length": max_length}


def pruned_row(
    plan: PruningPlan,
    evaluation: Evaluation,
    teacher_score: float | None,
    data: TextData,
    max_length: int,
    *,
    matched: bool = False,
    recovered: bool = False,
) -> dict[str, Any]:
    """A pruned model's row, as its checkpoint carries it. Random experts stay the control that they are."""
    drawn = plan.selection.startswith("random")  # also with edits
    label = f"{_RANDOM if drawn else 'static'}, {plan.budget} in all"
    label += CALIBRATED * matched + FINE_TUNED * recovered
    row = score_row(label, "control" if drawn else "static", [evaluation], teacher_score, data, max_length)
    return row | {"budget": plan.budget} | ({"recovered": True} if recovered else {})


def rows_as_now(
    info: CheckpointInfo, data: TextData, longest: Callable[[], int], length: int | None = None
) -> list[Mapping[str, Any]]:
    """A checkpoint's rows on these data whose texts were cut as they are now.

    Args:
        longest: gives the tokens of the data's longest text, uncut; called only where that decides.
        length: tokens at which texts are cut now; None for where the checkpoint's usage and scores cut them.
    """
    now, found = length or info.max_length, []
    for row in info.scores_on(data.source_fingerprint):
        # Rows of earlier versions don't say.
        cut = row.get("max_length") or info.training.get("config", {}).get("max_length") or info.max_length
        if cut == now or longest() <= min(cut, now):
            found.append(row)
    return found


def row_cost(row: Mapping[str, Any], info: CheckpointInfo, model: PreTrainedModel) -> Cost | None:
    """Cost of one row's model, counted from the architecture; None where the row doesn't tell what its model is."""
    layers, name, kind = len(info.config.layers), row["model"], row["kind"]
    if kind == "teacher":
        return dense_cost(model, TOKENS)
    if kind == "routed":  # a static checkpoint does not have the routed model that it came from
        return cost(model, TOKENS) if info.plan is None else None
    if name.startswith(_DROPPED):
        return dense_cost(model, TOKENS, dropped=layers)
    each, kept = (0 if pd.isna(n := row.get(key, np.nan)) else int(n) for key in ("per_layer", "budget"))
    kept = kept or each * layers
    if not 0 < layers <= kept <= layers * model.config.num_attention_heads:
        return None
    untied = info.plan is not None and info.plan.untied
    return static_cost(model, layers, kept, TOKENS, self_path=info.config.self_path, untied=untied)


def score_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A checkpoint's `scores`, with the interval as `low` and `high`, nan where there is none.

    Rows without a finite score are left out.
    """
    found = []
    for row in rows:
        if math.isnan(_finite(row.get("score"))):
            continue
        low, high = stored_interval(row)
        known = {name: row.get(name) for name in _COLUMNS} | {"constant": _finite(row.get("constant"))}
        own = {"low": low, "high": high, "interval_is": row.get("interval_is") or "95%"}
        found.append(known | own | {"recovered": bool(row.get("recovered"))})
    return pd.DataFrame(found, columns=list(_COLUMNS))


def _finite(value: Any) -> float:
    """A stored number, nan where there is none."""
    try:
        return value if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


def with_shares(scores: pd.DataFrame, info: CheckpointInfo, model: PreTrainedModel) -> pd.DataFrame:
    """`score_frame`'s table with `SHARES`: what each model costs as shares of the dense one; nan where that is not known."""
    dense = dense_cost(model, TOKENS)
    costs = [row_cost(row, info, model) for row in scores.to_dict("records")]
    shares = [price.relative_to(dense) if price else {} for price in costs]
    return scores.assign(**{k: [one.get(k, np.nan) for one in shares] for k in SHARES})
