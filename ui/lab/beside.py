"""As many experts, chosen otherwise: the other selections and random draws beside the score of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.info import usage_in
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import num_experts_of
from shrp.pruning.plan import NO_EDITS, PruningPlan
from shrp.pruning.sweep import random_control
from ui import measurements, paired_results
from ui.downloads import downloads
from ui.lab import work as lab
from ui.lab.sides import model_key
from ui.lab.sweep import DRAWS
from ui.lab.work import GLOBAL, SELECTIONS, Setting
from ui.state import Selection
from ui.store import results
from ui.text import escape, interval_text, metric_name, points, points_interval, score_text

CHOSEN, AHEAD, MATCHED = "experts chosen by", "this plan ahead by", "shares matched"
SAME = "the same experts"
_WIDTHS = {CHOSEN: 215, "interval": 115, AHEAD: 160, MATCHED: 110}
"""In pixels: by themselves columns keep the width that the first row needed."""


def section(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """A row for each selection that needs nothing measured first, and one for random draws; scored one by one.

    Args:
        pruned: the plan's evaluation.
        routed: the routed model's, on the same data.
    """
    data = selection.data
    if data.labels is None or plan.budget == len(plan.layers) * num_experts_of(selection.checkpoint.model):
        return  # nothing to score by, or nothing to choose
    st.subheader(f"Same number, other selections ({plan.budget} in all)", anchor=False)
    place, busy = st.empty(), st.container()
    rows: list[dict[str, str]] = []
    draws: list[float] = []
    with busy:
        for name, plans in others(selection, setting, plan):
            found = _evaluated(selection, plans, f"{name}, {plan.budget} in all:")
            row = _row(name, found, pruned)
            if [one.key() for one in plans] == [plan.key()]:
                row[AHEAD] = SAME
            rows.append(row | _matched(selection, plans, found, routed))
            if SELECTIONS[name] == "random":
                draws = [one.score for one in found]
            place.dataframe(
                pd.DataFrame(rows),
                hide_index=True,
                width="content",
                column_config={name: st.column_config.TextColumn(width=n) for name, n in _WIDTHS.items()},
                alt="Scores of as many experts chosen by other selections and at random",
            )
    said = "" if setting.is_control else verdict(pruned, draws)
    st.caption(
        f"{said} n = {pruned.n:,}, {escape(pruned.data)}; intervals are 95%, those of “ahead” paired"
        "; random draws keep as many experts in each layer as this plan"
        f"{'; shares matched: see Threshold above' * (not pruned.task.is_regression)}. Gate × norm, ablation and "
        "fitted appear once you have picked each under *Which experts*."
    )
    downloads(
        pd.DataFrame(rows).assign(data=pruned.data, n=pruned.n), "beside", f"{selection.name}-selections"
    )


def others(
    selection: Selection, setting: Setting, plan: PruningPlan
) -> Iterator[tuple[str, list[PruningPlan]]]:
    """Selection -> its plans of as many experts in all, several for random draws; without the plan itself."""
    base = replace(setting, edits=NO_EDITS, edited="")
    if setting.edited:  # which may have changed how many there are
        base = replace(base, allocation=GLOBAL, number=plan.budget)
    for name, kind in SELECTIONS.items():
        if name == setting.selection and kind != "random" and not setting.edited:
            continue
        if kind == "recorded" and selection.ranked_on is not None:
            continue  # counted on what may hold the other half
        stats = lab.usage_known(name, selection.checkpoint, selection.ranking)
        if stats is None:
            continue
        if kind == "random":
            plans = _draws(selection, setting, plan, stats)
        else:
            plans = [lab.plan_of(replace(base, selection=name, seed=0), stats)]
        if plans:
            yield name, plans


def _draws(selection: Selection, setting: Setting, plan: PruningPlan, stats: UsageStats) -> list[PruningPlan]:
    """Random experts, as many in each layer as the plan keeps there, weighted as it is; without the plan itself."""
    usage = stats.shares()
    if SELECTIONS.get(setting.selection) == "recorded":
        usage = usage_in(selection.checkpoint.info)
    drawn = [random_control(plan, usage, seed=seed) for seed in DRAWS]
    return [one for one in drawn if one.key() != plan.key()] if setting.is_control else drawn


def _evaluated(selection: Selection, plans: list[PruningPlan], label: str) -> list[Evaluation]:
    """Exact evaluations of the plans. Those that nobody had are made as a sweep makes them, which keeps nothing but
    what they share: the slider's own steps stay in memory.
    """
    checkpoint, data = selection.checkpoint, selection.data
    found = {plan.key(): lab.recall(checkpoint, data, plan) for plan in plans}
    missing = list({plan.key(): plan for plan in plans if found[plan.key()] is None}.values())
    if missing:
        bar, done = st.empty(), 0
        work = measurements.live_evaluator(checkpoint, data).sweep(
            missing, lambda: bar.progress(done / len(missing), f"{label} {done} of {len(missing)} plans")
        )
        with closing(work) as results:
            for plan, evaluation in results:
                lab.remember(checkpoint, data, plan, evaluation)
                found[plan.key()], done = evaluation, done + 1
        bar.empty()
    return [found[plan.key()] for plan in plans]


def verdict(pruned: Evaluation, draws: list[float]) -> str:
    """How the plan stands against random draws, in a sentence; empty where there were none, or no score."""
    if not draws or not np.isfinite([pruned.score, *draws]).all():
        return ""
    count = len(draws)
    above = sum(pruned.score > score for score in draws)
    if above == count:
        return f"This plan scores above all {count} random draws; a further one would too in 1 of {count + 1} cases."
    if above == 0:
        return f"None of the {count} random draws scores below this plan: nothing here shows that the choice matters."
    return (
        f"This plan scores above {above} of {count} random draws: chance alone would do as well now and then."
    )


def _matched(
    selection: Selection, plans: list[PruningPlan], found: list[Evaluation], routed: Evaluation
) -> dict[str, str]:
    """The score, or the mean of several, with the routed model's answer shares; nothing of a regression."""
    data, kept = selection.data, results("matched scores")
    if data.task.is_regression:
        return {}
    scores = []
    for plan, one in zip(plans, found, strict=True):
        key = (model_key(selection.checkpoint, plan), data.fingerprint, data.name)
        if (score := kept.get(key)) is None:
            shift = matching_shift(one.logits, routed.logits)
            kept.put(key, score := shifted(one, data, shift, with_interval=False).score)
        scores.append(score)
    return {MATCHED: score_text(float(np.mean(scores)), data.task.metric)}


def _row(name: str, found: list[Evaluation], pruned: Evaluation) -> dict[str, str]:
    metric, scores = pruned.metric, [one.score for one in found]
    mean = float(np.mean(scores))
    row = {CHOSEN: name.lower(), metric_name(metric): score_text(mean, metric)}
    if len(found) > 1:
        row[CHOSEN] += f", mean of {len(found)} draws"
        spread = interval_text((min(scores), max(scores)), metric)
        return row | {
            "interval": f"range {spread}" if spread else "",
            AHEAD: points(pruned.score - mean, metric),
        }
    value, ends = paired_results.difference(pruned, found[0])
    ahead = points(value, metric) + (f" ({points_interval(ends, metric)})" if ends[0] == ends[0] else "")
    return row | {"interval": interval_text(found[0].interval, metric), AHEAD: ahead}
