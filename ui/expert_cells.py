"""The routes of inputs side by side, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.analysis.explore import Exploration
from ui.text import escape_html, shorten_texts
from ui.theme import layout

EXPERT_COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
    "#a08c00", "#7f3c8d", "#66c2a5", "#b15928", "#5e6ad2", "#8a8f98",
)  # fmt: skip
"""One an expert, repeating after twelve; cells carry the expert's number too, so colour is never alone."""
_MAX_LABELLED = 160
"""Cells a row, above which their numbers would take a browser seconds to draw."""


def _discrete_scale(experts: int) -> list[list[object]]:
    steps: list[list[object]] = []
    for expert in range(experts):
        color = EXPERT_COLORS[expert % len(EXPERT_COLORS)]
        steps += [[expert / experts, color], [(expert + 1) / experts, color]]
    return steps


def _expert_cells(z: np.ndarray, experts: int, **options: object) -> go.Heatmap:
    """Cells coloured by expert number, with the number inside, but for very long texts."""
    labelled = z.shape[1] <= _MAX_LABELLED
    return go.Heatmap(
        z=z,
        zmin=-0.5,
        zmax=experts - 0.5,
        colorscale=_discrete_scale(experts),
        xgap=1,
        ygap=1,
        texttemplate="%{z}" if labelled else None,
        showscale=not labelled,
        colorbar={"title": {"text": "expert"}, "thickness": 12, "dtick": 1 if experts <= 12 else 2},
        **options,
    )


def routes_side_by_side(
    explorations: Sequence[Exploration],
    *,
    labels: Sequence[str] | None = None,
    title: str = "Routes side by side",
) -> go.Figure:
    """Inputs x layers: the expert that each input takes in each layer (under token routing, most tokens').

    Args:
        labels: the rows' names; None takes the inputs' numbers and texts.
        title: of the figure.
    """
    labels = labels or [f"{i + 1}. {shorten_texts(e.text, 38)}" for i, e in enumerate(explorations)]
    layers = explorations[0].layers
    z = np.array([[e.choice(layer) for layer in layers] for e in explorations])
    custom = np.empty((*z.shape, 2), dtype=object)
    for i, e in enumerate(explorations):
        for j, layer in enumerate(layers):
            custom[i, j] = (escape_html(shorten_texts(e.text, 70)), float(e.mean_probs(layer)[z[i, j]]))
    experts = len(explorations[0].mean_probs(layers[0]))
    fig = go.Figure(
        _expert_cells(
            z,
            experts,
            x=[f"layer {layer}" for layer in layers],
            y=[escape_html(label) for label in labels],
            customdata=custom,
            hovertemplate="%{customdata[0]}<br>%{x}: expert %{z}, probability %{customdata[1]:.1%}"
            "<extra></extra>",
        )
    )
    several = max(map(explorations[0].several, layers), default=1)
    what = "its expert" if several == 1 else f"of its {several} experts the one with the largest gate"
    what = "the expert that most of its tokens choose" if explorations[0].by_token else what
    layout(
        fig,
        title,
        subtitle=f"each row: {what} in each of {len(layers)} routed layers",
        height=140 + max(4, len(explorations)) * 26,
        margin={"t": 78},
    )
    fig.update_xaxes(showgrid=False, side="bottom")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig
