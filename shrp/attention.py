"""What the experts of one layer, or a dense layer's heads, attend to in one input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode, longest_input, token_counts
from shrp.convert import layer_kinds
from shrp.errors import PlanError
from shrp.explore import token_labels
from shrp.families import encoder_layers, family_of, position_bias
from shrp.layers import attention_probs
from shrp.partial import run_layers
from shrp.special import special_mask


@dataclass(frozen=True, eq=False)
class Pattern:
    """Attention of one expert: a row a query token, a column a key token; every row sums to 1."""

    weights: np.ndarray
    """`(T, T)`."""
    tokens: tuple[str, ...]
    hidden: float
    """Share of the rows' attention that went to tokens left out, mean over rows; 0 where none was."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """Attention of every expert of one layer in one input, whether the input is routed to it or not; of a dense layer
    that of every head, of a static one that of the kept experts.
    """

    layer: int
    kind: str
    """`routed` (the control without routers too), `static` or `dense`."""
    heads: tuple[int, ...]
    """The expert, which is a head of the dense layer, of each of the `m` maps."""
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    full_length: int
    """Tokens of the whole text, before it was cut."""
    special: np.ndarray
    """`(T,)` bool: `[CLS]`, `[SEP]` and their like."""
    weights: np.ndarray
    """`(m, T, T)`: the layer's attention probabilities, rows are queries."""
    probs: np.ndarray | None
    """Router probabilities in this layer, `(H,)`, or `(T, H)` under token routing; None where nothing is routed."""

    def pattern(self, expert: int, *, without_special: bool = False) -> Pattern:
        """One expert's attention.

        Args:
            expert: one of `heads`.
            without_special: leave special tokens out as queries and as keys, and divide each row by what remains
                of it. A row whose attention goes to special tokens alone is all 0.
        """
        weights = self.weights[self.heads.index(expert)]
        if not without_special or self.special.all():
            return Pattern(weights, self.tokens, 0.0)
        kept = np.flatnonzero(~self.special)
        weights = weights[np.ix_(kept, kept)]
        left = weights.sum(1, keepdims=True)
        shares = np.divide(weights, left, out=np.zeros_like(weights), where=left > 0)
        return Pattern(shares, tuple(self.tokens[i] for i in kept), float(1 - left.mean()))


def layer_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: tuple[str, ...],
    layer: int,
    *,
    max_length: int = 128,
) -> LayerAttention:
    """Attention in one layer, computed by it from what enters it when the model reads `text` and routes as usual.

    Raises:
        PlanError: there is no such layer, or it was dropped.
        DataError: the text is not one that the tokenizer can read.
    """
    kinds = layer_kinds(model)
    if not 0 <= layer < len(kinds):
        raise PlanError(f"there is no layer {layer}: they are 0 to {len(kinds) - 1}.")
    kind, module = kinds[layer], encoder_layers(model)[layer]
    if kind == "dropped":
        raise PlanError(f"layer {layer} was dropped, so nothing attends to anything there.")
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer, max_length))
    with torch.inference_mode():
        entering = run_layers(model, collate(tokenizer, encoded, [0]), 0, layer)
        bias = position_bias(model, entering.shape[1])
        if kind == "dense":
            weights, heads = (
                _dense_maps(model, layer, entering, bias),
                range(model.config.num_attention_heads),
            )
        else:
            weights = module.attention_maps(entering, position_bias=bias)
            heads = module.heads if kind == "static" else range(module.num_experts)
        probs = None
        if kind == "routed" and module.routing != "uniform":
            probs = module.router(entering, None)[0].float().cpu().numpy()
    ids = encoded[0]["input_ids"]
    return LayerAttention(
        layer=layer,
        kind=kind,
        heads=tuple(heads),
        text=text,
        tokens=token_labels(tokenizer, ids),
        full_length=token_counts(tokenizer, [text])[0],
        special=special_mask(tokenizer, ids),
        weights=weights[0].float().cpu().numpy(),
        probs=probs,
    )


def _dense_maps(model: PreTrainedModel, layer: int, hidden_states: Tensor, bias: Tensor | None) -> Tensor:
    """Attention probabilities of a dense layer's heads, `(B, H, T, T)`."""
    family, (b, t, _d) = family_of(model), hidden_states.shape
    dense, heads = encoder_layers(model)[layer], model.config.num_attention_heads
    query, key = (
        dense.get_submodule(path)(hidden_states).view(b, t, heads, -1).transpose(1, 2)
        for path in (family.query, family.key)
    )
    return attention_probs(query, key, None, bias)
