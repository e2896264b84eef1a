"""A plan of a person's own on a side of the Compare page: from a file, or as they edited it in the pruning lab."""

from __future__ import annotations

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.errors import PlanError
from shrp.model.convert import expert_layers, num_experts_of
from shrp.phrases import listed
from shrp.pruning.plan import NO_EDITS, PlanEdits
from ui import not_here
from ui.lab import edits as lab_edits
from ui.lab import plan_url as lab_plan_url
from ui.lab.editor import show_notice, upload
from ui.lab.edits import Editor

PLAN = "plan"
"""What the address calls a side's edits, behind its letter."""
_FROM_LAB = "lab-"
"""How a link from the pruning lab begins there: its edits then take the place of those of this session."""


def fits_a_link(edits: PlanEdits) -> bool:
    """Whether edits are short enough for an address."""
    return len(lab_plan_url.encode(edits)) <= lab_plan_url.LONGEST


def link_of(edits: PlanEdits) -> str:
    """What a link from the pruning lab says of edits that fit one."""
    return _FROM_LAB + lab_plan_url.encode(edits)


def editor(letter: str, checkpoint: Checkpoint, picker: str) -> Editor:
    """The side's own edits of this checkpoint's plans, which its address carries as `a_plan` or `b_plan`.

    Args:
        picker: of the side's checkpoint.
    """
    model, url = checkpoint.model, f"{letter.lower()}_{PLAN}"
    asked = st.query_params.get(url, "")
    if linked := asked.startswith(_FROM_LAB):
        del st.query_params[url]
    layers = list(expert_layers(model))
    found = lab_edits.editor(checkpoint.fingerprint, layers, num_experts_of(model), picker, url)
    if linked:
        text = asked.removeprefix(_FROM_LAB)
        try:
            if text and not_here.was_asked_for(picker):
                raise PlanError("it is of a checkpoint that is not here.")
            found.apply(lab_plan_url.decode(text) if text else NO_EDITS)
        except PlanError as error:
            found.refuse(f"The plan in the address was left out: {error}")
    return found


def section(found: Editor, fingerprint: str) -> None:
    """Draw where a plan can be taken from, and what was taken.

    Args:
        fingerprint: of the side's checkpoint.
    """
    in_lab = lab_edits.edits_known(fingerprint)
    with st.expander(
        "A plan of your own", expanded=bool(found.edits or found.notice), icon=":material/upload_file:"
    ):
        show_notice(found)
        if found.edits:
            layers = [str(layer) for layer, _ in found.edits.layers]
            of = "layer" if len(layers) == 1 else "layers"
            st.caption(
                f"Edited by hand: {of} {listed(layers)}. What was not edited is as the controls above say."
            )
        with st.container(horizontal=True, gap="small"):
            if in_lab and in_lab != found.edits:
                st.button(
                    "Take the lab's edits",
                    key=f"{found.url}-lab",
                    icon=":material/content_cut:",
                    on_click=found.apply,
                    args=(in_lab,),
                    help="The layers that you edited in the pruning lab; the controls are this page's own.",
                )
            if found.edits:
                st.button(
                    "Reset", key=f"{found.url}-reset", icon=":material/restart_alt:", on_click=found.reset
                )
        upload(found, f"{found.url}-file")
