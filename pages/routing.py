"""Type sentences; see what the model predicts, which experts it takes, and what other experts would do."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import pandas as pd
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.errors import ShrpError
from ui import arrival, expert_cells
from ui.attribution import routes as attribution_routes
from ui.bound import fall_back
from ui.downloads import chart
from ui.routing import attention as routing_attention
from ui.routing import pair_patching, views
from ui.routing.sentences import BESIDE, INPUT, URL, explored, sentence_form
from ui.routing.what_if import what_if_section
from ui.text import escape


def main() -> None:
    selection = state.current("Routing", needs_data=False)
    info = selection.checkpoint.info
    arrival.arrive({INPUT: int, BESIDE: int})
    st.markdown(
        "Type a sentence and follow it through the model: what is predicted, which expert each converted layer "
        "sends it to, and how the prediction and the layers above would change with other experts."
    )
    inputs, notes = sentence_form(info.task, selection.data)
    for note in notes:
        st.caption(f":material/info: {escape(note)}")
    if not inputs:
        st.info("Type at least one sentence above, or pick some examples, then press **Route**.")
        return
    try:
        found = explored(selection.checkpoint, inputs)
    except ShrpError as error:
        state.show_error(error)
        return
    views.predictions(found, info.max_length, selection.name, selection.data)
    routed = bool(found[0].layers) and selection.is_routed
    if not routed:
        views.no_router(selection)
    elif len(found) > 1:
        chart(
            expert_cells.routes_side_by_side(found),
            lambda: pd.concat(e.choices().assign(input=i + 1) for i, e in enumerate(found)),
            "routes",
            f"{selection.name}-routes",
            "Heatmap: a row an input, a column a routed layer, each cell the number of the expert taken. "
            + views.agreement(found),
        )
        st.caption(views.agreement(found))
    if routed:
        st.header("One input in detail", anchor=False)
    numbers = pick(len(found)) if routed or len(found) > 1 else [1]
    shown = [found[number - 1] for number in numbers]
    if routed:
        details(selection, shown, numbers, of=len(found))
    pair_patching.section(selection, shown, numbers, of=len(found))
    routing_attention.section(selection, [e.text for e in shown], numbers)


def pick(inputs: int) -> list[int]:
    """The controls for the numbers of the inputs in detail; returns one, or two."""
    numbers = list(range(1, inputs + 1))
    left, right, _ = st.columns([1, 1, 2], gap="medium")
    # Of fewer inputs than before, the picked one may be gone.
    fall_back(INPUT, numbers, 1)
    first = left.selectbox("Input number", numbers, key=INPUT, bind="query-params")
    first = first if first in numbers else 1
    shown = [first]
    if inputs > 1:
        others = [number for number in numbers if number != first]
        fall_back(BESIDE, (None, *others), None)
        second = right.selectbox(
            "Beside it",
            others,
            index=None,
            key=BESIDE,
            bind="query-params",
            placeholder="Pick a second one",
        )
        if second in others:
            shown.append(second)
    return shown


def details(selection: state.Selection, found: list[Exploration], numbers: list[int], *, of: int) -> None:
    """Routes of one input, or two beside each other, and the what-if matrix.

    Args:
        found: those inputs.
        numbers: theirs on the page.
        of: how many inputs there are.
    """
    top = max(float(e.mean_probs(layer).max()) for e in found for layer in e.layers)
    if len(found) == 2 < of:  # of two alone it is said above
        st.caption(views.agreement(found))
    for column, e, number in zip(st.columns(len(found), gap="medium"), found, numbers, strict=True):
        with column:
            views.one_input(selection, e, number, top, pick=number == numbers[0])
    typed = {URL: st.query_params[URL]} if URL in st.query_params else {}
    arrival.page_link(
        "pages/attribution.py",
        "Why these experts? Attribution explains a layer's route word by word",
        ":material/troubleshoot:",
        typed | arrival.link({attribution_routes.ASPECT: attribution_routes.ROUTE, INPUT: numbers[0]}),
    )
    what_if_section(selection, found, numbers)


main()
