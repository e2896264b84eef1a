"""Routes that a person has chosen: experts forced in some layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shrp.errors import PlanError

_PART = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)


class Force(NamedTuple):
    """One expert forced in one layer, for all tokens."""

    layer: int
    expert: int


@dataclass(frozen=True)
class ForcedRoute:
    """What is forced; the layers that it does not name route as they then would."""

    forces: tuple[Force, ...] = ()
    """Ascending by layer; at most one of each."""

    def __bool__(self) -> bool:
        return bool(self.forces)

    @property
    def layers(self) -> list[int]:
        """Layers in which something is forced, ascending."""
        return [force.layer for force in self.forces]

    def forced(self, layer: int, expert: int) -> ForcedRoute:
        """With an expert forced in place of what was forced in its layer."""
        return _route([*(f for f in self.forces if f.layer != layer), Force(layer, expert)])

    def released(self, force: Force) -> ForcedRoute:
        """Without one of its forces; the route as it is if that is not there."""
        return _route(f for f in self.forces if f != force)

    def fitting(self, layers: Sequence[int], experts: int) -> ForcedRoute:
        """Only the forces that fit a model's routed `layers` and the `experts` in each."""
        return _route(f for f in self.forces if f.layer in layers and f.expert < experts)

    def gates(self, layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        """A `GateSource` for `use_gates` that puts the route into effect.

        Raises:
            PlanError: it names an expert that is not there (`fitting` leaves such out).
        """
        expert, experts = dict(self.forces).get(layer), probs.shape[-1]
        if expert is not None and expert >= experts:
            raise PlanError(f"layer {layer} has experts 0 to {experts - 1}, not {expert}.")
        return None if expert is None else torch.eye(experts)[expert]

    @property
    def text(self) -> str:
        """The route as a short text: `6.3_8.1` forces expert 3 in layer 6 and expert 1 in layer 8."""
        return "_".join(f"{layer}.{expert}" for layer, expert in self.forces)

    @classmethod
    def parse(cls, text: str) -> ForcedRoute:
        """The route of a `text`, which may be anything.

        Raises:
            PlanError: the text is no route's.
        """
        forces = {}
        for part in text.split("_") if text else ():
            if (found := _PART.fullmatch(part)) is None:
                raise PlanError("the forced route can't be read; one is written like 6.3_8.1.")
            layer, expert = map(int, found.groups())
            forces[layer] = Force(layer, expert)
        return _route(forces.values())


def _route(forces: Iterable[Force]) -> ForcedRoute:
    return ForcedRoute(tuple(sorted(forces)))


AS_ROUTED = ForcedRoute()
"""Nothing is forced."""
