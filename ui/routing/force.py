"""The route that a person forces on the routing page: its history, its place in the URL, and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.errors import PlanError
from shrp.model.forcing import AS_ROUTED, Force, ForcedRoute
from ui import not_here
from ui.bound import fall_back, set_param
from ui.downloads import clicked
from ui.text import escape, shorten

URL = "force"
LAYER, EXPERT, TOKEN = "force_layer", "force_expert", "force_token"
"""Keys of the selectboxes, in the session's state and in the URL alike."""
ALL_TOKENS = "all tokens"
_STATE, _UNDO = "routing-forced", 100


@dataclass
class Forcing:
    """What is forced in one checkpoint, with undo. Forces of single tokens belong to one text."""

    layers: tuple[int, ...]
    experts: int
    route: ForcedRoute = AS_ROUTED
    past: list[ForcedRoute] = field(default_factory=list)
    text: tuple[str, ...] | None = None
    """The input whose tokens are meant."""
    notice: str = ""
    """What was left out, and why; empty when there is nothing to say."""

    def set(self, route: ForcedRoute) -> None:
        """Make this the route; the one before can be had back."""
        self.notice = ""
        if route != self.route:
            self.past = [*self.past, self.route][-_UNDO:]
            self.route = route
        self.to_url()

    def toggle(self, layer: int, expert: int, token: int | None = None) -> None:
        """Force an expert, or release it if it is forced."""
        if layer not in self.layers or not 0 <= expert < self.experts:
            return
        force = Force(layer, expert, token)
        if force in self.route.forces:
            self.set(self.route.released(force))
        else:
            self.set(self.route.forced(layer, expert, token))

    def undo(self) -> None:
        """Go back one change, if there is one."""
        self.notice = ""
        if self.past:
            self.route = self.past.pop()
        self.to_url()

    def meet(self, text: tuple[str, ...], tokens: int) -> None:
        """Leave out what does not fit the input that is shown, and say so.

        Args:
            text: the input.
            tokens: its number of tokens, or 0 where inputs are routed as a whole.
        """
        kept = self.route.fitting(self.layers, self.experts, tokens)
        if self.text is not None and self.text != text:
            kept = kept.whole()
            # Or Undo would force tokens of the other input.
            self.past = [route for route, _ in groupby(route.whole() for route in self.past)]
            if self.past and self.past[-1] == kept:  # or it would do nothing
                self.past.pop()
        if kept != self.route:
            self.notice = (
                "What was forced for single tokens was released, since another input is shown."
                if kept == self.route.whole() and self.text is not None
                else "Part of the forced route was left out: it names layers, experts or tokens that are not there."
            )
            self.route = kept
            # Undo must not bring back what does not fit.
            self.past = [r.whole().fitting(self.layers, self.experts, tokens) for r in self.past]
        self.text = text
        self.to_url()

    def to_url(self) -> None:
        """Put the route into the page's address."""
        set_param(URL, self.route.text or None)


def forcing(fingerprint: str, layers: Sequence[int], experts: int, picker: str) -> Forcing:
    """This session's forced route for a checkpoint. The first one of a session starts from the URL.

    After that the session leads and the URL follows: a request that was on its way while the address changed still
    carries the old one, and must not take back a click.

    Args:
        picker: of the checkpoint, as for `not_here`: a route of one that is not here is not another one's.
    """
    first = _STATE not in st.session_state
    known: dict[str, Forcing] = st.session_state.setdefault(_STATE, {})
    if fingerprint not in known:
        known[fingerprint] = Forcing(tuple(layers), experts)
    found = known[fingerprint]
    if first and (link := st.query_params.get(URL)):
        try:
            if not_here.was_asked_for(picker):
                raise PlanError("it is of a checkpoint that is not here.")
            found.route = ForcedRoute.parse(link)
        except PlanError as error:
            found.notice = f"The forced route in the address was left out: {error}"
    return found


def token_options(shown: Exploration) -> list[str]:
    """All tokens, then each by its position and text."""
    return [ALL_TOKENS, *(f"{i}: {shorten(token, 24)}" for i, token in enumerate(shown.tokens))]


def picked_token(shown: Exploration) -> int | None:
    """The position of the picked token; None for all, and always under sequence routing."""
    if not shown.by_token:
        return None
    # Until the picker has been drawn, what it will show is what the address says.
    options, value = token_options(shown), st.session_state.get(TOKEN, st.query_params.get(TOKEN))
    return options.index(value) - 1 if value in options[1:] else None


def controls(found: Forcing, shown: Exploration) -> None:
    """Boxes and a button that force without a mouse, and what is forced, each of which can be released.

    Args:
        shown: the input whose tokens can be picked, as routed.
    """
    boxes = st.columns([2, 2, 3, 2, 2, 2] if shown.by_token else [2, 2, 2, 2, 2], vertical_alignment="bottom")
    fall_back(LAYER, found.layers, found.layers[0])
    fall_back(EXPERT, range(found.experts), 0)
    boxes[0].selectbox("Layer", found.layers, key=LAYER, bind="query-params")
    boxes[1].selectbox("Expert", range(found.experts), key=EXPERT, bind="query-params")
    if shown.by_token:
        options = token_options(shown)
        fall_back(TOKEN, options, options[0])
        boxes[2].selectbox(
            "For",
            options,
            key=TOKEN,
            bind="query-params",
            help="All tokens of every input shown, or one token of the first input. A click in the map of tokens picks "
            "one.",
        )
    button, undo, clear = boxes[-3:]
    button.button(
        "Force",
        key="force-button",
        type="primary",
        icon=":material/push_pin:",
        width="stretch",
        on_click=lambda: _force_picked(found, shown),
    )
    undo.button(
        "Undo",
        key="force-undo",
        icon=":material/undo:",
        width="stretch",
        disabled=not found.past,
        on_click=found.undo,
    )
    clear.button(
        "Clear all",
        key="force-clear",
        icon=":material/clear_all:",
        width="stretch",
        disabled=not found.route,
        on_click=lambda: found.set(AS_ROUTED),
    )
    if found.notice:
        st.caption(f":material/info: {escape(found.notice)}")
    if not found.route:
        st.caption(
            "Nothing is forced. Click a cell below, or pick a layer and an expert and press **Force**."
        )
        return
    with st.container(horizontal=True, gap="small"):
        for number, force in enumerate(found.route.forces):
            st.button(
                _chip(force, shown),
                key=f"force-chip-{number}",
                icon=":material/close:",
                help="Release it",
                on_click=found.toggle,
                args=(force.layer, force.expert, force.token),
            )


def _force_picked(found: Forcing, shown: Exploration) -> None:
    """Force what the boxes hold now, which may be newer than what they held when the button was drawn."""
    layer, expert = st.session_state[LAYER], st.session_state[EXPERT]
    found.set(found.route.forced(layer, expert, picked_token(shown)))


def _chip(force: Force, shown: Exploration) -> str:
    token = ""
    if force.token is not None:
        token = f", token {force.token} ({escape(shorten(shown.tokens[force.token], 16))})"
    return f"layer {force.layer}{token} → expert {force.expert}"


def click_cell(found: Forcing, chart_key: str, token: int | None) -> None:
    """`on_select` callback of a matrix: force the clicked cell, `customdata` (layer, expert), or release it."""
    if cell := clicked(chart_key):
        found.toggle(int(cell[0]), int(cell[1]), token)


def click_token(chart_key: str, shown: Exploration) -> None:
    """`on_select` callback of the map of tokens: pick the clicked one, `customdata` (layer, token)."""
    options = token_options(shown)
    if (cell := clicked(chart_key)) and int(cell[1]) + 1 < len(options):
        st.session_state[TOKEN] = options[int(cell[1]) + 1]
