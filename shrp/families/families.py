"""The registry of supported encoder families, and what can be asked of any model of them.

Supporting another BERT-like family means adding one entry to `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from shrp.errors import UnsupportedModelError
from shrp.families.attention import RelativePositions
from shrp.families.deberta import DebertaV2
from shrp.families.family import BERT, Family
from shrp.families.modernbert import ModernBert
from shrp.families.mpnet import MPNet


@dataclass(frozen=True)
class Roberta(Family):
    """BERT with positions that count from the padding id on."""

    def first_position(self, config: PreTrainedConfig) -> int:
        """One after the padding id."""
        return config.pad_token_id + 1


ROBERTA = Roberta()
DISTILBERT = Family(
    layer_list="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    dropout="dropout",
    attention_dropout="attention_dropout",
    drops_attended=False,
    activation="activation",
    feed_forward_size="hidden_dim",
)
FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "ernie": BERT,
    "electra": BERT,
    "distilbert": DISTILBERT,
    "deberta-v2": DebertaV2(),
    "modernbert": ModernBert(),
    "mpnet": MPNet(),
}
"""By `model_type` of a config."""
_REFUSED = {"albert": "its layers share one set of weights, so that none can be converted or pruned alone"}
"""Model types that can't be supported, and why."""


def family_of(model_or_config: object) -> Family:
    """The adapter of a model or of its config.

    Raises:
        UnsupportedModelError: no adapter for its `model_type` (names the supported ones), or it is a decoder, or a
            variant of its family that can't be converted.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = getattr(config, "model_type", type(config).__name__)
    if model_type not in FAMILIES:
        if model_type in _REFUSED:
            raise UnsupportedModelError(f"{model_type!r} is not supported: {_REFUSED[model_type]}.")
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"{model_type!r} is not a supported model type; supported are: {known}.")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise UnsupportedModelError(
            f"this {model_type} is configured as a decoder; SHRP converts encoders (is_decoder=False)."
        )
    family = FAMILIES[model_type]
    family.check(config)
    return family


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers of any supported model, in order."""
    return family_of(model).layers(model)


def relative_positions(model: PreTrainedModel, tokens: int, layer: int) -> RelativePositions | None:
    """Relative positions for a layer in a pass of `T` tokens, without gradient; None in families that have none.

    Within a pass the encoder hands them to its layers; this is for work on single layers.
    """
    family = family_of(model).of_layer(model.config, layer)
    encoder = model.base_model.get_submodule(family.layer_list.rpartition(".")[0])
    return family.compute_relative(encoder, tokens)


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The LayerNorm after the encoder's last layer, which its last hidden states have passed; None in post-norm families."""
    path = family_of(model).final_norm
    return model.base_model.get_submodule(path) if path else None


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
