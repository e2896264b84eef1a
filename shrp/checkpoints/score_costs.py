"""What the models of score rows cost, as far as a row tells what its model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost, narrow_cost, static_cost
from shrp.evaluation.verdicts import HEADS_PRUNED, KINDS_OF_CONTROL

SHARES = ("encoder_params", "model_params", "encoder_flops")
_DROPPED, _, _NO_ROUTER = KINDS_OF_CONTROL


def row_cost(row: Mapping[str, Any], loaded: Checkpoint) -> Cost | None:
    """Cost of one row's model, counted from the architecture.

    Args:
        row: of the checkpoint's `scores`, or of `score_frame`'s table of them.
        loaded: the checkpoint that carries it.

    Returns:
        None where the row doesn't tell what the model is, as for the routed model that a static checkpoint came from.
    """
    info, model = loaded.info, loaded.model
    layers, name, kind = len(info.config.layers), str(row.get("model", "")), row.get("kind")
    if kind == "teacher":
        return dense_cost(model, TOKENS)
    if kind == "routed":
        return cost(model, TOKENS) if info.plan is None else None
    if name.startswith(_DROPPED):
        return dense_cost(model, TOKENS, dropped=layers)
    each = _number(row, "per_layer")
    if name.startswith(HEADS_PRUNED):
        return narrow_cost(model, layers, each) if each else None
    experts = layers * model.config.num_attention_heads
    kept = _kept(row, layers) or (experts if name.startswith(_NO_ROUTER) else None)
    return static_cost(model, layers, kept, TOKENS) if kept and layers <= kept <= experts else None


def with_shares(scores: pd.DataFrame, loaded: Checkpoint) -> pd.DataFrame:
    """`score_frame`'s table with columns `encoder_params`, `model_params` and `encoder_flops`: what each model has of
    the dense one's, 1.0 meaning as much; nan where that is not known.
    """
    dense = dense_cost(loaded.model, TOKENS)
    costs = [row_cost(row, loaded) for row in scores.to_dict("records")]
    shares = [price.relative_to(dense) if price else {} for price in costs]
    return scores.assign(**{k: [one.get(k, np.nan) for one in shares] for k in SHARES})


def _kept(row: Mapping[str, Any], layers: int) -> int | None:
    """Experts kept in all."""
    each = _number(row, "per_layer")
    return _number(row, "budget") or (each * layers if each else None)


def _number(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    return None if value is None or pd.isna(value) else int(value)
