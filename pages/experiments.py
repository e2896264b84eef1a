"""The studies, a part at a time: the GLUE table with its controls, other encoders, and experiments on the method."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

from collections.abc import Callable
from functools import partial

import streamlit as st

from ui.experiments.glue import benchmark, size_check
from ui.experiments.parts import Drawn, ablation, routing, selection
from ui.experiments.sections import section
from ui.pickers import always_one
from ui.text import escape

PART = "part"  # key of the picked part, in the session's state and in the URL
# What a part is about, and what draws it. One at a time: all of them together are forty screens.
PARTS: dict[str, tuple[str, tuple[Callable[[], Drawn], ...]]] = {
    "GLUE scores": (
        "How much of a dense teacher's score each recipe keeps, by task, beside the controls that routing must beat: "
        "the same layers dropped, or pruned of heads and neurons, the same experts without a router, experts kept at "
        "random.",
        (benchmark,),
    ),
    "Other encoders": ("The same comparison on a larger encoder.", (size_check,)),
    "Recipe": (
        "What each part of `retain` is worth, and whether controls would do better at learning rates of their own or "
        "from another start.",
        (ablation, partial(section, "rates")),
    ),
    "Experts": (
        "Which experts to keep, and what one expert can decide.",
        (selection, partial(section, "matching")),
    ),
    "Routes": (
        "What models lose without their routes or with wrong ones, and what routing costs in time.",
        (routing, partial(section, "overhead")),
    ),
    "Training and pruning": (
        "Usage while a layer trains, the balance loss, Top-k, and the whole curve of prunings. All seeds of one "
        "experiment start from the same dense teacher.",
        tuple(partial(section, name) for name in ("layer", "balance", "topk", "sweep")),
    ),
}


WORDS = (
    "“6of12”: six of twelve layers converted. “recovered”: trained further after pruning. “paper”: the paper's recipe "
    "as implemented here. “retain”: the same with distillation, a fitted start, higher learning rates and no "
    "dropout; in the GLUE table also with unlabelled texts and, on CoLA with eleven layers converted, changed copies "
    "of the examples. Controls use the same recipe. Data: files that the commands under studies/ wrote."
)


def main() -> None:
    state.through_app()
    st.title("Experiments")
    about, draws = PARTS[always_one("Part", list(PARTS), PART, label_visibility="collapsed")]
    st.markdown(about)
    st.caption(WORDS)
    contents = st.empty()  # filled last: what there is depends on the files
    drawn = [heading for draw in draws for heading in draw()]
    if len(drawn) > 1:
        contents.markdown(
            "In this part: " + " · ".join(f"[{escape(title)}](#{anchor})" for title, anchor in drawn)
        )


main()
