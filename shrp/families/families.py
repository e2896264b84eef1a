"""One small adapter for each supported encoder family: where things are in a stock Hugging Face model.

Supporting another BERT-like family means adding one entry to `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shrp.errors import UnsupportedModelError
from shrp.families.calling import PLAIN, Calling, DebertaV2Calling, MPNetCalling
from shrp.families.relative import RelativePositions


@dataclass(frozen=True)
class Family:
    """Attribute paths of one family, and how its encoder runs."""

    encoder: str
    """Path from the base model to the module that holds the `ModuleList` named `layer`."""
    query: str
    key: str
    value: str
    """Paths from a layer to the linear projections, heads stacked along the output."""
    attention_out: str
    """Path from a layer to the projection of all heads' outputs, `W_o`."""
    attention_norm: str
    """Path from a layer to the LayerNorm after attention."""
    up: str
    down: str
    """Paths from a layer to the two linear maps of its feed-forward network."""
    last_norm: str
    """Path from a layer to its last LayerNorm, where the expert layer's outer one starts."""
    dropout: str
    """Config attribute with the hidden dropout probability."""
    attention_dropout: str
    """Config attribute with the attention dropout probability."""
    drops_attended: bool = True
    """Whether its layers have dropout after `W_o`."""
    activation: str = "hidden_act"
    """Config attribute with the name of the feed-forward network's activation."""
    feed_forward_size: str = "intermediate_size"
    """Config attribute with its inner size."""
    calling: Calling = PLAIN
    """How its encoder calls a layer and what it takes back."""
    first_position: Callable[[PreTrainedConfig], int] = lambda config: 0
    """The position of an input's first token."""
    attention: str = "sdpa"
    """Transformers' attention implementation for its dense layers: the fused one where it has it."""

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """The encoder's layers, dense, routed or static, in order."""
        return model.base_model.get_submodule(self.encoder).layer


_BERT = Family(
    encoder="encoder",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    last_norm="output.LayerNorm",
    dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
)

# Its positions count from the padding id on.
_ROBERTA = replace(_BERT, first_position=lambda config: config.pad_token_id + 1)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "ernie": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        encoder="transformer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        last_norm="output_layer_norm",
        dropout="dropout",
        attention_dropout="attention_dropout",
        drops_attended=False,
        activation="activation",
        feed_forward_size="hidden_dim",
    ),
    "deberta-v2": replace(
        _BERT,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        calling=DebertaV2Calling(),
        attention="eager",
    ),
    "mpnet": Family(
        encoder="encoder",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_out="attention.attn.o",
        attention_norm="attention.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        last_norm="output.LayerNorm",
        dropout="hidden_dropout_prob",
        attention_dropout="attention_probs_dropout_prob",
        calling=MPNetCalling(),
        # After a padding id of 1, which its code fixes whatever the config says.
        first_position=lambda config: 2,
        attention="eager",
    ),
}


def family_of(model_or_config: object) -> Family:
    """The adapter of a model or of its config.

    Raises:
        UnsupportedModelError: no adapter for its `model_type` (names the supported ones), or it is a decoder, or a
            variant of its family that can't be converted.
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
    family = FAMILIES[model_type]
    family.calling.check(config)
    return family


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers of any supported model, in order."""
    return family_of(model).layers(model)


def relative_positions(model: PreTrainedModel, tokens: int) -> RelativePositions | None:
    """What relative positions say to the heads of all layers in a pass of `T` tokens, or None in families without.

    Within a pass the encoder hands it to its layers; this is for work on single ones. It has no gradient.
    """
    family = family_of(model)
    return family.calling.compute_relative(model.base_model.get_submodule(family.encoder), tokens)


def positions(config: PreTrainedConfig) -> int:
    """Most tokens that a model has positions for, special tokens included."""
    return config.max_position_embeddings - family_of(config).first_position(config)


def output_layer(model: PreTrainedModel, outputs: int) -> tuple[str, nn.Linear] | None:
    """The last linear layer of a classifier's head: its path and itself; None where none has so many outputs."""
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs
    ]
    return found[-1] if found else None
