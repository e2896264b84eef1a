"""Check what a checkpoint's JSON stores of its training, scores and usage, as it may come from anywhere.

A field that is there must be of its type; a null one counts as missing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from shrp.data.tasks import METRICS
from shrp.errors import CheckpointError
from shrp.phrases import listed

_NUMBER = (int, float)
FINE_TUNED, CALIBRATED = ", fine-tuned", ", threshold calibrated"
"""Ends of a scored model's name."""
_OF_EARLIER_VERSIONS = {", recovered": FINE_TUNED, ", shares matched": CALIBRATED}


def _each(names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


# A field's type: one or several classes, a list of one of them, or the fields of an object.
_CONFIG = {
    **_each("epoch_size conversion_size final_size stage2_epochs seed batch_size max_length", int),
    **_each("learning_rate new_learning_rate distill_logits distill_hidden balance temperature", _NUMBER),
    **_each("weight_decay warmup swap exploration", _NUMBER),
    **_each("freeze_embeddings freeze_dense dropout", bool),
    **_each("expander_init precision", str),
    "shrp": {"layers": [int]},
    "order": [int],
}
_ON_TEXTS = {
    **_each("sources recovery_sources", [str]),
    **_each("usage_of selection", str),
    **_each("config recovery", _CONFIG),
    "earlier": {},
    "texts": int,
}
_WHOLE = {
    "chosen_on": {**_each("data data_fingerprint", str), "n": int},
    "shares_matched": {"data": str, "n": int, "shift": list},
    "vocabulary": {**_each("kept size min_count common counted_n", int), "counted_on": str},
}
"""Objects of a training that have all of their fields, if they are there."""
_ON_TASK = {
    **_each("train_data validation_data precision recipe", str),
    **_each("train_examples epochs", int),
    "seconds": _NUMBER,
    "config": _CONFIG,
}
_TRAINING = {
    **_ON_TEXTS,
    **_WHOLE,
    **_ON_TASK,
    "teacher": {},
    "chosen_by": str,
    "converted": _ON_TEXTS,
    "pruning": {
        **_each("selection combination plan_file counted_on", str),
        **_each("budget per_layer seed counted_n", int),
    },
    "recovery": _CONFIG | _ON_TASK,  # on texts, or on the task
}
_SCORE = {
    **_each("kind model data metric data_fingerprint interval_is", str),
    **_each("score retained constant", _NUMBER),
    **_each("n per_layer budget epochs max_length", int),
    "interval": [_NUMBER],
}
_EPOCH = {
    **_each("epoch stage converted_layer validation_n texts", int),
    **_each("validation_score seconds loss task_loss balance_loss", _NUMBER),
    **_each("distill_logits_loss distill_hidden_loss", _NUMBER),
    "metric": str,
    "validation_interval": [_NUMBER],
    "usage": {},
}


def check_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a training, without what is null, there and in the conversion on texts that it names.

    Raises:
        CheckpointError: a field is of another type than it should be, or is no finite number.
    """
    known = _known(training)
    _check("training", known, _TRAINING)
    for name, fields in _WHOLE.items():
        if name in known and not fields.keys() <= _known(known[name]).keys():
            raise _wrong("training", name, known[name])
    if "converted" in known:
        known["converted"] = _known(known["converted"])
    made = known.get("converted", known)
    if "texts" in made and not {"final_size", "train_data"} & _known(made.get("recovery", {"final_size": 0})).keys():
        raise _wrong("training", "recovery", made["recovery"])
    return known


def check_scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Rows of scores, without what is null, the models by their current names.

    Raises:
        CheckpointError: a row is no object with a kind, or a field is of another type than it should be, or the metric
            is unknown.
    """
    found = []
    for row in rows:
        known = _check_row("row of scores", row, _SCORE, ("kind",))
        for old, new in _OF_EARLIER_VERSIONS.items():
            if "model" in known:
                known["model"] = known["model"].replace(old, new)
        found.append(known)
    return tuple(found)


def check_usage(usage: Mapping[str, Any]) -> dict[str, list[float]]:
    """Layer -> Top-1 share of each expert.

    Raises:
        CheckpointError: a key is no layer, or a value no list of shares; all lists must be equally long, and not empty.
    """
    if not isinstance(usage, Mapping):
        raise CheckpointError("the checkpoint's usage must be an object of layers.")
    for layer, shares in usage.items():
        numbers = isinstance(shares, list) and shares and all(_is(share, _NUMBER) for share in shares)
        if not (str(layer).isdecimal() and numbers and all(0 <= share < math.inf for share in shares)):
            raise CheckpointError(f"the checkpoint's usage of layer {layer!r} must be a list of shares.")
    if len({len(shares) for shares in usage.values()}) > 1:
        raise CheckpointError("the checkpoint's usage has layers with different numbers of experts.")
    return dict(usage)


def check_history(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of a history, without what is null but for `converted_layer`, where it means that none was converted.

    Raises:
        CheckpointError: a row is no object with an epoch and a stage, or has a validation score but not its metric and
            validation_n, or a field is of another type than it should be.
    """
    found = []
    for row in rows:
        scored = isinstance(row, Mapping) and row.get("validation_score") is not None
        needed = ("epoch", "stage", *("metric", "validation_n") * scored)
        known = _check_row("row of the history", row, _EPOCH, needed, "converted_layer")
        check_usage(known.get("usage", {}))
        found.append(known)
    return found


def _check_row(
    what: str, row: Any, fields: Mapping[str, Any], needed: Sequence[str], *kept: str
) -> dict[str, Any]:
    known = _known(row, *kept) if isinstance(row, Mapping) else {}
    if lacking := [name for name in needed if name not in known]:
        raise CheckpointError(f"each {what} in the checkpoint must have {listed(lacking)}.")
    _check(what, known, fields, finite=False)
    for name in ("interval", "validation_interval"):
        if len(known.get(name, (0, 0))) != 2:
            raise _wrong(what, name, known[name])
    if known.get("metric", METRICS[0]) not in METRICS:
        raise CheckpointError(
            f"the checkpoint's {what} has the metric {known['metric']!r:.40}; those known here are {', '.join(METRICS)}."
        )
    return known


def _known(found: Mapping[str, Any], *kept: str) -> dict[str, Any]:
    """What is not null, or is to be kept even so."""
    return {name: value for name, value in found.items() if value is not None or name in kept}


def _check(what: str, found: Mapping[str, Any], fields: Mapping[str, Any], *, finite: bool = True) -> None:
    """Raise `CheckpointError` where one of these fields is there and of another type."""
    for name, kind in fields.items():
        value = found.get(name)
        if value is None:
            continue
        if isinstance(kind, dict):
            right = isinstance(value, Mapping)
            if right:
                _check(f"{what}'s {name}", value, kind, finite=finite)
        elif isinstance(kind, list):
            right = isinstance(value, list) and all(_is(one, kind[0]) for one in value)
        else:
            right = _is(value, kind) and not (finite and isinstance(value, float) and not math.isfinite(value))
        if not right:
            raise _wrong(what, name, value)


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # which no float can hold
        return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _wrong(what: str, name: str, value: Any) -> CheckpointError:
    return CheckpointError(f"in the checkpoint, {name!r} of its {what} can't be {value!r:.60}.")
