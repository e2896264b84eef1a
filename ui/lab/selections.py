"""As many experts, chosen otherwise: every selection and random draws, compared with the current plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.checkpoints.info import usage_in
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import NO_EDITS, PruningPlan
from shrp.pruning.sweep import random_control
from ui import differences, prunings
from ui.downloads import downloads
from ui.prunings import SELECTIONS, Setting
from ui.state import Selection
from ui.store import Remaining
from ui.text import interval_text, metric_name, points, points_interval, score_text

DRAWS = (0, 1, 2)
"""Seeds of the random control."""
MEASURE, AHEAD = "measure-selections", "current plan ahead by"


def section(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """A row a selection with its score, and how far the current plan is ahead of it."""
    data, checkpoint = selection.data, selection.checkpoint
    if data.labels is None:
        st.info("These data have no labels, so no selection scores higher than another.")
        return
    known = {kind: prunings.usage_known(kind, checkpoint, data) for kind in SELECTIONS}
    never = ("recorded", "ablation", "fitted") if data.task.on_tokens else ("recorded",)
    missing = [kind for kind, stats in known.items() if stats is None and kind not in never]
    of = checkpoint.fingerprint, data.fingerprint
    asked = st.session_state.get(MEASURE) == of
    if missing and not asked:
        names = ", ".join(SELECTIONS[kind].lower() for kind in missing)
        st.button(
            f"Measure {names} too",
            icon=":material/timer:",
            key="measure-all",
            on_click=st.session_state.__setitem__,
            args=(MEASURE, of),
        )
    place, draws = st.empty(), []
    rows = [_row(f"{SELECTIONS[setting.selection]} (now)", [pruned], None, routed, data)]
    for kind, plans in others(selection, setting, plan, missing if asked else (), known):
        bar, left = st.empty(), Remaining()

        def show(share: float, bar=bar, left=left, kind=kind) -> None:
            bar.progress(share, f"Evaluating {SELECTIONS[kind].lower()}{left.said(share)}")

        prunings.evaluate_all(checkpoint, data, plans, show)
        bar.empty()
        found = [prunings.recall(checkpoint, data, one) for one in plans]
        rows.append(_row(SELECTIONS[kind], found, pruned, routed, data))
        if kind == "random":
            draws = [one.score for one in found]
        if [one.key() for one in plans] == [plan.key()]:
            rows[-1][AHEAD] = "the same experts"
        frame, alt = pd.DataFrame(rows), "Scores of as many experts chosen in other ways and at random"
        place.dataframe(frame, hide_index=True, alt=alt)
    if text := against_draws(pruned, draws):
        st.caption(f"{text} Each random draw keeps as many experts in each layer as the current plan.")
    frame = pd.DataFrame(rows).assign(data=pruned.data, n=pruned.n)
    downloads(frame, "beside", f"{selection.name}-selections")


def others(
    selection: Selection, setting: Setting, plan: PruningPlan, measure, known
) -> Iterator[tuple[str, list[PruningPlan]]]:
    """Selection -> its plans with as many experts in all, several for random draws.

    `measure`: selections that may be measured now; others are left out unless known.
    """
    base = replace(setting, edits=NO_EDITS)
    if setting.edits:  # which may have changed how many there are
        base = replace(base, allocation="budget", number=plan.budget)
    for kind in SELECTIONS:
        if kind == setting.selection and kind != "random" and not setting.edits:
            continue
        stats = known[kind]
        if stats is None:
            if kind not in measure:
                continue
            stats = prunings.usage_for(kind, selection.checkpoint, selection.data)
        if kind != "random":
            yield kind, [prunings.plan_of(replace(base, selection=kind), stats)]
            continue
        recorded = setting.selection == "recorded"
        usage = usage_in(selection.checkpoint.info) if recorded else known["usage"].shares()
        drawn = [random_control(plan, usage, seed=seed) for seed in DRAWS]
        drawn = [one for one in drawn if one.key() != plan.key()] if setting.selection == "random" else drawn
        if drawn:
            yield kind, drawn


def against_draws(pruned: Evaluation, draws: list[float]) -> str:
    """How the plan compares with random draws, in a sentence; empty where there are none, or no score."""
    if not draws or not np.isfinite([pruned.score, *draws]).all():
        return ""
    above = sum(pruned.score > score for score in draws)
    better = "" if above == len(draws) else ": not better than chance"
    return f"Beats {above} of {len(draws)} random selections{better}."


def _row(
    name: str, found: list[Evaluation], pruned: Evaluation | None, routed: Evaluation, data: TextData
) -> dict[str, str]:
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
    row = {"selection": name, metric_name(metric): score_text(mean, metric), "95% CI": interval, AHEAD: ahead}
    moved = [differences.matched(one, routed, data) for one in found]
    if None in moved:
        return row
    mean = float(np.mean([one.evaluation.score for one in moved]))
    return row | {"threshold calibrated": score_text(mean, metric)}
