"""Compare: two or more models on the same examples. Which is better, where they differ, what each costs."""

from ui import state

# Before what imports torch and transformers: one thread does that for all sessions.
selection = state.current(state.described("Compare", named=False))

# isort: split

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from shrp.data.tasks import TEXTS
from shrp.errors import ShrpError
from ui import not_here, pair_tabs
from ui.compare import sides as compare_sides
from ui.compare import views
from ui.compare.sides import AS_IS, LETTERS
from ui.differences import exact, floor_warning
from ui.own import dialog

TEST = "Paired test"
TABS = (TEST, pair_tabs.LOST, pair_tabs.CHANGED, pair_tabs.THRESHOLD)


def main(selection: state.Selection) -> None:
    data = selection.data
    if data.task.name == TEXTS.name:  # which has no predictions to compare, as is said above
        return
    missing, verdict = st.container(), st.container(key="verdict").empty()
    starts, columns = compare_sides.starts(selection), st.columns(2, gap="large")
    choices = []
    for letter, start, column in zip(LETTERS, starts, columns, strict=True):
        with column:
            choices.append(compare_sides.pick(letter, selection, start))
    with missing:
        not_here.show(*map(compare_sides.key_of, LETTERS))
    if None in choices:
        return
    choices += compare_sides.further(selection, [one.name for one in choices if one.kind == AS_IS])
    if len({(one.name, one.kind, one.setting) for one in choices}) < len(choices):
        _same(verdict, len(choices))
        return
    tokens, about_lengths = compare_sides.read_alike(choices, data)
    verdict.markdown("**Evaluating …**")
    busy = st.empty()
    try:
        with busy.container():
            sides = [compare_sides.measure(choice, data, tokens) for choice in choices]
    except ShrpError as error:
        verdict.empty()
        state.show_error(error)
        return
    busy.empty()
    if len({side.key for side in sides}) < len(sides):
        _same(verdict, len(sides))
        return
    with verdict.container():
        st.markdown(views.verdict(sides))
        names = [name.split(":")[0] for name in views.names_of(sides)]
        scores = list(zip(names, [exact(side.evaluation) for side in sides], strict=True))
        if warned := floor_warning(data, scores):
            st.warning(warned, icon=":material/warning:")
    if about_lengths:
        st.caption(about_lengths)
    a, b = sides[:2]
    file = f"{a.choice.name}-vs-{b.choice.name}"
    views.ranked(sides, file)
    name, place = state.open_tab(TABS, "compare_tab")
    with place:
        if name == TEST:
            views.tests(sides, data)
        else:
            models = dict(zip(LETTERS, (a.choice.look, b.choice.look), strict=True))
            pair_tabs.draw(name, a.evaluation, b.evaluation, selection, models, file, a.read)


def _same(verdict: DeltaGenerator, models: int) -> None:
    """Say that there is nothing to compare."""
    verdict.empty()
    which = "A and B" if models == 2 else "Two of these"
    st.info(f"{which} are the same model; change one of them.", icon=":material/equal:")
    dialog.button("own-open-page")


main(selection)
