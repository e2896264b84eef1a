"""The edits that this session has made to the slider's plans, one history a checkpoint, kept in step with the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.errors import PlanError
from shrp.pruning.plan import NO_EDITS, PlanEdits, PruningPlan, edits_of
from ui import not_here
from ui.bound import set_param
from ui.lab import plan_url as lab_plan_url
from ui.lab import work as lab
from ui.lab.work import Setting

PLAN_BYTES = 200_000
"""A larger file is no plan: 24 layers of 64 experts with all their weights take about 50 kB."""
COUNT = "your count"
"""The table's column that can be edited."""
_STATE = "lab-edits"
_UNDO = 200  # steps kept


@dataclass
class Editor:
    """Edits of the plans of one checkpoint, with undo. Every change is checked; a refused one changes nothing."""

    of: str
    """The checkpoint's fingerprint."""
    layers: tuple[int, ...]
    experts: int
    edits: PlanEdits = NO_EDITS
    past: list[PlanEdits] = field(default_factory=list)
    future: list[PlanEdits] = field(default_factory=list)
    notice: str = ""
    """Why the latest change was refused, or what came of it; empty when there is nothing to say."""
    refused: bool = False
    """Whether `notice` is about a refusal."""
    serial: int = 0
    """Counts the changes that the map and the table on the screen don't know of, so that they are drawn afresh."""
    clicked: tuple[int, int, int] | None = None
    """Layer, expert and `serial` of the latest click: a slow browser may report it once more."""
    table: str = ""
    """Key of the table on the screen, and below the edits that it started from."""
    table_edits: PlanEdits = NO_EDITS
    names: dict[PlanEdits, int] = field(default_factory=dict)
    url: str = lab_plan_url.URL
    """The address's parameter that holds the edits."""

    def apply(self, edits: PlanEdits, *, by_table: bool = False) -> bool:
        """Make these the edits, if they fit; returns whether they do, and leaves the reason in `notice` if not."""
        self.notice, self.refused = "", False
        try:
            edits.check(self.layers, self.experts)
        except PlanError as error:
            self.refuse(f"Not changed: {error}")
            return False
        if edits != self.edits:
            self.past = [*self.past, self.edits][-_UNDO:]
            self.future.clear()
            self.edits = edits
        self.serial += not by_table
        self.to_url()
        return True

    def refuse(self, reason: str) -> None:
        """Say why a change was refused, and let what is on the screen fall back to what holds."""
        self.notice, self.refused = reason, True
        self.serial += 1

    def undo(self) -> None:
        """Go back one change, if there is one."""
        self._step(self.past, self.future)

    def redo(self) -> None:
        """Take back an `undo`, if there was one."""
        self._step(self.future, self.past)

    def reset(self) -> None:
        """Leave everything to the slider again; this too can be undone."""
        self.apply(NO_EDITS)

    def click(self, layer: int, expert: int, drawing: int) -> None:
        """A click on an expert's cell: pinned, then dropped, then left to the plan again.

        Args:
            drawing: the `serial` that the map was drawn at. Of one drawing, a cell can be clicked once.
        """
        click = (layer, expert, drawing)
        if layer in self.layers and click != self.clicked:
            self.clicked = click
            self.apply(self.edits.with_layer(layer, self.edits.of(layer).cycled(expert)))

    def mark(self, layer: int, pinned: Sequence[int], dropped: Sequence[int]) -> None:
        """Pin and drop experts of a layer, in place of those before."""
        if layer in self.layers:
            self.apply(self.edits.with_layer(layer, self.edits.of(layer).marked(pinned, dropped)))

    def set_counts(self, rows: Mapping[Any, Mapping[str, Any]]) -> None:
        """Counts as the table reports them: row number -> changed cells; an emptied cell is the slider's again."""
        edits = self.edits
        for row, cells in rows.items():
            if COUNT not in cells or not 0 <= int(row) < len(self.layers):
                continue
            layer, value = self.layers[int(row)], cells[COUNT]
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                self.refuse(f"Not changed: a count is a whole number from 1 to {self.experts}.")
                return
            edits = edits.with_layer(layer, edits.of(layer).with_count(value))
        self.apply(edits, by_table=True)

    def load(self, name: str, content: bytes) -> None:
        """Take a plan from an uploaded file, whole: each layer's count, experts and weights."""
        try:
            if len(content) > PLAN_BYTES:
                raise PlanError(
                    f"a plan has less than {PLAN_BYTES // 1000} kB, this has {len(content):,} bytes."
                )
            plan = PruningPlan.from_json(content.decode("utf-8"))
            plan.check_fits(self.layers, self.experts)
        except UnicodeDecodeError:
            self.refuse(f"{name} was not loaded: it is not a text file.")
        except PlanError as error:
            self.refuse(f"{name} was not loaded: {error}")
        else:
            if self.apply(edits_of(plan)):
                self.notice = f"{name} was loaded whole, so the slider changes nothing; Reset gives it back."

    def name(self, edits: PlanEdits | None = None) -> str:
        """The edits' name in this session: `edit 1`, `edit 2`, in the order in which they were first evaluated.

        Args:
            edits: others than those that hold now.
        """
        return f"edit {self.names.setdefault(edits or self.edits, len(self.names) + 1)}"

    def bent(self, counts: Mapping[int, int], plan: PruningPlan) -> dict[int, tuple[int, int]]:
        """Layers where pins or drops change how many are kept: layer -> (as the slider or the table says, kept)."""
        found = {}
        for layer, kept in plan.keep_counts().items():
            wanted = self.edits.of(layer).count or counts[layer]
            if kept != wanted:
                found[layer] = (wanted, kept)
        return found

    def to_url(self) -> None:
        """Put the edits into the page's address, if they are short enough for one."""
        text = lab_plan_url.encode(self.edits)
        set_param(self.url, text if text and len(text) <= lab_plan_url.LONGEST else None)

    def _step(self, come: list[PlanEdits], go: list[PlanEdits]) -> None:
        self.notice, self.refused = "", False
        if come:
            go.append(self.edits)
            self.edits = come.pop()
            self.serial += 1
        self.to_url()


def editor(
    fingerprint: str, layers: Sequence[int], experts: int, picker: str, url: str = lab_plan_url.URL
) -> Editor:
    """This session's editor for a checkpoint. The first one of a session starts from the plan in the URL.

    After that the session's state leads and the URL follows: a request that was on its way while the address changed
    still carries the old one, and must not undo an edit.

    Args:
        picker: of the checkpoint, as for `not_here`: edits of one that is not here are not another one's.
        url: the parameter of the address that holds the edits; each has editors of its own.
    """
    state = f"{_STATE}-{url}"
    first = state not in st.session_state
    known: dict[str, Editor] = st.session_state.setdefault(state, {})
    if fingerprint not in known:
        known[fingerprint] = Editor(fingerprint, tuple(layers), experts, url=url)
    found = known[fingerprint]
    if first and (link := st.query_params.get(url)):
        try:
            if not_here.was_asked_for(picker):
                raise PlanError("it is of a checkpoint that is not here.")
            edits = lab_plan_url.decode(link)
            edits.check(found.layers, experts)
            found.edits = edits
        except PlanError as error:
            found.refuse(f"The plan in the address was left out: {error}")
    found.to_url()
    return found


def edits_known(fingerprint: str) -> PlanEdits:
    """The pruning lab's edits of a checkpoint's plans in this session; none where it has no editor for it yet."""
    found = st.session_state.get(f"{_STATE}-{lab_plan_url.URL}", {}).get(fingerprint)
    return found.edits if found else NO_EDITS


def edited(
    setting: Setting, edits: PlanEdits, stats: UsageStats, found: Editor
) -> tuple[Setting, PruningPlan, PruningPlan]:
    """The setting with these edits and no others, its plan, and the plan that the setting without edits gives.

    Edits that change nothing of the plan leave the setting as it is.

    Args:
        found: names the edits.

    Raises:
        PlanError: the number is outside what the model allows, or the edits don't fit it.
    """
    edits.check(found.layers, found.experts)
    setting = replace(setting, edits=NO_EDITS)
    base = lab.plan_of(setting, stats)
    changed = replace(setting, edits=edits)
    plan = lab.plan_of(changed, stats)
    if plan.key() == base.key():
        return setting, base, base
    whole = all(edits.of(layer).weights for layer in found.layers)
    return replace(changed, edited=f"{found.name(edits)}: {plan.budget} in all", whole=whole), plan, base
