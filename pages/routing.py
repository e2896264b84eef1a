"""Type sentences; see what the model predicts, which experts it takes, and what other experts would do."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import pandas as pd
import streamlit as st

from shrp.errors import ShrpError
from shrp.explore import Exploration
from ui import arrival, attribution_routes, expert_cells, routing_attention
from ui import routing_views as views
from ui.bound import fall_back
from ui.downloads import chart
from ui.routing_what_if import what_if_section
from ui.sentences import BESIDE, INPUT, URL, explored, sentence_form
from ui.text import escape


def main() -> None:
    selection = state.current(needs_data=False)
    info = selection.checkpoint.info
    state.title("Routing", selection)
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
    if not found[0].layers or not selection.is_routed:
        views.no_router(selection)
        routing_attention.section(selection, [e.text for e in found], range(1, len(found) + 1), pick=True)
        return
    if len(found) > 1:
        chart(
            expert_cells.routes_side_by_side(found),
            lambda: pd.concat(e.choices().assign(input=i + 1) for i, e in enumerate(found)),
            "routes",
            f"{selection.name}-routes",
            "Heatmap: a row an input, a column a routed layer, each cell the number of the expert taken. "
            + views.agreement(found),
        )
        st.caption(views.agreement(found))
    details(selection, found)


def details(selection: state.Selection, found: list[Exploration]) -> None:
    """One input in detail, another beside it, and the what-if matrix."""
    st.header("One input in detail", anchor=False)
    numbers = list(range(1, len(found) + 1))
    left, right, _ = st.columns([1, 1, 2], gap="medium")
    # Of fewer inputs than before, the picked one may be gone.
    fall_back(INPUT, numbers, 1)
    first = left.selectbox("Input number", numbers, key=INPUT, bind="query-params")
    first = first if first in numbers else 1
    shown = [first]
    if len(found) > 1:
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
    top = max(float(found[i - 1].mean_probs(layer).max()) for i in shown for layer in found[0].layers)
    if len(shown) == 2 < len(found):  # of two alone it is said above
        st.caption(views.agreement([found[i - 1] for i in shown]))
    for column, number in zip(st.columns(len(shown), gap="medium"), shown, strict=True):
        with column:
            views.one_input(selection, found[number - 1], number, top, pick=number == first)
    typed = {URL: st.query_params[URL]} if URL in st.query_params else {}
    arrival.page_link(
        "pages/attribution.py",
        "Why these experts? Attribution explains a layer's route word by word",
        ":material/troubleshoot:",
        typed | arrival.link({attribution_routes.ASPECT: attribution_routes.ROUTE, INPUT: first}),
    )
    what_if_section(selection, [found[i - 1] for i in shown], shown)
    routing_attention.section(selection, [found[i - 1].text for i in shown], shown)


main()
