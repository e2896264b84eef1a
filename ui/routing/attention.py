"""The attention part of the routing page: where any layer's heads or experts look in the inputs that are shown."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from shrp.analysis.attention import LayerAttention, Pattern
from shrp.errors import ShrpError
from shrp.model.convert import layer_kinds
from ui import attention_mosaic
from ui.attention_figures import MOST, all_frame, all_heads, everyone, frame, heatmap, member, said, strongest
from ui.bound import fall_back
from ui.downloads import chart, clicked
from ui.expert import results as made
from ui.expert.attention import HIDE, routed
from ui.state import Selection, show_error

LAYER, HEAD, ALL, EVERYWHERE = "attention_layer", "attention_head", "attention_all", "attention_layers"
"""Keys of the widgets, in the session's state and in the URL."""
_UNROUTED = {
    "dense": "This layer is dense: all of its heads read every input; converted, head *h* would become expert *h*. ",
    "static": "A kept expert of a pruned layer, which every input takes. ",
}
"""What a map is of where nothing is routed, by the kind of layer."""


def section(selection: Selection, texts: Sequence[tuple[str, ...]], numbers: Sequence[int]) -> None:
    """The pickers, a map for each input, and all heads of the layer on demand.

    Args:
        texts: the inputs, as many as are to be shown beside each other.
        numbers: theirs on the page.
    """
    st.header("Where heads look", anchor="attention")
    st.caption("Attention in the inputs above, read and routed as there, with nothing forced.")
    layers = list(range(len(layer_kinds(selection.checkpoint.model))))
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    fall_back(LAYER, layers, layers[-1])
    layer = row.selectbox("Layer", layers, len(layers) - 1, key=LAYER, bind="query-params", width=150)
    try:
        found = [made.attention(selection.checkpoint, text, layer, whole=True) for text in texts]
    except ShrpError as error:
        show_error(error)
        return
    first = found[0]
    fall_back(HEAD, (None, *first.heads), None)
    # No default but none, which the address leaves out: what an input is routed to changes with layer and input.
    head = row.selectbox(
        member(first).capitalize(),
        first.heads,
        index=None,
        key=HEAD,
        bind="query-params",
        width=190,
        placeholder=f"{_start(first)}" + " (as routed)" * (first.routed_to is not None),
    )
    hide = row.toggle(
        "Hide special tokens",
        key=HIDE,
        bind="query-params",
        help="Leaves [CLS], [SEP] and their like out and divides each row by what remains.",
    )
    everything = row.toggle(
        f"{everyone(first)} side by side", key=ALL, bind="query-params", disabled=len(first.heads) == 1
    )
    everywhere = row.toggle(
        "All layers",
        key=EVERYWHERE,
        bind="query-params",
        help="A small map of every head and expert of the model; click one to see it large.",
    )
    heads = [_start(one) if head is None else head for one in found]
    patterns = [one.pattern(which, without_special=hide) for one, which in zip(found, heads, strict=True)]
    top = max(float(pattern.weights.max()) for pattern in patterns)  # one scale for both
    columns = st.columns(len(found), gap="medium")
    for column, one, which, pattern, number in zip(columns, found, heads, patterns, numbers, strict=True):
        with column:
            _one(one, which, pattern, top, hide, number, selection.name)
            if not (everywhere or (everything and len(one.heads) > 1)):
                continue
            if len(pattern.tokens) > MOST:
                st.info(
                    f"Maps are drawn side by side for inputs of {MOST} tokens at most; this one has "
                    f"{len(pattern.tokens):,}.",
                    icon=":material/grid_off:",
                )
                continue
            if everything and len(one.heads) > 1:
                _all_of_layer(one, which, hide, number, selection.name)
            if everywhere:
                _all_layers(selection, one, which, hide, number)


def _one(
    found: LayerAttention,
    head: int,
    pattern: Pattern,
    top: float,
    hide: bool,
    number: int,
    name: str,
) -> None:
    """One input's map.

    Args:
        top: end of the colour scale.
    """
    what = member(found)
    chart(
        heatmap(found, pattern, head, f"input {number}", top),
        lambda: frame(pattern),
        f"attention-{number}",
        f"{name}-attention-{number}",
        f"Heatmap of the attention of layer {found.layer}'s {what} {head} in input {number}, {len(pattern.tokens)} "
        f"query tokens by as many key tokens. {strongest(pattern)}",
    )
    words = routed(found, head) if found.probs is not None else _UNROUTED[found.kind]
    st.caption(words + said(found, pattern, hide, "the most that the model reads"))


def _all_of_layer(found: LayerAttention, head: int, hide: bool, number: int, name: str) -> None:
    """Those of all heads of the layer."""
    what = member(found)
    patterns = {one: found.pattern(one, without_special=hide) for one in found.heads}
    chart(
        all_heads(found, patterns, head),
        lambda: all_frame(patterns, what),
        f"attention-all-{number}",
        f"{name}-attention-all-{number}",
        f"Small heatmaps of the attention of all {len(patterns)} {what}s of layer {found.layer} in input {number}. "
        + " ".join(f"{what.capitalize()} {one}: {strongest(each)}" for one, each in patterns.items()),
    )


def _all_layers(selection: Selection, found: LayerAttention, head: int, hide: bool, number: int) -> None:
    """Those of all heads of all layers, of which a click picks one."""
    layers = made.attention_everywhere(selection.checkpoint, found.text)
    patterns = [{head: one.pattern(head, without_special=hide) for head in one.heads} for one in layers]
    key = f"attention-layers-{number}"
    chart(
        attention_mosaic.mosaic(layers, patterns, (found.layer, head), f"input {number}"),
        lambda: attention_mosaic.frame(layers, patterns),
        key,
        f"{selection.name}-{key}",
        f"Small heatmaps of the attention of every head and expert of {len(layers)} layers in input {number}; of each "
        f"layer the one that gives most to a single token: {attention_mosaic.in_words(layers, patterns)}",
        on_select=lambda: _pick(key),
        hint="Pick a layer and a head in the boxes above.",
    )
    if told := attention_mosaic.spreads(layers, patterns):
        st.caption(told)


def _pick(chart_key: str) -> None:
    if cell := clicked(chart_key):
        st.session_state[LAYER], st.session_state[HEAD] = (int(part) for part in cell)


def _start(found: LayerAttention) -> int:
    """What is shown until a person picks: the expert that the input goes to, else the first one."""
    return found.heads[0] if found.routed_to is None else found.routed_to
