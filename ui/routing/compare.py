"""Two inputs compared: where their routes differ, and where their difference passes through the model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.patching import MOST, Patched, work
from shrp.phrases import listed
from ui.bound import one_of_several
from ui.downloads import chart
from ui.routing import results
from ui.routing.figures import grid_height, layer_names, token_axes
from ui.routing.sentences import BESIDE, kind_of
from ui.routing.table import agreement
from ui.state import Selection
from ui.text import escape, escape_html, percent, plain, shorten, signed
from ui.theme import HOVER, crosses, layout, signed_cells

PATCH = "patch"
"""Key of the widget, in the session's state and in the URL."""
_SOON = 3e11
"""Multiplications that are done unasked: a few seconds on two cores."""
_NAME = 16
"""Characters of a token that are shown."""
_SOME = 0.1
"""Share of the way to the other output from which on a state is named."""
_STRETCHES = 5
"""Runs of layers that the text names."""
_NAMED = 8
"""Tokens that it names."""


def section(selection: Selection, found: Sequence[Exploration], first: int) -> None:
    """Draw the tab for all inputs, of which `first` is the number of the picked one, from 1."""
    kind = kind_of(selection.checkpoint.info.task)
    if len(found) < 2:
        st.info(f"Type a second {kind} above, on its own line, to compare the two.", icon=":material/add:")
        return
    others = [number for number in range(1, len(found) + 1) if number != first]
    donor = one_of_several(f"{kind.capitalize()} {first} compared with", others, BESIDE, kind, width=240)
    one, other = found[first - 1], found[donor - 1]
    finding = st.container()
    st.caption(
        f"**Activation patching**: the hidden state of one token of {kind} {donor} is put into {kind} {first}, in one "
        f"layer at a time. Where the output moves to that of {kind} {donor}, the difference passes. "
        + (agreement([one, other]) if selection.is_routed else "")
    )
    longest = max(len(one.tokens), len(other.tokens))
    if longest > MOST:
        st.info(f"Possible for up to {MOST} tokens; the longer {kind} has {longest:,}.", icon=":material/grid_off:")
        return
    soon = work(selection.checkpoint.model, longest) <= _SOON
    if not soon and not st.toggle("Compute it (may take minutes)", key=PATCH, bind="query-params"):
        return
    result = results.patched(selection.checkpoint, one.text, other.text)
    said, name = in_words(result, donor), f"{selection.name}-states-of-{donor}-in-{first}"
    finding.markdown(said)
    alt = f"Heatmap, layers by tokens: change of {result.measured} with the hidden state of {kind} {donor} put into "
    alt += f"{kind} {first}. {plain(said)}"
    chart(heatmap(result, first, donor), result.to_frame, "patching", name, alt)
    if result.left_out:
        st.caption(left_out(result, first, donor))


def _short(found: Patched) -> str:
    """What is moved, in a chart, HTML-safe."""
    if found.contrast is None:
        return "output"
    first, second = (escape_html(shorten(found.task.label_names[label], 24)) for label in found.contrast)
    return f"logit of {first} less {second}"


def heatmap(found: Patched, into: int, donor: int) -> go.Figure:
    """Layers x tokens: by how much each state that is put in moves the lead; `into` and `donor` are numbers."""
    moved, flips = found.moved, found.flips
    layers, tokens = moved.shape
    names, mine, donors = _names(found)
    limit = max(abs(found.gap), float(np.nanmax(np.abs(moved), initial=0.0)), 1e-6)
    hover = _hover(found, mine, donors)
    rows = layer_names(range(layers))
    fig = go.Figure(signed_cells(moved, range(tokens), rows, limit, bar="change", hovertext=hover, **HOVER))
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(crosses(columns, layer_names(rows)))
    kind = kind_of(found.task)
    gaps = sum(name is None for name in found.donors)
    notes = ["✕ another prediction"] * bool(len(rows))
    notes += [f"blank: {kind} {donor} has no token there ({gaps} of {tokens})"] * bool(gaps)
    subtitle = f"{_short(found)}: {signed(found.start, 3)} in {into}, "
    subtitle += f"{signed(found.start + found.gap, 3)} in {donor}<br>{'; '.join(notes)}"
    title = f"How far states of {kind} {donor} move {kind} {into}"
    layout(fig, title, subtitle=subtitle, height=grid_height(layers, 230))
    token_axes(fig, names, f"token of {kind} {into} (of {kind} {donor} where another)")
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


def _hover(found: Patched, mine: Sequence[str], donors: Sequence[str]) -> np.ndarray:
    """What each cell says, `(L, T)`; nothing where no state is put in. Tokens are HTML-safe."""
    moved, parts, flips = found.moved, found.parts, found.flips
    texts = np.full(moved.shape, "", dtype=object)
    for layer, place in np.argwhere(~np.isnan(moved)):
        change, part = float(moved[layer, place]), float(parts[layer, place])
        way = "" if np.isnan(part) else f" ({_of_the_way(part)})"
        lines = [
            f"entering layer {layer}, token {place}: <b>{mine[place]}</b> gets the state of <b>{donors[place]}</b>",
            f"change {signed(change, 3)}, to {signed(found.start + change, 3)}{way}",
        ]
        if flips[layer, place]:
            answer = found.task.label_names[int(found.logits[layer, place].argmax())]
            lines.append(f"prediction: {escape_html(answer)}")
        if found.rerouted is not None:
            lines.append(f"layers that then route differently: {found.rerouted[layer, place]}")
        texts[layer, place] = "<br>".join(lines)
    return texts


def _of_the_way(part: float) -> str:
    return f"{percent(part, 0)} of the way"


def in_words(found: Patched, donor: int) -> str:
    """At which token the difference passes, layer by layer, as Markdown."""
    best, lead = found.strongest(), escape(found.measured)
    parts = found.parts[range(len(best)), best]
    if np.isnan(parts).all():
        moved = found.moved[range(len(best)), best]
        layer = int(np.nan_to_num(np.abs(moved), nan=-1.0).argmax())
        return (
            f"{lead[0].upper()}{lead[1:]} is nearly the same in both ({abs(found.gap):.3f} apart). The largest change by "
            f"one state is {signed(float(moved[layer]), 3)}, entering layer {layer} {_state(found, best[layer])}."
        )
    named = [place if part >= _SOME else None for place, part in zip(best, parts, strict=True)]
    if not any(place is not None for place in named):
        return (
            f"No single state moves {lead} even {percent(_SOME, 0)} of the way to {kind_of(found.task)} {donor}. The difference "
            "is spread over several tokens, or in tokens that could not be put in."
        )
    runs = [list(run) for _, run in groupby(range(len(named)), key=named.__getitem__)]
    told = []
    for run in runs[:_STRETCHES]:
        where = f"layer {run[0]}" if len(run) == 1 else f"layers {run[0]} to {run[-1]}"
        place = named[run[0]]
        if place is None:
            told.append(f"{where}: none")
            continue
        most = _of_the_way(max(float(parts[layer]) for layer in run))
        told.append(f"{where}: {_state(found, place, 'up to ' * (len(run) > 1) + most)}")
    more = f"; {len(runs)} stretches in all" if len(runs) > _STRETCHES else ""
    return f"The state of {kind_of(found.task)} {donor} that moves {lead} most, by layer: {'; '.join(told)}{more}."


def _state(found: Patched, place: int, *more: str) -> str:
    """A token, whose state is put in there, and more in brackets, as Markdown."""
    mine, donors = (escape(shorten(each[place] or "", _NAME)) for each in (found.tokens, found.donors))
    whose = "" if mine == donors else f", from **{donors}**"
    return f"at **{mine}**{whose} ({', '.join([f'token {place}', *more])})"


def left_out(found: Patched, into: int, donor: int) -> str:
    """Which of the donor's tokens were put in nowhere, as Markdown."""
    kind = kind_of(found.task)
    names = listed(f"**{escape(shorten(token, _NAME))}**" for token in found.left_out[:_NAMED])
    more = f" and {len(found.left_out) - _NAMED:,} more" if len(found.left_out) > _NAMED else ""
    return (
        f":material/info: Not put in, because {kind} {into} has no place for them: {names}{more} of {kind} {donor}. "
        "Compare the other way round to see tokens without a counterpart."
    )
