"""What the model loses without one expert: score and predictions, and by slice, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.importance import FEWEST, KnockOut
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.paired import agreement
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui.downloads import chart
from ui.text import (
    axis_names,
    capital,
    escape,
    escape_html,
    metric_name,
    points,
    points_interval,
    score_text,
    signed,
    slice_name,
    worth_meaning,
    worth_name,
)
from ui.theme import BLUE, layout
from ui.usage import results
from ui.usage.figures import LINE_MARKS, interval_marks


def section(one: results.Expert) -> None:
    """Draw the evidence of one knock-out. Raises ShrpError."""
    data = one.data
    found = results.knocked_out(one)
    n, affected = found.before.n, len(found.affected)
    if not affected:
        st.info("No example uses this expert, so without it every output is the same.", icon=":material/bedtime:")
        return
    slices = results.losses(one.checkpoint, data, found)
    left, middle, right = st.columns(3, border=True)
    with left:
        _score(found, results.score_lost(one.checkpoint, data, found))
    middle.metric("Examples that use it", f"{affected:,}")
    middle.caption(f"of n = {n:,}; no other output can change")
    with right:
        changed = affected if data.task.is_regression else found.flipped
        st.metric("Predictions that change", f"{changed:,}")
        st.caption(f"of n = {n:,}{_sides(found)}")
    _slices(slices, data, one.name)
    pair = " A minimal pair counts as one." * (len(pairs_of(data)) > 0)
    st.caption(
        "The router picks the next expert of the layer, and the layers above route again. 95% CI over all "
        f"n = {n:,} examples, rough where fewer than 20 use the expert.{pair}"
    )


def _score(found: KnockOut, lost: tuple[float, tuple[float, float]]) -> None:
    metric = found.before.metric
    if found.before.labels is None:
        st.metric(capital(metric_name(metric)), "not known")
        st.caption("These data have no labels.")
        return
    value, bounds = lost
    st.metric(f"{capital(metric_name(metric))} lost without it", points(value, metric))
    interval = f"95% CI {points_interval(bounds, metric)}; " if bounds[0] == bounds[0] else ""
    before, after = (score_text(one.score, metric) for one in (found.before, found.after))
    st.caption(f"{interval}{before} with it, {after} without")


def _sides(found: KnockOut) -> str:
    if found.before.labels is None or found.before.task.is_regression:
        return ""
    counts = agreement(found.after, found.before)
    return f"; {counts.only_b:,} now wrong, {counts.only_a:,} now right"


def _slices(frame: pd.DataFrame, data: TextData, name: str) -> None:
    """What is lost in each slice, compared with all other examples; nothing where there are fewer than two."""
    if len(frame) < 2:
        return
    worth = worth_name(data.task)
    st.markdown(slices_said(frame, worth))
    losses = "; ".join(f"{slice_name(r.slice)} {signed(r.lost, 3)}" for r in frame.itertuples())
    alt = f"{capital(worth)} lost without the expert, by slice: {losses}"
    fig = slice_marks(frame, worth, data.name)
    chart(fig, frame, "knock-out-slices", f"{name}-knocked-out-by-slice", alt)
    st.caption(
        f"{capital(worth)}: {worth_meaning(data.task)}. Filled: differs from all other "
        f"examples (permutation test, q ≤ {FALSE_DISCOVERIES:g}). No interval with fewer than {FEWEST} affected."
    )


def slices_said(frame: pd.DataFrame, worth: str) -> str:
    """Which slices of `results.losses` lose significantly more, or less, than all other examples, as Markdown."""
    sure = frame[_differs(frame)].sort_values("difference", ascending=False)
    if len(frame) == 2:  # each is all the others of the other one: one finding
        sure = sure.head(1)
    if sure.empty:
        return f"**By slice**: no slice differs significantly in the {worth} lost."
    named = [
        f"**{escape(slice_name(r.slice))}** {signed(r.lost, 2)} ({signed(r.elsewhere, 2)} elsewhere)"
        for r in sure.itertuples()
    ]
    return f"**By slice**, {worth} lost: {', '.join(named)}."


def _differs(frame: pd.DataFrame) -> pd.Series:
    """Of which slices it is to be said that they differ: not of those that never use the expert."""
    return (frame["q"] <= FALSE_DISCOVERIES) & (frame["affected"] > 0)


def slice_marks(frame: pd.DataFrame, worth: str, data: str) -> go.Figure:
    """A row for each slice of `results.losses`: the mean loss with its interval, and the loss elsewhere."""
    frame = frame.sort_values("lost", ascending=False, kind="stable")
    names = axis_names(f"{slice_name(r.slice)} ({r.affected:,})" for r in frame.itertuples())
    hover = [
        f"<b>{escape_html(slice_name(r.slice))}</b>, n = {r.n:,}, {r.affected:,} affected<br>lost {signed(r.lost, 3)}"
        + ("" if np.isnan(r.low) else f" (95% CI {signed(r.low, 3)} to {signed(r.high, 3)})")
        + f"<br>elsewhere {signed(r.elsewhere, 3)}, q = {r.q:.3f}"
        for r in frame.itertuples()
    ]
    symbols = ["circle" if one else "circle-open" for one in _differs(frame)]
    ends = frame["low"], frame["high"]
    fig = interval_marks(frame["lost"], names, *ends, hover, color=BLUE, symbol=symbols)
    fig.add_scatter(x=frame["elsewhere"], y=names, name="all other examples", hoverinfo="skip", **LINE_MARKS)
    subtitle = f"{escape_html(data)}; in brackets: examples affected; whiskers: 95% CI"
    title, x = f"{capital(worth)} lost, by slice", f"{worth} lost (positive: the expert helps)"
    height = 170 + 26 * max(len(frame), 3)
    return layout(fig, title, subtitle=subtitle, x=x, height=height, legend=True)
