"""Edits that a session has made to the slider's plans, one history a checkpoint, kept in step with the URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, PlanEdits, PruningPlan, edits_of
from ui import not_here, plan_url, prunings
from ui.bound import set_param
from ui.prunings import Setting
from ui.state import CHECKPOINT

PLAN_BYTES = 200_000
"""A larger file is no plan: 24 layers of 64 experts with all their weights take about 50 kB."""
_STATE, _UNDO, _IN_FLIGHT = "lab-edits", 200, 1.0


@dataclass
class Editor:
    """Edits of the plans of one checkpoint, with undo. Every change is checked; a refused one changes nothing."""

    layers: tuple[int, ...]
    experts: int
    edits: PlanEdits = NO_EDITS
    past: list[PlanEdits] = field(default_factory=list)
    future: list[PlanEdits] = field(default_factory=list)
    notice: str = ""
    """Why the latest change was refused, or what came of it."""
    refused: bool = False
    serial: int = 0
    """Counts changes: the map and the boxes are drawn again for each."""
    clicked: tuple[int, int, int] | None = None
    """Layer, expert and `serial` of the latest click: a slow browser may report it once more."""
    url: str = ""
    """The URL's parameter as last written or read here."""
    written: float = -1e9
    """When it was written."""

    def apply(self, edits: PlanEdits, notice: str = "") -> None:
        """Make these the edits, if they fit; else `notice` has the reason."""
        try:
            edits.check(self.layers, self.experts)
        except PlanError as error:
            self.refuse(f"Not changed: {error}")
            return
        self.notice, self.refused = notice, False
        if edits != self.edits:
            self.past = [*self.past, self.edits][-_UNDO:]
            self.future.clear()
            self.edits = edits
        self.serial += 1
        self.to_url()

    def refuse(self, reason: str) -> None:
        """Say why a change was refused; what is on the screen falls back to what holds."""
        self.notice, self.refused = reason, True
        self.serial += 1

    def undo(self) -> None:
        """Go back one change, if there is one."""
        self._step(self.past, self.future)

    def redo(self) -> None:
        """Take back an `undo`, if there was one."""
        self._step(self.future, self.past)

    def _step(self, come: list[PlanEdits], go: list[PlanEdits]) -> None:
        self.notice, self.refused = "", False
        if come:
            go.append(self.edits)
            self.edits = come.pop()
            self.serial += 1
        self.to_url()

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

    def load(self, name: str, content: bytes) -> None:
        """Take a plan from an uploaded file, whole: each layer's count, experts and weights."""
        try:
            if len(content) > PLAN_BYTES:
                most = f"{PLAN_BYTES // 1000} kB"
                raise PlanError(f"a plan has less than {most}, this has {len(content):,} bytes.")
            plan = PruningPlan.from_json(content.decode("utf-8"))
            plan.check_fits(self.layers, self.experts)
        except UnicodeDecodeError:
            self.refuse(f"{name} was not loaded: it is not a text file.")
        except PlanError as error:
            self.refuse(f"{name} was not loaded: {error}")
        else:
            self.apply(
                edits_of(plan), f"{name} was loaded as a whole, so the slider changes nothing until Reset."
            )

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
