"""What a conversion is: which layers become expert layers, and how they route."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from shrp.errors import ShrpError

Routing = Literal["sequence", "token", "uniform"]
"""`sequence`: an input picks one expert a layer. `token`: every token picks its own. `uniform`: no router,
all experts weigh the same, always (a control)."""

Control = Literal["none", "dropped", "uniform", "narrow"]


@dataclass(frozen=True)
class ShrpConfig:
    """Geometry-free description of a conversion (method.md, "One converted layer").

    Raises:
        ShrpError: a value is out of its range; the message says which values are right.
    """

    layers: tuple[int, ...]
    """Indices of the converted layers, counted from 0 at the input, in ascending order."""

    routing: Routing = "sequence"
    """What picks an expert: the input as a whole, or each of its tokens."""

    top_k: int = 1
    """Experts that a gate lets through for each input (or token)."""

    expander_gain: float = 0.1
    """Initial gain of the Expander's LayerNorm. Small, so that a new layer starts near the identity;
    with 1.0 the residual stream breaks once many layers are converted."""

    control: Control = "none"
    """Not SHRP but what it must be compared with, under the same schedule: the layers `dropped` instead of
    converted, expert layers without a router (`uniform`), or dense layers pruned of heads and neurons (`narrow`)."""

    narrow_to: int = 0
    """Experts of the SHRP layer to whose size a layer of the `narrow` control is pruned; 0 for all others."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(int(i) for i in self.layers)))
        if len(set(self.layers)) != len(self.layers):
            raise ShrpError(f"layers {list(self.layers)} names a layer twice; name each layer once.")
        if self.layers and self.layers[0] < 0:
            raise ShrpError(f"layers {list(self.layers)} must be 0 or more, counted from the input.")
        if self.routing not in ("sequence", "token"):
            raise ShrpError(f'routing must be "sequence" or "token", not {self.routing!r}.')
        if self.control not in get_args(Control):
            raise ShrpError(f"control must be one of {', '.join(get_args(Control))}, not {self.control!r}.")
        if self.top_k < 1:
            raise ShrpError(f"top_k must be 1 or more, not {self.top_k}.")
        if (self.control == "narrow") != (self.narrow_to > 0):
            raise ShrpError(
                f"narrow_to must be 1 or more where control is narrow, else 0; it is {self.narrow_to} beside "
                f"{self.control}."
            )

    def check_fits(self, num_layers: int, num_experts: int) -> None:
        """Raise `ShrpError` unless an encoder of this geometry has these layers and experts."""
        if self.layers and self.layers[-1] >= num_layers:
            raise ShrpError(
                f"layer {self.layers[-1]} does not exist: the encoder's layers are 0 to {num_layers - 1}."
            )
        if self.top_k > num_experts:
            raise ShrpError(f"top_k is {self.top_k}, but a layer has only {num_experts} experts.")
        if self.narrow_to > num_experts:
            raise ShrpError(
                f"narrow_to must be 1 to {num_experts}, the heads of a layer, not {self.narrow_to}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; `ShrpConfig(**d)` rebuilds the config."""
        found = asdict(self) | {"layers": list(self.layers)}
        if not self.narrow_to:  # as before there was this control
            del found["narrow_to"]
        return found
