"""The what-if part of the routing page: the matrix whose cells can be forced, and both routes side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.what_if import WhatIf, compare_outputs, compare_routes
from shrp.errors import ShrpError
from shrp.model.forcing import ForcedRoute
from ui import expert_cells
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.pickers import one_of
from ui.routing import figures
from ui.routing import force as routing_force
from ui.routing.force import Forcing
from ui.routing.sentences import explored, what_if_matrix
from ui.state import CHECKPOINT, Selection, show_error
from ui.text import escape, signed

CLASS = "what_if_class"


def what_if_section(selection: Selection, shown: list[Exploration], numbers: Sequence[int]) -> None:
    """The controls, a matrix for each input shown, and what the forced route changes.

    Args:
        shown: the inputs as routed, one or two.
        numbers: their numbers on the page.
    """
    first = shown[0]
    st.header("What if another expert were taken?")
    experts = len(first.mean_probs(first.layers[0]))
    found = routing_force.forcing(selection.checkpoint.fingerprint, first.layers, experts, CHECKPOINT)
    found.meet(first.text, len(first.tokens) if first.by_token else 0)
    st.markdown(_explained(first))
    routing_force.controls(found, first)
    token = routing_force.picked_token(first)
    output = _class_picker(shown, numbers[0])
    try:
        pairs = _under(selection, shown, found.route)
        results = _matrices(selection, [e for e, _ in pairs], found.route, token)
    except ShrpError as error:
        show_error(error)
        return
    _draw_matrices(selection, pairs, results, numbers, output, found, token)
    if found.route:
        _compare(selection, pairs, numbers, found.route)


def _explained(first: Exploration) -> str:
    whom, firing = "", max(int(first.fires(layer).sum(-1).max()) for layer in first.layers)
    several = (
        f" A forced expert takes the place of all {firing} that the router would let through."
        if firing > 1
        else ""
    )
    if first.by_token:
        whom = " for all tokens, or for the one token picked below"
    return (
        f"Each cell forces one expert in one layer{whom}; the layers above then route by themselves. Click a cell to "
        "keep it forced, and again to release it. With something forced, the matrix shows changes against that route."
        f"{several}"
    )


def _class_picker(shown: list[Exploration], number: int) -> int:
    """The class whose logit is shown, by default the one that the first input, of this number, is predicted to have; 0,
    the only output, for regression.
    """
    task = shown[0].task
    if not task.label_names:
        return 0
    fall_back(CLASS, (None, *task.label_names), None)
    name = one_of("Class, where not the predicted one", task.label_names, key=CLASS)
    if name in task.label_names:
        return task.label_names.index(name)
    whose = f" of input {number}" if len(shown) > 1 else ""
    st.caption(f"Showing the predicted class{whose}, {escape(task.label_names[shown[0].prediction])}.")
    return shown[0].prediction


def _under(
    selection: Selection, shown: list[Exploration], route: ForcedRoute
) -> list[tuple[Exploration, Exploration]]:
    """Each input as routed and under the route; single tokens are forced in the first input only."""
    pairs = []
    for place, e in enumerate(shown):
        own = route if place == 0 else route.whole()
        after = explored(selection.checkpoint, [e.text], own)[0] if own else e
        pairs.append((e, after))
    return pairs


def _matrices(
    selection: Selection, shown: list[Exploration], route: ForcedRoute, token: int | None
) -> list[WhatIf]:
    return [
        what_if_matrix(selection.checkpoint, e.text, route if place == 0 else route.whole(), token)
        for place, e in enumerate(shown if token is None else shown[:1])
    ]


def _draw_matrices(
    selection: Selection,
    pairs: list[tuple[Exploration, Exploration]],
    results: list[WhatIf],
    numbers: Sequence[int],
    output: int,
    found: Forcing,
    token: int | None,
) -> None:
    limit = max(float(abs(result.change(output)).max()) for result in results) or None
    columns = st.columns(len(results), gap="medium")
    for place, (column, (_, after), result) in enumerate(zip(columns, pairs, results)):
        flips, cells = int(result.flips().sum()), result.flips().size
        largest, key = float(abs(result.change(output)).max()), f"what-if-{place}"
        with column:
            chart(
                figures.what_if_heatmap(result, after, output, limit, labelled=len(results) == 1),
                result.to_frame,
                key,
                f"{selection.name}-what-if-{numbers[place]}",
                f"Heatmap, layers by experts: change of the {figures.output_name(result)} with an expert forced; at "
                f"most {largest:.3f}.",
                hint="The same as a table: the CSV below. Pick a layer and an expert in the boxes above to force one.",
                on_select=lambda key=key: routing_force.click_cell(found, key, token),
            )
            said = largest_move(result, output)
            if result.task.label_names:
                said += f" The prediction flips in {flips} of {cells} cells."
            st.caption(said)
    if token is not None and len(pairs) > 1:
        st.caption(f"A token of input {numbers[0]} is picked, so the matrix is of that input alone.")


def largest_move(result: WhatIf, output: int) -> str:
    """Which single expert moves an output most, in words."""
    change = result.change(output)
    row, expert = np.unravel_index(int(np.abs(change).argmax()), change.shape)
    return (
        f"The {figures.output_name(result)} moves most with layer {result.layers[row]}'s expert {expert}: "
        f"{signed(float(change[row, expert]), 2)}."
    )


def _compare(
    selection: Selection,
    pairs: list[tuple[Exploration, Exploration]],
    numbers: Sequence[int],
    route: ForcedRoute,
) -> None:
    st.header("As routed and forced", anchor=False)
    if len(pairs) > 1 and route != route.whole():
        st.caption(f"What is forced for single tokens applies to input {numbers[0]} alone.")
    for place, (column, (before, after)) in enumerate(
        zip(st.columns(len(pairs), gap="medium"), pairs, strict=True)
    ):
        with column:
            _compare_one(
                selection, before, after, numbers[place], route if place == 0 else route.whole(), place
            )


def _compare_one(
    selection: Selection,
    before: Exploration,
    after: Exploration,
    number: int,
    route: ForcedRoute,
    place: int,
) -> None:
    outputs, routes = compare_outputs(before, after), compare_routes(before, after, route)
    st.markdown(f"Input {number}: {_verdict(before, after)} {_downstream(routes, before)}")
    st.dataframe(
        _in_words(outputs),
        hide_index=True,
        width="stretch",
        height="content",
        alt=f"Outputs of input {number} as routed and forced",
    )
    chart(
        expert_cells.routes_side_by_side(
            [before, after], labels=["as routed", "forced route"], title=f"Input {number}, both routes"
        ),
        routes,
        f"both-routes-{place}",
        f"{selection.name}-forced-{number}",
        f"Heatmap of two rows: input {number}'s experts as routed and forced. {_downstream(routes, before)}",
    )
    if before.by_token:
        chart(
            expert_cells.token_map(after, number, before=before),
            after.to_frame,
            f"forced-tokens-{place}",
            f"{selection.name}-forced-tokens-{number}",
            f"Heatmap of the expert of every token under the forced route; {_downstream(routes, before)}",
        )
    shares = [name for name in routes if "probability" in name]
    order = ["layer", "what", *(name for name in routes if name not in ("layer", "what"))]
    st.dataframe(
        routes.assign(**{name: 100 * routes[name] for name in shares})[order],
        hide_index=True,
        width="stretch",
        height="content",
        column_config={
            name: st.column_config.NumberColumn(
                "p", format="%.1f%%", help="The router's probability of that expert, under that route"
            )
            for name in shares
        },
        alt=f"Input {number}'s expert in each layer as routed and forced",
    )
    downloads(outputs.assign(input=number), f"outputs-{place}", f"{selection.name}-forced-outputs-{number}")


def _verdict(before: Exploration, after: Exploration) -> str:
    if before.task.is_regression:
        return f"the prediction goes from {before.answer} to {after.answer}."
    if before.prediction == after.prediction:
        return f"the prediction stays **{escape(before.answer)}**."
    return f"the prediction flips from **{escape(before.answer)}** to **{escape(after.answer)}**."


def _downstream(routes: pd.DataFrame, before: Exploration) -> str:
    """Which layers route differently without being forced, in words."""
    changed = routes.loc[routes["what"] == "changed as a result", "layer"].tolist()
    who = "some token" if before.by_token else "the input"
    if not changed:
        return f"No other layer sends {who} to other experts because of it."
    layers = f"layer{'s' if len(changed) > 1 else ''} {', '.join(map(str, changed))}"
    return f"Because of it {who} goes to other experts in {layers}."


def _in_words(outputs: pd.DataFrame) -> pd.DataFrame:
    """The table of outputs with signed changes and percentages."""

    def number(value: float) -> str:
        return f"{value:.3f}".replace("-", "−")

    frame = pd.DataFrame(
        {
            "class": outputs["class"],
            "logit": outputs["logit"].map(number),
            "forced": outputs["forced logit"].map(number),
            "change": outputs["change"].map(lambda value: signed(value, 3)),
        }
    )
    if "probability" in outputs:
        # Short names: two such tables stand side by side.
        frame["p"] = outputs["probability"].map("{:.1%}".format)
        frame["p forced"] = outputs["forced probability"].map("{:.1%}".format)
    return frame
