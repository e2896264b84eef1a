"""Prunings of all sizes, scored, each with random experts of the same size as a control."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.costs import TOKENS, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.progress import Progress, silent
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


def random_control(plan: PruningPlan, usage: Mapping[int, np.ndarray], *, seed: int = 0) -> PruningPlan:
    """As many random experts in each layer as a plan keeps, weighted by their mean if the plan's are, else by usage."""
    weights = "mean" if plan.combination == "mean" else "usage"
    return make_plan(usage, counts=plan.keep_counts(), selection="random", combination=weights, seed=seed)


def scored(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    stats: UsageStats,
    allocation: Allocation = "per_layer",
    *,
    selection: str = "usage",
    draws: int = 3,
    max_length: int,
    progress: Progress = silent,
) -> tuple[pd.DataFrame, Evaluation]:
    """Score prunings of all sizes on `data`, smallest first, each with random controls of its size.

    Args:
        stats: what the selection needs (`plan_from`), of these data or of others.
        draws: random controls of each size.

    Returns:
        A row a pruning, and the routed model's evaluation. Columns kept (experts in all), per_layer, selection, seed (of
        a control), metric, score, low, high (95%), n, of_routed (share of the routed model's score, nan unless that is
        above 0), encoder_params, model_params, encoder_flops, model_flops (shares of the dense model's, for 128 tokens)
        and pareto (Pareto-optimal among those without a seed).

    Raises:
        PlanError: as `plan_from`.
        DataError: the data have no labels.
    """
    if data.labels is None:
        raise DataError(f"{data.name} has no labels, so no pruning of it has a score.")
    layers, experts, each = len(stats.layers), stats.num_experts, allocation == "per_layer"
    combination = "fitted" if selection == "fitted" else "usage"
    wanted: list[tuple[PruningPlan, int | None, int | None]] = []  # a plan, experts per layer, seed
    for size in range(1, experts + 1) if each else budgets(layers, experts):
        amount = {"per_layer" if each else "budget": size}
        plan, per_layer = plan_from(stats, selection=selection, combination=combination, **amount), size if each else None
        wanted.append((plan, per_layer, None))
        if plan.budget < layers * experts:
            controls = (random_control(plan, stats.shares(), seed=seed) for seed in range(draws))
            wanted += [(control, per_layer, seed) for seed, control in enumerate(controls)]
    live = LiveEvaluator(model, tokenizer, data, max_length=max_length)
    routed, by_plan = live.evaluate(None), {}
    for done, (plan, found) in enumerate(live.sweep([plan for plan, *_ in wanted]), 1):
        by_plan[plan.key()] = found
        progress(done, len(wanted))
    dense, rows = dense_cost(model, TOKENS), []
    for plan, per_layer, seed in wanted:
        found = by_plan[plan.key()]
        low, high = found.interval
        row = {"kept": plan.budget, "per_layer": per_layer, "selection": plan.selection, "seed": seed}
        row |= {"metric": found.metric, "score": found.score, "low": low, "high": high, "n": found.n}
        row["of_routed"] = found.score / routed.score if routed.score > 0 else np.nan
        rows.append(row | plan_cost(model, plan, TOKENS).relative_to(dense))
    frame = pd.DataFrame(rows).astype({"per_layer": "Int64", "seed": "Int64"})
    own = frame.loc[frame["seed"].isna(), "score"].fillna(-np.inf)  # each costs more than the one before
    best = own > own.cummax().shift(fill_value=-np.inf)
    return frame.assign(pareto=best.reindex(frame.index, fill_value=False)), routed


def cheapest_within(frame: pd.DataFrame, routed: Evaluation, loss: float) -> pd.Series | None:
    """The row of `scored` with the fewest encoder FLOPs that scores at most `loss` below the routed model.

    It must also be above the majority-class baseline; None if none is. Controls are left out.
    """
    near = frame[frame["seed"].isna() & (frame["score"] >= routed.score - loss - 1e-12)]
    near = near[~(near["score"] <= routed.majority_score)]
    return None if near.empty else near.sort_values("encoder_flops", kind="stable").iloc[0]
