"""An input of a person's own, answered by both sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from shrp.analysis.explore import PAIR_SEPARATOR, split_sentences
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.tasks import Task
from shrp.errors import ShrpError
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from ui.lab.sides import model_key
from ui.state import show_error
from ui.text import escape

OWN = "own_input"
"""Key of the widget, in the session's state and in the URL."""
_MAX_CHARACTERS = 1_000
"""Of the input: the address has to hold it."""


@dataclass(frozen=True)
class Model:
    """One of the two."""

    name: str
    """Short, as tables head it; plain text."""
    opened: Callable[[], Checkpoint] | None
    """Gives the model; None where only its stored answers are at hand."""


def pruned_to(checkpoint: Checkpoint, plan: PruningPlan) -> Checkpoint:
    """The checkpoint with its model pruned, which shares its weights, and with a fingerprint of its own."""
    static = prune(checkpoint.model, plan, share_weights=True)
    return replace(checkpoint, model=static, fingerprint=model_key(checkpoint, plan))


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
        st.caption("Type an input to see both predictions.")
        return
    inputs, notes = split_sentences(" ".join(typed[:_MAX_CHARACTERS].split()), task)
    if not inputs:
        said = notes[0] if notes else "There is nothing to read in it."
        st.info(escape(said), icon=":material/keyboard:")
        return
    if missing := [model.name for model in models if model.opened is None]:
        st.caption(
            f":material/info: Only stored predictions of {escape(' and '.join(missing))} are here, not the model."
        )
        return
    try:
        answers = [model.opened().predict([inputs[0]]).assign(model=model.name) for model in models]
    except ShrpError as error:
        show_error(error)
        return
    st.dataframe(pd.concat(answers), hide_index=True)
