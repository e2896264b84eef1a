"""BERT and the encoders built like it: RoBERTa, XLM-RoBERTa, CamemBERT, ERNIE, ELECTRA."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

from shrp.families.family import Family


@dataclass(frozen=True)
class Bert(Family):
    """BERT's layout; subclasses name what differs."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    last_norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class Roberta(Bert):
    """BERT with positions that count from the padding id on."""

    def first_position(self, config: PreTrainedConfig) -> int:
        """One after the padding id."""
        return config.pad_token_id + 1


BERT, ROBERTA = Bert(), Roberta()
