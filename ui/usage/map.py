"""The map of Expert usage: which experts are used, for all examples or a group of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.checkpoints.info import CheckpointInfo, usage_in
from ui import measurements, state
from ui.bound import fall_back
from ui.downloads import chart
from ui.text import escape, escape_html, percent, slice_name
from ui.theme import SEQUENTIAL, click_targets, layout, outline, pick_by_click
from ui.usage.figures import cells_height

if TYPE_CHECKING:
    from shrp.analysis.usage import UsageStats

ALL = "all examples"
GROUP = "group"
"""Key of the widget, in the session's state and in the URL."""
_MAP = "usage-map"
_LABELLED = 16
"""Experts up to which a map's cells have room for their numbers."""


def groups_of(selection: state.Selection, stats: UsageStats) -> dict[str, np.ndarray]:
    """Name -> mask `(N,)` of all examples, and of the groups of every grouping."""
    found = {ALL: np.ones(stats.n, dtype=bool)}
    for by, groups in measurements.groups(selection.checkpoint, selection.data, stats).items():
        for name, mask in groups.items():
            label = f"{by}: {slice_name(str(name))}"
            found[f"{by}: {name}" if label in found else label] = mask  # `a_b` and `a b` are two slices
    return found


def stored_map(name: str, info: CheckpointInfo) -> None:
    """Draw the usage that a routed checkpoint carries, which needs no torch, until that of the picked data is measured."""
    usage, unit = dict(sorted(usage_in(info).items())), "tokens of " * (info.config.routing == "token")
    shares, layers = np.array([*usage.values()], dtype=float), [*usage]
    top, on = int(shares[-1].argmax()), str(info.training.get("validation_data", "the data that it was counted on"))
    takes = f"{'takes' if info.config.top_k == 1 else 'is the first choice for'} **{percent(shares[-1, top], 0)}** of"
    with st.container(key="verdict-stored"):
        st.markdown(f"**Layer {layers[-1]}, expert {top}** {takes} {unit}{escape(on)}, as stored with the model.")
    alt = f"Top-1 share of {shares.shape[1]} experts in layers {layers[0]} to {layers[-1]}."
    about = f"{escape_html(on)}; even use: {percent(1 / shares.shape[1])}"
    fig = usage_heatmap(shares, None, layers, about, "", (layers[-1], top))
    frame = pd.DataFrame(shares, pd.Index(layers, name="layer")).reset_index()
    chart(fig, frame, "stored-usage", f"{name}-stored-usage", alt)


def usage_map(selection: state.Selection, stats: UsageStats, cell: tuple[int, int]) -> None:
    """Draw the heatmap and its options; call `ui.state.follow_cell` before."""
    groups = groups_of(selection, stats)
    fall_back(GROUP, groups, ALL, "the examples")
    with st.popover("Expert, examples", icon=":material/tune:"):
        st.selectbox("Layer", stats.layers, key=state.LAYER)
        st.selectbox("Expert", range(stats.num_experts), key=state.EXPERT)
        group = st.selectbox("Examples", list(groups), key=GROUP, bind="query-params")
    rows = groups[group]
    values = np.stack([stats.share(layer, rows) for layer in stats.layers])
    counts = np.stack([stats.counts(layer, rows) for layer in stats.layers])
    n, data = int(rows.sum()), escape_html(stats.data)
    tokens = f" ({int(counts[0].sum()):,} tokens)" if stats.unit == "tokens" else ""
    even = percent(1 / stats.num_experts)
    blank = "; blank: not used" * bool((counts == 0).any())
    subtitle = f"{data}, {escape_html(group)}, n = {n:,}{tokens}; even use: {even}{blank}; click to open"
    chart(
        usage_heatmap(values, counts, stats.layers, subtitle, stats.unit, cell),
        lambda: map_frame(stats, values, counts).assign(data=stats.data, group=group, n=n),
        key=_MAP,
        name=f"{selection.name}-usage",
        alt=f"Top-1 share of {stats.num_experts} experts in layers {stats.layers[0]} to {stats.layers[-1]}.",
        hint="The CSV holds the same numbers. The button above the chart has boxes for layer and expert.",
        on_select=lambda: state.pick_cell(_MAP),
    )


def map_frame(stats: UsageStats, shares: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """A row for each layer and expert: layer, expert, its share and count, of `(L, H)` each."""
    cells = pd.MultiIndex.from_product([stats.layers, range(stats.num_experts)], names=["layer", "expert"])
    return cells.to_frame(index=False).assign(**{"Top-1 share": shares.ravel(), "count": counts.ravel()})


def usage_heatmap(
    shares: np.ndarray,
    counts: np.ndarray | None,
    layers: Sequence[int],
    subtitle: str,
    unit: str,
    selected: tuple[int, int],
) -> go.Figure:
    """Layers x experts as a heatmap whose cells can be clicked; a click's `customdata` is layer and expert.

    Args:
        shares, counts: `(L, H)`: shares from 0 to 1, nan where nothing is known, and how many of `unit` they are, if known.
        layers: the `L` layers, ascending.
        selected: layer and expert that are outlined.
    """
    experts, names = range(shares.shape[1]), [str(layer) for layer in layers]
    top = max(float(shares[np.isfinite(shares)].max(initial=0.0)), 2 / len(experts))
    show = len(experts) <= _LABELLED
    # Percent, as the title says; without the sign twelve cells fit in a narrow window. Zeros stay blank.
    text = [[str(round(100 * v) or "<1") if v == v and v else "" for v in row] for row in shares.tolist()]
    fig = go.Figure(
        go.Heatmap(
            z=shares,
            x=list(experts),
            y=names,
            text=text if show else None,
            texttemplate="%{text}" if show else None,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            showscale=not show,  # the numbers say it, and need the room in a narrow window
            colorbar={"title": {"text": "Top-1 share", "side": "right"}, "tickformat": ".0%"},
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=top,
        )
    )
    cells = [(layer, expert) for layer in layers for expert in experts]
    many = [""] * len(cells) if counts is None else [f"<br>{int(count):,} {unit}" for count in counts.flat]
    hover = [
        f"<b>Layer {layer}, expert {expert}</b><br>Top-1 share: " + (percent(share) + of if share == share else "not known")
        for (layer, expert), share, of in zip(cells, shares.flat, many, strict=True)
    ]
    fig.add_trace(click_targets(cells, hover, row="{}", size=30))
    outline(fig, selected[1], list(layers).index(selected[0]))
    pick_by_click(fig)
    # Without a range of their own the axes leave room for whole marks around the outer cells.
    fig.update_xaxes(tickvals=list(experts), tickangle=0, range=[-0.6, len(experts) - 0.4])
    # The lowest layer on top, as wherever layers are rows: an example is read downwards.
    fig.update_yaxes(type="category", range=[len(names) - 0.4, -0.6])
    height = cells_height(len(names))
    return layout(fig, "Top-1 share (%)", subtitle=subtitle, x="expert", y="layer", height=height, legend=False)
