"""Figures of expert usage: layers x experts, one expert's examples by group, and rows of marks with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ui.text import axis_names, escape_html, percent, slice_name
from ui.theme import (
    BLUE,
    GREY,
    ORANGE,
    SEQUENTIAL,
    click_targets,
    layout,
    outline,
    pick_by_click,
    whiskers,
)

LABELLED = 16
"""Experts up to which a map's cells have room for their numbers."""
HOVER = {"hovertemplate": "%{hovertext}<extra></extra>"}
LINE_MARKS = {
    "mode": "markers",
    "marker": {"symbol": "line-ns", "size": 18, "line": {"color": ORANGE, "width": 3}},
}
"""Short upright lines, of what all others have."""


def cells_height(layers: int) -> int:
    """Height of a figure with one row a layer, titles included, in pixels."""
    return 150 + 30 * max(layers, 3)


def counted_in(unit: str) -> str:
    """What a `UsageStats` of that unit counts, in words: `tokens` where every token is routed by itself."""
    return "tokens" if unit == "tokens" else "examples"


def usage_heatmap(
    values: np.ndarray,
    layers: Sequence[int],
    *,
    title: str,
    subtitle: str,
    measure: str,
    counts: np.ndarray | None = None,
    unit: str = "examples",
    ends: np.ndarray | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Layers x experts as a heatmap whose cells can be clicked; a click's `customdata` is layer and expert.

    Args:
        values: `(L, H)`: shares from 0 to 1; nan where nothing is known. `layers`: the `L` layers, ascending.
        counts: `(L, H)`, of `unit`, for the hover text.
        ends: `(L, H, 2)` of 95% intervals, nan for none, for the hover text.
    """
    experts, names = range(values.shape[1]), [str(layer) for layer in layers]
    top = max(float(values[np.isfinite(values)].max(initial=0.0)), 2 / len(experts))
    show = len(experts) <= LABELLED
    # Percent, as the subtitle says; without the sign twelve cells fit in a narrow window. Zeros stay blank.
    text = [[str(round(100 * v) or "") if v == v else "" for v in row] for row in values.tolist()]
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=list(experts),
            y=names,
            text=text if show else None,
            texttemplate="%{text}" if show else None,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            showscale=not show,  # the numbers say it, and need the room in a narrow window
            colorbar={"title": {"text": escape_html(measure), "side": "right"}, "tickformat": ".0%"},
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=top,
        )
    )
    points, hover = [(layer, expert) for layer in layers for expert in experts], []
    for (layer, expert), (i, e) in zip(points, np.ndindex(values.shape), strict=True):
        said, value = f"<b>Layer {layer}, expert {expert}</b><br>{escape_html(measure)}: ", values[i, e]
        if math.isnan(value):
            said += "not known"
        else:
            said += percent(value)
            low, high = (np.nan, np.nan) if ends is None else ends[i, e]
            said += "" if np.isnan(low) else f"<br>95% CI: {percent(low)} to {percent(high)}"
            said += "" if counts is None else f"<br>{int(counts[i, e]):,} {unit} (Top-1)"
        hover.append(f"{said}<br><i>click to open this expert</i>")
    rows = [str(layer) for layer, _ in points]
    fig.add_trace(click_targets([expert for _, expert in points], rows, points, hover, size=30))
    if selected and selected[0] in layers:
        row = list(layers).index(selected[0])
        outline(fig, (selected[1] - 0.5, selected[1] + 0.5), (row - 0.5, row + 0.5))
    pick_by_click(fig)
    # Without a range of their own the axes leave room for whole marks around the outer cells.
    bare = {"showgrid": False, "zeroline": False}
    fig.update_xaxes(tickvals=list(experts), tickangle=0, range=[-0.6, len(experts) - 0.4], **bare)
    # The lowest layer on top, as wherever layers are rows: an example is read downwards.
    fig.update_yaxes(type="category", range=[len(names) - 0.4, -0.6], **bare)
    height = cells_height(len(names))
    return layout(fig, title, subtitle=subtitle, x="expert", y="layer", height=height, legend=False)


def mix_bars(frame: pd.DataFrame, *, what: str, unit: str, total: int) -> go.Figure:
    """An expert's examples by group, each bar with a mark at the rate in all data.

    `frame`: of `shrp.evaluation.statistics.mix_frame`.
    """
    groups = [slice_name(str(group)) for group in frame["group"]]
    hover = [
        f"<b>{escape_html(name)}</b><br>{percent(row.here)} of this expert's {unit} ({row.count_:,} of {total:,})"
        f"<br>{percent(row.base)} of all {unit} ({row.n:,})"
        + ("" if pd.isna(row.lift) else f"<br>{row.lift:.2f} times as often")
        + ("" if pd.isna(row.low) else f"<br>95% CI {percent(row.low)} to {percent(row.high)}")
        + ("" if pd.isna(row.q) else f"<br>compared with the other experts: p = {row.p:.2g}, q = {row.q:.2g}")
        for name, row in zip(groups, frame.rename(columns={"count": "count_"}).itertuples())
    ]
    common = {"hovertext": hover, "y": axis_names(groups)} | HOVER
    fig = go.Figure()
    bars = whiskers(*(100 * frame[name] for name in ("here", "low", "high")), color=GREY)
    style = {"orientation": "h", "marker": {"color": BLUE}, "width": 0.6}
    fig.add_bar(x=100 * frame["here"], error_x=bars, name="this expert", **style, **common)
    fig.add_scatter(x=100 * frame["base"], name=f"all {unit} (base rate)", **LINE_MARKS, **common)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)  # groups may be called 1 and 2
    fig.update_xaxes(ticksuffix="%", rangemode="tozero", zeroline=False)
    title, subtitle = f"Its {unit} by {what}", f"n = {total:,} {unit} of this expert"
    subtitle += "" if frame["low"].isna().all() else "; whiskers: 95% CI"
    height = 165 + 26 * max(len(frame), 3)
    return layout(fig, title, subtitle=subtitle, x=f"share of its {unit}", height=height, legend=True)


def interval_marks(
    x: pd.Series, y: Sequence[str], low: pd.Series, high: pd.Series, hover: Sequence[str], **marker: Any
) -> go.Figure:
    """A mark with its interval in each row, the first on top, and a dotted line at 0.

    `x`, `low`, `high`: each row's value and the ends of its interval; none where these are nan. `y`: names, HTML-safe.
    """
    bars = whiskers(x, low, high, color=GREY)
    style = {"mode": "markers", "marker": {"size": 10} | marker, "name": "slice"}
    fig = go.Figure(go.Scatter(x=x, y=y, error_x=bars, hovertext=hover, **style, **HOVER))
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    fig.update_xaxes(zeroline=False)
    return fig.update_yaxes(type="category", categoryorder="array", categoryarray=list(y)[::-1])
