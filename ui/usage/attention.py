"""What one expert attends to: in an example, and on average by role, compared with the other experts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.attention import (
    FIRST,
    ITSELF,
    MATCHING,
    NEXT,
    OTHER,
    PREVIOUS,
    SAME,
    SEPARATORS,
    AttentionRoles,
)
from shrp.analysis.usage import UsageStats
from ui.attention_figures import attention, draw
from ui.bound import clamp
from ui.downloads import chart
from ui.text import escape, escape_html, percent
from ui.theme import BLUE, GREEN, GREY, HOVER, MUTED, ORANGE, PURPLE, SKY, layout
from ui.usage import results

EXAMPLE, HIDE = "example", "hide_special"
"""Keys in the session's state and in the URL; `example` is the number of the example that is shown."""
_COLORS = {
    FIRST: MUTED,
    SEPARATORS: GREY,
    ITSELF: PURPLE,
    PREVIOUS: SKY,
    NEXT: BLUE,
    SAME: GREEN,
    MATCHING: ORANGE,
    OTHER: "rgba(204,116,16,0.45)",
}
_PATTERNS = {SEPARATORS: ".", ITSELF: "/", NEXT: "\\", SAME: "x", OTHER: "."}
"""In addition to the colours, for colour-blind readers."""


def section(one: results.Expert, first: int) -> None:
    """Draw the attention in one example, by default that of number `first`, and the roles. Raises ShrpError."""
    _example(one, first)
    _roles(one)


def _example(one: results.Expert, first: int) -> None:
    data = one.data
    left, right = st.columns([2, 8], vertical_alignment="bottom")
    clamp(EXAMPLE, 0, len(data) - 1)
    number = left.number_input(
        "Row",
        min_value=0,
        max_value=len(data) - 1,
        value=None,
        step=1,
        key=EXAMPLE,
        bind="query-params",
        placeholder=f"{first}",
        help="Number of an example, from 0. Empty: the one with the highest router probability.",
    )
    without = "Leaves out [CLS], [SEP] and the like, and rescales each row to 100%."
    hide = right.toggle("Hide special tokens", key=HIDE, bind="query-params", help=without)
    number = min(max(int(first if number is None else number), 0), len(data) - 1)
    cut, why = one.checkpoint.info.max_length, "as for usage and scores"
    found = attention(one.checkpoint, data.texts[number], one.layer, cut)
    draw(found, one.expert, hide, f"row {number:,} of {data.name}", one.name, why)


def _roles(one: results.Expert) -> None:
    st.subheader("Roles: where attention goes on average", anchor=False)
    found = results.attention_roles(one.checkpoint, one.data)
    of = escape_html(f"n = {found.n:,} of {len(one.data):,} examples of {one.data.name}")
    table, summary = (lambda: role_frame(found, one.stats)), most(found, *one.cell)
    st.markdown(escape(summary))
    alt = f"Stacked bars of where the attention of layer {one.layer}'s experts goes. {summary}"
    chart(role_bars(found, one.stats, *one.cell, of), table, "roles", f"{one.name}-roles", alt)
    st.caption(
        "Mean over examples and text tokens. Every expert is run on its layer's input, whether it is routed there or "
        "not. Much attention to separators can mean that a head does nothing there (Clark et al. 2019)."
    )


def most(found: AttentionRoles, layer: int, expert: int) -> str:
    """Where the expert's attention goes most, compared with its layer's mean, in words."""
    mine, all_mean = found.mean(layer)[expert], found.mean(layer).mean(0)
    top = int(mine.argmax())
    ends = found.interval(layer)[expert, top]
    bounds = "" if np.isnan(ends[0]) else f" (95% CI {100 * ends[0]:.1f}–{percent(ends[1])})"
    return (
        f"Layer {layer}'s expert {expert} gives most of its attention, {percent(mine[top])}{bounds}, to: "
        f"{found.roles[top]}; mean of the layer's experts: {percent(all_mean[top])}."
    )


def role_bars(found: AttentionRoles, stats: UsageStats, layer: int, expert: int, of: str) -> go.Figure:
    """A stacked bar for each expert of the layer, with its Top-1 share; `of` is the examples, HTML-safe."""
    mean, share = found.mean(layer), stats.share(layer)
    names = [f"{e} ({percent(share[e], 0)})" for e in range(len(mean))]
    names[expert] = f"<b>{names[expert]}</b>"
    fig = go.Figure()
    for place, role in enumerate(found.roles):
        pattern = {"shape": _PATTERNS.get(role, ""), "fillmode": "overlay", "size": 5}
        marker = {"color": _COLORS[role], "pattern": pattern}
        hover = [
            f"<b>Layer {layer}, expert {e}</b><br>{role}: {percent(mean[e, place])}"
            + ("" if np.isnan(low) else f"<br>95% CI: {percent(low)} to {percent(high)}")
            for e, (low, high) in enumerate(found.interval(layer)[:, place])
        ]
        x = 100 * mean[:, place]
        fig.add_bar(y=names, x=x, orientation="h", name=role, marker=marker, hovertext=hover, **HOVER)
    fig.update_layout(barmode="stack", bargap=0.25)
    fig.update_xaxes(range=[0, 100], ticksuffix="%", zeroline=False)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)
    layout(
        fig,
        f"Where the attention of layer {layer}'s experts goes",
        subtitle=f"{of}; in brackets: Top-1 share of all {stats.unit}",
        x="share of attention",
        y="expert",
        height=210 + 24 * max(len(mean), 4),
        legend=True,
    )
    return fig.update_layout(legend_traceorder="normal")  # by default reversed for stacked bars


def role_frame(found: AttentionRoles, stats: UsageStats) -> pd.DataFrame:
    """One row for each layer, expert and role: share, its interval, the expert's Top-1 share, n and data."""
    rows = []
    for layer in found.layers:
        mean, ends, share = found.mean(layer), found.interval(layer), stats.share(layer)
        rows += [
            (layer, e, role, mean[e, r], *ends[e, r], share[e], found.n, found.data)
            for e in range(len(mean))
            for r, role in enumerate(found.roles)
        ]
    names = ["layer", "expert", "attention to", "share", "low", "high", "Top-1 share", "examples", "data"]
    return pd.DataFrame(rows, columns=names)
