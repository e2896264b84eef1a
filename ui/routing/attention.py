"""Where any layer's heads or experts attend to in one sentence: one large map, and a small one of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.attention import LayerAttention, Pattern
from shrp.errors import ShrpError
from shrp.model.convert import layer_kinds
from ui.attention_figures import MOST, all_frame, frame, heatmap, member, routed, said, strongest
from ui.bound import fall_back, follow
from ui.downloads import chart, clicked
from ui.routing import results
from ui.state import Selection, show_error
from ui.text import escape_html, percent, shorten
from ui.theme import SEQUENTIAL, click_targets, layout, marks, outline, pick_by_click

LAYER, HEAD, HIDE, EVERYWHERE = "attention_layer", "attention_head", "hide_special", "attention_layers"
"""Keys of the widgets, in the session's state and in the URL."""
AUTOMATIC = "automatic"
"""Of heads: the expert that the sentence is routed to, or the first one."""
_GAP = 8
"""A gap between two small maps is one of so many parts of a map's width, and at least one cell."""
_TICKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Of the colour scale, which shows the root of the attention: on an even scale heads that spread it would be blank."""
_ROW = 62
"""Height of a row of small maps, in pixels."""


def section(selection: Selection, text: tuple[str, ...], number: int) -> None:
    """Draw the tab: the pickers, one map, and all layers and heads on demand."""
    model = selection.checkpoint.model
    layers = list(range(len(layer_kinds(model))))
    # A click on the small maps sets both boxes, which is one step of the browser's history.
    follow(
        {LAYER: layers, HEAD: [AUTOMATIC, *range(model.config.num_attention_heads)]},
        {LAYER: layers[-1], HEAD: AUTOMATIC},
    )
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    layer = row.selectbox("Layer", layers, key=LAYER, width=110)
    try:
        found = results.attention(selection.checkpoint, text, layer)
    except ShrpError as error:
        show_error(error)
        return
    start = found.firing[0] if found.firing else found.heads[0]
    heads = [AUTOMATIC, *found.heads]
    fall_back(HEAD, heads, AUTOMATIC)
    as_routed = " (as routed)" * bool(found.firing)
    picked = row.selectbox(
        member(found).capitalize(),
        heads,
        key=HEAD,
        format_func=lambda head: f"{start}{as_routed}" if head == AUTOMATIC else str(head),
        width=170,
    )
    without = "Leaves out [CLS], [SEP] and the like, and divides each row by what remains."
    hide = row.toggle("Hide special tokens", key=HIDE, bind="query-params", help=without)
    head = start if picked == AUTOMATIC else picked
    pattern = found.pattern(head, without_special=hide)
    name = f"{selection.name}-{number}-attention"
    alt = f"Heatmap of the attention of layer {layer}'s {member(found)} {head}. {strongest(pattern)}"
    fig = heatmap(found, pattern, head, f"sentence {number}")
    chart(fig, lambda: frame(pattern), "attention", name, alt)
    st.caption(routed(found, head) + said(found, pattern, hide, "the most that the model reads"))
    part = st.expander("All layers and heads", key=EVERYWHERE, on_change="rerun", icon=":material/grid_on:")
    if not part.open:
        return
    with part:
        if len(pattern.tokens) > MOST:
            st.info(f"Drawn for up to {MOST} tokens; this sentence has {len(pattern.tokens):,}.")
        else:
            _everywhere(selection, found, head, hide, number, name)


def _everywhere(
    selection: Selection, one: LayerAttention, head: int, hide: bool, number: int, name: str
) -> None:
    """The maps of all layers; a click shows one large."""
    layers = results.attention_everywhere(selection.checkpoint, one.text)
    patterns = [{each: found.pattern(each, without_special=hide) for each in found.heads} for found in layers]
    key = "attention-mosaic"
    chart(
        _mosaic(layers, patterns, (one.layer, head), f"sentence {number}"),
        lambda: _mosaic_frame(layers, patterns),
        key,
        f"{name}-all",
        f"Small heatmaps of the attention of all heads and experts. {_mosaic_words(layers, patterns)}",
        on_select=lambda: _pick(key),
        hint="Pick a layer and a head in the boxes above.",
    )


def _pick(chart_key: str) -> None:
    if cell := clicked(chart_key):
        st.session_state[LAYER], st.session_state[HEAD] = (int(part) for part in cell)


def _mosaic(
    layers: Sequence[LayerAttention],
    patterns: Sequence[dict[int, Pattern]],
    picked: tuple[int, int],
    source: str,
) -> go.Figure:
    """Layers down, heads and experts across, each under its number; a click's `customdata` is layer and head.

    Args:
        layers: those that attend to anything, in rising order.
        patterns: of each, head -> what it attends to, all of the same tokens.
        picked: layer and head of the map that is framed.
        source: what the sentence is called.
    """
    heads = 1 + max(max(one.heads) for one in layers)
    size = len(next(iter(patterns[0].values())).tokens)
    step = size + max(1, size // _GAP)
    cells = np.full((len(layers) * step, heads * step), np.nan, dtype=np.float32)
    for row, maps in enumerate(patterns):
        for head, pattern in maps.items():
            cells[row * step :, head * step :][:size, :size] = np.sqrt(pattern.weights)
    middle = (size - 1) / 2
    bar = {"title": {"text": "attention"}, "thickness": 12, "tickvals": np.sqrt(_TICKS)}
    bar["ticktext"] = [f"{share:.0%}" for share in _TICKS]
    scale = {"zmin": 0, "zmax": 1, "colorscale": SEQUENTIAL, "colorbar": bar}
    fig = go.Figure(go.Heatmap(z=cells, hoverinfo="skip", **scale))
    route = [(row, expert) for row, one in enumerate(layers) for expert in one.firing]
    if route:
        columns = [head * step + middle for _, head in route]
        fig.add_trace(marks(columns, [row * step + middle for row, _ in route], "circle", 9))
    places = [(row, head) for row, one in enumerate(layers) for head in one.heads]
    fig.add_trace(
        click_targets(
            [head * step + middle for _, head in places],
            [row * step + middle for row, _ in places],
            [(layers[row].layer, head) for row, head in places],
            [_told(layers[row], head, patterns[row][head]) for row, head in places],
        )
    )
    for row, one in enumerate(layers):
        if one.layer == picked[0]:
            left, top = picked[1] * step - 0.5, row * step - 0.5
            outline(fig, (left, left + size), (top, top + size))
    layout(
        fig,
        "All layers",
        subtitle=f"{escape_html(source)}: {escape_html(shorten(' / '.join(layers[0].text), 70))}<br>"
        "in each small map, tokens down attend to tokens across; framed: the one above"
        + ("; ○\u00a0the route" if route else ""),
        x="head of the dense model, or the expert made of it",
        height=160 + _ROW * len(layers),
    )
    bare = {"ticks": "", "showgrid": False, "zeroline": False, "fixedrange": True}
    fig.update_xaxes(
        tickvals=[head * step + middle for head in range(heads)],
        ticktext=[str(head) for head in range(heads)],
        range=[-0.5, heads * step - (step - size) - 0.5],
        **bare,
    )
    fig.update_yaxes(
        tickvals=[row * step + middle for row in range(len(layers))],
        ticktext=[f"layer {one.layer}, {_kind(one)}" for one in layers],
        range=[len(layers) * step - (step - size) - 0.5, -0.5],
        **bare,
    )
    pick_by_click(fig)
    return fig


def _kind(one: LayerAttention) -> str:
    """What a layer is; of experts that no router picks from, that."""
    return "no router" if one.kind == "routed" and one.probs is None else one.kind


def _told(found: LayerAttention, head: int, pattern: Pattern) -> str:
    """What is under the pointer."""
    name = f"layer {found.layer}, {member(found)} {head}"
    if found.probs is not None and found.probs.ndim == 1:
        name += f", router probability {percent(float(found.probs[head]))}"
    spread = f"A token attends to {pattern.spread:.1f} of {len(pattern.tokens):,} tokens, in effect."
    parts = [name, escape_html(strongest(pattern)), *([spread] if pattern.spread > 0 else [])]
    return "<br>".join([*parts, "<i>click to see it above</i>"])


def _mosaic_words(layers: Sequence[LayerAttention], patterns: Sequence[dict[int, Pattern]]) -> str:
    """The picture in words: of each layer the head or expert that gives most to a single token."""
    parts = []
    for one, maps in zip(layers, patterns, strict=True):
        head = max(maps, key=lambda each: float(maps[each].weights.mean(0).max()))
        what = f"Layer {one.layer}, {_kind(one)}, {member(one)} {head}"
        parts.append(f"{what}: {strongest(maps[head])}")
    return " ".join(parts)


def _mosaic_frame(layers: Sequence[LayerAttention], patterns: Sequence[dict[int, Pattern]]) -> pd.DataFrame:
    """One row a pair of tokens, with the layer and its head or expert."""
    return pd.concat(
        all_frame(maps, "head").assign(layer=one.layer, kind=_kind(one))
        for one, maps in zip(layers, patterns, strict=True)
    )
