"""Edits of a pruning plan by hand, layer by layer: how many experts it keeps, which always, which never.

They stand beside a budget and a selection, not in their place: `shrp.pruning.plan.make_plan` applies them to whatever
those give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shrp.errors import PlanError

if TYPE_CHECKING:
    from shrp.pruning.plan import PruningPlan

SUM_TOLERANCE = 0.0101
"""How far from 1 given weights may sum to: as much as rounding thirds to two decimals takes, `0.33 + 0.33 + 0.33`."""


@dataclass(frozen=True)
class LayerEdit:
    """What was changed in one layer of `H` experts."""

    count: int | None = None
    """Experts to keep; None leaves that to the allocation."""
    pinned: tuple[int, ...] = ()
    """Experts that are always kept."""
    dropped: tuple[int, ...] = ()
    """Experts that are never kept."""
    weights: tuple[float, ...] = ()
    """Weights of `pinned` as a file gave them, if these are all that is kept; empty leaves them to the combination."""

    def kept(self, ranking: Sequence[int], count: int) -> list[int]:
        """The experts to keep, ascending: the pinned ones and then the best ranked that are not dropped.

        Args:
            ranking: all experts of the layer, best first.
            count: what the allocation gives. It bends where the edit leaves the number open: more pins than that are
                all kept, and no dropped expert comes back to fill it up.
        """
        free = [int(e) for e in ranking if e not in self.pinned and e not in self.dropped]
        wanted = max(self.count or count, len(self.pinned))
        return sorted([*self.pinned, *free][:wanted])

    def with_count(self, count: int | None) -> LayerEdit:
        """The same with another count; weights from a file no longer apply."""
        return self if count == self.count else replace(self, count=count, weights=())

    def marked(self, pinned: Sequence[int], dropped: Sequence[int]) -> LayerEdit:
        """The same with other pins and drops; weights from a file no longer apply."""
        pinned, dropped = tuple(sorted(set(pinned))), tuple(sorted(set(dropped)))
        if (pinned, dropped) == (self.pinned, self.dropped):
            return self
        return LayerEdit(self.count, pinned, dropped)

    def cycled(self, expert: int) -> LayerEdit:
        """The next state of one expert: left to the plan, pinned, dropped, and left to the plan again."""
        pinned, dropped = set(self.pinned), set(self.dropped)
        if expert in pinned:
            return self.marked(pinned - {expert}, dropped | {expert})
        if expert in dropped:
            return self.marked(pinned, dropped - {expert})
        return self.marked(pinned | {expert}, dropped)

    def check(self, layer: int, num_experts: int) -> None:
        """Raise `PlanError`, naming what to change, where the edit contradicts itself or a layer of `num_experts`."""
        for expert in (*self.pinned, *self.dropped):
            if not 0 <= expert < num_experts:
                raise PlanError(f"layer {layer} has no expert {expert}; experts are 0 to {num_experts - 1}.")
        if both := sorted(set(self.pinned) & set(self.dropped)):
            raise PlanError(f"expert {both[0]} of layer {layer} is both pinned and dropped; choose one.")
        allowed = num_experts - len(self.dropped)
        if not allowed:
            raise PlanError(
                f"all {num_experts} experts of layer {layer} would be dropped; a layer keeps at least one."
            )
        if self.count is not None:
            if not 1 <= self.count <= num_experts:
                raise PlanError(f"layer {layer} can keep 1 to {num_experts} experts, not {self.count}.")
            if len(self.pinned) > self.count:
                raise PlanError(
                    f"layer {layer} is set to keep {self.count} and has {len(self.pinned)} experts pinned; "
                    "raise its count or unpin some."
                )
            if self.count > allowed:
                raise PlanError(
                    f"layer {layer} is set to keep {self.count}, but only {allowed} of its experts are not dropped; "
                    "lower its count or drop fewer."
                )
        if self.weights:
            if not len(self.weights) == len(self.pinned) == self.count:
                raise PlanError(f"layer {layer} needs one weight for each of the experts that it keeps.")
            check_weights(layer, self.weights)


@dataclass(frozen=True)
class PlanEdits:
    """The `LayerEdit` of every layer that was changed, ascending."""

    layers: tuple[tuple[int, LayerEdit], ...] = ()
    origin: str = ""
    """How the experts of a plan were selected that came from a file, one of `shrp.pruning.plan.SELECTIONS`: a random
    control stays one. Empty for none, and where the file doesn't say."""

    def __post_init__(self) -> None:
        if len({layer for layer, _ in self.layers}) != len(self.layers):
            raise PlanError("the edits name a layer twice; name each layer once.")
        changed = [(layer, edit) for layer, edit in self.layers if edit != LayerEdit()]
        object.__setattr__(self, "layers", tuple(sorted(changed, key=lambda item: item[0])))
        if not changed:
            object.__setattr__(self, "origin", "")

    def __bool__(self) -> bool:
        return bool(self.layers)

    def of(self, layer: int) -> LayerEdit:
        """What was changed in a layer; nothing, where it isn't named."""
        return dict(self.layers).get(layer, LayerEdit())

    def with_layer(self, layer: int, edit: LayerEdit) -> PlanEdits:
        """The same with one layer's edit replaced."""
        return PlanEdits(tuple((dict(self.layers) | {layer: edit}).items()), self.origin)

    def check(self, layers: Sequence[int], num_experts: int) -> None:
        """Raise `PlanError` unless the edits fit a model that has `layers`, each of `num_experts` experts."""
        for layer, edit in self.layers:
            if layer not in layers:
                raise PlanError(
                    f"layer {layer} is not among the model's converted layers {', '.join(map(str, sorted(layers)))}."
                )
            edit.check(layer, num_experts)


NO_EDITS = PlanEdits()
"""Everything as the budget and the selection give it."""


def edits_of(plan: PruningPlan) -> PlanEdits:
    """The edits that make any budget and selection into exactly this plan, weights included."""
    from shrp.pruning.plan import SELECTIONS  # which edits its plans with what is here

    origin = plan.selection.removesuffix(" with edits")
    return PlanEdits(
        tuple(
            (layer, LayerEdit(len(kept.experts), kept.experts, weights=kept.weights))
            for layer, kept in plan.layers
        ),
        origin if origin in SELECTIONS else "",
    )


def check_weights(layer: int, weights: Sequence[float]) -> None:
    """Raise `PlanError` unless weights are shares: 0 or more, and 1 together (within `SUM_TOLERANCE`)."""
    # Added up in plain floats: enormous weights come to inf, where an exact sum would overflow.
    total = float(sum(weights))
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not abs(total - 1) <= SUM_TOLERANCE:
        raise PlanError(
            f"the weights of layer {layer} sum to {total:.4g} or are not all 0 or more; they are shares of 1."
        )
