"""Edits that a session has made to the slider's plans, one history a checkpoint, kept in step with the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, LayerEdit, PlanEdits
from ui import not_here, plan_url
from ui.bound import of_checkpoint, set_param
from ui.state import CHECKPOINT

_STATE = "lab-edits"


@dataclass
class Editor:
    """Edits of the plans of one checkpoint. Every change is checked; a refused one changes nothing."""

    layers: tuple[int, ...]
    experts: int
    edits: PlanEdits = NO_EDITS
    notice: str = ""
    """Why the latest change was refused."""
    serial: int = 0
    """Counts changes: the map and the boxes are drawn again for each."""
    clicked: tuple[int, int, int] | None = None
    """Layer, expert and `serial` of the latest click: a slow browser may report it once more."""

    def apply(self, edits: PlanEdits) -> None:
        """Make these the edits, if they fit; else `notice` has the reason."""
        try:
            edits.check(self.layers, self.experts)
        except PlanError as error:
            self.refuse(f"Not changed: {error}")
            return
        self.notice, self.edits = "", edits
        self.serial += 1
        self.to_url()

    def refuse(self, reason: str) -> None:
        """Say why a change was refused; what is on the screen falls back to what holds."""
        self.notice = reason
        self.serial += 1

    def click(self, layer: int, expert: int, drawing: int) -> None:
        """A click on an expert's cell: pinned, then dropped, then left to the plan again.

        Args:
            drawing: the `serial` that the map was drawn at. Of one drawing, a cell can be clicked once.
        """
        if layer in self.layers and (layer, expert, drawing) != self.clicked:
            self.clicked = layer, expert, drawing
            self.change(layer, self.edits.of(layer).cycled(expert))

    def change(self, layer: int, edit: LayerEdit) -> None:
        """Make this the edit of a layer."""
        self.apply(self.edits.with_layer(layer, edit))

    def to_url(self) -> None:
        """Put the edits into the page's address, if they are short enough for one."""
        text = plan_url.encode(self.edits)
        set_param(plan_url.URL, text if text and len(text) <= plan_url.LONGEST else None)

    def take(self, asked: str) -> None:
        """Take over the edits in the address, unless they do not fit."""
        try:
            if asked and not_here.was_asked_for(CHECKPOINT):
                raise PlanError("it is of a checkpoint that is not here.")
            edits = plan_url.decode(asked) if asked else NO_EDITS
            edits.check(self.layers, self.experts)
        except PlanError as error:
            self.refuse(f"The plan in the address was left out: {error}")
        else:
            if edits != self.edits:
                self.apply(edits)


def editor(fingerprint: str, layers: Sequence[int], experts: int) -> Editor:
    """This session's editor of a checkpoint's plans."""
    found, address_leads = of_checkpoint(_STATE, fingerprint, Editor(tuple(layers), experts))
    if address_leads:
        found.take(st.query_params.get(plan_url.URL, ""))
    found.to_url()
    return found
