"""Routes that a person has chosen: experts forced in some layers, for all tokens or for one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shrp.errors import PlanError

LONGEST = 2_000
"""Characters of a route's text that are read; far more than the layers of any model need."""
_PART = re.compile(r"(\d{1,4})\.(\d{1,4})(?:t(\d{1,4}))?", re.ASCII)


@dataclass(frozen=True)
class Force:
    """One expert forced in one layer."""

    layer: int
    expert: int
    token: int | None = None
    """Position of the only token that it is forced for, `[CLS]` being 0; None forces it for the whole input."""

    def __str__(self) -> str:
        return f"{self.layer}.{self.expert}" + ("" if self.token is None else f"t{self.token}")


@dataclass(frozen=True)
class ForcedRoute:
    """What is forced; the layers and tokens that it does not name route as they then would."""

    forces: tuple[Force, ...] = ()
    """Ascending by layer and token, the whole input first; at most one of each."""

    def __bool__(self) -> bool:
        return bool(self.forces)

    @property
    def layers(self) -> list[int]:
        """Layers in which something is forced, ascending."""
        return sorted({force.layer for force in self.forces})

    def forced(self, layer: int, expert: int, token: int | None = None) -> ForcedRoute:
        """With an expert forced in place of what was forced there; for a whole input, also for its single tokens."""
        kept = [f for f in self.forces if f.layer != layer or (token is not None and f.token != token)]
        return _route([*kept, Force(layer, expert, token)])

    def released(self, force: Force) -> ForcedRoute:
        """Without one of its forces; the route as it is if that is not there."""
        return _route(f for f in self.forces if f != force)

    def whole(self) -> ForcedRoute:
        """Without what is forced for single tokens, whose positions mean something in one input only."""
        return _route(f for f in self.forces if f.token is None)

    def fitting(self, layers: Sequence[int], experts: int, tokens: int) -> ForcedRoute:
        """Only the forces that fit a model's routed `layers`, the `experts` in each, and the input's `tokens` (0 under
        sequence routing).
        """
        known = (f for f in self.forces if f.layer in layers and f.expert < experts)
        return _route(f for f in known if f.token is None or f.token < tokens)

    def gates(self, layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        """A `GateSource` for `use_gates` that puts the route into effect.

        Token positions count from the left of each row, so rows must not be padded there.

        Raises:
            PlanError: it names an expert or a token that is not there (`fitting` leaves such out).
        """
        here = [force for force in self.forces if force.layer == layer]
        if not here:
            return None
        changed, experts = gates.clone(), probs.shape[-1]
        tokens = probs.shape[1] if probs.dim() == 3 else 0  # (B, T, H) under token routing, else (B, H)
        for force in here:  # the one for all tokens comes first
            if force.expert >= experts or (force.token is not None and force.token >= tokens):
                raise PlanError(
                    f"{force} can't be forced: layer {layer} has experts 0 to {experts - 1}"
                    + (f" and {tokens} tokens here." if tokens else ", of whole inputs.")
                )
            one_hot = torch.eye(experts, dtype=gates.dtype, device=gates.device)[force.expert]
            changed[... if force.token is None else (slice(None), force.token)] = one_hot
        return changed

    @property
    def text(self) -> str:
        """The route as a short text: `6.3_8.1t5` forces expert 3 in layer 6 and expert 1 in layer 8 for token 5."""
        return "_".join(map(str, self.forces))

    @classmethod
    def parse(cls, text: str) -> ForcedRoute:
        """The route of a `text`, which may be anything.

        Raises:
            PlanError: the text is no route's.
        """
        if len(text) > LONGEST:
            raise PlanError(f"the forced route is longer than {LONGEST:,} characters.")
        forces = {}
        for part in text.split("_") if text else ():
            if (found := _PART.fullmatch(part)) is None:
                raise PlanError("the forced route can't be read; it looks like 6.3_8.1.")
            layer, expert, token = (None if number is None else int(number) for number in found.groups())
            forces[layer, token] = Force(layer, expert, token)
        return _route(forces.values())


def _route(forces: Iterable[Force]) -> ForcedRoute:
    return ForcedRoute(tuple(sorted(forces, key=lambda f: (f.layer, -1 if f.token is None else f.token))))


AS_ROUTED = ForcedRoute()
"""Nothing is forced."""
