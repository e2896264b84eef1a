"""The dialog in which a person brings a model and data of their own: model, data, and then to look at it or convert it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import streamlit as st

from shrp.checkpoints.info import CheckpointInfo, shapes_in
from shrp.errors import CheckpointError
from ui import data_sources, loaders
from ui.describe import kind_of, shape
from ui.own import checkpoints, data
from ui.text import escape

OWN, CONVERT, FINE_TUNE = "own", "convert", "fine-tune"
"""The app's dialogs; the last two are of a model, whose name follows."""
_OPEN, _PROBLEM = "dialog-open", "own-labels-problem"


def button(key: str = "own-open") -> None:
    """Draw the button that opens the dialog."""
    st.button("Use your own model or data", key=key, on_click=show, icon=":material/upload_file:")


def show(*which: str) -> None:
    """Have a dialog, this one unless named, open from the next run on in the place of any other, until it is closed."""
    st.session_state[_OPEN] = which or (OWN,)


def is_open(*which: str) -> bool:
    """Whether a dialog, this one unless named, is open."""
    return st.session_state.get(_OPEN) == (which or (OWN,))


def opener(label: str, which: str, name: str, icon: str, help: str, **look: str) -> bool:
    """Draw the button that opens a model's dialog, or says why no job can be started; returns whether that is open."""
    why = checkpoints.why_no_job(name)
    does = {"on_click": show, "args": (which, name), "disabled": bool(why), "help": why or help}
    st.button(label, key=which, icon=icon, **does, **look)
    return is_open(which, name) and not why


def close() -> None:
    """Close the dialog that is open, from the next run on."""
    st.session_state[_OPEN] = None
    for problem in (checkpoints.PROBLEM, checkpoints.BUSY, data.PROBLEM):  # which have been seen
        st.session_state.pop(problem, None)


def convert(name: str) -> None:
    """Go to Overview and have the dialog that converts a dense model open there."""
    checkpoints.pick(name)
    show(CONVERT, name)
    if st.session_state.get("source") == data_sources.OWN:
        st.session_state[data.NEW] = True
    # Without parameters, as those of widgets that are drawn can't be cleared.
    st.switch_page("pages/overview.py", query_params={})


def draw() -> None:
    """Draw the dialog where it is open. What it picks is picked in the next run of the whole app."""
    if is_open():
        _dialog()


@st.dialog("Use your own model or data", width="large", on_dismiss=close)
def _dialog() -> None:
    session = st.session_state
    st.subheader("1. Model", anchor=False)
    checkpoints.draw()
    found = loaders.discover_all()
    picks = session.get(checkpoints.PICK), session.get("checkpoint")
    name = next((one for one in picks if one in found), None)
    info = found.get(name)
    if not isinstance(info, CheckpointInfo):
        st.caption("Give a fine-tuned Hugging Face classifier, or a checkpoint of SHRP.")
        return
    about, asked = st.container(), st.empty()
    if labels := checkpoints.unnamed_labels(info):
        with asked.container():
            named = _ask_names(name, labels)
        if named:
            asked.empty()
            name, info = named, loaders.discover_all()[named]
    about.markdown(_about(name, info))
    checkpoints.draw_removal(name)
    st.subheader("2. Data", anchor=False)
    data.draw(info.task)
    st.subheader("3. What next?", anchor=False)
    with st.container(horizontal=True):
        failed = bool(session.get(checkpoints.PROBLEM))  # then it is not the model that was asked for
        if st.button("Look at it", type="primary", key="own-look", icon=":material/visibility:", disabled=failed):
            close()
            st.rerun()
        can = not failed and kind_of(info) == "teacher" and not checkpoints.why_no_job(name)
        if can and st.button("Convert it", key="own-convert-it", icon=":material/alt_route:"):
            convert(name)


def _about(name: str, info: CheckpointInfo) -> str:
    """What a model is, as a line of Markdown."""
    config, task = loaders.config_of(name), info.task
    layers, heads, *_ = shape(config)
    parameters = sum(map(prod, shapes_in(loaders.path_of(name)).values()))
    kind = "pruned" if info.plan else "routed" if info.config.layers else "dense"
    labels = ", ".join(task.label_names[:8]) or "a number"
    if task.num_labels > 8:
        labels += f" and {task.num_labels - 8:,} more"
    family = escape(str(config["model_type"]))
    return (
        f"**{escape(name)}**: {kind} {family}, {layers} layers × {heads} heads, {parameters / 1e6:.1f} M parameters. "
        f"Labels: {escape(labels)}."
    )


def _ask_names(name: str, labels: Sequence[str]) -> str | None:
    """Ask for the names of labels that have only numbers; returns the name of the model that has them, once given."""
    session = st.session_state
    with st.form("own-labels", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input(
            f"Names of {labels[0]} to {labels[-1]}, separated by commas",
            key=f"own-labels-{name}",
            placeholder="negative, positive",
        )
        given = st.form_submit_button("Use these names", key="own-labels-use")
    session[_PROBLEM] = "" if given else session.get(_PROBLEM, "")
    if given:
        names = [part.strip() for part in typed.split(",") if part.strip()]
        try:
            if len(names) != len(labels):
                raise CheckpointError(f"Give {len(labels)} names, not {len(names)}.")
            named = checkpoints.name_labels(name, names)
            checkpoints.pick(named)
            return named
        except CheckpointError as error:
            session[_PROBLEM] = str(error)
    if session[_PROBLEM]:
        st.error(escape(session[_PROBLEM]), icon=":material/error:")
    return None
