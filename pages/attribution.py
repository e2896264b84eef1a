"""Attribution: which words and which experts an output is due to, and whether one can believe it."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import streamlit as st

from shrp.analysis.attribution.tokens import METHODS
from shrp.errors import ShrpError
from ui import arrival
from ui.attribution import routes, words
from ui.attribution.data import data_part
from ui.attribution.experts import expert_part
from ui.attribution.flips import flips_part
from ui.attribution.results import Explained, explained
from ui.attribution.unit import in_unit, unit_control
from ui.bound import fall_back
from ui.known_labels import labels_of
from ui.routing.sentences import INPUT, explored, sentence_form
from ui.text import escape, shorten_texts


def main() -> None:
    selection = state.current("Attribution", needs_data=False)
    task = selection.checkpoint.info.task
    arrival.arrive({INPUT: int, routes.ASPECT: str})
    st.markdown(
        "Type a sentence and see how much each word (by several methods) and each expert on its route contributes to "
        "the output, or which words make a layer choose its expert. Below: the effect of "
        "each expert, or of each head of the dense layers, on many inputs."
    )
    inputs, notes = sentence_form(task, selection.data, "Explain", ":material/troubleshoot:")
    for note in notes:
        st.caption(f":material/info: {escape(note)}")
    output = None
    if inputs:
        output = one_input(selection, pick_input(inputs))
    else:
        st.info("Type at least one sentence above, or pick some examples, then press **Explain**.")
    data_part(selection, output)


def pick_input(inputs: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The input to explain; with several typed, by its number, which the routing page shares."""
    if len(inputs) == 1:
        st.session_state[INPUT] = 1  # or else several typed later would open on an earlier number
        return inputs[0]
    numbers = list(range(1, len(inputs) + 1))
    fall_back(INPUT, numbers, 1)  # fewer inputs than before
    left, right = st.columns([1, 5], gap="medium", vertical_alignment="bottom")
    number = left.selectbox("Input number", numbers, key=INPUT, bind="query-params")
    text = inputs[(number if number in numbers else 1) - 1]
    right.markdown(f"**{escape(shorten_texts(text, 160))}**")
    return text


def one_input(selection: state.Selection, text: tuple[str, ...]) -> int | None:
    """Explain one input; returns the class that was picked for it, None for the predicted one."""
    try:
        one = explained(selection.checkpoint, text)
    except ShrpError as error:
        state.show_error(error)
        return None
    if (label := labels_of(selection.data, [text])[0]) is not None:
        st.caption(f"Its label in {escape(selection.data.name)}: **{escape(label)}**.")
    of_a_route, right = False, st.container()
    if selection.is_routed:
        left, right = right.columns([2, 3], gap="medium")
        with left:
            of_a_route = routes.explains_a_route()
    with right:
        unit = unit_control()
    one = in_unit(one, unit)
    if of_a_route:
        one_route(selection, one)
        return None
    picked = words.pick_output(one)
    words.reading_notes(one)
    chosen = words.words(picked.one, picked.output, picked.what, selection.name)
    flips_part(one, chosen.replacement, selection.name)
    expert_part(picked.one, picked.output, picked.what, selection.name, selection)
    return picked.on_data


def one_route(selection: state.Selection, one: Explained) -> None:
    """Explain why a layer takes its expert, and which words decide the routes."""
    words.reading_notes(one)
    try:
        (routed,) = explored(selection.checkpoint, [one.instance.text])
        preference, what = routes.pick_preference(one, routed)
        chosen = words.words(preference, 0, what, f"{selection.name}-route")
        if routed.by_token:
            said = "Every token has a route of its own here"
            if METHODS[2] in chosen.methods:
                said += f"; in how many layers a {one.instance.unit} changes any of the others' is in the table of "
                said += "all values"
            st.caption(f"{said}.")
            return
        layer, *_ = preference.preference
        routes.decisive_words(one, layer, chosen.replacement, selection.name)
    except ShrpError as error:
        state.show_error(error)


main()
