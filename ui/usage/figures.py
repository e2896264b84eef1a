"""Figures of expert usage: layers x experts, and one expert's examples by group."""

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
    DIVERGING,
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
ROW = 30
"""Height of one layer in a figure, in pixels."""


def cells_height(layers: int) -> int:
    """Height of a figure with one row a layer, titles included."""
    return 150 + ROW * max(layers, 3)


def counted_in(unit: str) -> str:
    """What is counted, in words: `examples`, or `tokens` where every token is routed by itself.

    Args:
        unit: of `UsageStats`.
    """
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
    difference: bool = False,
    ends: np.ndarray | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Layers x experts as a heatmap whose cells can be clicked.

    A click's `customdata` is layer and expert.

    Args:
        values: `(L, H)`: shares or probabilities from 0 to 1, or their differences; nan where nothing is known.
        layers: the `L` layers, ascending.
        measure: what the values are, in words, for the hover text.
        counts: `(L, H)` of what was counted, for the hover text.
        unit: of the counts.
        difference: values go both ways from 0.
        ends: `(L, H, 2)` of 95% intervals, nan for none; differences whose interval excludes 0 are in bold.
        selected: layer and expert to outline.
    """
    experts = range(values.shape[1])
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    scale: dict[str, Any] = {"colorscale": SEQUENTIAL, "zmin": 0, "zmax": max(limit, 2 / len(experts))}
    if difference:
        scale = {"colorscale": DIVERGING, "zmin": -limit, "zmax": limit, "zmid": 0}
    ticks = [limit * part for part in (-1, -0.5, 0, 0.5, 1)]
    digits = max(0, math.ceil(-math.log10(50 * limit)))  # so many that the ticks differ
    said = [_cell(value, True, digits).removesuffix(" points") for value in ticks]
    rows = [str(layer) for layer in layers]
    show = len(experts) <= LABELLED
    bold = beyond_chance(ends) if difference and ends is not None else np.zeros(values.shape, dtype=bool)
    # Percent, as the colour bar says; without the sign twelve cells fit in a narrow window.
    cells = [
        [f"<b>{text}</b>" if sure else text for text, sure in zip(texts, row)]
        for texts, row in zip([[_cell(v, difference).removesuffix("%") for v in row] for row in values], bold)
    ]
    fig = go.Figure()
    fig.add_heatmap(
        z=values,
        x=list(experts),
        y=rows,
        text=cells if show else None,
        texttemplate="%{text}" if show else None,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        showscale=not show,  # the numbers say it, and need the room in a narrow window
        colorbar={
            # Of a difference in points, as its cells are.
            **({"tickvals": ticks, "ticktext": said} if difference else {"tickformat": ".0%"}),
            "thickness": 12,
            "title": {"text": "points" if difference else escape_html(measure), "side": "right"},
        },
        **scale,
    )
    points = [(layer, expert) for layer in layers for expert in experts]
    texts = [
        f"<b>Layer {layer}, expert {expert}</b><br>{escape_html(measure)}: "
        + ("not known" if math.isnan(v := float(values[i, expert])) else _cell(v, difference, digits=1))
        + ("" if ends is None or math.isnan(v) else f"<br>95% interval: {_ends(ends[i, expert], difference)}")
        + ("" if counts is None or math.isnan(v) else f"<br>{int(counts[i, expert]):,} {unit} (Top-1)")
        + "<br><i>click to open this expert</i>"
        for i, layer in enumerate(layers)
        for expert in experts
    ]
    names = [str(layer) for layer, _ in points]
    fig.add_trace(click_targets([expert for _, expert in points], names, points, texts, size=30))
    if selected and selected[0] in layers:
        row = list(layers).index(selected[0])
        outline(fig, (selected[1] - 0.5, selected[1] + 0.5), (row - 0.5, row + 0.5))
    pick_by_click(fig)
    # Without a range of their own the axes leave room for whole marks around the outer cells.
    fig.update_xaxes(
        tickvals=list(experts),
        tickangle=0,
        range=[-0.6, len(experts) - 0.4],
        showgrid=False,
        zeroline=False,
    )
    # The lowest layer on top, as wherever layers are rows: an input is read downwards.
    fig.update_yaxes(type="category", range=[len(rows) - 0.4, -0.6], showgrid=False, zeroline=False)
    return layout(
        fig,
        title,
        subtitle=subtitle,
        x="expert",
        y="layer",
        height=cells_height(len(layers)),
        legend=False,
    )


def beyond_chance(ends: np.ndarray) -> np.ndarray:
    """Which intervals `(..., 2)` exclude 0; a missing one does not."""
    return (ends[..., 0] > 0) | (ends[..., 1] < 0)


def _ends(pair: np.ndarray, difference: bool) -> str:
    """An interval of shares, or of percentage points."""
    low, high = (100 * float(end) for end in pair)
    if math.isnan(low):
        return "none, too few examples"
    return f"{low:+.1f} to {high:+.1f}" if difference else f"{low:.1f}% to {high:.1f}%"


def _cell(value: float, difference: bool, digits: int = 0) -> str:
    """A cell's value: percent, or percentage points with their sign; empty where it is not known or rounds to 0%."""
    if not math.isfinite(value):
        return ""
    if not difference:
        return percent(value, digits) if digits or round(100 * value) else ""  # so that zeros stay blank
    points = round(100 * value, digits)
    return (f"{points:+.{digits}f}" if points else "0") + (" points" if digits else "")


def mix_bars(frame: pd.DataFrame, *, what: str, unit: str, total: int) -> go.Figure:
    """An expert's examples by group, each bar with a mark at the rate in all data.

    Args:
        frame: of `shrp.evaluation.statistics.mix_frame`.
    """
    groups = [slice_name(str(group)) for group in frame["group"]]
    names = [escape_html(group) for group in groups]
    hover = [
        f"<b>{name}</b><br>{percent(row.here)} of this expert's {unit} ({row.count_:,} of {total:,})"
        f"<br>{percent(row.base)} of all {unit} ({row.n:,})"
        + ("" if pd.isna(row.lift) else f"<br>{row.lift:.2f} times as often")
        + ("" if pd.isna(row.low) else f"<br>95% interval {percent(row.low)} to {percent(row.high)}")
        + ("" if pd.isna(row.q) else f"<br>compared with the other experts: p = {row.p:.2g}, q = {row.q:.2g}")
        for name, row in zip(names, frame.rename(columns={"count": "count_"}).itertuples())
    ]
    common = {
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "y": axis_names(groups),
    }
    fig = go.Figure()
    fig.add_bar(
        x=100 * frame["here"],
        error_x=whiskers(*(100 * frame[name] for name in ("here", "low", "high")), color=GREY),
        orientation="h",
        marker={"color": BLUE},
        name="this expert",
        width=0.6,
        **common,
    )
    fig.add_scatter(
        x=100 * frame["base"],
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"color": ORANGE, "width": 3}},
        name=f"all {unit} (base rate)",
        **common,
    )
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)  # groups may be called 1 and 2
    fig.update_xaxes(ticksuffix="%", rangemode="tozero", zeroline=False)
    return layout(
        fig,
        f"Its {unit} by {what}",
        subtitle=f"n = {total:,} {unit} of this expert"
        + ("" if frame["low"].isna().all() else "; whiskers: 95% CI"),
        x=f"share of its {unit}",
        height=165 + 26 * max(len(frame), 3),
        legend=True,
    )
