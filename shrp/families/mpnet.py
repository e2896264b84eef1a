"""MPNet: each head adds a learnt number for each distance of two tokens to its attention scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from shrp.errors import ShrpError
from shrp.families.attention import HeadPositions, Project, RelativePositions
from shrp.families.family import Family, Output, refuse_attention_maps


@dataclass(frozen=True, eq=False)
class _HeadBias(HeadPositions):
    bias: Tensor
    """`(m, T, T)`, or `(B, 1, T, T)`."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        bias = self.bias.to(query.dtype)
        return bias if bias.dim() == 4 else bias.unsqueeze(0)

    def of_first(self) -> Tensor | None:
        return self.bias[:, 0] if self.bias.dim() == 3 else None

    def one_each(self) -> HeadPositions:
        return _HeadBias(self.bias.unsqueeze(1))

    def within(self, tokens: int) -> HeadPositions:
        return _HeadBias(self.bias[..., :tokens, :tokens])


@dataclass(frozen=True, eq=False)
class PositionBias(RelativePositions):
    """A number for each head and distance, whatever the tokens are."""

    bias: Tensor
    """`(H, T, T)`."""

    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """As in `RelativePositions`; nothing is projected."""
        if heads is None or (not isinstance(heads, Tensor) and list(heads) == list(range(len(self.bias)))):
            return _HeadBias(self.bias)
        # One at a time where they are known: exporters store an index tensor in the graph.
        picked = self.bias[heads] if isinstance(heads, Tensor) else torch.stack([self.bias[h] for h in heads])
        return _HeadBias(picked)


@dataclass(frozen=True)
class MPNet(Family):
    """`layer(hidden_states, attention_mask, position_bias, output_attentions=...)` returns a tuple."""

    query: str = "attention.attn.q"
    key: str = "attention.attn.k"
    value: str = "attention.attn.v"
    attention_out: str = "attention.attn.o"
    attention_norm: str = "attention.LayerNorm"

    def first_position(self, config: PreTrainedConfig) -> int:
        """After a padding id of 1, which MPNet's code fixes whatever the config says."""
        return 2

    def relative(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> RelativePositions | None:
        """The encoder's position bias `(B, H, T, T)`, which is the same for every input; a `ShrpError` if it is missing."""
        if not args or not isinstance(args[0], Tensor):
            raise ShrpError("a layer of an MPNet encoder needs the encoder's position bias after the mask.")
        return PositionBias(args[0][0])

    @torch.no_grad()
    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """By the encoder's own method, which looks only at the shape and device of its argument."""
        device = encoder.relative_attention_bias.weight.device
        return PositionBias(encoder.compute_position_bias(torch.empty(1, tokens, device=device))[0])

    def answer(self, hidden_states: Tensor, output: Tensor, kwargs: Mapping[str, object]) -> Output:
        """As in `Family`, in a tuple; raises `UnsupportedModelError` if attention maps are asked for."""
        refuse_attention_maps(kwargs)
        return (super().answer(hidden_states, output, kwargs),)
