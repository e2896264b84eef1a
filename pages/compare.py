"""Compare: two models on the same data, input by input. Which is better, where they part, what each costs and uses."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

import numpy as np
import streamlit as st

from shrp.errors import ShrpError
from ui import measurements, not_here
from ui.compare import kept as compare_kept
from ui.compare import own as compare_own
from ui.compare import plan as compare_plan
from ui.compare import sides as compare_sides
from ui.compare import views as compare_views
from ui.compare.sides import LETTERS, Side
from ui.floor import exact, floor_text, floor_warning
from ui.lab import hurts as lab_hurts
from ui.lab.compare import paired_test
from ui.text import escape


def main() -> None:
    selection = state.current("Compare", named=False)
    data = selection.data
    st.markdown(
        f"Two models on the same inputs, **{escape(data.name)}** (n = {len(data):,}). Each side is a checkpoint "
        "as it is, a pruning of it, or the dense teacher that it comes from."
    )
    compare_sides.arrive()
    missing = st.container()
    starts, choices, places = compare_sides.starts(selection), [], []
    for letter, start, column in zip(LETTERS, starts, st.columns(2, gap="large"), strict=True):
        with column.container(border=True):
            choice = compare_sides.pick(letter, selection, start)
            choices.append(choice)
            places.append(st.container())
            if choice is not None and choice.editor is not None:
                compare_plan.section(choice.editor, choice.checkpoint.fingerprint)
    with missing:
        not_here.show(*map(compare_sides.key_of, LETTERS))
    if None in choices:
        return
    tokens, said = compare_sides.read_alike(choices, data)
    if said:
        st.caption(said)
    sides = []
    for choice, letter, place in zip(choices, LETTERS, places, strict=True):
        with place:  # progress of an evaluation stands where its score will
            side = compare_sides.measured(choice, data, tokens)
            if side is None:
                return
            compare_views.score_card(letter, side, floor_text(data))
            sides.append(side)
    a, b = sides
    if a.key == b.key:
        st.info(
            "A and B are the same model, so there is nothing to tell apart; change one of them.",
            icon=":material/equal:",
        )
        return
    if warned := floor_warning(data, [("A", exact(a.evaluation)), ("B", exact(b.evaluation))]):
        st.warning(warned, icon=":material/warning:")
    name = f"{a.choice.name}-vs-{b.choice.name}"
    difference(a, b, selection)
    st.header("Where they disagree")
    if data.labels is not None:
        st.caption("Changes are B minus A; a loss means that B is lower.")
    lengths = measurements.read_lengths(a.read, data)
    whole = [measurements.token_lengths(one.choice.checkpoint, data) for one in (a, b)]
    if data.labels is not None and not np.array_equal(*whole):
        st.caption("Lengths are counted in tokens of A's tokenizer; B's makes more or fewer of some texts.")
    models = (compare_views.model_of("A", a), compare_views.model_of("B", b))
    lab_hurts.tabs(a.evaluation, b.evaluation, selection, lengths, LETTERS, "from A to B", name)
    compare_own.section(models, data.task, name)
    compare_views.costs(sides, name)
    usage(sides, selection, name)


def difference(a: Side, b: Side, selection: state.Selection) -> None:
    """The paired test, where there are labels to be right about."""
    st.header("Which is better?")
    if selection.data.labels is None:
        st.info("These data have no labels, so neither side is better on them; see where they disagree.")
        return
    try:
        paired_test(
            a.evaluation, b.evaluation, (a.choice.text, b.choice.text), (a.key, b.key), selection.data
        )
    except ShrpError as error:
        state.show_error(error)


def usage(sides: list[Side], selection: state.Selection, name: str) -> None:
    """Usage of both sides, measured with progress where nobody has, or what they keep; or why there is neither."""
    pruned = any(side.plan is not None for side in sides)
    st.header("Which experts they keep" if pruned else "How they use their experts")
    if why := compare_views.no_experts(sides):
        st.info(why, icon=":material/alt_route:")
        return
    try:
        stats = [
            measurements.usage_stats(side.read, selection.data) if side.plan is None else None
            for side in sides
        ]
    except ShrpError as error:
        state.show_error(error)
        return
    if pruned:
        compare_kept.section(sides, stats, name)
    else:
        compare_views.usage(sides, stats, selection.data, name)


main()
