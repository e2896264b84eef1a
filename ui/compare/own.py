"""An input of a person's own, answered by both sides of a comparison."""

from __future__ import annotations

import streamlit as st

from shrp.analysis.explore import PAIR_SEPARATOR, split_sentences
from shrp.data.tasks import Task
from ui.compare import words_of_both
from ui.compare.words_of_both import Model
from ui.text import escape

OWN, METHOD = "own_input", "own_words_by"
"""Keys of the widgets, in the session's state and in the URL alike."""
_MAX_CHARACTERS = 1_000
"""Of the input: the address has to hold it."""


@st.fragment
def section(models: tuple[Model, Model], task: Task, file: str) -> None:
    """Draw the box, and what both make of what is typed there.

    Args:
        file: name that downloads begin with.
    """
    st.header("An input of your own")
    two = len(task.text_columns) == 2
    one = f" {PAIR_SEPARATOR} ".join(task.text_columns) if two else "a sentence"
    typed = st.text_input(
        f"What do both answer to {escape(one)}?",
        key=OWN,
        bind="query-params",
        max_chars=_MAX_CHARACTERS,
        placeholder=f"Type {one}, then press Enter",
    )
    if not typed.strip():
        st.caption("Type an input to see both answers, and which words move which of the two.")
        return
    inputs, notes = split_sentences(" ".join(typed[:_MAX_CHARACTERS].split()), task)
    if not inputs:
        said = notes[0] if notes else "There is nothing to read in it."
        st.info(escape(said), icon=":material/keyboard:")
        return
    words_of_both.section(models, task, inputs[0], "the input typed", METHOD, f"{file}-words-of-own-input")
