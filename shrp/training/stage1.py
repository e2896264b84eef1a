"""What eases stage 1: a dense layer that still runs now and then, and routers that explore."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shrp.families.family import Output
from shrp.model.gates import GateSource, straight_through, top_k_gates


class Swap(nn.Module):
    """A dense layer and its replacement, one of which each training pass draws (BERT-of-Theseus, Xu et al. 2020).

    The layers above learn to work with either, so they never meet the new layer all at once.
    """

    def __init__(self, dense: nn.Module, new: nn.Module, probability: float) -> None:
        super().__init__()
        self.dense, self.new = dense, new
        self.probability = probability
        """That a training pass runs the dense layer."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Output:
        """Map `(B, T, d)` to `(B, T, d)` by one of the two."""
        old = self.training and float(torch.rand(())) < self.probability
        return (self.dense if old else self.new)(hidden_states, *args, **kwargs)


def explore(scale: float, top_k: int) -> GateSource:
    """Straight-through Top-k gates of router probabilities under Gumbel noise of `scale`; at 0 the layer's own."""

    def source(layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        if not scale:
            return None
        noise = -torch.log(torch.empty_like(probs).exponential_().clamp_min(1e-20))
        tried = (probs.clamp_min(1e-20).log() + scale * noise).softmax(-1)
        return straight_through(top_k_gates(tried, top_k), probs)

    return source
