"""Where a layer's heads or experts attend to in one sentence."""

from __future__ import annotations

import streamlit as st

from shrp.data.batching import longest_input
from shrp.model.convert import layer_kinds
from ui.attention_figures import attention, draw, member
from ui.bound import fall_back, follow
from ui.routing.sentences import kind_of
from ui.state import Selection

LAYER, HEAD, HIDE = "attention_layer", "attention_head", "hide_special"
"""Keys of the widgets, in the session's state and in the URL."""
AUTOMATIC = "automatic"
"""Of heads: the expert that the sentence is routed to, or the first one."""


def section(selection: Selection, text: tuple[str, ...], number: int) -> None:
    """Draw the tab: the pickers and the map."""
    checkpoint, model = selection.checkpoint, selection.checkpoint.model
    layers = list(range(len(layer_kinds(model))))
    follow(
        {LAYER: layers, HEAD: [AUTOMATIC, *range(model.config.num_attention_heads)]},
        {LAYER: layers[-1], HEAD: AUTOMATIC},
    )
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    layer = row.selectbox("Layer", layers, key=LAYER, width=110)
    found = attention(checkpoint, text, layer, longest_input(model, checkpoint.tokenizer))
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
    name, why = f"{selection.name}-{number}", "the most that the model reads"
    draw(found, head, hide, f"{kind_of(checkpoint.info.task)} {number}", name, why)
