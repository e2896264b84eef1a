"""The lab's sentences: what a plan loses, how sure that is, and the smallest plan that loses little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan
from ui import differences, prunings
from ui.differences import floor_of
from ui.text import escape, is_percentage, percent, points, points_interval, score_text

LOSS = 0.01
"""What the smallest plan may lose against the routed model."""


def verdict(
    found: Evaluation, routed: Evaluation | None, dense: Evaluation | float, kept: int, total: int
) -> str:
    """What a plan loses, as Markdown.

    `routed`: None while it is not known. `dense`: the dense teacher's evaluation, or its stored score on all examples (a
    share of 1); nan where neither is known.
    """
    head = f"**{kept} of {total} experts"
    tail = "" if found.complete else f" Estimate from {found.n:,} of {found.total:,} examples."
    if routed is None:
        return f"{head}: estimating …**"
    if found.labels is None:
        text = differences.agreement_text(found, routed, ("the routed model", "the pruned model"))
        return f"{head}.** {text or 'No labels, so no score.'}{tail}"
    metric, resamples = found.metric, 2000 if found.complete else 0
    change, bounds = differences.difference(found, routed, resamples=resamples)
    text = f"{head}: {differences.below_or_above(change, metric, 'the routed model')}**{_ends(bounds, metric)}"
    if isinstance(dense, Evaluation):
        below, of_dense = differences.difference(found, dense, resamples=resamples)
    else:
        below, of_dense = found.score - dense if found.complete else math.nan, (math.nan, math.nan)
    if math.isfinite(below):
        less = differences.below_or_above(below, metric, "the dense one", named=False)
        text += f", {less}{_ends(of_dense, metric).replace('95% CI ', '')}"
    sure = differences.significance({"the routed model": bounds, "the dense one": of_dense})
    return f"{text}.{sure * found.complete}{tail}"


def _ends(bounds: tuple[float, float], metric: str) -> str:
    """An interval in brackets; empty where there is none."""
    return f" (95% CI {points_interval(bounds, metric)})" if math.isfinite(bounds[0]) else ""


def smallest_text(
    known: Sequence[tuple[PruningPlan, Evaluation]],
    all_sizes: int,
    routed: Evaluation,
    data: TextData,
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """The smallest plan at most `LOSS` below the routed model and above the majority class, as Markdown.

    Args:
        scores: rows that are stored with the checkpoint.
    """
    within = "1 point" if is_percentage(data.task.metric) else f"{LOSS:g}"
    what = f"within {within} of the routed model"
    if len(known) < all_sizes:
        return f"*All sizes* finds the smallest plan {what}."
    least, floor = routed.score - LOSS - 1e-12, floor_of(data)
    near = [(plan.budget, one) for plan, one in known if one.score >= least and not one.score <= floor]
    if not near:
        return f"No plan of this selection is {what} and above the majority-class baseline."
    budget, one = min(near, key=lambda pair: pair[0])
    change, bounds = differences.difference(one, routed)
    lost = points(change, data.task.metric).removesuffix(" points")
    ends = f", {points_interval(bounds, data.task.metric)}" if math.isfinite(bounds[0]) else ""
    return (
        f"Smallest plan {what}: **{budget} experts** ({lost}{ends}). Optimistic, as the same {len(data):,} "
        f"examples choose and score it.{_elsewhere(scores, data, budget)}"
    )


def _elsewhere(scores: Sequence[Mapping[str, Any]], data: TextData, budget: int) -> str:
    """What the stored pruning of about that size, without fine-tuning, loses on other data, as a further sentence."""
    rows = [row for row in scores if row["data"] != data.name and row.get("score") is not None]
    pruned = [row for row in rows if row["kind"] == "static" and not row.get("recovered") and row.get("budget")]
    near = min(pruned, key=lambda row: abs(row["budget"] - budget), default={})
    routed = [row for row in rows if row["kind"] == "routed" and row["data"] == near.get("data")]
    if not routed:
        return ""
    score, full = (score_text(row["score"], row["metric"]) for row in (near, routed[0]))
    each = f"{counted(near['per_layer'], 'expert')} in each layer" if "per_layer" in near else f"{near['budget']} experts"
    return f" Stored with the model, on {escape(near['data'])}: {score} with {each}, {full} routed."


def costs(checkpoint: Checkpoint, plan: PruningPlan) -> None:
    """Draw what a plan costs, which needs no model run."""
    dense = dense_cost(checkpoint.model, TOKENS)
    share = prunings.cost_of(checkpoint, plan).relative_to(dense)
    routed = cost(checkpoint.model, TOKENS).relative_to(dense)
    before = f"encoder, routed (Top-{checkpoint.info.config.top_k})"
    parts = {"encoder": (share, "encoder"), "whole model": (share, "model"), before: (routed, "encoder")}
    rows = [
        {"% of dense": name, "FLOPs": percent(of[f"{part}_flops"]), "parameters": percent(of[f"{part}_params"])}
        for name, (of, part) in parts.items()
    ]
    st.table(pd.DataFrame(rows), hide_index=True, alt="What the pruned model costs")
