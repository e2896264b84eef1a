"""Routing: what the model predicts for typed sentences, which experts they take, and what that depends on."""

import streamlit as st

from ui import state
from ui.routing import sentences
from ui.text import escape, verdict

picked = state.described("Routing")
inputs, notes = sentences.sentence_box(picked[1].task, state.read(picked[1])[1])
for note in notes:
    st.caption(f":material/info: {escape(note)}")
# Before what imports torch and transformers: one thread does that for all sessions.
selection = state.current(picked, needs_data=False)

# isort: split

from shrp.analysis.explore import Exploration
from shrp.errors import DataError, ShrpError
from shrp.model.convert import expert_layers
from ui.bound import one_of_several
from ui.routing import attention, compare, experts, results, what_if, words
from ui.routing.sentences import ATTENTION, COMPARE, EXPERTS, INPUT, ROUTE, TAB, WORDS
from ui.routing.table import sentence_table
from ui.routing.verdict import headline

# Key of the switch for long texts, in the session's state and in the URL.
ALL = "everything"


@state.shows_errors
def main(selection: state.Selection, inputs: list[tuple[str, ...]]) -> None:
    checkpoint, routed = selection.checkpoint, selection.is_routed
    kind = sentences.kind_of(checkpoint.info.task)
    if not inputs:
        st.info(f"Type a {kind} above.", icon=":material/edit:")
        return
    place, picker = st.columns([6, 1], vertical_alignment="center")
    found = results.explored(checkpoint, inputs)
    with picker:
        number = one_of_several(kind.capitalize(), range(1, len(found) + 1), INPUT, kind)
    e, of = found[number - 1], f"{kind.capitalize()} {number}: " * (len(found) > 1)
    sentence_table(found, number - 1, selection.name, checkpoint.info.max_length)
    one, without, grid, wanted = None, None, None, True
    if checkpoint.info.task.on_tokens:
        with place:
            verdict(of + headline(e, None, None, routed=routed))
        does = "marks an answer" if checkpoint.info.task.on_spans else "labels words"
        st.caption(
            f"What-if, words, experts and comparison need one prediction for each text; this model {does}."
        )
        tabs(selection, found, number, None, wanted=False)
        return
    with place:
        try:
            one = results.explained(checkpoint, e.text)
        except DataError as error:  # nothing in it counts as a word
            st.caption(f":material/info: {escape(str(error))}")
        cheap = not routed or results.what_if_cost(checkpoint, len(e.tokens)) <= results.QUICK
        if (one and not one.quick) or not cheap:
            wanted = st.toggle("Compute everything (takes longer on this text)", key=ALL, bind="query-params")
        try:
            if one and (one.quick or wanted):
                without = results.without_each_word(one.in_pieces())
            if routed and (cheap or wanted):
                grid = results.what_if_grid(checkpoint, e.text)
        except ShrpError as error:
            state.show_error(error)
        verdict(of + headline(e, without, grid, routed=routed, worded=one is not None))
    tabs(selection, found, number, one, wanted=wanted or cheap)


def tabs(
    selection: state.Selection,
    found: list[Exploration],
    number: int,
    one: results.Explained | None,
    *,
    wanted: bool,
) -> None:
    """The parts of the page, of which only the open one is computed."""
    e, checkpoint = found[number - 1], selection.checkpoint
    layers = expert_layers(checkpoint.model)
    draw = {
        ROUTE: lambda: what_if.section(selection, e, number, wanted=wanted),
        WORDS: lambda: words.section(selection, one, number),
        EXPERTS: lambda: experts.section(selection, one, number),
        ATTENTION: lambda: attention.section(selection, e.text, number),
        COMPARE: lambda: compare.section(selection, found, number),
    }
    if e.task.on_tokens:
        name = f"{selection.name}-{number}"
        draw = {ROUTE: lambda: what_if.token_routes(e, e, name)} if e.by_token else {}
        draw |= {ATTENTION: lambda: attention.section(selection, e.text, number)}
    if not selection.is_routed:
        draw.pop(ROUTE, None)
        why = "none of its layers is converted to experts"
        if checkpoint.info.plan:
            why = "it is pruned, and every text takes the same experts"
        elif layers:
            why = "all experts of a layer have the same weight"
        st.caption(f"This model has no routers: {why}.")
    if not layers:
        draw.pop(EXPERTS, None)
    if one is None:
        none = lambda: st.info("There is no word to explain.", icon=":material/edit:")  # noqa: E731
        draw |= {name: none for name in (WORDS, EXPERTS) if name in draw}
    state.lazy_tabs(draw, TAB)


main(selection, inputs)
