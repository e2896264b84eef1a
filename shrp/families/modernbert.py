"""ModernBERT: pre-norm layers, rotary positions, and local attention in most layers.

Other than in BERT, a layer normalises what it reads and not what it returns, queries, keys and values are one linear map,
and the feed-forward network is gated (GeGLU). Linear maps and LayerNorms have no biases unless the config says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from shrp.errors import ShrpError
from shrp.families.attention import HeadPositions, Project, RelativePositions, traced
from shrp.families.family import Family


@dataclass(frozen=True, eq=False)
class RotaryPositions(RelativePositions, HeadPositions):
    """Queries and keys are turned by angles that grow with the position (Su et al. 2021), in all heads alike."""

    cos: Tensor
    sin: Tensor
    """Of each position's angles, `(1 or B, T, dh)`."""
    window: int | None
    """The farthest distance that a token attends to; None for all."""

    def of_heads(self, heads: Sequence[int] | Tensor | None, project: Project) -> HeadPositions:
        """As in `RelativePositions`; nothing is projected."""
        return self

    def turned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """As in `HeadPositions`; computed in float32, as transformers does."""
        return self._turned(query), self._turned(key)

    def _turned(self, states: Tensor) -> Tensor:
        one, other = states.float().chunk(2, -1)
        cos, sin = self.cos.unsqueeze(1), self.sin.unsqueeze(1)  # (1 or B, 1, T, dh)
        return (states.float() * cos + torch.cat([-other, one], -1) * sin).to(states.dtype)

    def scores(self, query: Tensor, key: Tensor) -> Tensor | None:
        """`(1, 1, T, T)`: 0 within the window and the least number outside; None where the window holds all tokens."""
        tokens = self.cos.shape[1]
        if self.window is None or (not traced() and tokens - 1 <= self.window):
            return None
        place = torch.arange(tokens, device=query.device)
        far = (place[:, None] - place).abs() > self.window
        added = torch.zeros(far.shape, dtype=query.dtype, device=query.device)
        return added.masked_fill(far, torch.finfo(query.dtype).min)[None, None]

    def one_each(self) -> HeadPositions:
        """As in `HeadPositions`."""
        return self

    def within(self, tokens: int) -> HeadPositions:
        """As in `HeadPositions`."""
        return replace(self, cos=self.cos[:, :tokens], sin=self.sin[:, :tokens])


@dataclass(frozen=True)
class ModernBert(Family):
    """`layer(hidden_states, attention_mask=..., position_embeddings=(cos, sin))` returns a tensor.

    The encoder asks each layer for its `attention_type`, and hands it that type's mask and angles.
    """

    fused: str = "attn.Wqkv"
    """Queries, keys and values, each with its heads stacked."""
    attention_out: str = "attn.Wo"
    norm: str = "attn_norm"
    pre_norm: bool = True
    final_norm: str = "final_norm"
    layer_list: str = "layers"
    dropout: str = "mlp_dropout"
    attention_dropout: str = "attention_dropout"
    activation: str = "hidden_activation"
    window: int | None = None
    """Of one layer (`of_layer`): the farthest distance that a token attends to; None for all."""

    def of_layer(self, config: PreTrainedConfig, layer: int) -> Family:
        """With the layer's type of attention."""
        kind = config.layer_types[layer]
        window = config.sliding_window if kind == "sliding_attention" else None
        return replace(self, attention_type=kind, window=window)

    def reads_all_tokens(self, config: PreTrainedConfig) -> bool:
        """By `classifier_pooling`."""
        return config.classifier_pooling == "mean"

    def qkv(self, dense: nn.Module) -> tuple[Tensor, Tensor]:
        """As in `Family`; the biases are 0 where there are none."""
        part = dense.get_submodule(self.fused)
        return part.weight, part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias

    def attention_mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """`(B, T)`, the real tokens: every token is within its own window."""
        if attention_mask is None or attention_mask.dim() != 4:
            return attention_mask
        own = attention_mask[:, 0].diagonal(dim1=-2, dim2=-1)
        return own if own.dtype == torch.bool else own >= 0

    def graph_mask(self, attention_mask: Tensor) -> Tensor:
        """The plain `(B, T)`, from which the model makes both of its own."""
        return attention_mask

    def relative(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> RelativePositions | None:
        """From the encoder's cosines and sines; a `ShrpError` if they are missing."""
        angles = kwargs.get("position_embeddings")
        if not isinstance(angles, tuple):
            raise ShrpError("a layer of a ModernBERT encoder needs position_embeddings by keyword.")
        cos, sin = angles
        return RotaryPositions(cos, sin, self.window)

    @torch.no_grad()
    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """By the encoder's own module, which looks only at the type and device of its first argument."""
        like = encoder.embeddings.tok_embeddings.weight
        places = torch.arange(tokens, device=like.device)[None]
        cos, sin = encoder.rotary_emb(like, places, self.attention_type)
        return RotaryPositions(cos, sin, self.window)

    def restore(self, model: PreTrainedModel) -> None:
        """The frequencies of the rotary positions."""
        model.base_model.rotary_emb = type(model.base_model.rotary_emb)(model.config)

    def norm_params(self, config: PreTrainedConfig) -> int:
        """As in `Family`."""
        return config.hidden_size * (1 + config.norm_bias)

    def lacking_params(self, config: PreTrainedConfig) -> int:
        """The first layer reads the embeddings, which are normalised already."""
        return self.norm_params(config)

    def dense_size(self, config: PreTrainedConfig, tokens: int) -> tuple[int, int] | None:
        """A gated network has three linear maps. Local attention computes all scores, and then masks most."""
        d, ff = config.hidden_size, config.intermediate_size
        weights = 4 * d * d + 3 * d * ff
        biases = 4 * d * config.attention_bias + (2 * ff + d) * config.mlp_bias
        flops = 2 * tokens * weights + 2 * (2 * tokens * tokens * d)
        return weights + biases + 2 * self.norm_params(config), flops
