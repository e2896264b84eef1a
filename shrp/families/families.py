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
from shrp.families.mpnet import MPNet


@dataclass(frozen=True)
class Roberta(Family):
    """BERT with positions that count from the padding id on."""

    def first_position(self, config: PreTrainedConfig) -> int:
        """One after the padding id."""
        return config.pad_token_id + 1


ROBERTA = Roberta()
DISTILBERT = Family(
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
    "mpnet": MPNet(),
}
"""By `model_type` of a config."""


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
    family.check(config)
    return family


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers of any supported model, in order."""
    return family_of(model).layers(model)


def relative_positions(model: PreTrainedModel, tokens: int) -> RelativePositions | None:
    """Relative positions in a pass of `T` tokens, without gradient; None in families that have none.

    Within a pass the encoder hands them to its layers; this is for work on single layers.
    """
    family = family_of(model)
    return family.compute_relative(model.base_model.get_submodule(family.encoder), tokens)


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
