"""The part of the routing page where hidden states of one input are put into another: where their difference passes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.errors import ShrpError
from shrp.explore import Exploration
from shrp.patching import MOST, Patched, patch
from ui.downloads import chart
from ui.routing_figures import TWO_LINES, grid_height, layer_names
from ui.state import Selection, show_error
from ui.store import once
from ui.text import escape, escape_html, percent, plain, shorten
from ui.theme import DIVERGING, layout

PATCH = "patch"
"""Key of the widget, in the session's state and in the URL alike."""
_SHORT = 32
"""Inputs of at most so many tokens are patched unasked, in a second or two."""
_LITTLE = 0.1
"""Of a smaller gap between two inputs, in logits or in a regression's output, parts would say little."""
_WINDOW = 40
"""Tokens shown at first, so that their cells and names have room."""
_NAME = 16
"""Characters of a token that are shown."""
_SOME = 0.1
"""Of the way to the donor's output, from which on a state is told of."""
_STRETCHES = 5
"""Runs of layers that a sentence tells of."""


def section(selection: Selection, shown: Sequence[Exploration], numbers: Sequence[int], *, of: int) -> None:
    """The section: a map of what each state does, where two inputs are picked.

    Args:
        shown: the inputs, one or two.
        numbers: theirs on the page.
        of: how many inputs there are.
    """
    st.header("Where the difference passes", anchor="difference")
    if len(shown) < 2:
        second = (
            "Pick a second input *Beside it* above" if of > 1 else "Type a second input above and pick both"
        )
        st.caption(
            f"{second}: its hidden states are then put into this one's, one at a time, which shows in which layers, "
            "and at which words, lies what tells the two apart."
        )
        return
    into, donor = numbers
    st.markdown(
        f"Hidden states of input {donor} are put into input {into}, one token's in one layer at a time, and all above "
        "is computed anew, routes too (activation patching). Where the output then goes over to that of input "
        f"{donor}, there lies what tells the two apart."
    )
    longest = max(len(one.tokens) for one in shown)
    if _SHORT < longest <= MOST and not st.toggle(
        "Put them in", key=PATCH, bind="query-params", help="Some seconds, of long inputs half a minute."
    ):
        return
    try:
        found = patched(selection, *(one.text for one in shown))
    except ShrpError as error:
        show_error(error)
        return
    said = in_words(found, into, donor)
    layers, tokens = found.moved.shape
    chart(
        heatmap(found, into, donor),
        found.to_frame,
        "patching",
        f"{selection.name}-states-of-{donor}-in-{into}",
        f"Heatmap, {layers} layers by {tokens} tokens: how far {_lead(found)} moves where the hidden state of input "
        f"{donor} is put into input {into}. {plain(said)}",
    )
    st.markdown(said)


def patched(selection: Selection, text: tuple[str, ...], donor: tuple[str, ...]) -> Patched:
    """The donor's hidden states in the input, kept for all sessions. Raises as `shrp.patching.patch`."""
    one = selection.checkpoint
    return once(
        "patching",
        64,
        (one.fingerprint, text, donor),
        "Hidden states put in",
        lambda progress: patch(one.model, one.tokenizer, one.info.task, text, donor, progress=progress),
    )


def _lead(found: Patched) -> str:
    """What is moved, as plain text."""
    if found.contrast is None:
        return "the output"
    first, second = (found.task.label_names[label] for label in found.contrast)
    return f"the logit of {first} less that of {second}"


def _short(found: Patched) -> str:
    """The same in a chart, HTML-safe."""
    if found.contrast is None:
        return "output"
    first, second = (escape_html(shorten(found.task.label_names[label], 24)) for label in found.contrast)
    return f"logits, {first} less {second}"


def heatmap(found: Patched, into: int, donor: int) -> go.Figure:
    """Layers x tokens: by how much each state that is put in moves the lead.

    Args:
        into, donor: the inputs' numbers.
    """
    layers, tokens = found.moved.shape
    names, mine, donors = _names(found)
    limit = max(abs(found.gap), float(np.nanmax(np.abs(found.moved), initial=0.0)), 1e-6)
    text = np.full((layers, tokens), "", dtype=object)
    for layer, place in np.argwhere(~np.isnan(found.moved)):
        text[layer, place] = _hover(found, layer, place, mine[place], donors[place], donor)
    fig = go.Figure(
        go.Heatmap(
            z=found.moved,
            x=list(range(tokens)),
            y=layer_names(range(layers)),
            customdata=text,
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "change"}, "thickness": 12},
        )
    )
    rows, columns = np.nonzero(found.flips)
    if len(rows):
        fig.add_trace(
            go.Scatter(
                x=columns,
                y=[f"layer {row}" for row in rows],
                mode="markers",
                marker={"symbol": "x", "size": 8, "color": "white", "line": {"width": 1, "color": "#1b2430"}},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    gaps = sum(name is None for name in found.donors)
    notes = ["✕ another answer"] * bool(len(rows))
    notes += [f"blank: input {donor} has no token there ({gaps} of {tokens})"] * bool(gaps)
    notes += [f"showing {_WINDOW} of {tokens} tokens at first, drag to move"] * (tokens > _WINDOW)
    layout(
        fig,
        f"How far each hidden state of input {donor} moves input {into}",
        subtitle=f"{_short(found)}: {found.start:+.3f} (input {into}), {found.start + found.gap:+.3f} (input {donor})"
        f"<br>{'; '.join(notes)}",
        x=f"token of input {into} (token of input {donor} in brackets, where it is another one)",
        height=grid_height(layers, 240),
        margin=TWO_LINES,
    )
    fig.update_xaxes(
        tickmode="array",
        tickvals=list(range(tokens)),
        ticktext=names,
        tickangle=-60,
        showgrid=False,
        zeroline=False,
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    if tokens > _WINDOW:
        fig.update_xaxes(range=[-0.5, _WINDOW - 0.5])
        fig.update_layout(dragmode="pan")
    return fig


def _names(found: Patched) -> tuple[list[str], list[str], list[str]]:
    """Of each place its name on the axis, its token, and the donor's, HTML-safe."""
    mine = [escape_html(shorten(token, _NAME)) for token in found.tokens]
    donors = ["" if token is None else escape_html(shorten(token, _NAME)) for token in found.donors]
    names = [
        one if other is None or other == token else f"{one} ({name})"
        for one, name, token, other in zip(mine, donors, found.tokens, found.donors, strict=True)
    ]
    return names, mine, donors


def _hover(found: Patched, layer: int, place: int, mine: str, donors: str, donor: int) -> str:
    moved = float(found.moved[layer, place])
    lines = [
        f"entering layer {layer}, token {place}: <b>{mine}</b>, with the state of <b>{donors}</b> of input {donor}",
        f"change {moved:+.3f}, to {found.start + moved:+.3f}{_part(found, moved)}",
    ]
    if found.flips[layer, place]:
        lines.append(f"answer: {escape_html(_answer(found, layer, place))}")
    if found.rerouted is not None:
        lines.append(f"routed layers that take other experts: {found.rerouted[layer, place]}")
    return "<br>".join(lines)


def _part(found: Patched, moved: float) -> str:
    """A change as a part of the gap, in brackets; nothing where the gap is too small to have parts."""
    return "" if abs(found.gap) < _LITTLE else f" ({percent(moved / found.gap, 0)} of the way)"


def _answer(found: Patched, layer: int, place: int) -> str:
    return found.task.label_names[int(found.logits[layer, place].argmax())]


def in_words(found: Patched, into: int, donor: int) -> str:
    """At which tokens the difference lies, layer by layer, as Markdown.

    Args:
        into, donor: the inputs' numbers.
    """
    if abs(found.gap) < _LITTLE:
        return (
            f"The outputs of both inputs are nearly the same ({_lead(found)} differs by {abs(found.gap):.3f}), so "
            "there is no difference to follow."
        )
    best = found.strongest()
    parts = [float(found.moved[layer, place]) / found.gap for layer, place in enumerate(best)]
    best = [place if part >= _SOME else None for place, part in zip(best, parts, strict=True)]
    runs = [list(run) for _, run in groupby(range(len(best)), key=best.__getitem__)]
    told = []
    for run in runs[:_STRETCHES]:
        where = f"layer {run[0]}" if len(run) == 1 else f"layers {run[0]} to {run[-1]}"
        if (place := best[run[0]]) is None:
            told.append(f"{where} none")
            continue
        most = max(parts[layer] for layer in run)
        name = escape(shorten(found.tokens[place], _NAME))
        told.append(
            f"{where} **{name}** (token {place}, {'up to ' * (len(run) > 1)}{percent(most, 0)} of the way)"
        )
    more = f"; and so on, {len(runs)} stretches in all" if len(runs) > _STRETCHES else ""
    return (
        f"The state that brings {escape(_lead(found))} furthest from input {into} towards input {donor} is, entering "
        f"{', '.join(told)}{more}. Less than {percent(_SOME, 0)} of the way counts as none; parts need not add up."
    )
