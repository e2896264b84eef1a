"""Minimal pairs in words and figures: how many a model has in order, and how two models differ there."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from shrp.data.tasks import Task
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.minimal_pairs import PairOutcomes, pair_changes, pair_outcomes
from shrp.evaluation.statistics import mcnemar
from ui.differences import losses_by_group, summary, with_names
from ui.downloads import chart
from ui.text import PAIR_ORDER, escape, p_text, percent, points, points_interval


def what_they_are(task: Task) -> str:
    """What a minimal pair is, and when a model of the task has it in order, as Markdown."""
    more = "the one with the greater label a higher score for that label than the other one, whatever the threshold"
    if task.is_regression:
        more = "the one with the greater label the greater number"
    elif task.num_labels == 2:
        more = more.replace("one with the greater label", f"{escape(task.label_names[1])} one")
    return (
        "A minimal pair is two inputs that are alike but for what gives them different labels. It is in order where "
        f"the model gives {more}. Guessing has half of the pairs in order; equal outputs count as not in order."
    )


def has_pairs(data: TextData) -> bool:
    """Whether there are minimal pairs in the data."""
    return len(pairs_of(data)) > 0


def in_order(found: PairOutcomes) -> str:
    """`117 of 144 (81.3%, 95% interval 74.1–86.8%)`."""
    low, high = found.interval
    share = percent(found.in_order / found.n)
    return f"{found.in_order:,} of {found.n:,} ({share}, 95% interval {100 * low:.1f}–{100 * high:.1f}%)"


def line(data: TextData, models: Mapping[str, Evaluation | None]) -> str:
    """A sentence on how many pairs each model has in order, as Markdown; empty where the data have none.

    Args:
        models: what each is called, as Markdown; one that is not evaluated on all of the data is left out.
    """
    if not has_pairs(data):
        return ""
    said = [
        f"{name} {in_order(pair_outcomes(data, evaluation))}"
        for name, evaluation in models.items()
        if evaluation is not None and evaluation.complete
    ]
    return f"**Minimal pairs in order**: {'; '.join(said)}; by guessing half." if said else ""


def tab(reference: Evaluation, other: Evaluation, data: TextData, names: tuple[str, str], file: str) -> None:
    """Two models on the minimal pairs: the totals with a test, and the figure by slice.

    Args:
        names: of the reference and of the model that is held against it, plain text.
        file: of the downloads.
    """
    one, two = pair_outcomes(data, reference), pair_outcomes(data, other)
    frame = pair_changes(one, two)
    whole, slices = frame.iloc[0], frame.iloc[1:].reset_index(drop=True)
    st.caption(what_they_are(data.task))
    a, b = (f"**{escape(name)}**" for name in names)
    rightly = f"{one.both_right.sum():,} and {two.both_right.sum():,}"
    change = points(whole["change"], PAIR_ORDER)
    bounds = points_interval((whole["change low"], whole["change high"]), PAIR_ORDER)
    st.markdown(
        f"In order: {a} {in_order(one)}, {b} {in_order(two)}: a change of {change} (95% interval {bounds}, paired). "
        f"Only {a} has {whole['only_reference']:,} pairs in order, only {b} {whole['only_other']:,}: "
        f"{p_text(mcnemar(one.ahead, two.ahead))} (McNemar's exact test)."
        + ("" if data.task.is_regression else f" Both inputs classified rightly: {rightly}.")
    )
    if slices.empty:
        return
    text = summary(slices, "slice", PAIR_ORDER)
    st.markdown(text)
    chart(
        losses_by_group(slices, "slice", PAIR_ORDER, names, other.data),
        with_names(frame, "slice", names).assign(data=other.data),
        "by-pairs",
        f"{file}-minimal-pairs",
        f"Dots: minimal pairs in order, of both models, {names[0]} and {names[1]}, in each slice.",
    )
