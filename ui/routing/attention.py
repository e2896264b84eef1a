"""Where any layer's heads or experts attend to in one sentence."""

from __future__ import annotations

import streamlit as st

from shrp.analysis.attention import LayerAttention
from shrp.errors import ShrpError
from shrp.model.convert import layer_kinds
from ui.attention_figures import MOST, frame, heatmap, member, routed, said, strongest
from ui.bound import fall_back, follow
from ui.downloads import chart, clicked
from ui.routing import mosaic, results
from ui.state import Selection, show_error

LAYER, HEAD, HIDE, EVERYWHERE = "attention_layer", "attention_head", "hide_special", "attention_layers"
"""Keys of the widgets, in the session's state and in the URL."""
AUTOMATIC = "automatic"
"""Of heads: the expert that the sentence is routed to, or the first one."""


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
        mosaic.mosaic(layers, patterns, (one.layer, head), f"sentence {number}"),
        lambda: mosaic.frame(layers, patterns),
        key,
        f"{name}-all",
        f"Small heatmaps of the attention of all heads and experts. {mosaic.in_words(layers, patterns)}",
        on_select=lambda: _pick(key),
        hint="Pick a layer and a head in the boxes above.",
    )


def _pick(chart_key: str) -> None:
    if cell := clicked(chart_key):
        st.session_state[LAYER], st.session_state[HEAD] = (int(part) for part in cell)
