"""One small adapter for each supported encoder family: where things are in a stock Hugging Face model.

Supporting another BERT-like family means adding one entry to `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from shrp.errors import UnsupportedModelError


@dataclass(frozen=True)
class Family:
    """Attribute paths of one family. Its layers take `(hidden_states, attention_mask, ...)` and return a tensor."""

    encoder: str
    """Path from the base model to the module that holds the `ModuleList` named `layer`."""
    query: str
    key: str
    value: str
    """Paths from a layer to the linear projections, heads stacked along the output."""
    last_norm: str
    """Path from a layer to its last LayerNorm, where the expert layer's outer one starts."""
    dropout: str
    """Config attribute with the hidden dropout probability."""
    attention_dropout: str
    """Config attribute with the attention dropout probability."""

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The encoder's layers, dense, routed or static, in order."""
        return model.base_model.get_submodule(self.encoder).layer


_BERT = Family(
    encoder="encoder",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    last_norm="output.LayerNorm",
    dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        encoder="transformer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        last_norm="output_layer_norm",
        dropout="dropout",
        attention_dropout="attention_dropout",
    ),
}


def family_of(model_or_config: object) -> Family:
    """The adapter of a model or of its config.

    Raises:
        UnsupportedModelError: no adapter for its `model_type`, or it is a decoder; names the supported families.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = getattr(config, "model_type", type(config).__name__)
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"{model_type!r} is not a supported model type; supported are: {known}.")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise UnsupportedModelError(
            f"this {model_type} is configured as a decoder; SHRP converts encoders (is_decoder=False)."
        )
    return FAMILIES[model_type]


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers of any supported model, in order."""
    return family_of(model).layers(model)
