"""What the model loses without one expert: scores, predictions and logits, and by slice, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.knock_out import FEWEST, KnockOut
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui.downloads import chart, downloads
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
from ui.theme import BLUE, GREY, ORANGE, layout, whiskers
from ui.usage import results

if TYPE_CHECKING:
    from ui.usage.profile import Expert


def section(one: Expert) -> None:
    """Draw the evidence of one knock-out.

    Raises:
        ShrpError: the expert can't be knocked out.
    """
    data = one.data
    found = results.knocked_out(one.checkpoint, data, one.stats, one.cell)
    n, affected = found.before.n, len(found.affected)
    if not affected:
        st.info(
            "No example uses this expert, so without it every output is the same.", icon=":material/bedtime:"
        )
        return
    losses = results.losses(one.checkpoint, data, found)
    left, middle, right = st.columns(3, border=True)
    with left:
        _score(found, results.score_change(one.checkpoint, data, found))
    middle.metric("Examples that use it", f"{affected:,}")
    middle.caption(f"of n = {n:,}; no other output can change")
    with right:
        changed = affected if data.task.is_regression else found.flipped
        st.metric("Predictions that change", f"{changed:,}")
        st.caption(f"of n = {n:,}{_sides(found)}")
    _slices(losses.slices, data, one.name)
    noun = "output" if data.task.is_regression else "logit"
    st.dataframe(
        logit_table(losses.logits, noun),
        hide_index=True,
        width="stretch",
        height="content",
        alt=f"Mean {noun} of each class with and without the expert, and the change with its interval",
    )
    pair = " A minimal pair counts as one." * (len(pairs_of(data)) > 0)
    st.caption(
        "The router picks the next expert of the layer, and the layers above route again. Means and 95% CI over all "
        f"n = {n:,} examples, rough where fewer than 20 use the expert.{pair}"
    )
    downloads(losses.logits, "knock-out", f"{one.name}-knocked-out")


def _score(found: KnockOut, lost: tuple[float, tuple[float, float]]) -> None:
    metric = found.before.metric
    if found.before.labels is None:
        st.metric(capital(metric_name(metric)), "not known")
        st.caption("These data have no labels.")
        return
    change, bounds = lost
    st.metric(f"Change of {metric_name(metric)}", points(change, metric))
    interval = f"95% CI {points_interval(bounds, metric)}; " if bounds[0] == bounds[0] else ""
    st.caption(
        f"{interval}{score_text(found.before.score, metric)} with it, {score_text(found.after.score, metric)} without"
    )


def _sides(found: KnockOut) -> str:
    if found.before.labels is None or found.before.task.is_regression:
        return ""
    counts = found.agreement()
    return f"; {counts.only_b:,} become wrong, {counts.only_a:,} right"


def _slices(frame: pd.DataFrame, data: TextData, name: str) -> None:
    """What is lost in each slice, compared with all other examples; nothing where there are fewer than two."""
    if len(frame) < 2:
        return
    worth = worth_name(data.task)
    st.markdown(slices_said(frame, worth))
    chart(
        slice_marks(frame, worth, data.name),
        frame,
        "knock-out-slices",
        f"{name}-knocked-out-by-slice",
        f"Change of the {worth} without the expert, by slice: "
        + "; ".join(f"{slice_name(r.slice)} {signed(r.change, 3)}" for r in frame.itertuples()),
    )
    st.caption(
        f"{capital(worth)}: {worth_meaning(data.task)}; negative: the expert helped. Filled: differs from all other "
        f"examples (permutation test, q ≤ {FALSE_DISCOVERIES:g}). No interval with fewer than {FEWEST} affected."
    )


def slices_said(frame: pd.DataFrame, worth: str) -> str:
    """Which slices lose significantly more, or less, than all other examples, as Markdown.

    Args:
        frame: of `KnockOut.by_slice`, at least two slices.
    """
    sure = frame[frame["q"] <= FALSE_DISCOVERIES].sort_values("difference")
    if len(frame) == 2:  # each is all the others of the other one: one finding
        sure = sure.head(1)
    if sure.empty:
        return f"**By slice**: no slice differs significantly in the change of the {worth}."
    named = [
        f"**{escape(slice_name(r.slice))}** {signed(r.change, 2)} ({signed(r.elsewhere, 2)} elsewhere)"
        for r in sure.itertuples()
    ]
    return f"**By slice**, change of the {worth}: {', '.join(named)}."


def slice_marks(frame: pd.DataFrame, worth: str, data: str) -> go.Figure:
    """A row for each slice: the mean change with its interval, and the change elsewhere.

    Args:
        frame: of `KnockOut.by_slice`.
        worth: what changes, in words.
        data: name of the data.
    """
    frame = frame.sort_values("change", kind="stable")
    names = axis_names(f"{slice_name(r.slice)} ({r.affected:,})" for r in frame.itertuples())
    sure = frame["q"] <= FALSE_DISCOVERIES
    hover = [
        f"<b>{escape_html(slice_name(r.slice))}</b>, n = {r.n:,}, {r.affected:,} affected<br>change {r.change:+.3f}"
        + ("" if np.isnan(r.low) else f" (95% CI {r.low:+.3f} to {r.high:+.3f})")
        + f"<br>elsewhere {r.elsewhere:+.3f}, q = {r.q:.3f}<br>{wrong:,} become wrong, {right:,} right"
        for r, wrong, right in zip(
            frame.itertuples(), frame["become wrong"], frame["become right"], strict=True
        )
    ]
    fig = go.Figure()
    fig.add_scatter(
        x=frame["elsewhere"],
        y=names,
        mode="markers",
        name="all other examples",
        marker={"symbol": "line-ns", "size": 16, "line": {"color": ORANGE, "width": 3}},
        hoverinfo="skip",
    )
    fig.add_scatter(
        x=frame["change"],
        y=names,
        mode="markers",
        name="slice",
        error_x=whiskers(frame["change"], frame["low"], frame["high"], color=GREY),
        marker={
            "color": BLUE,
            "size": 10,
            "symbol": ["circle" if one else "circle-open" for one in sure],
            "line": {"color": BLUE, "width": 1.5},
        },
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    fig.update_xaxes(zeroline=False)
    fig.update_yaxes(type="category", autorange="reversed")
    return layout(
        fig,
        f"Change of the {worth} by slice",
        subtitle=f"{escape_html(data)}; in brackets: examples affected; whiskers: 95% CI",
        x=f"change of the {worth}",
        height=170 + 26 * max(len(frame), 3),
        legend=True,
    )


def logit_table(frame: pd.DataFrame, noun: str) -> pd.DataFrame:
    """The changes of the mean logits as they are read: signed, the interval in one column.

    Args:
        frame: of `KnockOut.logit_changes`.
        noun: `logit` or `output`.
    """

    def change(value: float) -> str:
        return signed(value, 4)

    return pd.DataFrame(
        {
            "class": frame["class"],
            f"mean {noun}": frame["before"].map(lambda value: f"{value:.4f}".replace("-", "−")),
            "without it": frame["after"].map(lambda value: f"{value:.4f}".replace("-", "−")),
            "change": frame["change"].map(change),
            "95% CI": [
                f"{change(low)} to {change(high)}" if low == low else "–"
                for low, high in zip(frame["low"], frame["high"], strict=True)
            ],
            "where used": frame["among its inputs"].map(change),
        }
    )
