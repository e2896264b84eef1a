"""The pick of what gets a score of its own on the attribution page: words, or longer pieces of the input."""

from __future__ import annotations

import streamlit as st

from shrp.analysis.attribution.units import LONGEST_PHRASE, MOST, UNITS, fitting_unit
from ui.attribution.results import Explained
from ui.pickers import always_one

UNIT = "unit"
"""Key of the widget, in the session's state and in the URL alike."""
FITTING = "automatic"


def unit_control() -> str:
    """The control; returns what is picked: of `UNITS`, or `FITTING`."""
    return always_one(
        "What gets a score",
        (FITTING, *UNITS),
        UNIT,
        help=f"**{FITTING}**: each word; of inputs with more than {MOST} words, the shortest pieces of which there are "
        f"fewer, since every word takes passes of its own through the model. **phrase**: up to a comma, semicolon, "
        f"colon, dash, bracket or a sentence's end, and at most {LONGEST_PHRASE} words. **sentence**: up to a full "
        "stop, question or exclamation mark or ellipsis. The tokens of a piece are replaced together, and their "
        "gradients summed.",
    )


def in_unit(one: Explained, picked: str) -> Explained:
    """The input in the pieces that are picked, and a note where these are many or are not words."""
    unit = fitting_unit(one.instance) if picked == FITTING else picked
    grouped = one.by(unit)
    words, pieces = len(one.instance.words), len(grouped.instance.words)
    if picked == FITTING and unit != UNITS[0]:
        st.caption(
            f":material/segment: The model reads {words:,} words and marks of this input, too many to explain in "
            f"seconds or to read at a glance, so its {pieces:,} {unit}s are explained; pick *word* for each word, "
            "which may take minutes."
        )
    elif pieces > MOST:
        st.caption(
            f":material/hourglass: {pieces:,} {unit}s, each with passes of its own through the model: this may take "
            "minutes."
        )
    return grouped
