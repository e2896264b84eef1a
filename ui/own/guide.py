"""The guided start: a shipped dense classifier with the shipped probe sentences, from convert to export, in five steps."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from shrp.checkpoints.info import CheckpointInfo
from shrp.errors import CheckpointError
from ui import data_sources, jobs, loaders
from ui.bound import set_param
from ui.describe import kind_of
from ui.own import checkpoints, dialog

EXAMPLE = "sst2-dense"
"""The shipped classifier."""
PARAM = "guide"
"""Parameter of the address, and key of the session's state: what was done, where nothing on the disk tells it."""
EXPORT = "export"
_BEFORE = "guide-before"
"""Key of the session's state: the checkpoint that was picked when it began, which comes back if nothing was made."""
_SEPARATOR = "."


def offer(source: str | None) -> None:
    """Draw the button that begins, unless the guide is on or a person's own model or data are picked."""
    session, found = st.session_state, loaders.discover_all()
    own = source == data_sources.OWN or checkpoints.is_own(session.get("checkpoint", ""))
    if own or session.get(PARAM) or not isinstance(found.get(EXAMPLE), CheckpointInfo) or not jobs.allowed():
        return
    st.button("Convert an example model", key="guide-begin", on_click=_begin, icon=":material/school:")


def _begin() -> None:
    session = st.session_state
    session[_BEFORE] = session.get("checkpoint")
    session[PARAM] = "on"
    session["source"] = "probe"
    checkpoints.pick(EXAMPLE)


def _end() -> None:
    session = st.session_state
    session[PARAM] = ""  # not deleted, as an older address begins it where there is none
    before = session.pop(_BEFORE, None)
    if session.get("checkpoint") == EXAMPLE and before in loaders.discover_all():
        checkpoints.pick(before)


def mark(step: str) -> None:
    """Note a step as done, where the guide is on."""
    done = st.session_state.get(PARAM)
    if done and step not in done.split(_SEPARATOR):
        st.session_state[PARAM] = f"{done}{_SEPARATOR}{step}"


def draw(page: str) -> None:
    """Draw the steps in the sidebar where the guide is on.

    Args:
        page: the open one's file, without its suffix.
    """
    session, found = st.session_state, loaders.discover_all()
    if not jobs.allowed():
        return
    if PARAM in st.query_params:
        session.setdefault(PARAM, st.query_params[PARAM][:100])
    example = found.get(EXAMPLE)
    if not session.get(PARAM) or not isinstance(example, CheckpointInfo):
        set_param(PARAM, None)
        return
    routed, tuned = _made(found, example, tuned=False), _made(found, example, tuned=True)
    if session.get("checkpoint") == routed and page in ("routing", "pruning_lab"):
        mark(page)
    set_param(PARAM, session[PARAM])
    marked = session[PARAM].split(_SEPARATOR)
    steps = (
        ("Convert it", "overview", EXAMPLE, routed is not None),
        ("See its routes", "routing", routed, "routing" in marked),
        ("Prune it", "pruning_lab", routed, "pruning_lab" in marked),
        ("Fine-tune the pruned model", "pruning_lab", routed, tuned is not None),
        ("Export it", "pruning_lab", tuned or routed, EXPORT in marked),
    )
    with st.container(border=True, key="guide", gap="xsmall"):
        st.markdown("**Example: from a dense model to an export**")
        for number, (label, to, model, done) in enumerate(steps, 1):
            icon = f":material/{'check_circle' if done else 'radio_button_unchecked'}:"
            why = None if model else "Convert the example first."
            asked = st.button(
                f"{number}. {label}",
                key=f"guide-{number}",
                type="tertiary",
                icon=icon,
                disabled=not model,
                help=why,
            )
            if asked and number == 1 and not done:
                dialog.convert(model)
            elif asked:
                checkpoints.pick(model)
                st.switch_page(f"pages/{to}.py", query_params={})
        st.button("End the guide", key="guide-end", on_click=_end, type="tertiary", icon=":material/close:")


def _made(found: Mapping[str, CheckpointInfo | CheckpointError], example: CheckpointInfo, *, tuned: bool) -> str | None:
    """The name of a routed model that was made of the example here, or of a pruned and then fine-tuned one."""
    for name, info in found.items():
        if isinstance(info, CheckpointError) or loaders.path_of(name).parent != jobs.models().resolve():
            continue
        if (info.base_model, info.task) != (example.base_model, example.task):
            continue
        if "recovery" in info.training if tuned else kind_of(info) == "routed":
            return name
    return None
