"""The epochs of a training: which layer each converts, how many examples it sees, and how its learning rate moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One epoch of a schedule."""

    index: int
    """Counted from 0 over the whole training; with the seed it decides everything random in the epoch."""
    stage: int
    """1 while layers are being converted, 2 afterwards."""
    convert: int | None
    """The layer that is converted just before this epoch."""
    start_factor: float
    """Factor of the learning rates at the epoch's start, before the warm-up."""
    end_factor: float
    """Factor at its end; in between it moves linearly."""
    size: int | None
    """Number of examples, at most; None for all of them."""
    phase: str
    """What the epoch does, in words for a progress line."""

    def rate(self, step: int, steps: int, warmup: float) -> float:
        """Factor of the learning rates at one of the epoch's steps."""
        warm = max(1, round(warmup * steps))
        falling = self.start_factor + (self.end_factor - self.start_factor) * step / steps
        return min(1.0, (step + 1) / warm) * falling


def conversions(layers: Sequence[int], size: int | None, phase: str) -> Iterator[Epoch]:
    """One epoch a layer, at the full rate: stage 1."""
    for index, layer in enumerate(layers):
        name = f"{phase}: converting layer {layer} ({index + 1} of {len(layers)})"
        yield Epoch(index, 1, layer, 1.0, 1.0, size, name)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch of a training, within what numpy's global generator takes."""
    return (seed * 10_007 + epoch) % 2**32
