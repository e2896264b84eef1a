"""The box of sentences on the Routing page: its first examples, what was typed, and its place in the URL."""

from __future__ import annotations

from urllib.parse import quote

import streamlit as st

from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.data.typed import PAIR_SEPARATOR, split_sentences
from ui.bound import fall_back, set_param, went_back
from ui.text import escape

URL = "text"
INPUT, BESIDE = "input", "beside"
"""Keys of the pickers of a sentence and of the one that it is compared with, in the session's state and in the URL."""
TAB = "tab"
"""Key of the page's tabs, likewise; these are their names."""
ROUTE, WORDS, EXPERTS = "Route and what-if", "Words", "Experts"
ATTENTION, COMPARE = "Attention", "Comparison"
MAX_CHARACTERS = 200_000
LONGEST_LINK = 4_000
"""Characters of the URL that the text may take. Servers and chat programs cut or refuse longer addresses."""
BOX = "sentences"
_DRAFTS, _SEEN = "sentences-typed", "sentences-link"

EXAMPLES = (
    ("The film is a joy from start to finish.",),
    ("The film is anything but a joy from start to finish.",),
    ("The trailer is dreadful, but the film itself is a joy.",),
)
"""Of the task `sst2`."""


def as_lines(inputs) -> str:
    """Inputs as they are typed: one a line, the two texts of a pair with the separator between them."""
    return "\n".join(f" {PAIR_SEPARATOR} ".join(" ".join(t.split()) for t in texts) for texts in inputs)


def example_text(task: Task, data: TextData | None) -> str:
    """What the box starts with: for sentiment three examples written here, else the first three of the data."""
    if task.name == "sst2" and len(task.text_columns) == 1:
        return as_lines(EXAMPLES)
    return as_lines(data.texts[:3]) if data is not None else ""


def class_box(task: Task, key: str, predicted: int) -> int:
    """Draw the box of the class whose logit is shown, the predicted one unless picked; returns it, 0 for regression."""
    if task.is_regression:
        return 0
    names, start = task.label_names, f"{task.label_names[predicted]} (predicted)"
    fall_back(key, (None, *names), None, "class")
    name = st.selectbox("Logit of", names, None, key=key, bind="query-params", placeholder=start, width=190)
    return names.index(name) if name in names else predicted


def output_name(task: Task, output: int) -> str:
    """What is explained, as plain text: an output of the model."""
    return "the output" if task.is_regression else f"the logit of {task.label_names[output]}"


def kind_of(task: Task) -> str:
    """What one typed input of a task is called."""
    return "pair" if len(task.text_columns) == 2 else "sentence"


def sentence_box(task: Task, data: TextData | None) -> tuple[list[tuple[str, ...]], list[str]]:
    """Draw the box.

    Single sentences stay when the task changes. Pairs are kept until their own task is back.

    Returns:
        The inputs, and sentences on what was left out.
    """
    state, pair = st.session_state, len(task.text_columns) == 2
    start, place = example_text(task, data), task.name if pair else "one"
    typed = _restore(place, start)
    if state.get(BOX) != typed:  # where it is the same, it would overwrite what is being typed
        state[BOX] = typed
    first, second = task.text_columns if pair else ("sentence", "")
    label, hint = "One sentence a line", "Type a sentence"
    if pair:
        label = f"One pair a line: {escape(first)} {PAIR_SEPARATOR} {escape(second)}"
        hint = f"{first} {PAIR_SEPARATOR} {second}"
    left, right = st.columns([6, 1], gap="medium", vertical_alignment="bottom")
    left.text_area(
        label,
        key=BOX,
        height=108,
        max_chars=MAX_CHARACTERS,
        placeholder=hint,
        on_change=lambda: _keep(place, state[BOX] or "", start),
    )
    right.button("Run", type="primary", icon=":material/play_arrow:", width="stretch")
    notes = []
    if len(typed) > MAX_CHARACTERS:
        notes.append(f"Only the first {MAX_CHARACTERS:,} of {len(typed):,} characters are read.")
    inputs, left_out = split_sentences(typed[:MAX_CHARACTERS], task)
    return inputs, notes + left_out + _link(typed, start)


def _restore(place: str, start: str) -> str:
    """What is in the box: what the address says where it is new, else what was typed, else the examples."""
    drafts = st.session_state.setdefault(_DRAFTS, {})
    link = st.query_params.get(URL)
    if link is not None and link != st.session_state.get(_SEEN):
        _keep(place, link, start)
    elif link is None and went_back():
        drafts.pop(place, None)
    return drafts.get(place, start)


def _keep(place: str, typed: str, start: str) -> None:
    drafts = st.session_state.setdefault(_DRAFTS, {})
    if typed == start:
        drafts.pop(place, None)
    else:
        drafts[place] = typed


def _link(typed: str, start: str) -> list[str]:
    """Put the text into the URL. Returns a note where it is too long for that."""
    fits = len(quote(typed)) <= LONGEST_LINK
    wanted = typed if fits and typed != start else None
    set_param(URL, wanted)
    st.session_state[_SEEN] = wanted
    return [] if fits else ["This text is too long for the page's address: a link to the page leaves it out."]
