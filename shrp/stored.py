"""What a checkpoint says of its training, scores and usage, checked when it is read: it may come from anywhere.

What is there must be of its kind; what is not there is simply not known. So whoever shows it need not ask again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shrp.errors import CheckpointError

_NUMBER = (int, float)
_TRAINING: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "teacher", "converted"), Mapping),
    **dict.fromkeys(("train_data", "validation_data", "precision", "recipe"), str),
    **dict.fromkeys(("train_examples", "epochs"), int),
    "seconds": _NUMBER,
}
_CONFIG: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("epoch_size", "conversion_size", "stage2_epochs", "seed"), int),
    **dict.fromkeys(("learning_rate", "new_learning_rate", "distill_logits", "distill_hidden"), _NUMBER),
    "shrp": Mapping,
    "order": list,
}
_SCORE: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "model", "data", "metric", "data_fingerprint", "interval_is"), str),
    **dict.fromkeys(("score", "retained"), _NUMBER),
    **dict.fromkeys(("n", "per_layer", "budget", "epochs"), int),
    "interval": list,
}
_EPOCH: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("epoch", "stage", "converted_layer", "validation_n", "texts"), int),
    **dict.fromkeys(("validation_score", "seconds"), _NUMBER),
    **dict.fromkeys(("loss", "task_loss", "balance_loss"), _NUMBER),
    **dict.fromkeys(("distill_logits_loss", "distill_hidden_loss"), _NUMBER),
    "metric": str,
    "validation_interval": list,
    "usage": Mapping,
}


def check_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a training, without what is null.

    Raises:
        CheckpointError: a field is of another type than it should be.
    """
    known = {name: value for name, value in training.items() if value is not None}
    _check("training", known, _TRAINING)
    _check("training config", known.get("config", {}), _CONFIG)
    return known


def check_scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Rows of scores.

    Raises:
        CheckpointError: a row is no object with a kind, or a field is of another type than it should be.
    """
    for row in rows:
        if not isinstance(row, Mapping) or "kind" not in row:
            raise CheckpointError("the checkpoint's scores must be objects with a kind.")
        _check("row of scores", row, _SCORE)
        _interval("row of scores", row.get("interval"))
    return tuple(rows)


def check_usage(usage: Mapping[str, Any]) -> dict[str, list[float]]:
    """Layer -> Top-1 share of each expert.

    Raises:
        CheckpointError: a key is no layer, or a value no list of shares; all lists must be equally long, and not empty.
    """
    if not isinstance(usage, Mapping):
        raise CheckpointError("the checkpoint's usage must be an object of layers.")
    for layer, shares in usage.items():
        listed = isinstance(shares, list) and len(shares) > 0
        if not str(layer).isdecimal() or not listed or not all(map(_is_share, shares)):
            raise CheckpointError(f"the checkpoint's usage of layer {layer!r} must be a list of shares.")
    if len({len(shares) for shares in usage.values()}) > 1:
        raise CheckpointError("the checkpoint's usage has layers with different numbers of experts.")
    return dict(usage)


def check_history(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of a history, without what is null but for `converted_layer`, where it says that none was converted.

    Raises:
        CheckpointError: a row is no object with an epoch and a stage, or has a validation score but not its metric and
            validation_n, or a field is of another type than it should be.
    """
    return [_epoch(row) for row in rows]


def _epoch(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise CheckpointError("the checkpoint's history must be objects with an epoch and a stage.")
    known = {name: value for name, value in row.items() if value is not None or name == "converted_layer"}
    if not {"epoch", "stage"} <= set(known):
        raise CheckpointError("each row of the checkpoint's history must have an epoch and a stage.")
    if "validation_score" in known and not {"metric", "validation_n"} <= set(known):
        raise CheckpointError(
            f"epoch {known['epoch']!r:.20} of the checkpoint's history has a validation_score; "
            "it must have its metric and validation_n too."
        )
    _check("row of the history", known, _EPOCH)
    _interval("row of the history", known.get("validation_interval"))
    check_usage(known.get("usage", {}))
    return known


def _check(what: str, found: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kind in kinds.items():
        value = found.get(name)
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if value is not None and wrong:
            raise CheckpointError(f"in the checkpoint, {name!r} of its {what} can't be {value!r:.60}.")


def _interval(what: str, value: list[Any] | None) -> None:
    if value is not None and not (len(value) == 2 and all(isinstance(end, _NUMBER) for end in value)):
        raise CheckpointError(f"in the checkpoint, the interval of a {what} must be two numbers.")


def _is_share(value: Any) -> bool:
    return isinstance(value, _NUMBER) and math.isfinite(value) and value >= 0
