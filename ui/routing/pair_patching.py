"""The part of the routing page where hidden states of one input are put into another: where their difference passes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.patching import MOST, Patched, patch, work
from shrp.errors import ShrpError
from shrp.phrases import listed
from ui.downloads import chart
from ui.routing.figures import TWO_LINES, grid_height, layer_names
from ui.state import Selection, show_error
from ui.store import once
from ui.text import escape, escape_html, percent, plain, shorten, signed
from ui.theme import DIVERGING, crosses, layout

PATCH = "patch"
"""Key of the widget, in the session's state and in the URL alike."""
_SOON = 3e11
"""Multiplications that are done unasked: some seconds on two cores."""
_WINDOW = 40
"""Tokens shown at first, so that their cells and names have room."""
_NAME = 16
"""Characters of a token that are shown."""
_SOME = 0.1
"""Of the way to the donor's output, from which on a state is told of."""
_STRETCHES = 5
"""Runs of layers that a sentence tells of."""
_NAMED = 8
"""Tokens that it names."""


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
    routes = ", routes too, with nothing forced" * selection.is_routed
    st.markdown(
        f"Hidden states of input {donor} are put into input {into}, one token's in one layer at a time, and all above "
        f"is computed anew{routes} (activation patching). Where the output then goes over to that of input {donor}, "
        "there lies what tells the two apart."
    )
    longest = max(len(one.tokens) for one in shown)
    if longest > MOST:
        st.info(
            f"States are put into inputs of {MOST} tokens at most; the longer of these has {longest:,}.",
            icon=":material/grid_off:",
        )
        return
    soon = work(selection.checkpoint.model, longest) <= _SOON
    if not soon and not st.toggle(
        "Put them in",
        key=PATCH,
        bind="query-params",
        help="Of long inputs, or a large model, it may take minutes.",
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
        f"Heatmap, {layers} layers by {tokens} tokens: how far {found.measured} moves where the hidden state of input "
        f"{donor} is put into input {into}. {plain(said)}",
    )
    st.markdown(said)
    if found.left_out:
        st.caption(left_out(found, into, donor))


def patched(selection: Selection, text: tuple[str, ...], donor: tuple[str, ...]) -> Patched:
    """The donor's hidden states in the input, kept for all sessions. Raises as `shrp.analysis.patching.patch`."""
    one = selection.checkpoint
    return once(
        "patching",
        64,
        (one.fingerprint, text, donor),
        "Hidden states put in",
        lambda progress: patch(one.model, one.tokenizer, one.info.task, text, donor, progress=progress),
    )


def _short(found: Patched) -> str:
    """What is moved, in a chart, HTML-safe."""
    if found.contrast is None:
        return "output"
    first, second = (escape_html(shorten(found.task.label_names[label], 24)) for label in found.contrast)
    return f"logits, {first} less {second}"


def heatmap(found: Patched, into: int, donor: int) -> go.Figure:
    """Layers x tokens: by how much each state that is put in moves the lead.

    Args:
        into, donor: the inputs' numbers.
    """
    moved, flips = found.moved, found.flips
    layers, tokens = moved.shape
    names, mine, donors = _names(found)
    limit = max(abs(found.gap), float(np.nanmax(np.abs(moved), initial=0.0)), 1e-6)
    fig = go.Figure(
        go.Heatmap(
            z=moved,
            x=list(range(tokens)),
            y=layer_names(range(layers)),
            customdata=_hover(found, mine, donors, donor),
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
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(crosses(columns, [f"layer {row}" for row in rows]))
    gaps = sum(name is None for name in found.donors)
    notes = ["✕ another answer"] * bool(len(rows))
    notes += [f"blank: input {donor} has no token there ({gaps} of {tokens})"] * bool(gaps)
    notes += [f"showing {_WINDOW} of {tokens} tokens at first, drag to move"] * (tokens > _WINDOW)
    layout(
        fig,
        f"How far each hidden state of input {donor} moves input {into}",
        subtitle=f"{_short(found)}: {signed(found.start, 3)} (input {into}), {signed(found.start + found.gap, 3)} "
        f"(input {donor})<br>{'; '.join(notes)}",
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


def _hover(found: Patched, mine: Sequence[str], donors: Sequence[str], donor: int) -> np.ndarray:
    """What each cell says, `(L, T)`; nothing where no state is put in.

    Args:
        mine, donors: tokens, HTML-safe.
        donor: the other input's number.
    """
    moved, parts, flips = found.moved, found.parts, found.flips
    texts = np.full(moved.shape, "", dtype=object)
    for layer, place in np.argwhere(~np.isnan(moved)):
        change, part = float(moved[layer, place]), float(parts[layer, place])
        way = "" if np.isnan(part) else f" ({_of_the_way(part)})"
        lines = [
            f"entering layer {layer}, token {place}: <b>{mine[place]}</b>, with the state of <b>{donors[place]}</b> of "
            f"input {donor}",
            f"change {signed(change, 3)}, to {signed(found.start + change, 3)}{way}",
        ]
        if flips[layer, place]:
            answer = found.task.label_names[int(found.logits[layer, place].argmax())]
            lines.append(f"answer: {escape_html(answer)}")
        if found.rerouted is not None:
            lines.append(f"routed layers in which others take other experts: {found.rerouted[layer, place]}")
        texts[layer, place] = "<br>".join(lines)
    return texts


def _of_the_way(part: float) -> str:
    return f"{percent(round(part, 2) + 0.0, 0)} of the way"  # + 0.0 turns -0.0 into 0.0


def in_words(found: Patched, into: int, donor: int) -> str:
    """At which tokens the difference lies, layer by layer, as Markdown.

    Args:
        into, donor: the inputs' numbers.
    """
    best, lead = found.strongest(), escape(found.measured)
    parts = found.parts[range(len(best)), best]
    if np.isnan(parts).all():
        moved = found.moved[range(len(best)), best]
        layer = int(np.nan_to_num(np.abs(moved), nan=-1.0).argmax())
        return (
            f"{lead[0].upper()}{lead[1:]} is nearly the same in both inputs ({abs(found.gap):.3f} apart), so there is "
            f"no way between them to go. Most of all, one state moves it by {signed(float(moved[layer]), 3)}: entering "
            f"layer {layer}, {_state(found, best[layer])}."
        )
    told_of = [place if part >= _SOME else None for place, part in zip(best, parts, strict=True)]
    if not any(place is not None for place in told_of):
        return (
            f"No single state brings {lead} {percent(_SOME, 0)} of the way from input {into} to input {donor}, in any "
            "layer: what tells the two apart lies in several at once, or in what could not be put in."
        )
    runs = [list(run) for _, run in groupby(range(len(told_of)), key=told_of.__getitem__)]
    told = []
    for run in runs[:_STRETCHES]:
        where = f"layer {run[0]}" if len(run) == 1 else f"layers {run[0]} to {run[-1]}"
        place = told_of[run[0]]
        if place is None:
            told.append(f"{where} none")
            continue
        most = _of_the_way(max(float(parts[layer]) for layer in run))
        told.append(f"{where} {_state(found, place, 'up to ' * (len(run) > 1) + most)}")
    more = f"; and so on, {len(runs)} stretches in all" if len(runs) > _STRETCHES else ""
    return (
        f"Which single state brings {lead} furthest from input {into} towards input {donor}: entering "
        f"{'; '.join(told)}{more}. Less than {percent(_SOME, 0)} of the way counts as none; parts need not add up."
    )


def _state(found: Patched, place: int, *more: str) -> str:
    """A place, whose state is put in there, and more of it in brackets, as Markdown."""
    mine, donors = (escape(shorten(each[place] or "", _NAME)) for each in (found.tokens, found.donors))
    whose = "" if mine == donors else f" that of **{donors}**"
    return f"at **{mine}**{whose} ({', '.join([f'token {place}', *more])})"


def left_out(found: Patched, into: int, donor: int) -> str:
    """Which of the donor's tokens went nowhere, as Markdown."""
    names = listed(f"**{escape(shorten(token, _NAME))}**" for token in found.left_out[:_NAMED])
    more = f" and {len(found.left_out) - _NAMED:,} more" if len(found.left_out) > _NAMED else ""
    one = len(found.left_out) == 1
    return (
        f":material/info: Not put in, as input {into} has no place for {'it' if one else 'them'}: {names}{more} of "
        f"input {donor}. Tokens behind stand at other positions, and so may differ though they read the same. Pick the "
        "two the other way round to see which of its tokens have no counterpart."
    )
