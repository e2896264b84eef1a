"""As many experts, chosen otherwise: every selection and random draws, compared with the current plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.checkpoints.info import usage_in
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import NO_EDITS, PruningPlan
from shrp.pruning.sweep import random_control
from ui import differences, prunings
from ui.prunings import SELECTIONS, Setting
from ui.state import Selection
from ui.store import Remaining
from ui.text import interval_text, metric_name, points, points_interval, score_text

DRAWS = (0, 1, 2)
"""Seeds of the random control."""
ORDER = ("usage", "recorded", "random", "gate_norm", "ablation", "fitted")
"""Of `SELECTIONS`, those that take longest last."""
AHEAD, ALL = "current plan minus this", "all_selections"
"""A column, and the key of the switch in the session's state and in the URL."""
SLOW = ("ablation", "fitted")
"""Those that take every expert of every layer, and are measured only when asked for."""


def section(selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation) -> None:
    """A row a selection with its score, and how far the current plan is ahead of it; what is missing is measured."""
    data, checkpoint = selection.data, selection.checkpoint
    if data.labels is None:
        st.info("These data have no labels, so no selection scores higher than another.")
        return
    # Both need one prediction for a text.
    all_of = not data.task.on_tokens and st.toggle(
        "Ablation and fitted gates too (takes minutes)", key=ALL, bind="query-params"
    )
    place, draws = st.empty(), []
    rows = [_row(f"{SELECTIONS[setting.selection]} (now)", [pruned], None)]
    for kind, plans in others(selection, setting, plan, but=() if all_of else SLOW):
        bar, left = st.empty(), Remaining()

        def show(share: float, bar=bar, left=left, kind=kind) -> None:
            bar.progress(share, f"Evaluating {SELECTIONS[kind].lower()}{left.said(share)}")

        prunings.evaluate_all(checkpoint, data, plans, show)
        bar.empty()
        found = [prunings.recall(checkpoint, data, one) for one in plans]
        rows.append(_row(SELECTIONS[kind], found, pruned))
        if kind == "random":
            draws = [one.score for one in found]
        if [one.key() for one in plans] == [plan.key()]:
            rows[-1][AHEAD] = "the same experts"
        alt = "Scores of as many experts chosen in other ways and at random"
        place.dataframe(pd.DataFrame(rows), hide_index=True, alt=alt)
    if text := against_draws(pruned, draws):
        st.caption(f"{text} Each random draw keeps as many experts in each layer as the current plan.")


def others(
    selection: Selection, setting: Setting, plan: PruningPlan, but: tuple[str, ...]
) -> Iterator[tuple[str, list[PruningPlan]]]:
    """Selection, `but` for these, -> its plans with as many experts in all, several for random draws."""
    checkpoint, data = selection.checkpoint, selection.data
    base = replace(setting, edits=NO_EDITS)
    if setting.edits:  # which may have changed how many there are
        base = replace(base, allocation="budget", number=plan.budget)
    for kind in ORDER:
        if kind == setting.selection and kind != "random" and not setting.edits:
            continue
        if kind in but or (kind == "recorded" and not checkpoint.info.usage):
            continue
        stats = prunings.usage_for(kind, checkpoint, data)
        if kind != "random":
            yield kind, [prunings.plan_of(replace(base, selection=kind), stats)]
            continue
        recorded = setting.selection == "recorded"
        usage = usage_in(checkpoint.info) if recorded else stats.shares()
        drawn = [random_control(plan, usage, seed=seed) for seed in DRAWS]
        drawn = [one for one in drawn if one.key() != plan.key()] if setting.selection == "random" else drawn
        if drawn:
            yield kind, drawn


def against_draws(pruned: Evaluation, draws: list[float]) -> str:
    """How the plan compares with random draws, in a sentence; empty where there are none, or no score."""
    if not draws or not np.isfinite([pruned.score, *draws]).all():
        return ""
    above = sum(pruned.score > score for score in draws)
    shown = ", too few for a test" if above == len(draws) else ": not better than chance"
    return f"Beats {above} of {len(draws)} random selections{shown}."


def _row(name: str, found: list[Evaluation], pruned: Evaluation | None) -> dict[str, str]:
    """A row of the table. `pruned`: the current plan's; None where the row is its own."""
    metric, scores = found[0].metric, [one.score for one in found]
    mean, ends, ahead = float(np.mean(scores)), found[0].interval, ""
    interval = interval_text(ends, metric)
    if len(found) > 1:
        name += f", mean of {len(found)}"
        interval = f"range {interval_text((min(scores), max(scores)), metric)}"
        ahead = points(pruned.score - mean, metric)
    elif pruned is not None:
        value, ends = differences.difference(pruned, found[0])
        ahead = points(value, metric) + (f" ({points_interval(ends, metric)})" if ends[0] == ends[0] else "")
    return {"selection": name, metric_name(metric): score_text(mean, metric), "95% CI": interval, AHEAD: ahead}
