"""Figures of one input's routing, layers by experts: the router's probabilities and the what-if matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.analysis.explore import Exploration
from shrp.analysis.what_if import WhatIf
from ui.text import escape_html, shorten_texts
from ui.theme import DIVERGING, SELECTED, SEQUENTIAL, click_targets, crosses, layout, outline, pick_by_click

ONE_LINE, TWO_LINES, THREE_LINES = {"t": 78}, {"t": 96}, {"t": 114}
"""Margins above a plot, by how many lines its subtitle has."""
BESIDE = 0.42
"""From a cell's middle to a mark beside its number, in cells: clear of the number in a window of 1200 pixels."""


def layer_names(layers: Sequence[int]) -> list[str]:
    """Rows' names."""
    return [f"layer {layer}" for layer in layers]


def grid_height(rows: int, extra: int) -> int:
    """Pixels for a map of `rows` rows, with `extra` for all around it."""
    return extra + max(4, rows) * 26


def _expert_axis(fig: go.Figure, experts: int, step: int = 1) -> None:
    named = list(range(0, experts, step))
    fig.update_xaxes(
        tickmode="array",
        tickvals=named,
        ticktext=[str(e) for e in named],
        tickangle=0,  # beside another chart they are narrow, and would be turned and lie upon one another
        tickfont={"size": 10},
    )
    fig.update_xaxes(showgrid=False, zeroline=False)
    fig.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", title="")


def title_text(exploration: Exploration, number: int | None = None) -> str:
    """An input's number and text, shortened and safe in HTML."""
    head = f"{number}. " if number is not None else ""
    return head + escape_html(shorten_texts(exploration.text, 70))


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
    share_line = f"<br>%{{customdata:.1%}} of the tokens choose it{' first' * _several(exploration)}"
    share_line *= exploration.by_token
    fig = go.Figure(
        go.Heatmap(
            z=probs,
            x=list(range(probs.shape[1])),
            y=layer_names(layers),
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
        fires = exploration.fires(layer)
        for expert in [exploration.choice(layer)] if exploration.by_token else np.flatnonzero(fires[0]):
            _outline(fig, int(expert), row)
    several = _several(exploration)
    marked = "the chosen experts" if several else "the chosen expert"
    if exploration.by_token:
        marked = f"the expert that most tokens choose{' first' * several}"
    layout(
        fig,
        "Router probabilities",
        subtitle=f"{title_text(exploration, number)}<br>outlined: {marked}; even would be "
        f"{1 / probs.shape[1]:.1%}",
        x="expert",
        height=grid_height(len(layers), 165),
        margin=TWO_LINES,
    )
    _expert_axis(fig, probs.shape[1])
    return fig


def _outline(fig: go.Figure, x: int, y: int) -> None:
    outline(fig, (x - 0.5, x + 0.5), (y - 0.5, y + 0.5))


def what_if_heatmap(
    result: WhatIf,
    exploration: Exploration,
    output: int,
    limit: float | None = None,
    *,
    labelled: bool = True,
) -> go.Figure:
    """Layers x experts: change of one class's logit when that expert is forced in that layer. Cells can be clicked.

    A marker's `customdata` starts with layer and expert.

    Args:
        exploration: the input under the route that changes are against; its experts are outlined.
        output: the class (0 for regression).
        limit: end of the symmetric colour scale; None takes the largest change.
        labelled: write the changes into the cells, where there are few enough experts.
    """
    change, flips = result.change(output), result.flips()
    limit = limit or max(float(np.abs(change).max()), 1e-6)
    name = escape_html(result.task.label_names[output]) if result.task.label_names else "prediction"
    what = f"logit of <i>{name}</i>" if result.task.label_names else name
    experts = change.shape[1]
    written = np.round(change, 2) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = np.vectorize(lambda value: f"{value:+.2f}" if value else "0")(written)
    fig = go.Figure(
        go.Heatmap(
            z=change,
            x=list(range(experts)),
            y=layer_names(result.layers),
            hoverinfo="skip",
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "change"}, "thickness": 12},
            text=text,
            texttemplate="%{text}" if labelled and experts <= 16 else None,
        )
    )
    for row, layer in enumerate(result.layers):
        taken = exploration.choice(layer)
        if result.token is not None:
            taken = int(exploration.taken(layer)[result.token])
        _outline(fig, taken, row)
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(crosses(columns + BESIDE, [f"layer {result.layers[row]}" for row in rows]))
    forced = [(f.expert, f"layer {f.layer}") for f in result.route.forces if f.token == result.token]
    if forced:
        fig.add_trace(
            go.Scatter(
                # Beside the cell's number, or in its middle where there is none.
                x=[expert - (BESIDE if labelled else 0) for expert, _ in forced],
                y=[layer for _, layer in forced],
                mode="markers",
                marker={
                    "symbol": "diamond",
                    "size": 8,
                    "color": SELECTED,
                    "line": {"width": 1.5, "color": "white"},
                },
                hoverinfo="skip",
                showlegend=False,
            )
        )
    cells = [(layer, expert) for layer in result.layers for expert in range(experts)]
    texts = [
        _what_if_text(result, i, expert, output)
        for i in range(len(result.layers))
        for expert in range(experts)
    ]
    names = [f"layer {layer}" for layer, _ in cells]
    fig.add_trace(click_targets([expert for _, expert in cells], names, cells, texts))
    pick_by_click(fig)
    whose = _whose(exploration, result)
    signs = "; ".join(["✕ prediction flips"] * bool(len(rows)) + ["◆ forced"] * bool(forced))
    base = result.base[output]
    against = "under the forced route" if result.route else "as routed"
    layout(
        fig,
        f"What if: change of the {what}",
        subtitle=f"{title_text(exploration)}<br>{against} {base:+.3f}; outlined: {whose}<br>{signs}",
        x="expert forced in the layer" + ("" if result.token is None else f" for token {result.token}"),
        height=grid_height(len(result.layers), 183),
        margin=THREE_LINES,
    )
    _expert_axis(fig, experts, 1 if labelled or experts <= 8 else 2)
    return fig


def _what_if_text(result: WhatIf, row: int, expert: int, output: int) -> str:
    layer, logit = result.layers[row], float(result.logits[row, expert, output])
    flips = "<br><b>prediction flips</b>" if result.flips()[row, expert] else ""
    is_forced = any(
        (f.layer, f.expert, f.token) == (layer, expert, result.token) for f in result.route.forces
    )
    action = "release it" if is_forced else "force it"
    change = logit - float(result.base[output])
    return (
        f"<b>Layer {layer}, expert {expert}</b>{' (forced)' if is_forced else ' forced'}"
        f"<br>change {change:+.3f}, {output_name(result)} {logit:.3f}{flips}<br><i>click to {action}</i>"
    )


def output_name(result: WhatIf) -> str:
    """What the model's outputs are called."""
    return "logit" if result.task.label_names else "output"


def _several(exploration: Exploration) -> bool:
    """Whether the router takes several experts at once, for an input or for each token."""
    return max(map(exploration.several, exploration.layers), default=1) > 1


def _whose(exploration: Exploration, result: WhatIf) -> str:
    """Whose choice is outlined; of several experts it is the one with the largest gate."""
    first = _several(exploration)
    if result.token is not None:
        return f"that token's {'first choice' if first else 'expert'}"
    if exploration.by_token:
        return f"most tokens' {'first choice' if first else 'expert'}"
    if result.route:
        return f"the expert taken{', of several the first choice' * first}"
    return f"the router's {'first ' * first}choice"
