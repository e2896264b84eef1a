"""Figures of routes: router probabilities, tokens' experts, inputs side by side, what-if matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.explore import Exploration
from shrp.whatif import WhatIf
from ui.text import escape_html, shorten
from ui.theme import DIVERGING, SELECTED, SEQUENTIAL, layout

EXPERT_COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
    "#a08c00", "#7f3c8d", "#66c2a5", "#b15928", "#5e6ad2", "#8a8f98",
)  # fmt: skip
"""One an expert, repeating after twelve; cells carry the expert's number too, so colour is never alone."""
_MAX_LABELLED = 40
"""Cells wider than this many a row are too narrow for a number."""
_WINDOW = 60
"""Tokens shown at first; a longer text is moved by dragging."""


def _layer_names(layers: Sequence[int]) -> list[str]:
    return [f"layer {layer}" for layer in layers]


def _grid_height(rows: int, extra: int) -> int:
    return extra + max(4, rows) * 26


def _expert_axis(fig: go.Figure, experts: int) -> None:
    fig.update_xaxes(
        tickmode="array", tickvals=list(range(experts)), ticktext=[str(e) for e in range(experts)]
    )
    fig.update_xaxes(showgrid=False, zeroline=False)
    fig.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", title="")


def _title_text(exploration: Exploration, number: int | None = None) -> str:
    head = f"{number}. " if number is not None else ""
    return head + escape_html(shorten(" / ".join(exploration.text), 70))


def router_heatmap(
    exploration: Exploration, number: int | None = None, top: float | None = None
) -> go.Figure:
    """Layers x experts: the router's probabilities for one input, the chosen expert outlined.

    Args:
        number: the input's number, for the subtitle.
        top: upper end of the colour scale, so that two charts compare; None takes the input's own.
    """
    layers = exploration.layers
    probs = np.stack([exploration.mean_probs(layer) for layer in layers])
    shares = np.stack([exploration.shares(layer) for layer in layers])
    top = float(probs.max()) if top is None else top
    unit = "mean router probability over tokens" if exploration.by_token else "router probability"
    share_line = "<br>%{customdata:.1%} of the tokens choose it" if exploration.by_token else ""
    fig = go.Figure(
        go.Heatmap(
            z=probs,
            x=list(range(probs.shape[1])),
            y=_layer_names(layers),
            customdata=shares,
            zmin=0,
            zmax=top,
            colorscale=SEQUENTIAL,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "probability"}, "tickformat": ".0%", "thickness": 12},
            hovertemplate=f"%{{y}}, expert %{{x}}<br>{unit} %{{z:.1%}}{share_line}<extra></extra>",
        )
    )
    for row, layer in enumerate(layers):
        _outline(fig, exploration.choice(layer), row)
    marked = "the expert that most tokens choose" if exploration.by_token else "the chosen expert"
    layout(
        fig,
        "Router probabilities",
        subtitle=f"{_title_text(exploration, number)}<br>outlined: {marked}; even would be "
        f"{1 / probs.shape[1]:.1%}",
        x="expert",
        height=_grid_height(len(layers), 150),
    )
    _expert_axis(fig, probs.shape[1])
    return fig


def _outline(fig: go.Figure, x: int, y: int) -> None:
    fig.add_shape(
        type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": SELECTED, "width": 2.5}
    )


def _discrete_scale(experts: int) -> list[list[object]]:
    steps: list[list[object]] = []
    for expert in range(experts):
        color = EXPERT_COLORS[expert % len(EXPERT_COLORS)]
        steps += [[expert / experts, color], [(expert + 1) / experts, color]]
    return steps


def _expert_cells(z: np.ndarray, experts: int, **options: object) -> go.Heatmap:
    """Cells coloured by expert number, with the number inside where there is room."""
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


def token_map(exploration: Exploration, number: int | None = None) -> go.Figure:
    """Layers x tokens: each token's expert, its probability on hover."""
    layers, tokens = exploration.layers, exploration.tokens
    experts = exploration.probs[layers[0]].shape[-1]
    probs = np.stack([exploration.probs[layer] for layer in layers])  # (L, T, H)
    names = [[escape_html(token) for token in tokens]] * len(layers)
    custom = np.dstack([probs.max(-1), np.array(names, dtype=object)])
    cells = _expert_cells(
        probs.argmax(-1),
        experts,
        x=list(range(len(tokens))),
        y=_layer_names(layers),
        customdata=custom,
        hovertemplate="%{y}, token %{x}: <b>%{customdata[1]}</b><br>expert %{z}, probability "
        "%{customdata[0]:.1%}<extra></extra>",
    )
    fig = go.Figure(cells)
    more = (
        f"; showing {_WINDOW} of {len(tokens)} tokens at first, drag to move" if len(tokens) > _WINDOW else ""
    )
    layout(
        fig,
        "Expert of every token",
        subtitle=f"{_title_text(exploration, number)}<br>{len(tokens):,} tokens, special ones included{more}",
        height=_grid_height(len(layers), 190),
    )
    fig.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(tokens))),
        ticktext=names[0],
        tickangle=-60,
        showgrid=False,
        zeroline=False,
        title="token, in reading order",
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    if len(tokens) > _WINDOW:
        fig.update_xaxes(range=[-0.5, _WINDOW - 0.5])
        fig.update_layout(dragmode="pan")
    return fig


def routes_side_by_side(explorations: Sequence[Exploration]) -> go.Figure:
    """Inputs x layers: the expert that each input takes in each layer (under token routing, most tokens')."""
    layers = explorations[0].layers
    z = np.array([[e.choice(layer) for layer in layers] for e in explorations])
    custom = np.empty((*z.shape, 2), dtype=object)
    for i, e in enumerate(explorations):
        for j, layer in enumerate(layers):
            custom[i, j] = (_title_text(e), float(e.mean_probs(layer)[z[i, j]]))
    experts = len(explorations[0].mean_probs(layers[0]))
    fig = go.Figure(
        _expert_cells(
            z,
            experts,
            x=_layer_names(layers),
            y=[f"{i + 1}. {escape_html(shorten(e.text[0], 38))}" for i, e in enumerate(explorations)],
            customdata=custom,
            hovertemplate="%{customdata[0]}<br>%{x}: expert %{z}, probability %{customdata[1]:.1%}"
            "<extra></extra>",
        )
    )
    what = "the expert that most of its tokens choose" if explorations[0].by_token else "its expert"
    layout(
        fig,
        "Routes side by side",
        subtitle=f"each input's row: {what} in each of {len(layers)} routed layers",
        height=_grid_height(len(explorations), 130),
    )
    fig.update_xaxes(showgrid=False, side="bottom")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig


def what_if_heatmap(
    result: WhatIf, exploration: Exploration, output: int, limit: float | None = None
) -> go.Figure:
    """Layers x experts: change of one class's logit when that expert is forced in that layer.

    Args:
        output: the class (0 for regression).
        limit: end of the symmetric colour scale; None takes the largest change.
    """
    change, flips = result.change(output), result.flips()
    limit = limit or max(float(np.abs(change).max()), 1e-6)
    name = escape_html(result.task.label_names[output]) if result.task.label_names else "the prediction"
    what = f"logit of <i>{name}</i>" if result.task.label_names else name
    experts = change.shape[1]
    custom = np.dstack([result.logits[:, :, output], np.where(flips, "<br><b>prediction flips</b>", "")])
    written = np.round(change, 2) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = np.vectorize(lambda value: f"{value:+.2f}" if value else "0")(written)
    fig = go.Figure(
        go.Heatmap(
            z=change,
            x=list(range(experts)),
            y=_layer_names(result.layers),
            customdata=custom,
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "change of logit"}, "thickness": 12},
            hovertemplate="%{y}, expert %{x} forced<br>change %{z:+.3f}, logit %{customdata[0]:.3f}"
            "%{customdata[1]}<extra></extra>",
            text=text,
            texttemplate="%{text}" if experts <= 16 else None,
        )
    )
    for row, layer in enumerate(result.layers):
        _outline(fig, exploration.choice(layer), row)
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(
            go.Scatter(
                x=columns + 0.36,
                y=[f"layer {result.layers[row]}" for row in rows],
                mode="markers",
                marker={"symbol": "x", "size": 7, "color": "#1b2430"},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    own = "most tokens' choice" if exploration.by_token else "the router's choice"
    crosses = "; ✕ prediction flips" if len(rows) else ""
    base = result.base[output]
    layout(
        fig,
        f"What if: change of the {what}",
        subtitle=f"{_title_text(exploration)}<br>as routed {base:+.3f}; outlined: {own}{crosses}",
        x="expert forced in the layer",
        height=_grid_height(len(result.layers), 150),
    )
    _expert_axis(fig, experts)
    return fig
