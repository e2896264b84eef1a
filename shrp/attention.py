"""What the experts of one layer attend to in one input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode, longest_input, token_counts
from shrp.convert import expert_layers
from shrp.errors import PlanError
from shrp.explore import token_labels
from shrp.families import position_bias
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
    """Attention of every expert of one layer in one input, whether the input is routed to it or not."""

    layer: int
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    full_length: int
    """Tokens of the whole text, before it was cut."""
    special: np.ndarray
    """`(T,)` bool: `[CLS]`, `[SEP]` and their like."""
    weights: np.ndarray
    """`(H, T, T)`: the layer's attention probabilities, rows are queries."""
    probs: np.ndarray
    """Router probabilities in this layer, `(H,)`, or `(T, H)` under token routing."""

    def pattern(self, expert: int, *, without_special: bool = False) -> Pattern:
        """One expert's attention.

        Args:
            without_special: leave special tokens out as queries and as keys, and divide each row by what remains
                of it. A row whose attention goes to special tokens alone is all 0.
        """
        weights = self.weights[expert]
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
        PlanError: `layer` is no expert layer.
        DataError: the text is not one that the tokenizer can read.
    """
    module = expert_layers(model).get(layer)
    if module is None:
        raise PlanError(f"layer {layer} has no experts whose attention could be shown.")
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer, max_length))
    with torch.inference_mode():
        entering = run_layers(model, collate(tokenizer, encoded, [0]), 0, layer)
        bias = position_bias(model, entering.shape[1])
        weights = module.attention_maps(entering, position_bias=bias)[0]
        probs = module.router(entering, None)[0]
    ids = encoded[0]["input_ids"]
    return LayerAttention(
        layer=layer,
        text=text,
        tokens=token_labels(tokenizer, ids),
        full_length=token_counts(tokenizer, [text])[0],
        special=special_mask(tokenizer, ids),
        weights=weights.float().cpu().numpy(),
        probs=probs.float().cpu().numpy(),
    )
