"""The route of one sentence, and what the model would predict with other experts: one grid whose cells can be forced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.explore import Exploration, WhatIf, rerouted
from shrp.errors import PlanError
from shrp.model.forcing import AS_ROUTED, Force, ForcedRoute
from shrp.phrases import numbered
from ui import not_here, state
from ui.bound import fall_back, of_checkpoint, set_param
from ui.downloads import chart, clicked
from ui.routing import results
from ui.routing.figures import grid_height, layer_names, token_axes
from ui.routing.sentences import class_box, output_name
from ui.routing.table import routes_html
from ui.routing.verdict import most
from ui.state import CHECKPOINT, Selection
from ui.text import escape, escape_html, percent, plain, score_text, shorten, shorten_texts, signed
from ui.theme import HOVER, SELECTED, click_targets, crosses, layout, outline, pick_by_click, signed_cells

URL, CLASS = "force", "what_if_class"
"""Names in the URL: the forced route, and the class whose logit is shown."""
LAYER, EXPERT = "force_layer", "force_expert"
"""Keys of the pickers. They follow a click, and the URL holds the route instead of them."""
GRID = "what-if"
_STATE = "routing-forced"
_MOST_WRITTEN = 16
"""Experts of a layer up to which cells have their number."""


@dataclass
class Forcing:
    """What is forced in one checkpoint."""

    route: ForcedRoute = AS_ROUTED
    notice: str = ""
    """What was left out of the address, and why."""

    def set(self, route: ForcedRoute) -> None:
        """Make this the route, here and in the address."""
        self.route, self.notice = route, ""
        set_param(URL, route.text or None)

    def toggle(self, force: Force) -> None:
        """Force an expert, or release it if it is forced."""
        route = self.route
        self.set(route.released(force) if force in route.forces else route.forced(*force))

    def meet(self, e: Exploration, experts: int) -> None:
        """Leave out what does not fit the model, and say so."""
        kept = self.route.fitting(e.layers, experts)
        if kept != self.route:
            self.route = kept
            self.notice = "Part of the forced route was left out: it is of other layers or experts."
        set_param(URL, kept.text or None)


def forcing(fingerprint: str) -> Forcing:
    """This session's forced route for a checkpoint."""
    found, address_leads = of_checkpoint(_STATE, fingerprint, Forcing())
    link = st.query_params.get(URL, "")
    if address_leads and link != found.route.text:
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
    """Draw the tab."""
    experts = len(e.mean_probs(e.layers[0]))
    found = forcing(selection.checkpoint.fingerprint)
    found.meet(e, experts)
    if found.notice:
        st.warning(escape(found.notice), icon=":material/link_off:")
    above = st.container()  # the grid comes first; what it shows is what the row below it holds
    output = _controls(found, e, experts)
    checkpoint, name = selection.checkpoint, f"{selection.name}-{number}"
    with above:
        after = results.explored(checkpoint, [e.text], found.route)[0] if found.route else e
        if found.route:
            _compare(e, after, found.route)
        if wanted:
            _what_if(results.what_if_grid(checkpoint, e.text, found.route), after, found, output, name)
        else:
            st.info("The grid takes longer on a text of this length: switch on *Compute everything* above.")
        if e.by_token:
            token_routes(after, e, name)
    layer, expert = st.session_state[LAYER], st.session_state[EXPERT]
    label = f"What layer {layer}'s expert {expert} is used for"
    asked = {state.LAYER: layer, state.EXPERT: expert}
    state.page_link("pages/expert_usage.py", label, ":material/grid_on:", asked)


def _controls(found: Forcing, e: Exploration, experts: int) -> int:
    """The one row of controls. Returns the class."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        output = class_box(e.task, CLASS, e.prediction)
        start = e.layers[-1]
        fall_back(LAYER, e.layers, start)
        fall_back(EXPERT, range(experts), e.choice(start))
        st.session_state.setdefault(LAYER, start)
        st.session_state.setdefault(EXPERT, e.runner_up(start))
        layer = st.selectbox("Layer", e.layers, key=LAYER, width=90)
        expert = st.selectbox("Expert", range(experts), key=EXPERT, width=90)
        forced = Force(layer, expert) in found.route.forces
        st.button(
            "Release" if forced else "Force",
            key="force-button",
            icon=":material/lock_open:" if forced else ":material/push_pin:",
            # What the pickers hold now may be newer than what they held when the button was drawn.
            on_click=lambda: found.toggle(Force(st.session_state[LAYER], st.session_state[EXPERT])),
        )
        if found.route:
            clear = lambda: found.set(AS_ROUTED)  # noqa: E731
            st.button("Release all", key="force-clear", icon=":material/clear_all:", on_click=clear)
    return output


def click_cell(found: Forcing) -> None:
    """`on_select` callback of the grid: force the clicked cell or release it, and have the pickers follow."""
    if cell := clicked(GRID):
        force = Force(int(cell[0]), int(cell[1]))
        _follow(force)
        found.toggle(force)


def _what_if(grid: WhatIf, after: Exploration, found: Forcing, output: int, name: str) -> None:
    chart(
        what_if_heatmap(grid, after, output),
        grid.to_frame,
        GRID,
        f"{name}-what-if",
        f"Heatmap, layers by experts: change of the output with that expert forced. {plain(most(grid, output))}.",
        hint="The CSV has the same numbers. The boxes above force an expert without the mouse.",
        on_select=lambda: click_cell(found),
    )


def _compare(before: Exploration, after: Exploration, route: ForcedRoute) -> None:
    """What the forced route changes: both routes as strips, the outputs, and layers that route differently."""
    moved = rerouted(before, after, route)
    forced = ", ".join(f"layer {layer} to expert {expert}" for layer, expert in route.forces)
    result = f"the prediction stays **{escape(after.answer)}**"
    if before.answer != after.answer:
        result = f"the prediction goes from **{escape(before.answer)}** to **{escape(after.answer)}**"
    then = "No other layer changes its expert."
    if moved:
        then = f"Because of that, {numbered('layer', moved)} route{'s' * (len(moved) == 1)} differently."
    st.markdown(f"Forced: {forced}. With that {result}. {then}")
    rows = [("as routed", "", before), ("forced", "", after)]
    st.html(routes_html(rows, before, first="route", alt="Route as routed and forced", forced=route.layers))


def _mark(fig: go.Figure, e: Exploration, route: ForcedRoute) -> None:
    """Outline the experts that are taken, and mark those that are forced."""
    for row, layer in enumerate(e.layers):
        for expert in [e.choice(layer)] if e.by_token else np.flatnonzero(e.fires(layer)[0]):
            outline(fig, expert, row)
    if route:
        mark = {"symbol": "diamond", "size": 8, "color": SELECTED, "line": {"width": 1.5, "color": "white"}}
        seen = {"hoverinfo": "skip", "showlegend": False, "unselected": {"marker": {"opacity": 1}}}
        y, x = layer_names(route.layers), [force.expert - 0.36 for force in route.forces]
        fig.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=mark, **seen))


def what_if_heatmap(grid: WhatIf, e: Exploration, output: int) -> go.Figure:
    """Layers x experts: change of one logit when that expert is forced in that layer.

    Cells can be clicked; a click's `customdata` is layer and expert.
    `e`: The sentence under the route that changes are against; its experts are outlined.
    """
    change, flips = grid.change(output), grid.flips()
    limit = max(float(np.abs(change).max()), 1e-6)
    digits = 1 if limit >= 1 else 2
    text = np.vectorize(lambda value: signed(value, digits) if value else "")(np.round(change, digits))
    numbers = {"text": text, "texttemplate": "%{text}"} if change.shape[1] <= _MOST_WRITTEN else {}
    experts, names = range(change.shape[1]), layer_names(grid.layers)
    fig = go.Figure(signed_cells(change, experts, names, limit, bar="change", hoverinfo="skip", **numbers))
    _mark(fig, e, grid.route)
    rows, columns = np.nonzero(flips)
    if len(rows):
        fig.add_trace(crosses(columns + 0.36, layer_names([grid.layers[row] for row in rows])))
    texts = [_hover(grid, e, row, expert, output) for row, expert in np.ndindex(change.shape)]
    signs = {"outlined: taken": True, "blank: rounds to 0": numbers, "✕: other prediction": len(rows), "◆: forced": grid.route}
    signs = [sign for sign, there in signs.items() if there]
    fig.add_trace(click_targets([(layer, expert) for layer in grid.layers for expert in experts], texts))
    pick_by_click(fig)
    subtitle = f"{escape_html(shorten_texts(e.text, 60))}<br>change from this route; {'; '.join(signs)}; click to force"
    height = grid_height(len(e.layers), 165)
    title = f"With another expert: {escape_html(output_name(grid.task, output))}"
    layout(fig, title, subtitle=subtitle, x="expert", height=height)
    step = 1 if len(experts) <= _MOST_WRITTEN else 2
    fig.update_xaxes(tickvals=list(experts[::step]), tickangle=0, fixedrange=True)
    return fig.update_yaxes(autorange="reversed", fixedrange=True)


def _hover(grid: WhatIf, e: Exploration, row: int, expert: int, output: int) -> str:
    layer, logit = grid.layers[row], float(grid.logits[row, expert, output])
    flips = ""
    if grid.flips()[row, expert]:
        flips = f"<br><b>prediction: {escape_html(grid.task.label_names[int(grid.logits[row, expert].argmax())])}</b>"
    change = logit - float(grid.base[output])
    return (
        f"<b>Layer {layer}, expert {expert}</b><br>change {signed(change, 3)}, to {score_text(logit, 'logit')}{flips}<br>"
        f"router probability {percent(float(e.mean_probs(layer)[expert]))}"
    )


def token_routes(after: Exploration, before: Exploration, name: str) -> None:
    """Each token's expert, where every token routes by itself."""
    alt = f"Heatmap of the expert that each of {len(after.tokens)} tokens takes in each layer"
    chart(token_map(after), after.to_frame, "tokens", f"{name}-tokens", alt)
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
    hover = np.empty(taken.shape, dtype=object)
    for (row, place), expert in np.ndenumerate(taken):
        hover[row, place] = f"layer {e.layers[row]}, <b>{names[place]}</b><br>expert {expert}, probability "
        hover[row, place] += percent(float(share[row, place]))
    written = {"text": taken.astype(str), "texttemplate": "%{text}"} if len(names) <= 160 else {}
    z = np.where(taken == most, -share, share)
    columns, rows = range(len(names)), layer_names(e.layers)
    fig = go.Figure(signed_cells(z, columns, rows, 1.0, hovertext=hover, **HOVER, **written))
    subtitle = "blue: the expert that most tokens of the layer take; orange: another; darker: more probable"
    layout(fig, "Expert of every token", subtitle=subtitle, height=grid_height(len(e.layers), 190))
    token_axes(fig, names)
    return fig
