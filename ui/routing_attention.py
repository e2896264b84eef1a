"""The attention part of the routing page: where any layer's heads or experts look in the inputs that are shown."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from shrp.attention import LayerAttention
from shrp.convert import layer_kinds
from shrp.errors import ShrpError
from ui import expert_profile_results as made
from ui.attention_figures import MOST, all_frame, all_heads, frame, heatmap, member, said, strongest
from ui.bound import fall_back
from ui.downloads import chart
from ui.expert_profile_attention import HIDE, routed
from ui.state import Selection, show_error

LAYER, HEAD, ALL = "attention_layer", "attention_head", "attention_all"
"""Keys of the widgets, in the session's state and in the URL."""
_UNROUTED = {
    "dense": "This layer is dense: all of its heads read every input; converted, head *h* would become expert *h*. ",
    "static": "A kept expert of a pruned layer, which every input takes. ",
    "routed": "This layer has no router: all of its experts weigh the same for every input. ",
}
"""What a map is of where nothing is routed, by the kind of layer."""


def section(selection: Selection, texts: Sequence[tuple[str, ...]], numbers: Sequence[int]) -> None:
    """The pickers, a map for each input, and all heads of the layer on demand.

    Args:
        texts: the inputs shown, one or two.
        numbers: theirs on the page.
    """
    st.subheader("Where heads look", anchor="attention")
    kinds = layer_kinds(selection.checkpoint.model)
    layers = [layer for layer, kind in enumerate(kinds) if kind != "dropped"]
    if not layers:
        st.info("All layers were dropped, so nothing attends to anything.", icon=":material/visibility_off:")
        return
    one, two, three, four = st.columns([1, 1, 1.3, 1.7], vertical_alignment="bottom")
    start = layers[-1]
    fall_back(LAYER, layers, start)
    layer = one.selectbox("Layer", layers, layers.index(start), key=LAYER, bind="query-params")
    try:
        found = [made.attention(selection.checkpoint, text, layer) for text in texts]
    except ShrpError as error:
        show_error(error)
        return
    first = found[0]
    chosen = _routed_to(first)
    begin = first.heads[0] if chosen is None else chosen
    fall_back(HEAD, first.heads, begin)
    default = {} if HEAD in st.session_state else {"index": first.heads.index(begin)}
    head = two.selectbox(member(first).capitalize(), first.heads, key=HEAD, bind="query-params", **default)
    hide = three.toggle(
        "Hide special tokens",
        key=HIDE,
        bind="query-params",
        help="Leaves [CLS], [SEP] and their like out and divides each row by what remains.",
    )
    everything = four.toggle(
        f"All {member(first)}s of the layer", key=ALL, bind="query-params", help="Side by side, below."
    )
    for column, one_found, number in zip(st.columns(len(found), gap="medium"), found, numbers, strict=True):
        with column:
            _one(one_found, head, hide, everything, number, selection.name)


def _one(found: LayerAttention, head: int, hide: bool, everything: bool, number: int, name: str) -> None:
    """One input's map, and those of all heads."""
    pattern, what = found.pattern(head, without_special=hide), member(found)
    chart(
        heatmap(found, pattern, head, f"input {number}"),
        lambda: frame(pattern),
        f"attention-{number}",
        f"{name}-attention-{number}",
        f"Heatmap of the attention of layer {found.layer}'s {what} {head} in input {number}, {len(pattern.tokens)} "
        f"query tokens by as many key tokens. {strongest(pattern)}",
    )
    words = routed(found, head) if found.probs is not None else _UNROUTED[found.kind]
    st.caption(words + said(found, pattern, hide))
    if not everything:
        return
    if len(pattern.tokens) > MOST:
        st.info(
            f"All {what}s are drawn side by side for inputs of {MOST} tokens at most; this one has "
            f"{len(pattern.tokens)}.",
            icon=":material/grid_off:",
        )
        return
    patterns = {one: found.pattern(one, without_special=hide) for one in found.heads}
    chart(
        all_heads(found, patterns, head, _routed_to(found)),
        lambda: all_frame(patterns, what),
        f"attention-all-{number}",
        f"{name}-attention-all-{number}",
        f"Small heatmaps of the attention of all {len(patterns)} {what}s of layer {found.layer} in input {number}. "
        + " ".join(f"{what.capitalize()} {one}: {strongest(each)}" for one, each in patterns.items()),
    )


def _routed_to(found: LayerAttention) -> int | None:
    """The expert that the input as a whole goes to; None where there is no such one."""
    return None if found.probs is None or found.probs.ndim == 2 else int(found.probs.argmax())
