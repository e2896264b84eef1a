"""Figures of attention in one input: one head's map, all heads of a layer, and words on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.analysis.attention import LayerAttention, Pattern
from ui.text import escape_html, percent, shorten
from ui.theme import SEQUENTIAL, layout

_SMALL = 40
"""From so many tokens on, labels are small."""
_LABELLED = 80
"""Most tokens of an input whose map has them on its axes; of more, places are there."""
MOST = 64
"""Most tokens of an input of which many maps are drawn side by side."""
_NAMED = 160
"""Most tokens of an input whose map names them under the pointer; of more it gives their places."""
_HOVER_PLACES = "from token %{y}<br>to token %{x}<br>%{z:.1%} of its attention<extra></extra>"
_HOVER = (
    "from token %{y} <b>%{customdata[0]}</b><br>to token %{x} <b>%{customdata[1]}</b><br>%{z:.1%} of its attention"
    "<extra></extra>"
)


def member(found: LayerAttention) -> str:
    """What one of the maps is of: a `head` of a dense layer, or an `expert`."""
    return "head" if found.kind == "dense" else "expert"


def _names(labels: list[str]) -> np.ndarray:
    """The two tokens of each cell, `(T, T, 2)`."""
    queries = np.repeat(np.array(labels, dtype=object)[:, None], len(labels), axis=1)
    return np.dstack([queries, queries.T])


def said(found: LayerAttention, pattern: Pattern, hide: bool, why: str) -> str:
    """What is to be known of an attention map, in words.

    Args:
        hide: whether special tokens were to be left out.
        why: what cuts a text there, in words.
    """
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


def heatmap(
    found: LayerAttention, pattern: Pattern, expert: int, source: str, top: float | None = None
) -> go.Figure:
    """Query tokens down, key tokens across; the same tokens in reading order on both sides.

    Args:
        top: end of the colour scale, which begins at 0; by default this map's largest.
    """
    places = list(range(len(pattern.tokens)))
    labels = [escape_html(token) for token in pattern.tokens]
    names = _names(labels) if len(places) <= _NAMED else None  # two texts a cell, which is much of many
    fig = go.Figure(
        go.Heatmap(
            z=pattern.weights,
            x=places,
            y=places,
            customdata=names,
            zmin=0,  # Plotly heeds an end of a scale only together with the other one
            zmax=top or float(pattern.weights.max()) or 1.0,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "attention"}, "tickformat": ".1~%", "thickness": 12},
            hovertemplate=_HOVER if names is not None else _HOVER_PLACES,
        )
    )
    size = 11 if len(places) <= _SMALL else 10
    fig.update_xaxes(showgrid=False, zeroline=False)
    fig.update_yaxes(autorange="reversed", showgrid=False, zeroline=False)
    if len(places) <= _LABELLED:
        ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels, "tickfont": {"size": size}}
        fig.update_xaxes(**ticks, tickangle=-60)
        fig.update_yaxes(**ticks)
    return layout(
        fig,
        f"Attention of layer {found.layer}, {member(found)} {expert}",
        subtitle=f"{escape_html(source)}: {escape_html(shorten(' / '.join(found.text), 70))}",
        x="token attended to",
        y="token attending",
        height=190 + ((20 if size > 10 else 11) * max(len(places), 8) if len(places) <= _LABELLED else 560),
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


def all_frame(patterns: dict[int, Pattern], name: str) -> pd.DataFrame:
    """`frame` of every map, under the head's number in a column of that name."""
    return pd.concat([frame(pattern).assign(**{name: head}) for head, pattern in patterns.items()])
