"""Attention of one expert in one input, picked from the data or typed."""

from __future__ import annotations

import numpy as np
import streamlit as st

from shrp.analysis.attention import LayerAttention
from shrp.analysis.explore import PAIR_SEPARATOR, split_sentences
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.phrases import listed
from ui.attention_figures import frame, heatmap, said, strongest
from ui.bound import clamp
from ui.downloads import chart
from ui.expert import results as made
from ui.expert.inputs import EXAMPLE, TYPED
from ui.text import escape, percent

HIDE = "hide_special"
LONGEST = 2_000


def attention(checkpoint: Checkpoint, data: TextData, layer: int, expert: int, first: int, name: str) -> None:
    """The controls and the heatmap.

    Args:
        first: number of the input that is shown unless another one is picked.
    """
    st.subheader("Attention in an example", anchor=False)
    one, two, three = st.columns([2, 5, 3], vertical_alignment="bottom")
    clamp(EXAMPLE, 0, len(data) - 1)
    number = one.number_input(
        "Row no.",
        min_value=0,
        max_value=len(data) - 1,
        value=None,
        step=1,
        key=EXAMPLE,
        bind="query-params",
        placeholder=f"{first}",
        help=f"Row of {escape(data.name)}, from 0; empty takes the input with the highest router probability.",
    )
    pair = len(data.task.text_columns) == 2
    typed = two.text_input(
        f"Or type one{f', its texts with {PAIR_SEPARATOR} between them' if pair else ''}",
        key=TYPED,
        bind="query-params",
        max_chars=LONGEST,
        placeholder="A typed text is shown instead",
    )
    hide = three.toggle(
        "Hide special tokens",
        key=HIDE,
        bind="query-params",
        help="Leaves [CLS], [SEP] and their like out and divides each row by what remains.",
    )
    text, source = _text(data, number if number is not None else first, typed or "")
    if text is None:
        st.info(source, icon=":material/edit:")
        return
    found = made.attention(checkpoint, text, layer)
    pattern = found.pattern(expert, without_special=hide)
    chart(
        heatmap(found, pattern, expert, source),
        lambda: frame(pattern),
        "attention",
        f"{name}-attention",
        f"Heatmap of the attention of layer {layer}'s expert {expert}, {len(pattern.tokens)} query tokens by as many "
        f"key tokens. {strongest(pattern)}",
    )
    st.caption(routed(found, expert) + said(found, pattern, hide, "as usage and scores are"))


def _text(data: TextData, number: int, typed: str) -> tuple[tuple[str, ...] | None, str]:
    """The input and where it is from; or None and what to type."""
    if not typed.strip():
        number = min(max(int(number), 0), len(data) - 1)
        return data.texts[number], f"row {number:,} of {data.name}"
    inputs, notes = split_sentences(" ".join(typed[:LONGEST].split()), data.task)
    if inputs:
        return inputs[0], "typed"
    return None, notes[0] if notes else "There is nothing to be seen in that; type a text."


def routed(found: LayerAttention, expert: int) -> str:
    """Whether the input, or how many of its tokens, go to the expert, in words that end in a space."""
    if found.probs.ndim == 2:
        taken = np.argsort(-found.probs, axis=-1, kind="stable")[:, : found.top_k]
        mine = int((taken == expert).sum())
        return (
            f"{mine:,} of the input's {len(found.tokens):,} tokens are routed to this expert here; the map shows what "
            "it attends to from every token. "
        )
    probability = percent(float(found.probs[expert]))
    if expert in found.firing:
        return f"The router sends this input here, with probability {probability}. "
    names = listed([str(one) for one in found.firing])
    return (
        f"The router sends this input to expert{'s' * (found.top_k > 1)} {names}; it gives this expert {probability}. "
        "The map shows what this expert would attend to. "
    )
