"""Figures of expert usage: one expert's examples by group, and rows of marks with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui.text import axis_names, escape_html, percent, slice_name
from ui.theme import BLUE, GREY, HOVER, ORANGE, layout, whiskers

LINE_MARKS = {
    "mode": "markers",
    "marker": {"symbol": "line-ns", "size": 18, "line": {"color": ORANGE, "width": 3}},
}
"""Short upright lines, of what all others have."""


def cells_height(layers: int) -> int:
    """Height of a figure with one row a layer, titles included, in pixels."""
    return 150 + 30 * max(layers, 3)


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
