"""What the figures of the Routing page share: maps of layers by tokens, bars of scores, coloured words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from shrp.analysis.attribution.tokens import WordScores
from ui.text import escape_html, shorten, signed
from ui.theme import BLUE, GREY, ORANGE, layout

_WINDOW = 40
"""Tokens shown at first, so that cells and names have room. A longer text is moved by dragging."""
_LESS, _MORE, _STRONGEST = (43, 123, 186), (224, 130, 20), 0.55
"""Of words: see-through, so that either theme's text stays legible."""
_LINE, _MOST_BARS = 23, 40


def layer_names(layers: Sequence[int]) -> list[str]:
    """Rows' names."""
    return [f"layer {layer}" for layer in layers]


def grid_height(rows: int, extra: int) -> int:
    """Pixels for a map of `rows` rows, with `extra` for all around it."""
    return extra + max(4, rows) * 26


def token_axes(fig: go.Figure, names: Sequence[str], title: str = "") -> None:
    """Name the columns of a map of layers by tokens, HTML-safe; one of many tokens can be moved."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(names), "tickangle": -60}
    fig.update_xaxes(**ticks, title=title)
    fig.update_yaxes(autorange="reversed", fixedrange=True)
    if len(names) > _WINDOW:
        fig.update_xaxes(range=[-0.5, _WINDOW - 0.5], title=f"{title} drag to move".strip())
        fig.update_layout(dragmode="pan")


def colored_words(result: WordScores, parts: Sequence[str]) -> str:
    """The input as HTML: words that raise the output are orange with a solid line, others blue with a dotted one.

    Everything typed is escaped. `parts`: Names of the texts of a pair; of one text the name is not shown.
    """
    largest = float(np.abs(result.scores).max()) or 1.0
    lines: dict[int, list[str]] = {part: [] for part in range(len(parts))}
    for word, score in zip(result.words, result.scores, strict=True):
        part = abs(float(score)) / largest
        red, green, blue = _MORE if score > 0 else _LESS
        line = "solid" if score > 0 else "dotted"
        under = f"border-bottom:2px {line} rgb({red},{green},{blue});" if part >= 0.1 else ""
        lines[word.part].append(
            f'<span title="{escape_html(word.text)}: {signed(score, 3)}" style="background:rgba({red},{green},{blue},'
            f'{_STRONGEST * part:.3f});{under}border-radius:3px;padding:1px 3px">{escape_html(word.text)}</span>'
        )
    body = ""
    for part, name in enumerate(parts):
        head = f'<span dir="auto" style="opacity:.7">{escape_html(name)}: </span>' if len(parts) > 1 else ""
        style = "line-height:2;overflow-wrap:anywhere;font-size:1.05rem"
        body += f'<div dir="auto" style="{style}">{head}{" ".join(lines[part])}</div>'
    return f'<div role="group" aria-label="Words by their score">{body}</div>'


def bars(
    values: np.ndarray,
    names: Sequence[str],
    title: str,
    subtitle: str,
    errors: np.ndarray | None = None,
) -> tuple[go.Figure, int]:
    """Horizontal bars of changes of the output, the first on top: orange raises it, blue lowers it.

    Args:
        values: `(N,)`.
        names: of the bars, plain text; titles are HTML-safe.
        errors: standard errors `(N,)`, drawn as whiskers.

    Returns:
        The figure, and how many bars it has: the largest ones in their own order.
    """
    places = np.sort(np.argsort(-np.abs(values), kind="stable")[:_MOST_BARS])
    shown, labels = values[places], [escape_html(shorten(names[place], 40)) for place in places]
    whiskers = errors is not None and {"array": errors[places], "color": GREY, "thickness": 1.5}
    colors = [ORANGE if value > 0 else BLUE for value in shown]
    hover = {"hovertext": labels, "hovertemplate": "%{hovertext}<br>%{x:+.4f}<extra></extra>"}
    fig = go.Figure(
        go.Bar(x=shown, orientation="h", marker={"color": colors}, error_x=whiskers or None, **hover)
    )
    ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [len(labels) - 0.4, -0.6]}
    fig.update_yaxes(**ticks, showgrid=False, zeroline=False)
    fig.update_xaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1, nticks=6, title_text="change of the output")
    layout(fig, title, subtitle=subtitle, height=130 + _LINE * max(len(labels), 3), legend=False)
    return fig, len(shown)
