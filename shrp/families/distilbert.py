"""DistilBERT: BERT's layers under other names."""

from __future__ import annotations

from dataclasses import dataclass

from shrp.families.family import Family


@dataclass(frozen=True)
class DistilBert(Family):
    """DistilBERT's layout; there is no dropout after `W_o`."""

    encoder: str = "transformer"
    query: str = "attention.q_lin"
    key: str = "attention.k_lin"
    value: str = "attention.v_lin"
    attention_out: str = "attention.out_lin"
    attention_norm: str = "sa_layer_norm"
    up: str = "ffn.lin1"
    down: str = "ffn.lin2"
    last_norm: str = "output_layer_norm"
    dropout: str = "dropout"
    attention_dropout: str = "attention_dropout"
    drops_attended: bool = False
    activation: str = "activation"
    feed_forward_size: str = "hidden_dim"
