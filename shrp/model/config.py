"""What a conversion is: which layers become expert layers, and how they route."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from shrp.errors import ShrpError

Routing = Literal["sequence", "token"]
"""`sequence`: an input chooses one expert a layer. `token`: every token chooses its own."""


@dataclass(frozen=True)
class ShrpConfig:
    """Geometry-free description of a conversion.

    Raises:
        ShrpError: a value is out of its range; the message names the valid ones.
    """

    layers: tuple[int, ...]
    """Indices of the converted layers, counted from 0 at the input, in ascending order."""

    routing: Routing = "sequence"
    """What chooses an expert: the input as a whole, or each of its tokens."""

    top_k: int = 1
    """Experts with a non-zero gate for each input (or token)."""

    expander_gain: float = 0.1
    """Initial gain of the Expander's LayerNorm. Small, so that a new layer starts near the identity; with 1.0 training
    breaks once many layers are converted."""

    self_path: bool = False
    """Whether the Expander also sees the token's own state, `W_s x` (method.md, "Self path"); not in the paper."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(int(i) for i in self.layers)))
        if len(set(self.layers)) != len(self.layers):
            raise ShrpError(f"layers {list(self.layers)} names a layer twice; name each layer once.")
        if self.layers and self.layers[0] < 0:
            raise ShrpError(f"layers {list(self.layers)} must be 0 or more, counted from the input.")
        if self.routing not in ("sequence", "token"):
            raise ShrpError(f'routing must be "sequence" or "token", not {self.routing!r}.')
        if self.top_k < 1:
            raise ShrpError(f"top_k must be 1 or more, not {self.top_k}.")

    def check_fits(self, num_layers: int, num_experts: int) -> None:
        """Raise `ShrpError` unless an encoder of this geometry has these layers and experts."""
        if self.layers and self.layers[-1] >= num_layers:
            last = self.layers[-1]
            raise ShrpError(f"layer {last} does not exist: the encoder's layers are 0 to {num_layers - 1}.")
        if self.top_k > num_experts:
            raise ShrpError(f"top_k is {self.top_k}, but a layer has only {num_experts} experts.")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary, which `from_dict` reads."""
        return asdict(self) | {"layers": list(self.layers)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ShrpConfig:
        """Read what `to_dict` wrote; other keys are ignored.

        Raises:
            ShrpError: a value is out of range.
            KeyError: there are no layers.
        """
        known = {
            name: data[name] for name in ("routing", "top_k", "expander_gain", "self_path") if name in data
        }
        return cls(tuple(data["layers"]), **known)
