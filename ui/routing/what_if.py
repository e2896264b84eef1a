"""The route of one sentence, and what the model would predict with other experts: one grid whose cells can be forced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.what_if import WhatIf, compare_outputs, compare_routes
from shrp.errors import PlanError, ShrpError
from shrp.model.forcing import AS_ROUTED, Force, ForcedRoute
from ui import arrival, not_here
from ui.bound import fall_back, set_param
from ui.downloads import chart, clicked
from ui.pickers import always_one
from ui.routing import results
from ui.routing.figures import cells, grid_height, layer_names, title_text, token_axes
from ui.routing.sentences import say_unknown, went_back
from ui.routing.table import routes_html
from ui.routing.verdict import largest_move
from ui.state import CHECKPOINT, Selection, show_error
from ui.state import EXPERT as USAGE_EXPERT
from ui.state import LAYER as USAGE_LAYER
from ui.text import escape, escape_html, percent, shorten, signed
from ui.theme import (
    SELECTED,
    SEQUENTIAL,
    click_targets,
    layout,
    marks,
    outline,
    pick_by_click,
)

URL, CLASS, SHOWN = "force", "what_if_class", "grid"
"""Names in the URL: the forced route, the class whose logit is shown, what the grid shows."""
LAYER, EXPERT, TOKEN = "force_layer", "force_expert", "force_token"
"""Keys of the pickers. They follow a click, and the URL holds the route instead of them."""
CHANGE, PROBABILITY = "what if", "router probability"
ALL_TOKENS = "all tokens"
GRID = "what-if"
_STATE = "routing-forced"
_MOST_WRITTEN = 16
"""Experts of a layer up to which cells have their number."""


@dataclass
class Forcing:
    """What is forced in one checkpoint. Single tokens are forced in one text only."""

    route: ForcedRoute = AS_ROUTED
    text: tuple[str, ...] | None = None
    """The sentence whose tokens are meant."""
    notice: str = ""
    """What was left out of the address, and why."""

    def set(self, route: ForcedRoute) -> None:
        """Make this the route, here and in the address."""
        self.route, self.notice = route, ""
        set_param(URL, route.text or None)

    def toggle(self, layer: int, expert: int, token: int | None = None) -> None:
        """Force an expert, or release it if it is forced."""
        force = Force(layer, expert, token)
        released = force in self.route.forces
        self.set(self.route.released(force) if released else self.route.forced(layer, expert, token))

    def meet(self, e: Exploration, experts: int) -> None:
        """Leave out what does not fit the sentence that is shown, and say so."""
        kept = self.route.fitting(e.layers, experts, len(e.tokens) if e.by_token else 0)
        if kept != self.route:
            self.notice = (
                "Part of the forced route names layers, experts or tokens that are not here: left out."
            )
        elif self.text not in (None, e.text) and kept != kept.whole():
            kept, self.notice = (
                kept.whole(),
                "What was forced for single tokens of the other sentence is released.",
            )
        self.route, self.text = kept, e.text
        set_param(URL, kept.text or None)


def forcing(fingerprint: str) -> Forcing:
    """This session's forced route for a checkpoint.

    The address leads at the start of a session and after Back or Forward. Otherwise the session leads: a request that
    was under way while the address changed still carries the old one.
    """
    first = _STATE not in st.session_state
    found = st.session_state.setdefault(_STATE, {}).setdefault(fingerprint, Forcing())
    link = st.query_params.get(URL, "")
    if (first or went_back()) and link != found.route.text:
        try:
            if not_here.was_asked_for(CHECKPOINT):
                raise PlanError("it is of a checkpoint that is not here.")
            found.route, found.notice = ForcedRoute.parse(link), ""
        except PlanError as error:
            found.route, found.notice = AS_ROUTED, f"The forced route in the address was left out: {error}"
        if found.route:
            _follow(found.route.forces[-1])
    return found


def _follow(force: Force) -> None:
    """Have the pickers show what was forced last."""
    st.session_state[LAYER], st.session_state[EXPERT] = force.layer, force.expert


def section(selection: Selection, e: Exploration, number: int, *, wanted: bool) -> None:
    """Draw the tab.

    Args:
        e: The sentence as routed.
        number: Its number on the page.
        wanted: Whether the grid is to be computed, even if that takes long.
    """
    experts = len(e.mean_probs(e.layers[0]))
    found = forcing(selection.checkpoint.fingerprint)
    found.meet(e, experts)
    above = st.container()  # the grid comes first; what it shows is what the row below it holds
    output, shown, token = _controls(found, e, experts)
    if found.notice:
        st.caption(f":material/info: {escape(found.notice)}")
    try:
        with above:
            _grid(selection, e, found, output, shown, token, number, wanted=wanted)
    except ShrpError as error:
        show_error(error)
        return
    layer, expert = st.session_state[LAYER], st.session_state[EXPERT]
    arrival.page_link(
        "pages/expert_usage.py",
        f"What layer {layer}'s expert {expert} is used for",
        ":material/grid_on:",
        arrival.link({USAGE_LAYER: layer, USAGE_EXPERT: expert}),
    )


def _grid(
    selection: Selection,
    e: Exploration,
    found: Forcing,
    output: int,
    shown: str,
    token: int | None,
    number: int,
    *,
    wanted: bool,
) -> None:
    """What the forced route changes, the grid, and under token routing each token's expert."""
    after = results.explored(selection.checkpoint, [e.text], found.route)[0] if found.route else e
    if found.route:
        _compare(e, after, found.route)
    name = f"{selection.name}-{number}"
    if shown == PROBABILITY:
        _probabilities(after, found, name)
    elif wanted:
        grid = results.what_if_grid(selection.checkpoint, e.text, found.route, token)
        _what_if(grid, after, found, output, name)
    else:
        st.info("The grid takes longer on a text of this length: switch on *Compute everything* above.")
    if e.by_token:
        _tokens(after, e, name)


def _controls(found: Forcing, e: Exploration, experts: int) -> tuple[int, str, int | None]:
    """The one row of controls. Returns the class, what the grid shows, and the token that is forced."""
    task, row = e.task, st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    with row:
        say_unknown(SHOWN, "view", (CHANGE, PROBABILITY))
        shown = always_one("Cells", (CHANGE, PROBABILITY), SHOWN)
        output = e.prediction
        if task.label_names:
            say_unknown(CLASS, "class", task.label_names)
            fall_back(CLASS, (None, *task.label_names), None)
            name = st.selectbox(
                "Logit of",
                task.label_names,
                index=None,
                key=CLASS,
                bind="query-params",
                placeholder=f"{e.answer} (predicted)",
                width=190,
                disabled=shown == PROBABILITY,
            )
            output = task.label_names.index(name) if name in task.label_names else output
        start = e.layers[-1]
        fall_back(LAYER, e.layers, start)
        fall_back(EXPERT, range(experts), e.choice(start))
        st.session_state.setdefault(LAYER, start)
        st.session_state.setdefault(EXPERT, e.runner_up(start))
        layer = st.selectbox("Layer", e.layers, key=LAYER, width=90)
        expert = st.selectbox("Expert", range(experts), key=EXPERT, width=90)
        token = None
        if e.by_token:
            options = [ALL_TOKENS, *(f"{i}: {shorten(name, 24)}" for i, name in enumerate(e.tokens))]
            fall_back(TOKEN, options, ALL_TOKENS)
            token = options.index(st.selectbox("For", options, key=TOKEN, width=150)) - 1
            token = None if token < 0 else token
        forced = Force(layer, expert, token) in found.route.forces
        st.button(
            "Release" if forced else "Force",
            key="force-button",
            icon=":material/lock_open:" if forced else ":material/push_pin:",
            # What the pickers hold now may be newer than what they held when the button was drawn.
            on_click=lambda: found.toggle(st.session_state[LAYER], st.session_state[EXPERT], token),
        )
        if found.route:
            st.button(
                "Release all",
                key="force-clear",
                icon=":material/clear_all:",
                on_click=lambda: found.set(AS_ROUTED),
            )
    return output, shown, token


def click_cell(found: Forcing, token: int | None) -> None:
    """`on_select` callback of the grid: force the clicked cell or release it, and have the pickers follow."""
    if cell := clicked(GRID):
        layer, expert = int(cell[0]), int(cell[1])
        _follow(Force(layer, expert, token))
        found.toggle(layer, expert, token)


def _what_if(grid: WhatIf, after: Exploration, found: Forcing, output: int, name: str) -> None:
    said = largest_move(grid, output)
    chart(
        what_if_heatmap(grid, after, output),
        grid.to_frame,
        GRID,
        f"{name}-what-if",
        f"Heatmap, layers by experts: change of the output with that expert forced. {said}",
        hint="The CSV has the same numbers. The boxes above force an expert without the mouse.",
        on_select=lambda: click_cell(found, grid.token),
    )
    st.caption(said)


def _probabilities(after: Exploration, found: Forcing, name: str) -> None:
    chart(
        router_heatmap(after, found.route),
        after.to_frame,
        GRID,
        f"{name}-router",
        "Heatmap of router probabilities, layers by experts; taken: "
        + ", ".join(f"layer {layer} expert {after.choice(layer)}" for layer in after.layers),
        on_select=lambda: click_cell(found, None),
    )


def _compare(before: Exploration, after: Exploration, route: ForcedRoute) -> None:
    """What the forced route changes: both routes as strips, the outputs, and layers that route differently."""
    routes = compare_routes(before, after, route)
    forced = ", ".join(_force_name(force, before) for force in route.forces)
    moved = routes.loc[routes["what"] == "changed as a result", "layer"].tolist()
    result = f"the prediction stays **{escape(after.answer)}**"
    if before.answer != after.answer:
        result = f"the prediction goes from **{escape(before.answer)}** to **{escape(after.answer)}**"
    then = "No other layer changes its expert."
    if moved:
        then = f"Because of that, layer{'s' * (len(moved) > 1)} {', '.join(map(str, moved))} "
        then += f"route{'s' * (len(moved) == 1)} differently."
    st.markdown(f"Forced: {forced}. With that {result}. {then}")
    rows = [("as routed", "", before, None), ("forced", "", after, None)]
    st.html(routes_html(rows, before, first="route", alt="Route as routed and forced", forced=route.layers))
    if before.task.num_labels > 2:
        with st.expander("All classes"):
            st.dataframe(compare_outputs(before, after), hide_index=True)


def _force_name(force: Force, e: Exploration) -> str:
    token = (
        "" if force.token is None else f", token {force.token} ({escape(shorten(e.tokens[force.token], 16))})"
    )
    return f"layer {force.layer}{token} to expert {force.expert}"


def _mark(fig: go.Figure, e: Exploration, route: ForcedRoute, token: int | None) -> None:
    """Outline the experts that are taken, and mark those that are forced."""
    for row, layer in enumerate(e.layers):
        experts = [e.choice(layer)] if e.by_token else np.flatnonzero(e.fires(layer)[0])
        for expert in [int(e.taken(layer)[token])] if token is not None else experts:
            outline(fig, (expert - 0.5, expert + 0.5), (row - 0.5, row + 0.5))
    forced = [force for force in route.forces if force.token == token]
    if forced:
        fig.add_trace(
            go.Scatter(
                x=[force.expert - 0.36 for force in forced],
                y=layer_names([force.layer for force in forced]),
                mode="markers",
                marker={
                    "symbol": "diamond",
                    "size": 8,
                    "color": SELECTED,
                    "line": {"width": 1.5, "color": "white"},
                },
                unselected={"marker": {"opacity": 1}},
                hoverinfo="skip",
                showlegend=False,
            )
        )


def _finish(fig: go.Figure, title: str, subtitle: str, x: str, layers: int, experts: int) -> go.Figure:
    step = 1 if experts <= _MOST_WRITTEN else 2
    named = list(range(0, experts, step))
    pick_by_click(fig)
    layout(fig, title, subtitle=subtitle, x=x, height=grid_height(layers, 165))
    fig.update_xaxes(tickmode="array", tickvals=named, ticktext=[str(e) for e in named], tickangle=0)
    fig.update_xaxes(showgrid=False, zeroline=False, fixedrange=True)
    fig.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", title="", fixedrange=True)
    return fig


def what_if_heatmap(grid: WhatIf, e: Exploration, output: int) -> go.Figure:
    """Layers x experts: change of one logit when that expert is forced in that layer. Cells can be clicked.

    A marker's `customdata` starts with layer and expert.

    Args:
        e: The sentence under the route that changes are against; its experts are outlined.
        output: The class, or 0 for regression.
    """
    change, flips = grid.change(output), grid.flips()
    limit = max(float(np.abs(change).max()), 1e-6)
    experts = change.shape[1]
    digits = 1 if limit >= 1 else 2
    written = np.round(change, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = np.vectorize(lambda value: signed(value, digits) if value else "")(written)
    numbers = {"text": text, "texttemplate": "%{text}"} if experts <= _MOST_WRITTEN else {}
    bar = {"showscale": True, "colorbar": {"title": {"text": "change"}, "thickness": 12}}
    fig = go.Figure(cells(change, grid.layers, limit, hoverinfo="skip", **bar, **numbers))
    _mark(fig, e, grid.route, grid.token)
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(marks(columns + 0.36, layer_names([grid.layers[row] for row in rows]), "x"))
    places = [(i, layer, expert) for i, layer in enumerate(grid.layers) for expert in range(experts)]
    texts = [_hover(grid, e, i, expert, output) for i, _, expert in places]
    targets = [(layer, expert) for _, layer, expert in places]
    fig.add_trace(
        click_targets([c for _, c in targets], layer_names([r for r, _ in targets]), targets, texts)
    )
    what = f"logit of {escape_html(grid.task.label_names[output])}" if grid.task.label_names else "output"
    signs = ["outlined: taken", *["✕: other prediction"] * bool(len(rows)), *["◆: forced"] * bool(grid.route)]
    whose = "" if grid.token is None else f", for token {grid.token}"
    return _finish(
        fig,
        f"With another expert{whose}: {what}",
        f"{title_text(e)}<br>change from the present route; {'; '.join(signs)}; click to force",
        "expert",
        len(grid.layers),
        experts,
    )


def _hover(grid: WhatIf, e: Exploration, row: int, expert: int, output: int) -> str:
    layer, logit = grid.layers[row], float(grid.logits[row, expert, output])
    flips = ""
    if grid.flips()[row, expert]:
        flips = f"<br><b>prediction: {escape_html(grid.task.label_names[int(grid.logits[row, expert].argmax())])}</b>"
    is_forced = any((f.layer, f.expert, f.token) == (layer, expert, grid.token) for f in grid.route.forces)
    change = logit - float(grid.base[output])
    return (
        f"<b>Layer {layer}, expert {expert}</b><br>change {change:+.3f}, to {logit:.3f}{flips}<br>router probability "
        f"{percent(float(e.mean_probs(layer)[expert]))}<br><i>click to {'release' if is_forced else 'force'} it</i>"
    )


def router_heatmap(e: Exploration, route: ForcedRoute = AS_ROUTED) -> go.Figure:
    """Layers x experts: the router's probabilities, of tokens their mean. Cells can be clicked as in the what-if grid."""
    probs = np.stack([e.mean_probs(layer) for layer in e.layers])
    experts = probs.shape[1]
    text = np.vectorize(lambda value: f"{value:.0%}" if value >= 0.005 else "")(probs)
    fig = go.Figure(
        go.Heatmap(
            z=probs,
            x=list(range(experts)),
            y=layer_names(e.layers),
            zmin=0,
            zmax=float(probs.max()),
            colorscale=SEQUENTIAL,
            xgap=1,
            ygap=1,
            hoverinfo="skip",
            text=text,
            texttemplate="%{text}" if experts <= _MOST_WRITTEN else None,
            colorbar={"title": {"text": "probability"}, "tickformat": ".0%", "thickness": 12},
        )
    )
    _mark(fig, e, route, None)
    targets = [(layer, expert) for layer in e.layers for expert in range(experts)]
    texts = [
        f"<b>Layer {layer}, expert {expert}</b><br>router probability {percent(float(e.mean_probs(layer)[expert]))}"
        + f"<br>{percent(float(e.shares(layer)[expert]))} of tokens take it" * e.by_token
        for layer, expert in targets
    ]
    fig.add_trace(
        click_targets([c for _, c in targets], layer_names([r for r, _ in targets]), targets, texts)
    )
    mean = ", mean over tokens" if e.by_token else ""
    return _finish(
        fig,
        f"Router probabilities{mean}",
        f"{title_text(e)}<br>outlined: taken; equal for all would be {percent(1 / experts)}",
        "expert",
        len(e.layers),
        experts,
    )


def _tokens(after: Exploration, before: Exploration, name: str) -> None:
    """Each token's expert, where every token routes by itself."""
    chart(
        token_map(after),
        after.to_frame,
        "tokens",
        f"{name}-tokens",
        f"Heatmap of the expert that each of {len(after.tokens)} tokens takes in each layer",
    )
    if after is not before:
        moved = sum(int((after.taken(layer) != before.taken(layer)).sum()) for layer in after.layers)
        st.caption(f"The forced route changes {moved:,} of {len(after.tokens) * len(after.layers):,} cells.")


def token_map(e: Exploration) -> go.Figure:
    """Layers x tokens: each token's expert; orange where it is not the one that most tokens of that layer take."""
    probs = np.stack([e.probs[layer] for layer in e.layers])  # (L, T, H)
    taken = np.stack([e.taken(layer) for layer in e.layers])  # (L, T)
    most = np.array([e.choice(layer) for layer in e.layers])[:, None]
    share = np.take_along_axis(probs, taken[..., None], -1)[..., 0]
    names = [escape_html(shorten(token, 16)) for token in e.tokens]
    hover = np.array(
        [
            [
                f"layer {layer}, <b>{name}</b><br>expert {x}, probability {percent(float(p))}"
                for name, x, p in row
            ]
            for layer, row in (
                (layer, zip(names, taken[i], share[i], strict=True)) for i, layer in enumerate(e.layers)
            )
        ],
        dtype=object,
    )
    written = {"text": taken.astype(str), "texttemplate": "%{text}"} if len(names) <= 160 else {}
    fig = go.Figure(
        cells(
            np.where(taken == most, -share, share),
            e.layers,
            1.0,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            **written,
        )
    )
    layout(
        fig,
        "Expert of every token",
        subtitle="blue: the expert that most tokens of the layer take; orange: another one; darker: more probable",
        height=grid_height(len(e.layers), 190),
    )
    token_axes(fig, names)
    return fig
