"""The lab's sentences: what a plan loses, how sure that is, and the smallest plan that loses little."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import PruningPlan
from ui import differences, prunings
from ui.differences import floor_of
from ui.text import is_percentage, percent, points, points_interval

LOSS = 0.01
"""What the smallest plan may lose against the routed model."""


def verdict(
    found: Evaluation, routed: Evaluation | None, dense: Evaluation | float, kept: int, total: int
) -> str:
    """What a plan loses, as Markdown.
    `dense`: the dense teacher's, or its stored score on all examples; nan where neither is known.
    """
    head = f"**{kept} of {total} experts"
    tail = "" if found.complete else f" Estimate from {found.n:,} of {found.total:,} examples."
    if routed is None:
        return f"{head}: estimating …**"
    if found.labels is None:
        text = differences.agreement_text(found, routed, ("the routed model", "the pruned model"))
        return f"{head}.** {text or 'No labels, so no score.'}{tail}"
    metric = found.metric
    change, bounds = differences.difference(found, routed, resamples=2000 if found.complete else 0)
    text = f"{head}: {differences.below_or_above(change, metric, 'the routed model')}**"
    if math.isfinite(bounds[0]):
        text += f" (95% CI {points_interval(bounds, metric)})"
    if isinstance(dense, Evaluation):
        below = differences.difference(found, dense, resamples=0)[0]
    else:
        below = found.score - dense if found.complete else math.nan
    if math.isfinite(below):
        text += f", {differences.below_or_above(below, metric, 'the dense one').replace(' points', '', 1)}"
    sure = differences.how_wide(bounds, metric, found.n) if found.complete else ""
    return f"{text}. {sure}{tail}"


def smallest_text(
    known: Sequence[tuple[PruningPlan, Evaluation]], all_sizes: int, routed: Evaluation, data: TextData
) -> str:
    """The fewest experts whose score is at most `LOSS` below the routed model's and above the majority class, as
    Markdown.
    """
    within = "1 point" if is_percentage(data.task.metric) else f"{LOSS:g}"
    what = f"within {within} of the routed model"
    if len(known) < all_sizes:
        return f"Turn on *All sizes* to find the smallest plan {what}; {len(known)} of {all_sizes} are evaluated."
    least, floor = routed.score - LOSS - 1e-12, floor_of(data)
    near = [(plan.budget, one) for plan, one in known if one.score >= least and not one.score <= floor]
    if not near:
        return f"No plan of this selection is {what} and above the majority-class baseline."
    budget, one = min(near, key=lambda pair: pair[0])
    change, bounds = differences.difference(one, routed)
    lost = points(change, data.task.metric).removesuffix(" points")
    ends = f", {points_interval(bounds, data.task.metric)}" if math.isfinite(bounds[0]) else ""
    return f"Smallest plan {what}: **{budget} experts** ({lost}{ends})."


def costs(checkpoint: Checkpoint, plan: PruningPlan) -> None:
    """Draw what a plan costs, which needs no model run."""
    dense = dense_cost(checkpoint.model, TOKENS)
    share = prunings.cost_of(checkpoint, plan).relative_to(dense)
    routed = cost(checkpoint.model, TOKENS).relative_to(dense)["encoder_flops"]
    st.markdown(
        "| % of dense | FLOPs | parameters |\n|---|---|---|\n"
        f"| **encoder** | **{percent(share['encoder_flops'])}** | **{percent(share['encoder_params'])}** |\n"
        f"| whole model | {percent(share['model_flops'])} | {percent(share['model_params'])} |\n"
        f"| routed encoder | {percent(routed)} | – |"
    )
