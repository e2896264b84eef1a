"""Prunings of all sizes, scored, each with random experts of the same size as a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import get_args

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.costs import TOKENS, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import Allocation, PruningPlan, make_plan
from shrp.pruning.select import plan_from

LOSSES = (0.01, 0.02, 0.05)
"""Losses against the routed model for which the cheapest pruning is reported."""
_MOST_BUDGETS = 67


def budgets(layers: int, experts: int) -> list[int]:
    """The global budgets of a sweep, from one expert a layer to all: all if at most 67, else every second, third, ..."""
    low, high = layers, layers * experts
    step = -(-(high - low) // (_MOST_BUDGETS - 1)) or 1
    return sorted({*range(low, high + 1, step), high})


def pareto_best(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the Pareto-optimal points (low cost, high score), cheapest first; equal points are all in."""
    costs, scores = np.asarray(costs, dtype=float), np.asarray(scores, dtype=float)
    kept: list[int] = []
    best, price = -np.inf, -np.inf
    for i in np.lexsort((-scores, costs)):  # stable
        if scores[i] > best or (scores[i] == best and costs[i] == price):
            kept.append(int(i))
            best, price = scores[i], costs[i]
    return kept


@dataclass(frozen=True)
class Point:
    """One pruning of a sweep."""

    plan: PruningPlan
    per_layer: int | None
    """Experts in every layer; None where a budget was spread."""
    seed: int | None = None
    """Of a random control; None for the selection itself."""


def points(
    stats: UsageStats,
    allocation: Allocation = "per_layer",
    *,
    selection: str = "usage",
    combination: str = "usage",
    draws: Sequence[int] = (0, 1, 2),
    sizes: Sequence[int] | None = None,
) -> list[Point]:
    """The prunings of a sweep, smallest first, each with random controls of its size.

    Args:
        stats: what the selection needs (`shrp.pruning.select.plan_from`).
        draws: seeds of the random controls.
        sizes: experts in each layer, or budgets; None for all, or those of `budgets`.

    Raises:
        PlanError: as `plan_from`.
    """
    layers, experts = len(stats.layers), stats.num_experts
    each = allocation == "per_layer"
    usage = stats.recorded if selection == "recorded" else stats.shares()
    found = []
    for size in sizes or (range(1, experts + 1) if each else budgets(layers, experts)):
        amount = {"per_layer" if each else "budget": size}
        plan = plan_from(stats, selection=selection, combination=combination, **amount)
        found.append(Point(plan, size if each else None))
        if plan.budget < layers * experts:
            found += [
                Point(random_control(plan, usage, seed=seed), size if each else None, seed) for seed in draws
            ]
    return found


def random_control(plan: PruningPlan, usage: Mapping[int, np.ndarray], *, seed: int = 0) -> PruningPlan:
    """As many random experts in each layer as a plan keeps, weighted by their mean if the plan's are, else by usage.

    Args:
        usage: layer -> `(H,)` Top-1 shares.
    """
    weights = "mean" if plan.combination == "mean" else "usage"
    return make_plan(usage, counts=plan.keep_counts(), selection="random", combination=weights, seed=seed)


def run(
    evaluator: LiveEvaluator, wanted: Sequence[PruningPlan], done: Callable[[], None] = lambda: None
) -> list[Evaluation]:
    """The exact evaluation of every plan, in their order; `done` is called after each."""
    by_plan: dict[str, Evaluation] = {}
    for plan, evaluation in evaluator.sweep(wanted):
        by_plan[plan.key()] = evaluation
        done()
    return [by_plan[plan.key()] for plan in wanted]


def match(evaluation: Evaluation, routed: Evaluation, data: TextData) -> Evaluation:
    """A pruning's evaluation with its threshold calibrated to the routed model's class frequencies (no labels)."""
    return shifted(evaluation, data, matching_shift(evaluation.logits, routed.logits))


def to_frame(
    model: PreTrainedModel, wanted: Sequence[Point], found: Sequence[Evaluation], routed: Evaluation
) -> pd.DataFrame:
    """One row a pruning.

    Returns:
        Columns kept (experts in all), per_layer, selection, seed, metric, score, low, high (95%), n, of_routed (share of the
        routed model's score, nan unless that is above 0), encoder_params, model_params, encoder_flops, model_flops (shares of
        the dense model's, for 128 tokens) and pareto (Pareto-optimal among those without a seed).
    """
    dense = dense_cost(model, TOKENS)
    rows = []
    for point, evaluation in zip(wanted, found, strict=True):
        low, high = evaluation.interval
        rows.append(
            {
                "kept": point.plan.budget,
                "per_layer": point.per_layer,
                "selection": point.plan.selection,
                "seed": point.seed,
                "metric": evaluation.metric,
                "score": evaluation.score,
                "low": low,
                "high": high,
                "n": evaluation.n,
                "of_routed": evaluation.score / routed.score if routed.score > 0 else np.nan,
            }
            | plan_cost(model, point.plan, TOKENS).relative_to(dense)
        )
    frame = pd.DataFrame(rows).astype({"per_layer": "Int64", "seed": "Int64"})
    own = frame.index[frame["seed"].isna()]
    best = own[pareto_best(frame.loc[own, "encoder_flops"], frame.loc[own, "score"])]
    return frame.assign(pareto=frame.index.isin(best))


def cheapest_within(frame: pd.DataFrame, routed: Evaluation, loss: float) -> pd.Series | None:
    """The row of `to_frame` with the fewest encoder FLOPs that scores at most `loss` below the routed model
    and above the majority-class baseline; None if none does. Controls are left out.
    """
    near = frame[frame["seed"].isna() & (frame["score"] >= routed.score - loss - 1e-12)]
    near = near[~(near["score"] <= routed.constant)]
    return None if near.empty else near.sort_values("encoder_flops", kind="stable").iloc[0]


def smallest_within(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    stats: UsageStats,
    loss: float,
    *,
    selection: str,
    combination: str,
    max_length: int,
    match_shares: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PruningPlan:
    """The plan with the fewest experts whose score on `data` is at most `loss` below the routed model's (`cheapest_within`).

    Args:
        stats: of the same data, with what the selection needs.
        match_shares: calibrate thresholds (`match`).
        progress: called with prunings done and in all.

    Raises:
        PlanError: none is that near, or no layer has a router.
        DataError: the data have no labels.
    """
    if data.labels is None:
        raise DataError(f"{data.name} has no labels, so no pruning of it has a score.")
    sizes, done = range(len(stats.layers), len(stats.layers) * stats.num_experts + 1), count(1)
    wanted = points(stats, "budget", selection=selection, combination=combination, draws=(), sizes=sizes)
    live = LiveEvaluator(model, tokenizer, data, max_length=max_length)
    routed = live.evaluate(None)
    plans = [point.plan for point in wanted]
    found = run(live, plans, lambda: progress(next(done), len(wanted)))
    if match_shares:
        found = [match(one, routed, data) for one in found]
    row = cheapest_within(to_frame(model, wanted, found, routed), routed, loss)
    if row is None:
        floor = f" and above a constant answer's {routed.constant:.4f}" * (routed.constant == routed.constant)
        raise PlanError(
            f"no pruning scores at most {loss:g} below the routed model's {routed.score:.4f} on {data.name}{floor}."
        )
    return plans[row.name]


def swept(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    stats: UsageStats,
    *,
    allocation: Allocation,
    draws: int,
    selection: str,
    max_length: int,
) -> pd.DataFrame:
    """`to_frame` of a model's prunings, scored on `data`; see `shrp.checkpoints.checkpoint.Checkpoint.sweep`."""
    if data.labels is None:
        raise DataError(f"{data.name} has no labels, so no pruning of it has a score.")
    if allocation not in get_args(Allocation):
        raise PlanError(f"allocation is one of {', '.join(get_args(Allocation))}, not {allocation!r}.")
    wanted = points(stats, allocation, selection=selection, draws=range(draws))
    live = LiveEvaluator(model, tokenizer, data, max_length=max_length)
    routed = live.evaluate(None)
    return to_frame(model, wanted, run(live, [point.plan for point in wanted]), routed)
