"""How an encoder calls its layers and what it takes back: where families differ when a model runs.

Every module that stands in a dense layer's place answers through its family's `Calling`, so that the layers
themselves know one way only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shrp.errors import ShrpError, UnsupportedModelError


class Calling:
    """`layer(hidden_states, attention_mask, ...)` returns hidden states, as in BERT. Holds no state."""

    def position_bias(self, args: tuple[object, ...]) -> Tensor | None:
        """What relative positions add to the heads' scores, `(H, T, T)`; None in families without.

        Args:
            args: what the encoder passes after the mask.
        """
        return None

    def compute_position_bias(self, encoder: nn.Module, tokens: int) -> Tensor | None:
        """The same from the encoder itself, for work on single layers, outside of a whole pass."""
        return None

    def answer(self, hidden_states: Tensor, asked: dict[str, object]) -> Tensor | tuple[Tensor]:
        """What the encoder takes back for a layer's output; `asked` are the keywords of its call."""
        return hidden_states


class MPNetCalling(Calling):
    """`layer(hidden_states, attention_mask, position_bias, output_attentions=...)` returns a tuple."""

    def position_bias(self, args: tuple[object, ...]) -> Tensor | None:
        """As the encoder gives it, `(B, H, T, T)`, it is the same for every input.

        Raises:
            ShrpError: there is none; without it attention would be another.
        """
        if not args or not isinstance(args[0], Tensor):
            raise ShrpError("a layer of an MPNet encoder needs the encoder's position bias after the mask.")
        return args[0][0]

    @torch.no_grad()
    def compute_position_bias(self, encoder: nn.Module, tokens: int) -> Tensor | None:
        """`(H, T, T)`, by the encoder's own method, which looks only at the shape and device of its argument."""
        device = encoder.relative_attention_bias.weight.device
        return encoder.compute_position_bias(torch.empty(1, tokens, device=device))[0]

    def answer(self, hidden_states: Tensor, asked: dict[str, object]) -> Tensor | tuple[Tensor]:
        """Raises `UnsupportedModelError` where attention maps are asked for, which the encoder would look up."""
        if asked.get("output_attentions"):
            raise UnsupportedModelError(
                "converted layers do not return attention maps (output_attentions); shrp.attention.layer_attention "
                "computes them."
            )
        return (hidden_states,)


PLAIN = Calling()
