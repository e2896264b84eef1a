"""What a person types on the routing page: the form, its examples, its place in the URL, and its results."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import streamlit as st
from streamlit.errors import StreamlitAPIException
from streamlit.runtime.scriptrunner import get_script_run_ctx

from shrp.analysis.explore import MAX_SENTENCES, PAIR_SEPARATOR, Exploration, explore, split_sentences
from shrp.analysis.what_if import WhatIf, what_if
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from ui.bound import set_param
from ui.store import kept, once
from ui.text import escape

URL = "text"
INPUT, BESIDE = "input", "beside"
"""Keys of the boxes for one of several inputs, which the pages that have one share, and for one beside it."""
MAX_CHARACTERS = 200_000
LONGEST_LINK = 4_000
"""Characters of the URL that the text may take; servers and chat programs cut or refuse longer addresses."""
_GROUP = 4  # inputs of each set of examples
_FOR, _KEPT, _DRAFTS, _SEEN, _PRESET = (
    "sentences-for",
    "sentences-kept",
    "sentences-drafts",
    "sentences-link",
    "sentences-preset",
)

EXAMPLES = {
    "sst2": (
        ("The film is a joy from start to finish.",),
        ("The film is anything but a joy from start to finish.",),
        ("The trailer is dreadful, but the film itself is a joy.",),
    ),
    "cola": (
        ("The boy who lives next door plays the violin.",),
        ("The boy who live next door play the violin.",),
    ),
    "mrpc": (
        ("The firm said sales rose four per cent last year.", "Sales grew by 4% last year, the firm said."),
        ("The firm said sales rose four per cent last year.", "The firm said sales fell last year."),
    ),
    "qqp": (
        ("How do I learn to play the piano?", "What is the best way to learn the piano?"),
        ("How do I learn to play the piano?", "How do I tune a piano?"),
    ),
    "stsb": (
        ("A man is playing a guitar.", "Someone plays the guitar."),
        ("A man is playing a guitar.", "A dog runs across a field."),
    ),
    "mnli": (
        ("The meeting was moved from Monday to Tuesday.", "The meeting is on Tuesday."),
        ("The meeting was moved from Monday to Tuesday.", "The meeting is on Monday."),
    ),
    "qnli": (
        ("When was the bridge built?", "Work on the bridge was finished in 1894."),
        ("When was the bridge built?", "The bridge carries six lanes of traffic."),
    ),
    "rte": (
        ("Anna flew from Oslo to Rome on Friday.", "Anna was in Rome on Friday."),
        ("Anna flew from Oslo to Rome on Friday.", "Anna lives in Rome."),
    ),
    "wnli": (
        ("The cup doesn't fit in the box because it is too big.", "The cup is too big."),
        ("The cup doesn't fit in the box because it is too big.", "The box is too big."),
    ),
}


def box_of(action: str) -> str:
    """Key of the box in the form with this action."""
    return f"sentences-{action.lower()}"


def as_lines(inputs) -> str:
    """Inputs as they are typed: one a line, pairs with the separator between them."""
    return "\n".join(f" {PAIR_SEPARATOR} ".join(" ".join(t.split()) for t in texts) for texts in inputs)


def example_text(task: Task, data: TextData | None) -> str:
    """What the text area starts with: examples for the task, or else the first inputs of the data."""
    known = EXAMPLES.get(task.name, ())
    if known and len(known[0]) == len(task.text_columns):
        return as_lines(known)
    return as_lines(data.texts[:3]) if data is not None else ""


def presets(task: Task, data: TextData | None) -> dict[str, str]:
    """Sets of examples to pick from: label -> text. Slices of the data, or some of each class."""
    found = {}
    if start := example_text(task, data):
        found["Near opposites" if task.name in EXAMPLES else "First inputs"] = start
    if data is None:
        return found
    for name, rows in _groups(data).items():
        found[f"{name} ({data.name})"] = as_lines(data.texts[i] for i in rows)
    return found


def _groups(data: TextData) -> dict[str, list[int]]:
    """A few inputs of each slice, classes mixed; without slices, of each class."""
    order = data.stratified_order().tolist()
    if data.slices is not None:
        names = {i: data.slices[i].replace("_", " ") for i in order}
    elif data.labels is not None and data.task.label_names:
        names = {i: f"label {data.task.label_names[data.labels[i]]}" for i in order}
    else:
        names = dict.fromkeys(order, "some inputs")
    groups: dict[str, list[int]] = {name: [] for name in sorted(set(names.values()))}
    for i in order:
        if len(groups[names[i]]) < _GROUP:
            groups[names[i]].append(i)
    return groups


def sentence_form(
    task: Task, data: TextData | None, action: str = "Route", icon: str = ":material/alt_route:"
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Draw the form, its button named for the `action`; returns the submitted inputs and what was left out or cut.

    The pages share the text but not the box: drawn on another page, a widget starts from its default, whatever its key
    held before. So what is handed in stays beside the boxes, and each is given it when it is drawn anew.
    """
    start = example_text(task, data)
    box = box_of(action)
    comes_from_the_other_page = box not in st.session_state and URL not in st.query_params
    _restore(box, task, start)
    pair = len(task.text_columns) == 2
    first, second = task.text_columns if pair else ("sentence", "")
    label = (
        f"One pair a line: {escape(first)} {PAIR_SEPARATOR} {escape(second)}"
        if pair
        else "One sentence a line"
    )
    left, right = st.columns([3, 1], gap="medium")
    with left, st.form("sentence-form", border=False):
        st.text_area(
            label,
            key=box,
            height=132,
            max_chars=MAX_CHARACTERS,
            placeholder=f"{first} {PAIR_SEPARATOR} {second}" if pair else "Type a sentence",
        )
        st.form_submit_button(action, type="primary", icon=icon, on_click=_hand_in, args=[box])
    sets = presets(task, data)
    with right:
        st.selectbox(
            "Examples",
            list(sets),
            index=None,
            key=_PRESET,
            placeholder="Put examples in",
            on_change=lambda: _use_preset(sets, box),
            help="Replaces what is typed.",
        )
        st.caption(f"At most {MAX_SENTENCES} inputs. The address of this page holds them.")
    typed = st.session_state[_KEPT]
    notes = []
    if len(typed) > MAX_CHARACTERS:
        notes.append(f"Only the first {MAX_CHARACTERS:,} of {len(typed):,} characters are read.")
        typed = typed[:MAX_CHARACTERS]
    inputs, left_out = split_sentences(typed, task)
    if comes_from_the_other_page:
        _keep_number(len(inputs))
    return inputs, notes + left_out + _link(typed, start)


def _restore(box: str, task: Task, start: str) -> None:
    """Before the form is drawn: take the text from the URL, or examples where there is none yet.

    For another task of single sentences what was typed stays; for others it is kept until its own task is back.
    """
    state = st.session_state
    link = st.query_params.get(URL)
    now = task.name, len(task.text_columns), start
    before, columns, examples = state.get(_FOR, now)
    kept = state.get(_KEPT, start)
    if link is not None and link != state.get(_SEEN):  # opened by its address, or the browser's back button
        kept = link
    elif before != task.name:
        drafts = state.setdefault(_DRAFTS, {})
        drafts[before] = kept
        if kept == examples or not columns == now[1] == 1:
            kept = drafts.get(task.name, start)
    elif kept == examples:  # which other data have others of
        kept = start
    state[_FOR], state[_KEPT] = now, kept
    if state.get(box) != kept:  # where it is the same, what is being typed would be written over
        state[box] = kept


def _hand_in(box: str) -> None:
    st.session_state[_KEPT] = st.session_state[box] or ""


def _link(typed: str, start: str) -> list[str]:
    """Put the text into the URL; returns a note where it is too long for that."""
    fits = len(quote(typed)) <= LONGEST_LINK
    wanted = typed if fits and typed != start else None
    set_param(URL, wanted)
    st.session_state[_SEEN] = wanted
    return [] if fits else ["This text is too long to be part of the page's address; the link leaves it out."]


def _keep_number(inputs: int) -> None:
    """On the way from the other page: keep the input's number, for the picker and for the address alike."""
    number, context = st.session_state.get(INPUT), get_script_run_ctx()
    # The browser's back button asks for what its address says, where the first input is left out.
    if context is None or context.is_history_navigation or INPUT in st.query_params:
        return
    if isinstance(number, int) and 1 < number <= inputs:
        # A picker that has a value by its key does not write its address, and one that has an address not its value.
        st.session_state[INPUT] = number
        with suppress(StreamlitAPIException):  # where the other page's picker still holds the address
            st.query_params[INPUT] = number


def _use_preset(sets: dict[str, str], box: str) -> None:
    chosen = st.session_state[_PRESET]
    if chosen in sets:
        # Into the box too, where it is what was handed in last: what is being typed gives way.
        st.session_state[_KEPT] = st.session_state[box] = sets[chosen]
    st.session_state[_PRESET] = None


def explored(
    checkpoint: Checkpoint, inputs: list[tuple[str, ...]], route: ForcedRoute = AS_ROUTED
) -> list[Exploration]:
    """Predictions and routes of the inputs, kept for all sessions. Raises as `shrp.analysis.explore.explore`."""

    def work() -> list[Exploration]:
        with st.spinner("Routing …"):
            parts = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task
            return explore(*parts, inputs, route=route)

    return kept("explored", 64, (checkpoint.fingerprint, tuple(inputs), route.text), work)


def what_if_matrix(
    checkpoint: Checkpoint, text: tuple[str, ...], route: ForcedRoute = AS_ROUTED, token: int | None = None
) -> WhatIf:
    """The what-if matrix of one input, kept for all sessions. Raises as `shrp.analysis.what_if.what_if`."""
    parts = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task
    return once(
        "what-if",
        128,
        (checkpoint.fingerprint, text, route, token),
        "Forcing experts",
        lambda progress: what_if(*parts, text, route=route, token=token, progress=progress),
    )
