"""Figures whose cells are experts: the expert of every token, and the routes of inputs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.analysis.attribution.instance import Word
from shrp.analysis.attribution.tokens import RoutesWithout
from shrp.analysis.explore import Exploration
from ui.routing.figures import ONE_LINE, TWO_LINES, grid_height, layer_names, title_text
from ui.text import escape_html, shorten, shorten_texts
from ui.theme import circles, click_targets, edged_line, layout, outline, pick_by_click

EXPERT_COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
    "#a08c00", "#7f3c8d", "#66c2a5", "#b15928", "#5e6ad2", "#8a8f98",
)  # fmt: skip
"""One an expert, repeating after twelve; cells carry the expert's number too, so colour is never alone."""
_UNCHANGED = "rgba(128,128,128,0.22)"
_MAX_LABELLED = 160
"""Cells a row, above which their numbers would take a browser seconds to draw."""
_WORD = 24
"""Characters of a word that are shown."""
_WINDOW = 40
"""Tokens shown at first, so that their cells have room for a number; a longer text is moved by dragging."""


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


def token_map(
    exploration: Exploration,
    number: int | None = None,
    *,
    before: Exploration | None = None,
    pick: bool = False,
    token: int | None = None,
) -> go.Figure:
    """Layers x tokens: each token's expert, its probability on hover.

    Args:
        number: the input's, for the subtitle.
        before: the same input as routed; tokens that take another expert now are marked.
        pick: cells can be clicked; a marker's `customdata` starts with layer and token.
        token: position of a token to frame.
    """
    layers, tokens = exploration.layers, exploration.tokens
    experts = exploration.probs[layers[0]].shape[-1]
    probs = np.stack([exploration.probs[layer] for layer in layers])  # (L, T, H)
    taken = np.stack([exploration.taken(layer) for layer in layers])  # (L, T)
    names = [escape_html(token_text) for token_text in tokens]
    fig = go.Figure(
        _expert_cells(taken, experts, x=list(range(len(tokens))), y=layer_names(layers), hoverinfo="skip")
    )
    moved = np.zeros_like(taken, dtype=bool)
    if before is not None:
        moved = taken != np.stack([before.taken(layer) for layer in layers])
        rows, columns = np.nonzero(moved)
        fig.add_trace(circles(columns + 0.3, [f"layer {layers[row]}" for row in rows], size=7))
    cells = [(layer, place) for layer in layers for place in range(len(tokens))]
    texts = [
        f"layer {layer}, token {place}: <b>{names[place]}</b><br>expert {taken[i, place]}, probability "
        f"{probs[i, place, taken[i, place]]:.1%}"
        + (f"<br>as routed: expert {before.taken(layer)[place]}" if moved[i, place] else "")
        + ("<br><i>click to pick this token</i>" if pick else "")
        for i, layer in enumerate(layers)
        for place in range(len(tokens))
    ]
    rows_of = [f"layer {layer}" for layer, _ in cells]
    fig.add_trace(click_targets([place for _, place in cells], rows_of, cells, texts, size=20))
    if token is not None and token < len(tokens):
        outline(fig, (token - 0.5, token + 0.5), (-0.5, len(layers) - 0.5))
    more = (
        f"; showing {_WINDOW} of {len(tokens)} tokens at first, drag to move" if len(tokens) > _WINDOW else ""
    )
    layout(
        fig,
        "Expert of every token" + ("" if before is None else ", forced route"),
        subtitle=f"{title_text(exploration, number)}<br>{len(tokens):,} tokens, special ones included"
        + ("" if before is None else f"; ○ changed: {int(moved.sum()):,} of {moved.size:,} cells")
        + more,
        height=grid_height(len(layers), 205),
        margin=TWO_LINES,
    )
    fig.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(tokens))),
        ticktext=names,
        tickangle=-60,
        showgrid=False,
        zeroline=False,
        title="token, in reading order",
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    pick_by_click(fig)
    if len(tokens) > _WINDOW:
        fig.update_xaxes(range=[-0.5, _WINDOW - 0.5])
        fig.update_layout(dragmode="pan")
    return fig


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
            custom[i, j] = (title_text(e), float(e.mean_probs(layer)[z[i, j]]))
    experts = len(explorations[0].mean_probs(layers[0]))
    fig = go.Figure(
        _expert_cells(
            z,
            experts,
            x=layer_names(layers),
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
        height=grid_height(len(explorations), 140),
        margin=ONE_LINE,
    )
    fig.update_xaxes(showgrid=False, side="bottom")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig


def routes_without_words(
    found: RoutesWithout, words: Sequence[Word], by: str, unit: str = "word"
) -> go.Figure:
    """Layers x words: the expert that a layer takes without the word, where that is another one than with it.

    Args:
        found: the routes.
        words: the `W` words, in reading order.
        by: what stands for a word, for the subtitle.
        unit: what `words` are, of `shrp.analysis.attribution.units.UNITS`.
    """
    changed = found.without != found.own[:, None]
    names = [escape_html(shorten(word.text, _WORD)) for word in words]  # a word may be as long as a text
    places, rows = list(range(len(words))), layer_names(found.layers)
    # Of objects: an array of strings would give each cell the room of the longest.
    same, other = np.empty(changed.shape, dtype=object), np.empty(changed.shape, dtype=object)
    for i, (row, own) in enumerate(zip(rows, found.own, strict=True)):
        for j, name in enumerate(names):
            same[i, j] = f"{row}: expert {own}, also without <b>{name}</b>"
            other[i, j] = f"{row}: expert {found.without[i, j]} without <b>{name}</b>, else {own}"
    common = {"x": places, "y": rows, "hovertemplate": "%{customdata}<extra></extra>", "hoverongaps": False}
    fig = go.Figure(
        go.Heatmap(
            z=np.where(changed, np.nan, 0.0),
            customdata=same,
            colorscale=[[0, _UNCHANGED], [1, _UNCHANGED]],
            showscale=False,
            xgap=1,
            ygap=1,
            **common,
        )
    )
    new = np.where(changed, found.without, np.nan)
    fig.add_trace(_expert_cells(new, found.experts, customdata=other, **common))
    second = next((place for place, word in enumerate(words) if word.part), None)
    if second:
        edged_line(fig, second - 0.5)
    first = "" if found.top_k == 1 else f"; of its {found.top_k} experts the one with the largest gate"
    layout(
        fig,
        f"Experts taken without a {unit}",
        subtitle=f"{int(changed.sum()):,} of {changed.size:,} cells name another expert, taken without the {unit}; "
        f"grey: the same{first}<br>n = {len(words):,} {unit}s, one at a time replaced by {by}, the model routing anew"
        + ("; line: the second text begins" if second else ""),
        height=grid_height(len(rows), 215),
        margin=TWO_LINES,
    )
    fig.update_xaxes(
        tickmode="array", tickvals=places, ticktext=names, tickangle=-60, showgrid=False, zeroline=False
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    if len(words) > _WINDOW:
        fig.update_xaxes(range=[-0.5, _WINDOW - 0.5], title=f"{unit}, in reading order; drag to move")
        fig.update_layout(dragmode="pan")
    return fig
