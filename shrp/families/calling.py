"""How an encoder calls its layers and what it takes back: where families differ when a model runs.

Every module that stands in a dense layer's place answers through its family's `Calling`, so that the layers
themselves know one way only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from shrp.errors import ShrpError, UnsupportedModelError
from shrp.families.relative import DistanceEmbeddings, PositionBias, RelativePositions
from shrp.model.tracing import traced

Output = Tensor | tuple[Tensor | None, ...]
"""What an encoder takes back from a layer."""


class Calling:
    """`layer(hidden_states, attention_mask, ...)` returns hidden states, as in BERT. Holds no state."""

    def check(self, config: PreTrainedConfig) -> None:
        """Raise `UnsupportedModelError` of a variant of the family whose layers can't be replaced."""

    def attention_mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """The mask in a form that `shrp.model.attending.token_mask_of` knows."""
        return attention_mask

    def graph_mask(self, attention_mask: Tensor) -> Tensor:
        """The mask that a graph is traced with, from `(B, T)`: made additive once for all layers, `(B, 1, 1, T)`."""
        padding = 1.0 - attention_mask.to(torch.float32)
        return padding[:, None, None, :] * torch.finfo(torch.float32).min

    def relative(self, args: tuple[object, ...], asked: Mapping[str, object]) -> RelativePositions | None:
        """What relative positions say to the heads of all layers; None in families without.

        Args:
            args: what the encoder passes after the mask.
            asked: and by keyword.
        """
        return None

    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """The same from the encoder itself, for work on single layers, outside of a whole pass."""
        return None

    def answer(self, hidden_states: Tensor, asked: Mapping[str, object]) -> Output:
        """What the encoder takes back for a layer's output; `asked` are the keywords of its call."""
        return hidden_states

    def position_flops(self, config: PreTrainedConfig, tokens: int, width: int, *, dense: bool) -> int:
        """FLOPs of the matrix products that relative positions take in one layer, for one input.

        Args:
            tokens: of the input.
            width: features of all the heads that are computed.
            dense: whether the layer is the family's own, which may compute more than it needs.
        """
        return 0


def _refuse_attention_maps(asked: Mapping[str, object]) -> None:
    """Raise where an encoder would look up attention maps in what a layer returns."""
    if asked.get("output_attentions"):
        raise UnsupportedModelError(
            "converted layers do not return attention maps (output_attentions); shrp.analysis.attention.layer_attention "
            "computes them."
        )


class MPNetCalling(Calling):
    """`layer(hidden_states, attention_mask, position_bias, output_attentions=...)` returns a tuple."""

    def relative(self, args: tuple[object, ...], asked: Mapping[str, object]) -> RelativePositions | None:
        """As the encoder gives it, `(B, H, T, T)`, it is the same for every input.

        Raises:
            ShrpError: there is none; without it attention would be another.
        """
        if not args or not isinstance(args[0], Tensor):
            raise ShrpError("a layer of an MPNet encoder needs the encoder's position bias after the mask.")
        return PositionBias(args[0][0])

    @torch.no_grad()
    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """By the encoder's own method, which looks only at the shape and device of its argument."""
        device = encoder.relative_attention_bias.weight.device
        return PositionBias(encoder.compute_position_bias(torch.empty(1, tokens, device=device))[0])

    def answer(self, hidden_states: Tensor, asked: Mapping[str, object]) -> Output:
        """Raises `UnsupportedModelError` where attention maps are asked for."""
        _refuse_attention_maps(asked)
        return (hidden_states,)


def _spans(config: PreTrainedConfig) -> tuple[int, int]:
    """Of a DeBERTa: buckets of distances to either side, 0 where each has its own, and the furthest distance."""
    furthest = getattr(config, "max_relative_positions", -1)
    return max(getattr(config, "position_buckets", -1), 0), (
        furthest if furthest >= 1 else config.max_position_embeddings
    )


class DebertaV2Calling(Calling):
    """`layer(hidden_states, attention_mask, relative_pos=..., rel_embeddings=...)` returns two things.

    The mask is `(B, 1, T, T)`, 1 where both tokens are real. That positions have both terms of the disentangled
    attention, as in DeBERTa-v2 and v3, is checked (`check`), so that no config need be asked in a pass.
    """

    def check(self, config: PreTrainedConfig) -> None:
        """As in `Calling`: no convolution, and heads that project distances as they do tokens, by both terms."""
        buckets, furthest = _spans(config)
        has = {
            "relative_attention": getattr(config, "relative_attention", False),
            "share_att_key": getattr(config, "share_att_key", False),
            "pos_att_type with c2p": "c2p" in (config.pos_att_type or ()),
            "pos_att_type with p2c": "p2c" in (config.pos_att_type or ()),
            "conv_kernel_size 0": not getattr(config, "conv_kernel_size", 0),
            # So that no bucket's number is above the distance, which `relative` counts on.
            "max_relative_positions above e / 2 position_buckets": furthest - 1 >= math.e / 2 * buckets,
        }
        if lacks := [name for name, there in has.items() if not there]:
            raise UnsupportedModelError(
                f"this deberta-v2 lacks {', '.join(lacks)} in its config; of the family SHRP knows models built as "
                "DeBERTa-v3 is."
            )

    def attention_mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """`(B, T)`: a token attends to itself unless it is padding; any one row may be a padded one."""
        if attention_mask is None or attention_mask.dim() != 4:
            return attention_mask
        return attention_mask[:, 0].diagonal(dim1=-2, dim2=-1)

    def graph_mask(self, attention_mask: Tensor) -> Tensor:
        """The plain `(B, T)`, from which the model makes its own."""
        return attention_mask

    def relative(self, args: tuple[object, ...], asked: Mapping[str, object]) -> RelativePositions | None:
        """From the encoder's distances `(1, T, T)` and their embeddings `(2 span, d)`.

        Raises:
            ShrpError: there are none; without them attention would be another.
        """
        distances, embeddings = asked.get("relative_pos"), asked.get("rel_embeddings")
        if not (isinstance(distances, Tensor) and isinstance(embeddings, Tensor)):
            raise ShrpError("a layer of a DeBERTa encoder needs relative_pos and rel_embeddings by keyword.")
        span = near = len(embeddings) // 2
        distances = distances[0]  # (T, T)
        if not traced():
            # No distance, nor its bucket's number, is as far as there are tokens; each costs a layer two projections.
            near = min(distances.shape[-1], span)
            embeddings = embeddings[span - near : span + near]
        return DistanceEmbeddings(embeddings, (distances + near).clamp(0, 2 * near - 1))

    @torch.no_grad()
    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """By the encoder's own methods, of which the first looks only at the shape and device of its argument."""
        embeddings = encoder.get_rel_embedding()
        states = torch.empty(1, tokens, 1, device=embeddings.device)
        return self.relative((), {"relative_pos": encoder.get_rel_pos(states), "rel_embeddings": embeddings})

    def answer(self, hidden_states: Tensor, asked: Mapping[str, object]) -> Output:
        """Raises `UnsupportedModelError` where attention maps are asked for."""
        _refuse_attention_maps(asked)
        return hidden_states, None

    def position_flops(self, config: PreTrainedConfig, tokens: int, width: int, *, dense: bool) -> int:
        """As in `Calling`: distances are projected to queries and keys, and meet every token's key and query. The
        family's own layers do so with all distances that there are, ours with those that the input can have.
        """
        buckets, furthest = _spans(config)
        span = buckets or furthest
        distances = 2 * (span if dense else min(tokens, span))
        return 2 * (2 * distances * config.hidden_size * width) + 2 * (2 * tokens * width * distances)


PLAIN = Calling()
