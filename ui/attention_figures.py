"""Attention in one input: computed once, and a head's map as a heatmap, as a table and in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.attention import LayerAttention, Pattern, layer_attention
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.phrases import listed
from ui.downloads import chart
from ui.store import kept
from ui.text import escape_html, percent, shorten
from ui.theme import SEQUENTIAL, layout

_NAMED = 80
"""Most tokens of an input whose map names them; a longer one gives their places."""
_HOVER = "from token %{y}{0}<br>to token %{x}{1}<br>%{z:.1%} of its attention<extra></extra>"


def attention(checkpoint: Checkpoint, text: tuple[str, ...], layer: int, max_length: int) -> LayerAttention:
    """`layer_attention` of a text cut at so many tokens; raises as it does."""
    parts, key = (checkpoint.model, checkpoint.tokenizer), (checkpoint.fingerprint, text, layer, max_length)
    return kept("attention", 16, key, lambda: layer_attention(*parts, text, layer, max_length=max_length))


def draw(found: LayerAttention, head: int, hide: bool, source: str, name: str, why: str) -> None:
    """Draw a head's map, without special tokens if `hide`.

    Args:
        source: names the input.
        name: beginning of the names of files.
        why: the input was cut, if it was.
    """
    pattern = found.pattern(head, without_special=hide)
    alt = f"Heatmap of the attention of layer {found.layer}'s {member(found)} {head}. {_strongest(pattern)}"
    chart(_heatmap(found, pattern, head, source), lambda: _frame(pattern), "attention", f"{name}-attention", alt)
    st.caption(_routed(found, head) + _said(found, pattern, hide, why))


def member(found: LayerAttention) -> str:
    """What one of the maps is of: a `head` of a dense layer, or an `expert`."""
    return "head" if found.kind == "dense" else "expert"


def _routed(found: LayerAttention, expert: int) -> str:
    """Whether the example, or how many of its tokens, go to the expert; ends in a space, empty without a router."""
    if found.probs is None:
        return ""
    if found.probs.ndim == 2:
        taken = np.argsort(-found.probs, axis=-1, kind="stable")[:, : found.top_k]
        return f"{int((taken == expert).sum()):,} of {len(found.tokens):,} tokens are routed to this expert. "
    probability = percent(float(found.probs[expert]))
    if expert in found.firing:
        return f"Routed to this expert, with probability {probability}. "
    names = listed([str(one) for one in found.firing])
    return f"Routed to expert{'s' * (found.top_k > 1)} {names}; this expert has probability {probability}. "


def _said(found: LayerAttention, pattern: Pattern, hide: bool, why: str) -> str:
    """How to read an attention map, in words."""
    parts = ["Computed by the layer from what enters it, n = 1 input; each row sums to 100%."]
    if pattern.spread > 0:  # nan where all attention is hidden
        parts.append(
            f"A token attends to {pattern.spread:.1f} of {len(pattern.tokens):,} tokens, in effect (exp of a row's "
            "entropy, mean of rows)."
        )
    if hide and found.special.all():
        parts.append("There are only special tokens, so none is hidden.")
    elif hide:
        parts.append(
            f"Hidden: special tokens, to which {percent(pattern.hidden)} of the attention went (mean of "
            f"{len(pattern.tokens):,} rows); the rows were divided by what remains."
        )
    if found.full_length > len(found.tokens):
        parts.append(f"Cut at {len(found.tokens)} of {found.full_length:,} tokens, {why}.")
    return " ".join(parts)


def _heatmap(found: LayerAttention, pattern: Pattern, expert: int, source: str) -> go.Figure:
    """Query tokens down, key tokens across; the colour scale ends at this map's largest value."""
    places = list(range(len(pattern.tokens)))
    labels = [escape_html(token) for token in pattern.tokens]
    named = len(places) <= _NAMED
    queries = np.repeat(np.array(labels, dtype=object)[:, None], len(places), axis=1)
    words = (" <b>%{customdata[0]}</b>", " <b>%{customdata[1]}</b>") if named else ("", "")
    fig = go.Figure(
        go.Heatmap(
            z=pattern.weights,
            x=places,
            y=places,
            customdata=np.dstack([queries, queries.T]) if named else None,  # the two tokens of each cell
            zmin=0,  # Plotly heeds an end of a scale only together with the other one
            zmax=float(pattern.weights.max()) or 1.0,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "attention"}, "tickformat": ".1~%", "thickness": 12},
            hovertemplate=_HOVER.replace("{0}", words[0]).replace("{1}", words[1]),
        )
    )
    fig.update_yaxes(autorange="reversed")
    if named:
        ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels, "tickfont": {"size": 10}}
        fig.update_xaxes(**ticks, tickangle=-60)
        fig.update_yaxes(**ticks)
    return layout(
        fig,
        f"Attention of layer {found.layer}, {member(found)} {expert}",
        subtitle=f"{escape_html(source)}: {escape_html(shorten(' / '.join(found.text), 70))}",
        x="token attended to",
        y="token attending",
        height=190 + (14 * max(len(places), 10) if named else 560),
    )


def _frame(pattern: Pattern) -> pd.DataFrame:
    """One row a pair of tokens: their positions among those shown, the tokens, the attention."""
    t, tokens = len(pattern.tokens), np.array(pattern.tokens, dtype=object)
    ends = {"from": np.repeat(np.arange(t), t), "from token": np.repeat(tokens, t)}
    ends |= {"to": np.tile(np.arange(t), t), "to token": np.tile(tokens, t)}
    return pd.DataFrame(ends | {"attention": pattern.weights.ravel()})


def _strongest(pattern: Pattern) -> str:
    """In words, where most of the attention goes."""
    mean = pattern.weights.mean(0)
    best = int(mean.argmax())
    return f"On average over query tokens, most goes to token {best}, {pattern.tokens[best]}: {percent(mean[best])}."
