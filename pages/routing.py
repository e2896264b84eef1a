"""Routing: what the model predicts for typed sentences, which experts they take, and what that depends on."""

from ui import state

state.through_app()  # before what imports torch and transformers: one thread does that for all sessions

# isort: split

import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.errors import DataError, ShrpError
from shrp.model.convert import expert_layers
from ui import arrival
from ui.bound import fall_back
from ui.known_labels import labels_of
from ui.routing import attention, compare, experts, results, what_if, words
from ui.routing.sentences import (
    ATTENTION,
    BESIDE,
    COMPARE,
    EXPERTS,
    INPUT,
    ROUTE,
    TAB,
    WORDS,
    say_unknown,
    sentence_box,
)
from ui.routing.table import sentence_table
from ui.routing.verdict import headline
from ui.text import escape, verdict

# Key of the switch for long texts, in the session's state and in the URL.
ALL = "everything"


# On a phone, cells have no room for their numbers. A tap shows them.
NARROW = """<style>
@media (max-width: 700px) {
  :is(.st-key-what-if, .st-key-tokens, .st-key-routes-without) .heatmaplayer text {display: none}
}
</style>"""


def main() -> None:
    st.html(NARROW)
    selection = state.current("Routing", needs_data=False)
    checkpoint = selection.checkpoint
    arrival.arrive({INPUT: int, BESIDE: int, TAB: str, words.ASPECT: str})
    inputs, notes = sentence_box(checkpoint.info.task, selection.data)
    for note in notes:
        st.caption(f":material/info: {escape(note)}")
    if not inputs:
        st.info("Type a sentence above, or pick examples.", icon=":material/edit:")
        return
    place, picker = st.columns([6, 1], vertical_alignment="center")
    try:
        found = results.explored(checkpoint, inputs)
    except ShrpError as error:
        state.show_error(error)
        return
    number = pick(len(found), picker)
    e = found[number - 1]
    labels = labels_of(selection.data, [one.text for one in found])
    sentence_table(found, number - 1, labels, selection.name, checkpoint.info.max_length)
    one, without, grid, wanted = None, None, None, True
    with place:
        try:
            one = results.explained(checkpoint, e.text)
        except DataError as error:  # nothing in it counts as a word
            st.caption(f":material/info: {escape(str(error))}")
        unit = one and one.quick_unit()
        cheap = not selection.is_routed or results.what_if_cost(checkpoint, len(e.tokens)) <= results.QUICK
        if (one and not unit) or not cheap:
            wanted = st.toggle("Compute everything (takes longer on this text)", key=ALL, bind="query-params")
        try:
            if one and (unit or wanted):
                by = one.by(unit or results.units.fitting_unit(one.instance))
                without = results.without_each_word(by, results.usual_replacement(one))
            if selection.is_routed and (cheap or wanted):
                grid = results.what_if_grid(checkpoint, e.text)
        except ShrpError as error:
            state.show_error(error)
        verdict(headline(e, without, grid, routed=selection.is_routed))
    tabs(selection, found, number, one, wanted=wanted or cheap)


def pick(count: int, place) -> int:
    """The number of the sentence that is looked at; the control is there only for several."""
    numbers = list(range(1, count + 1))
    say_unknown(INPUT, "sentence", numbers)
    if count == 1:
        return 1
    fall_back(INPUT, numbers, 1)
    number = place.selectbox("Sentence", numbers, key=INPUT, bind="query-params")
    return number if number in numbers else 1


def tabs(
    selection: state.Selection,
    found: list[Exploration],
    number: int,
    one: results.Explained | None,
    *,
    wanted: bool,
) -> None:
    """The parts of the page, of which only the open one is computed.

    Args:
        found: All sentences.
        number: The picked one, from 1.
        one: The same in words; None where it has none.
        wanted: Whether the what-if grid is to be computed.
    """
    e, routed = found[number - 1], selection.is_routed
    has_experts = (
        bool(expert_layers(selection.checkpoint.model)) or selection.checkpoint.info.plan is not None
    )
    shown = [(ROUTE, routed), (WORDS, True), (EXPERTS, has_experts), (ATTENTION, True), (COMPARE, True)]
    names = [name for name, there in shown if there]
    if not routed:
        st.caption(no_routers(selection))
    say_unknown(TAB, "tab", names)
    fall_back(TAB, names, names[0])
    for name, tab in zip(names, st.tabs(names, key=TAB, bind="query-params", on_change="rerun"), strict=True):
        if not tab.open:
            continue
        with tab:
            if name == ROUTE:
                what_if.section(selection, e, number, wanted=wanted)
            elif name == ATTENTION:
                attention.section(selection, e.text, number)
            elif name == COMPARE:
                compare.section(selection, found, number)
            elif one is None:
                st.info("This sentence has no word to explain.", icon=":material/edit:")
            elif name == WORDS:
                words.section(selection, one, e, number)
            else:
                experts.section(selection, one, number)


def no_routers(selection: state.Selection) -> str:
    """Why there is no route to show, in a sentence."""
    if selection.checkpoint.info.plan is not None:
        return "This model is pruned: it has no routers, and every sentence takes the same experts."
    if expert_layers(selection.checkpoint.model):
        return "This model has no routers: all experts of a layer have the same weight."
    return "This model has no routers: none of its layers is converted to experts."


main()
