"""Attention of one expert in one input, picked from the data or typed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.attention import LayerAttention, Pattern
from shrp.checkpoint import Checkpoint
from shrp.data import TextData
from shrp.explore import PAIR_SEPARATOR, split_sentences
from ui import expert_profile_results as made
from ui.bound import clamp
from ui.downloads import chart
from ui.expert_profile_inputs import EXAMPLE, TYPED
from ui.text import escape, escape_html, percent, shorten
from ui.theme import SEQUENTIAL, layout

HIDE = "hide_special"
LONGEST = 2_000
_SMALL = 40
"""From so many tokens on, labels are small."""


def attention(checkpoint: Checkpoint, data: TextData, layer: int, expert: int, first: int, name: str) -> None:
    """The controls and the heatmap.

    Args:
        first: number of the input that is shown unless another one is picked.
    """
    st.markdown("**Attention in an example**")
    one, two, three = st.columns([2, 5, 3], vertical_alignment="bottom")
    clamp(EXAMPLE, 0, len(data) - 1)
    number = one.number_input(
        "Input no.",
        min_value=0,
        max_value=len(data) - 1,
        value=None,
        step=1,
        key=EXAMPLE,
        bind="query-params",
        placeholder=f"{first}",
        help=f"Row of {escape(data.name)}; empty takes the input with the highest router probability.",
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
    st.caption(_routed(found, expert) + _said(found, pattern, hide))


def _text(data: TextData, number: int, typed: str) -> tuple[tuple[str, ...] | None, str]:
    """The input and where it is from; or None and what to type."""
    if not typed.strip():
        number = min(max(int(number), 0), len(data) - 1)
        return data.texts[number], f"input {number:,} of {data.name}"
    inputs, notes = split_sentences(" ".join(typed[:LONGEST].split()), data.task)
    if inputs:
        return inputs[0], "typed"
    return None, notes[0] if notes else "There is nothing to be seen in that; type a text."


def _routed(found: LayerAttention, expert: int) -> str:
    if found.probs.ndim == 2:
        mine = int((found.probs.argmax(-1) == expert).sum())
        return (
            f"{mine:,} of the input's {len(found.tokens):,} tokens are routed to this expert here; the map shows what "
            "it attends to from every token. "
        )
    best = int(found.probs.argmax())
    probability = percent(float(found.probs[expert]))
    if best == expert:
        return f"The router sends this input here, with probability {probability}. "
    return (
        f"The router sends this input to expert {best}; it gives this expert {probability}. The map shows what this "
        "expert would attend to. "
    )


def _said(found: LayerAttention, pattern: Pattern, hide: bool) -> str:
    parts = ["Computed by the layer from what enters it, n = 1 input; each row sums to 100%."]
    if hide and found.special.all():
        parts.append("There are only special tokens, so none is hidden.")
    elif hide:
        parts.append(
            f"Hidden: special tokens, to which {percent(pattern.hidden)} of the attention went (mean of "
            f"{len(pattern.tokens):,} rows); the rows were divided by what remains."
        )
    if found.full_length > len(found.tokens):
        parts.append(
            f"Cut at {len(found.tokens)} of {found.full_length:,} tokens, as usage and scores are on this page."
        )
    return " ".join(parts)


def heatmap(found: LayerAttention, pattern: Pattern, expert: int, source: str) -> go.Figure:
    """Query tokens down, key tokens across; the same tokens in reading order on both sides."""
    places = list(range(len(pattern.tokens)))
    labels = [escape_html(token) for token in pattern.tokens]
    queries = np.repeat(np.array(labels, dtype=object)[:, None], len(labels), axis=1)
    fig = go.Figure(
        go.Heatmap(
            z=pattern.weights,
            x=places,
            y=places,
            customdata=np.dstack([queries, queries.T]),
            zmin=0,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "attention"}, "tickformat": ".0%", "thickness": 12},
            hovertemplate="from token %{y} <b>%{customdata[0]}</b><br>to token %{x} <b>%{customdata[1]}</b><br>"
            "%{z:.1%} of its attention<extra></extra>",
        )
    )
    size = 11 if len(places) <= _SMALL else 8
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels, "tickfont": {"size": size}}
    fig.update_xaxes(**ticks, tickangle=-60, showgrid=False, zeroline=False)
    fig.update_yaxes(**ticks, autorange="reversed", showgrid=False, zeroline=False)
    return layout(
        fig,
        f"Attention of layer {found.layer}, expert {expert}",
        subtitle=f"{escape_html(source)}: {escape_html(shorten(' / '.join(found.text), 70))}",
        x="token attended to",
        y="token attending",
        height=190 + min((20 if size > 8 else 12) * max(len(places), 8), 1400),
    )


def frame(pattern: Pattern) -> pd.DataFrame:
    """One row a pair of tokens: their positions among those shown, the tokens, the attention."""
    t = len(pattern.tokens)
    tokens = np.array(pattern.tokens, dtype=object)
    return pd.DataFrame(
        {
            "from": np.repeat(np.arange(t), t),
            "from token": np.repeat(tokens, t),
            "to": np.tile(np.arange(t), t),
            "to token": np.tile(tokens, t),
            "attention": pattern.weights.ravel(),
        }
    )


def strongest(pattern: Pattern) -> str:
    """In words, where most of the attention goes."""
    mean = pattern.weights.mean(0)
    best = int(mean.argmax())
    return f"On average over query tokens, most goes to token {best}, {pattern.tokens[best]}: {percent(mean[best])}."
