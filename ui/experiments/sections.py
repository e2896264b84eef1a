"""Sections of the Experiments page: each draws one experiment from its file, or says which command makes it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from shrp.errors import DataError
from shrp.studies import experiments
from shrp.studies.balance import balance_findings, balance_frame
from shrp.studies.experiments import Experiment
from shrp.studies.matching import matching_findings, matching_frame
from shrp.studies.rates import rates_findings, rates_frame
from ui.downloads import chart
from ui.experiments import seed_figures as figures
from ui.experiments.parts import Drawn, about, headed, not_run, say
from ui.experiments.rate_figures import kept_by_rate
from ui.state import show_error
from ui.text import escape_html

_BARS = "bars: lowest and highest seed; of one seed 95% intervals; dashed: the dense teacher"


def section(name: str) -> Drawn:
    """One experiment under its heading, or what would make it, or what is wrong with its file."""
    heading = headed(experiments.TITLES[name], name)
    st.markdown(experiments.QUESTIONS[name])
    try:
        found = experiments.read(name)
        if found is None:
            not_run(name)
        else:
            _DRAW[name](found)
    except DataError as error:
        show_error(error)
    return [heading]


def _note(found: Experiment, task: str, *further: str) -> str:
    """A subtitle: what the chart is of in two lines, and how to read it."""
    return "<br>".join(escape_html(line) for line in (found.about(task), *further))


def _layer(found: Experiment) -> None:
    frame = experiments.layer_frame(found)
    sentences = experiments.layer_findings(frame)
    say(sentences)
    for (task, layer), rows in frame.groupby(["task", "layer"], sort=False):
        note = _note(found, task, f"usage on up to {rows['n'].max():,} inputs; bars: lowest and highest seed")
        alt = f"Distance from uniform over training. {about(task, sentences)}"
        fig = figures.usage_distance(rows, note)
        chart(fig, rows, f"layer-{task}-{layer}", f"layer-{task}-{layer}", alt)


def _topk(found: Experiment) -> None:
    scores, stability = experiments.topk_scores(found), experiments.topk_stability(found)
    sentences = experiments.topk_findings(scores, stability)
    say(sentences)
    st.caption(
        "A routed model with k above 1 computes all experts of a layer, so Top-3 and Top-5 cost the same FLOPs; with "
        "Top-1 the one that is taken."
    )
    for task, rows in scores.groupby("task", sort=False):
        alt = about(task, sentences)
        fig = figures.topk_scores(rows, _note(found, task, _BARS))
        chart(fig, rows, f"topk-{task}", f"topk-{task}", f"Score by budget and k. {alt}")
        mine = stability[stability["task"] == task] if len(stability) else stability
        if mine.empty:
            st.caption("Overlap needs two seeds or more.")
            continue
        note = _note(
            found,
            task,
            "kept experts that are some input's first choice; bars: least and most alike pair of seeds",
        )
        chart(figures.kept_overlap(mine, note), mine, f"overlap-{task}", f"overlap-{task}", f"Overlap. {alt}")
        _by_layer(found, task, mine)


def _by_layer(found: Experiment, task: str, rows: pd.DataFrame) -> None:
    with st.expander("Overlap layer by layer"):
        budgets = sorted(rows["budget"].unique().tolist())
        budget = st.segmented_control(
            "Experts kept in all",
            budgets,
            default=budgets[0],
            key=f"overlap-budget-{task}",
            required=True,
            persist_state="session",
        )
        part = rows[rows["budget"] == (budget if budget in budgets else budgets[0])]
        name = f"overlap-layers-{task}"
        alt = f"Overlap of kept experts by layer on {task}, beside chance"
        fig = figures.overlap_by_layer(part, _note(found, task, "dotted: random sets of these sizes"))
        chart(fig, part, name, name, alt)


def _sweep(found: Experiment) -> None:
    frame = experiments.sweep_frame(found)
    sentences = experiments.sweep_findings(frame, found.rows)
    say(sentences)
    for task, rows in frame.groupby("task", sort=False):
        note = _note(
            found,
            task,
            "no recovery; bands: lowest and highest seed (of one seed 95%, of random draws their range); "
            "dashed: the dense teacher",
            "experts are chosen on the same validation data, as in the paper",
        )
        alt = f"Score against FLOPs. {about(task, sentences)}"
        chart(figures.sweep(rows, note), rows, f"sweep-{task}", f"sweep-{task}", alt)


def _overhead(found: Experiment) -> None:
    frame = experiments.overhead_frame(found)
    sentences = experiments.overhead_findings(frame)
    say(sentences)
    cpu, threads = found.machine.get("cpu", "unknown processor"), found.machine.get("threads", "?")
    rounds = sorted(set(frame["rounds"]))
    note = (
        f"{escape_html(cpu)}, {escape_html(threads)} threads; both in turn, {'/'.join(map(str, rounds))} rounds, "
        "no padding<br>marks: median of the ratio in each round; bars: its quartiles"
    )
    chart(figures.overhead(frame, note), frame, "overhead", "overhead", " ".join(sentences))


def _balance(found: Experiment) -> None:
    frame = balance_frame(found)
    sentences = balance_findings(frame)
    say(sentences)
    for task, rows in frame.groupby("task", sort=False):
        note = _note(found, task, "static: no recovery; " + _BARS)
        alt = f"Effective experts and score by weight. {about(task, sentences)}"
        chart(figures.balance(rows, note), rows, f"balance-{task}", f"balance-{task}", alt)


def _matching(found: Experiment) -> None:
    frame = matching_frame(found)
    sentences = matching_findings(frame)
    say(sentences)
    st.caption(
        "Matching: the share of an expert's attention that goes to the same token of the other text, a mean over own "
        "tokens; in brackets in the encoder that was converted on texts, before any pruning. An expert's profile, on "
        "Expert usage, shows it under *roles* of any checkpoint for pairs."
    )
    for task, rows in frame.groupby("task", sort=False):
        note = _note(found, task, "bars: 95% intervals over inputs; one training a mark")
        alt = f"Kept score with other experts. {about(task, sentences)}"
        chart(figures.exchanges(rows, note), rows, f"matching-{task}", f"matching-{task}", alt)


def _rates(found: Experiment) -> None:
    frame = rates_frame(found)
    sentences = rates_findings(frame)
    say(sentences)
    for (task, depth), rows in frame.groupby(["task", "depth"], sort=False):
        note = _note(
            found,
            task,
            "except the last training's rates and, where named, the start; dashed: the dense teacher",
            "bars: 95% intervals over inputs, of several seeds their range",
        )
        alt = f"Kept score by learning rate. {about(task, sentences)}"
        name = f"rates-{task}-{depth}"
        chart(kept_by_rate(rows, note), rows, name, name, alt)


_DRAW: dict[str, Callable[[Experiment], None]] = {
    "layer": _layer,
    "topk": _topk,
    "sweep": _sweep,
    "overhead": _overhead,
    "balance": _balance,
    "matching": _matching,
    "rates": _rates,
}
