"""Where an expert's attention goes on average, beside the other experts of its layer, and over all layers."""

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
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from ui.downloads import chart
from ui.expert import results as made
from ui.pickers import always_one
from ui.state import pick_cell
from ui.text import escape, escape_html, percent
from ui.theme import BLUE, GREEN, GREY, MUTED, ORANGE, PURPLE, SKY, layout
from ui.usage.figures import usage_heatmap

ROLE = "role"
"""Key of the role that is shown over all layers, in the session's state and in the URL."""
_MAP = "role-map"
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
"""Beside the colours, of which neighbours may look alike."""


def roles(
    checkpoint: Checkpoint, stats: UsageStats, data: TextData, layer: int, expert: int, name: str
) -> None:
    """Both charts. Raises as `shrp.analysis.attention.attention_roles`."""
    st.markdown(
        "**Where attention goes**, from the tokens of a text; those that the tokenizer adds, as [CLS] and [SEP], are "
        "the first token and the separators"
    )
    found = made.attention_roles(checkpoint, data)
    of = f"n = {found.n:,} of the {len(data):,} inputs of {data.name}"
    chart(
        role_bars(found, stats, layer, expert, of),
        lambda: role_frame(found, stats),
        key="roles",
        name=f"{name}-roles",
        alt=f"Stacked bars of where the attention of layer {layer}'s experts goes. {_most(found, layer, expert)}",
    )
    st.caption(
        f"{escape(_most(found, layer, expert))} Means over inputs; every expert is run on what enters its layer, "
        "whether inputs are routed to it or not. Much of a head's attention to separators can mean that it does "
        "nothing there (Clark et al. 2019)."
        + " An expert that gives much to the same token of the other text compares the two."
        * (MATCHING in found.roles)
    )
    start = MATCHING if MATCHING in found.roles else found.roles[-1]
    role = always_one("Over all layers: attention to", found.roles, ROLE, start)
    place = found.roles.index(role)
    values = np.stack([found.mean(one)[:, place] for one in found.layers])
    chart(
        usage_heatmap(
            values,
            found.layers,
            title=f"Attention to: {role}",
            subtitle=f"share of an expert's attention; {escape_html(of)}",
            measure=f"attention to {role}",
            ends=np.stack([found.interval(one)[:, place] for one in found.layers]),
            selected=(layer, expert),
        ),
        lambda: role_frame(found, stats),
        key=_MAP,
        name=f"{name}-attention-to-{role.replace(' ', '-')}",
        alt=f"Heatmap of the share of attention that goes to: {role}, by layer and expert.",
        on_select=lambda: pick_cell(_MAP),
    )


def _most(found: AttentionRoles, layer: int, expert: int) -> str:
    """In words, where the expert's attention goes most, beside its layer's mean."""
    mine, all_mean = found.mean(layer)[expert], found.mean(layer).mean(0)
    most = int(mine.argmax())
    ends = found.interval(layer)[expert, most]
    bounds = (
        "" if np.isnan(ends[0]) else f" (95% interval over inputs {percent(ends[0])} to {percent(ends[1])})"
    )
    return (
        f"Layer {layer}'s expert {expert} gives most of its attention, {percent(mine[most])}{bounds}, to: "
        f"{found.roles[most]}; the mean of its layer's experts gives that {percent(all_mean[most])}."
    )


def role_bars(found: AttentionRoles, stats: UsageStats, layer: int, expert: int, of: str) -> go.Figure:
    """A stacked bar an expert of the layer, its Top-1 share beside its number."""
    mean, share = found.mean(layer), stats.share(layer)
    names = [
        f"<b>{e} ({percent(share[e], 0)})</b>" if e == expert else f"{e} ({percent(share[e], 0)})"
        for e in range(len(mean))
    ]
    fig = go.Figure()
    for place, role in enumerate(found.roles):
        ends = found.interval(layer)[:, place]
        fig.add_bar(
            y=names,
            x=100 * mean[:, place],
            orientation="h",
            name=role,
            marker={
                "color": _COLORS[role],
                "pattern": {"shape": _PATTERNS.get(role, ""), "fillmode": "overlay", "size": 5},
            },
            hovertext=[
                f"<b>Layer {layer}, expert {e}</b><br>{role}: {percent(mean[e, place])}"
                + ("" if np.isnan(low) else f"<br>95% interval: {percent(low)} to {percent(high)}")
                for e, (low, high) in enumerate(ends)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    fig.update_layout(barmode="stack", bargap=0.25)
    fig.update_xaxes(range=[0, 100], ticksuffix="%", zeroline=False)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)
    layout(
        fig,
        f"Where the attention of layer {layer}'s experts goes",
        subtitle=f"{escape_html(of)}; in brackets: the expert's Top-1 share of all {stats.unit}",
        x="share of attention",
        y="expert",
        height=210 + 24 * max(len(mean), 4),
        legend=True,
    )
    return fig.update_layout(legend_traceorder="normal")  # by itself that of stacked bars goes backwards


def role_frame(found: AttentionRoles, stats: UsageStats) -> pd.DataFrame:
    """One row a layer, expert and role: share, its interval, the expert's Top-1 share, n and data."""
    rows = []
    for layer in found.layers:
        mean, ends, share = found.mean(layer), found.interval(layer), stats.share(layer)
        rows += [
            (layer, e, role, mean[e, r], *ends[e, r], share[e], found.n, found.data)
            for e in range(len(mean))
            for r, role in enumerate(found.roles)
        ]
    names = ["layer", "expert", "attention to", "share", "low", "high", "Top-1 share", "inputs", "data"]
    return pd.DataFrame(rows, columns=names)
