"""What a family of encoders must say about itself: where its parts are, and how it calls its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import output_capturing

from shrp.errors import UnsupportedModelError
from shrp.families.attention import RelativePositions

Output = Tensor | tuple[Tensor | None, ...]
"""What an encoder takes back from a layer."""


@dataclass(frozen=True)
class Family:
    """Adapter of one family; the defaults are BERT's. Paths lead from a layer to its parts.

    Every module that replaces a dense layer calls `relative` on the way in and `answer` on the way out, so the layers
    themselves know only one way of being called.
    """

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    """Linear projections, heads stacked along the output."""
    attention_out: str = "attention.output.dense"
    """Projection of all heads' outputs, `W_o`."""
    attention_norm: str = "attention.output.LayerNorm"
    """LayerNorm after attention."""
    up: str = "intermediate.dense"
    down: str = "output.dense"
    """The two linear maps of the feed-forward network."""
    norm: str = "output.LayerNorm"
    """The LayerNorm that a converted layer keeps: the dense layer's last one, or with `pre_norm` the one before attention."""
    pre_norm: bool = False
    """Whether layers normalise what they read, and not what they return."""
    final_norm: str = ""
    """Path from the base model to the LayerNorm after its last layer; empty where there is none."""
    layer_list: str = "encoder.layer"
    """Path from the base model to the `ModuleList` of its layers."""
    attention_type: str = ""
    """Of one layer (`of_layer`), in encoders that ask each layer for its type of attention."""
    dropout: str = "hidden_dropout_prob"
    """Config attribute with the hidden dropout probability."""
    attention_dropout: str = "attention_probs_dropout_prob"
    """Config attribute with the attention dropout probability."""
    drops_attended: bool = True
    """Whether layers have dropout after `W_o`."""
    activation: str = "hidden_act"
    """Config attribute with the name of the feed-forward network's activation."""
    feed_forward_size: str = "intermediate_size"
    """Config attribute with its inner size."""

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The encoder's layers, dense, routed or static, in order."""
        return model.base_model.get_submodule(self.layer_list)

    def of_layer(self, config: PreTrainedConfig, layer: int) -> Family:
        """The adapter of one layer, where the family's layers differ."""
        return self

    def qkv(self, dense: nn.Module) -> tuple[Tensor, Tensor]:
        """A dense layer's queries, keys and values, heads stacked in each: weights `(3 d, d)` and biases `(3 d,)`."""
        parts = [dense.get_submodule(path) for path in (self.query, self.key, self.value)]
        return torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])

    def check(self, config: PreTrainedConfig) -> None:
        """Raise `UnsupportedModelError` for a variant of the family whose layers cannot be replaced."""

    def first_position(self, config: PreTrainedConfig) -> int:
        """The position of an input's first token; above 0 where positions count past padding tokens, by their ids."""
        return 0

    def attention_mask(self, attention_mask: Tensor | None) -> Tensor | None:
        """The mask in a form that `shrp.families.attention.token_mask_of` accepts."""
        return attention_mask

    def graph_mask(self, attention_mask: Tensor) -> Tensor:
        """The mask for tracing, from `(B, T)`: made additive once for all layers, `(B, 1, 1, T)`."""
        padding = 1.0 - attention_mask.to(torch.float32)
        return padding[:, None, None, :] * torch.finfo(torch.float32).min

    def relative(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> RelativePositions | None:
        """Relative positions of this pass, from the arguments that a layer gets after the mask; None without any."""
        return None

    def compute_relative(self, encoder: nn.Module, tokens: int) -> RelativePositions | None:
        """The same from the encoder itself, for work on single layers outside of a whole pass."""
        return None

    def answer(self, hidden_states: Tensor, output: Tensor, kwargs: Mapping[str, object]) -> Output:
        """Return a layer's output in the form that the encoder expects, and pass both on to `output_hidden_states`."""
        _capture(hidden_states, output)
        return output

    def position_flops(self, config: PreTrainedConfig, tokens: int, width: int, *, dense: bool = False) -> int:
        """FLOPs of the matrix products that relative positions take in one layer, for one input.

        Args:
            tokens: of the input.
            width: features of all the heads that are computed.
            dense: whether the layer is the family's own, which may compute more than it needs.
        """
        return 0

    def norm_params(self, config: PreTrainedConfig) -> int:
        """Parameters of the LayerNorm that a converted layer keeps."""
        return 2 * config.hidden_size

    def lacking_params(self, config: PreTrainedConfig) -> int:
        """Parameters that the first layer, converted or not, lacks of what the others have."""
        return 0

    def dense_size(self, config: PreTrainedConfig, tokens: int) -> tuple[int, int] | None:
        """Parameters of a dense layer and its FLOPs for one input; None where they are those of a BERT layer."""
        return None

    def reads_all_tokens(self, config: PreTrainedConfig) -> bool:
        """Whether the head of a sequence classifier reads more than the first token."""
        return False

    def restore(self, model: PreTrainedModel) -> None:
        """Compute what a model needs and files do not hold, apart from positions' ids."""


BERT = Family()


def refuse_attention_maps(kwargs: Mapping[str, object]) -> None:
    """Raise where an encoder would look up attention maps in what a layer returns."""
    if kwargs.get("output_attentions"):
        raise UnsupportedModelError(
            "converted layers do not return attention maps (output_attentions); "
            "shrp.analysis.attention.layer_attention computes them."
        )


class _Capture(nn.Module):
    """A module that transformers hooks as it hooks its own layers, for `output_hidden_states`.

    Transformers hooks its own layer classes only, and would leave converted layers out without an error. Its hook looks
    for a collector in the calling thread's context, so this one module can serve all models.
    """

    def __init__(self) -> None:
        super().__init__()
        # Not part of transformers' documented interface: a later version may lack it (or spell it right).
        for name in ("install_output_capuring_hook", "install_output_capturing_hook"):
            if install := getattr(output_capturing, name, None):
                install(self, "hidden_states", 0)
                return

    def forward(self, hidden_states: Tensor, output: Tensor) -> Tensor:
        """The first layer's input is the first of the hidden states."""
        return output


_capture = _Capture()


def install_hooks(model: PreTrainedModel) -> None:
    """Install transformers' hooks for hidden states before other models share layers of this one.

    Transformers does so when hidden states are first asked for. Two models that share a layer would each hook it, and
    every state of that layer would come twice.
    """
    if install := getattr(output_capturing, "maybe_install_capturing_hooks", None):
        install(model.base_model)
