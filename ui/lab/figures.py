"""The pruning lab's figure of the kept experts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.pruning.plan import LayerEdit, PlanEdits, PruningPlan
from ui.text import escape_html, percent
from ui.theme import MUTED, SELECTED, SEQUENTIAL, click_targets, layout, pick_by_click

_NOW = {"free": "", "pinned": "<br>pinned", "dropped": "<br>dropped by hand"}
_NEXT = {
    "free": "click to pin it: always kept",
    "pinned": "click to drop it: never kept",
    "dropped": "click to leave it to the plan again",
}
"""What a click on a cell does, by the cell's state."""


def kept_map(
    plan: PruningPlan,
    experts: int,
    usage: Mapping[int, np.ndarray] | None = None,
    measured: str = "",
    edits: PlanEdits | None = None,
    drawing: int = 0,
    further: Collection[int] = (),
    columns: int = 1,
) -> go.Figure:
    """Layers x experts: the weight of each kept expert; dropped ones stay grey.

    Args:
        usage: layer -> Top-1 shares `(H,)` for the hover texts, where they are known.
        measured: what the usage was measured on, for the subtitle.
        edits: what a person pinned and dropped, to mark; the cells can then be clicked, and the `customdata` of the
            points clicked is layer, expert and `drawing`. None for a map to look at.
        drawing: number of the drawing. A new one makes the figure differ, which takes back its selection.
        further: layers that the plan lacks and that have empty rows, so that two maps line up.
        columns: how many such maps stand side by side.
    """
    kept_in = dict(plan.layers)
    layers = sorted({*kept_in, *further})
    weights = np.full((len(layers), experts), np.nan)
    for layer, kept in plan.layers:
        weights[layers.index(layer), list(kept.experts)] = kept.weights
    pruned = np.array([layer in kept_in for layer in layers])[:, None]
    numbers = list(range(experts))
    cells = {"x": numbers, "y": [f"layer {layer}" for layer in layers], "xgap": 1, "ygap": 1}
    fig = go.Figure()
    fig.add_heatmap(
        z=np.where(np.isnan(weights) & pruned, 0.0, np.nan),
        colorscale=[[0, MUTED], [1, MUTED]],
        showscale=False,
        hoverinfo="skip",
        **cells,
    )
    fig.add_heatmap(
        z=100 * weights,
        zmin=0,
        zmax=100,
        colorscale=SEQUENTIAL,
        texttemplate="%{z:.0f}" if experts <= 16 else None,
        colorbar={"title": {"text": "weight (%)"}, "thickness": 12},
        hoverinfo="skip",
        **cells,
    )
    if edits is not None:
        _add_marks(fig, edits, layers)
    _add_cells(fig, weights[pruned[:, 0]], sorted(kept_in), usage, edits, drawing)
    clickable = edits is not None
    layout(
        fig,
        "Kept experts and their weights",
        subtitle=f"{plan.budget} of {len(kept_in) * experts} experts; grey: not kept"
        + ("; empty rows are not pruned" if len(kept_in) < len(layers) else "")
        + (f"<br>{escape_html(measured)}" if measured else ""),
        x="expert",
        height=170 + 30 * max(4, len(layers)) + (36 if clickable else 0),
        margin=({} if columns > 1 else {"t": 96 if measured else 72}) | ({"b": 84} if clickable else {}),
        legend=clickable,
        columns=columns,
    )
    pick_by_click(fig)
    fig.update_xaxes(
        tickmode="array", tickvals=numbers, showgrid=False, zeroline=False, range=[-0.5, experts - 0.5]
    )
    fig.update_yaxes(type="category", range=[len(layers) - 0.5, -0.5], showgrid=False, zeroline=False)
    return fig


def _add_marks(fig: go.Figure, edits: PlanEdits, layers: Sequence[int]) -> None:
    """An outline on pinned experts and a cross on dropped ones, both in the legend even where there are none."""
    for name, symbol, size, chosen in (
        ("pinned: always kept", "square-open", 24, {i: edits.of(i).pinned for i in layers}),
        ("dropped by hand: never kept", "x-thin-open", 10, {i: edits.of(i).dropped for i in layers}),
    ):
        points = [(layer, expert) for layer, experts in chosen.items() for expert in experts]
        for color, width in (("white", 6), (SELECTED, 2.5)):  # a white edge, as `ui.theme.outline` says
            fig.add_scatter(
                x=[expert for _, expert in points] or [None],
                y=[f"layer {layer}" for layer, _ in points] or [f"layer {layers[0]}"],
                mode="markers",
                name=name,
                showlegend=color == SELECTED,
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": color,
                    "line": {"width": width, "color": color},
                },
                # Streamlit dims what isn't selected.
                unselected={"marker": {"opacity": 1}},
                hoverinfo="skip",
            )


def _add_cells(
    fig: go.Figure,
    weights: np.ndarray,
    layers: Sequence[int],
    usage: Mapping[int, np.ndarray] | None,
    edits: PlanEdits | None,
    drawing: int,
) -> None:
    """What can be pointed at and clicked on: each cell, with what is known of it."""
    points, texts = [], []
    for row, layer in enumerate(layers):
        edit = edits.of(layer) if edits is not None else LayerEdit()
        for expert, weight in enumerate(weights[row]):
            lines = [f"layer {layer}, expert {expert}: " + ("not kept" if np.isnan(weight) else "kept")]
            if not np.isnan(weight):
                lines.append(f"weight {percent(weight)}")
            if usage:
                lines.append(f"Top-1 share {percent(float(usage[layer][expert]))}")
            if edits is not None:
                now = "pinned" if expert in edit.pinned else "dropped" if expert in edit.dropped else "free"
                lines[-1] += f"{_NOW[now]}<br><i>{_NEXT[now]}</i>"
            points.append((layer, expert, drawing))
            texts.append("<br>".join(lines))
    columns, rows = [expert for _, expert, _ in points], [f"layer {layer}" for layer, _, _ in points]
    fig.add_trace(click_targets(columns, rows, points, texts))
