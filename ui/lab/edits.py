"""Edits that a session has made to the slider's plans, one history a checkpoint, kept in step with the URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, PlanEdits, PruningPlan
from ui import not_here, plan_url, prunings
from ui.bound import set_param
from ui.prunings import Setting
from ui.state import CHECKPOINT

_STATE, _IN_FLIGHT = "lab-edits", 1.0


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
    url: str = ""
    """The URL's parameter as last written or read here."""
    written: float = -1e9
    """When it was written."""

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
            self.apply(self.edits.with_layer(layer, self.edits.of(layer).cycled(expert)))

    def mark(self, layer: int, pinned: Sequence[int], dropped: Sequence[int]) -> None:
        """Pin and drop experts of a layer, in place of those before."""
        self.apply(self.edits.with_layer(layer, self.edits.of(layer).marked(pinned, dropped)))

    def set_count(self, layer: int, count: int | None) -> None:
        """Set how many experts a layer keeps; None leaves it to the slider."""
        self.apply(self.edits.with_layer(layer, self.edits.of(layer).with_count(count)))

    def to_url(self) -> None:
        """Put the edits into the page's address, if they are short enough for one."""
        text = plan_url.encode(self.edits)
        self.url = text if len(text) <= plan_url.LONGEST else ""
        self.written = time.monotonic()
        set_param(plan_url.URL, self.url or None)

    def follow(self, asked: str) -> None:
        """Take over what the address has, where a person has changed it: by Back, by a link, or by typing.

        A request that was on its way while an edit changed the address still carries the old one, and must not undo
        the edit.
        """
        if asked == self.url or time.monotonic() - self.written < _IN_FLIGHT:
            self.to_url()
            return
        self.url = asked
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
        self.to_url()


def editor(fingerprint: str, layers: Sequence[int], experts: int) -> Editor:
    """This session's editor of a checkpoint's plans, in step with the address.

    The address is of the checkpoint that was looked at last: when another one is picked, its own edits come back.
    """
    known: dict[str, Editor] = st.session_state.setdefault(_STATE, {})
    first, before = not known, st.session_state.get(f"{_STATE}-of")
    found = known.setdefault(fingerprint, Editor(tuple(layers), experts))
    st.session_state[f"{_STATE}-of"] = fingerprint
    if first or before == fingerprint:
        found.follow(st.query_params.get(plan_url.URL, ""))
    else:
        found.to_url()
    return found


def edited(
    setting: Setting, stats: UsageStats, found: Editor
) -> tuple[Setting, PruningPlan, PruningPlan | None]:
    """The setting with the edits, its plan, and the plan without them, where they change anything of it.

    Raises:
        PlanError: the number is outside what the model allows, or the edits do not fit it.
    """
    base = prunings.plan_of(setting, stats)
    changed = replace(setting, edits=found.edits)
    plan = prunings.plan_of(changed, stats)
    return (setting, base, None) if plan.key() == base.key() else (changed, plan, base)
