"""Compare: two or more models on the same examples. Which is better, where they differ, what each costs and uses."""

from ui import state

state.through_app()  # before what imports torch and transformers: one thread does that for all sessions

# isort: split

import streamlit as st

from ui import confidence, differences, measurements, not_here
from ui.compare import sides as compare_sides
from ui.compare import views
from ui.compare.sides import AS_IS, LETTERS
from ui.floor import exact, floor_warning

TEST, LOST, CHANGED, EXPERTS, THRESHOLD = (
    "Paired test",
    "Where accuracy is lost",
    "Changed predictions",
    "Experts",
    "Threshold and confidence",
)


def main() -> None:
    selection = state.current("Compare", named=False)
    data = selection.data
    compare_sides.arrive()
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
    tokens, said = compare_sides.read_alike(choices, data)
    sides = []
    verdict.markdown("**Evaluating …**")
    busy = st.empty()
    for choice in choices:
        with busy.container():
            side = compare_sides.measured(choice, data, tokens)
        if side is None:
            verdict.empty()
            return
        sides.append(side)
    busy.empty()
    if len({side.key for side in sides}) < len(sides):
        verdict.empty()
        st.info("Two of these are the same model; change one of them.", icon=":material/equal:")
        return
    with verdict.container():
        st.markdown(views.verdict(sides))
        scores = [
            (name.split(":")[0], exact(side.evaluation))
            for name, side in zip(views.names_of(sides), sides, strict=True)
        ]
        if warned := floor_warning(data, scores):
            st.warning(warned, icon=":material/warning:")
    if said:
        st.caption(said)
    file = "-vs-".join(side.choice.name for side in sides[:2])
    views.ranked(sides, file)
    a, b = sides[:2]
    pair = a.evaluation, b.evaluation
    names = [TEST, LOST, CHANGED, EXPERTS, THRESHOLD]
    for name, tab in zip(
        names, st.tabs(names, key="compare_tab", on_change="rerun", bind="query-params"), strict=True
    ):
        if not tab.open:
            continue
        with tab:
            if name == TEST:
                views.tests(sides, data)
            elif name == LOST:
                differences.lost(*pair, data, measurements.read_lengths(a.read, data), LETTERS, file)
            elif name == CHANGED:
                differences.changed(*pair, selection, LETTERS, file)
            elif name == EXPERTS:
                views.experts(sides, data, file)
            else:
                differences.threshold(*pair, data, LETTERS)
                if data.labels is not None and not data.task.is_regression:
                    confidence.tab(*pair, LETTERS, file)


main()
