"""What a checkpoint says of its training, scores and usage, checked when it is read: it may come from anywhere.

What is there must be of its kind; what is not there is simply not known. So whoever shows it need not ask again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from shrp.data.tasks import METRICS
from shrp.errors import CheckpointError

_NUMBER = (int, float)
_TRAINING: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(
        (
            "config",
            "teacher",
            "converted",
            "chosen_on",
            "shares_matched",
            "recovery",
            "pruning",
            "vocabulary",
        ),
        Mapping,
    ),
    **dict.fromkeys(("train_data", "validation_data", "precision", "recipe", "chosen_by"), str),
    **dict.fromkeys(("train_examples", "epochs"), int),
    "seconds": _NUMBER,
}
_ON_TEXTS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "earlier", "recovery"), Mapping),
    **dict.fromkeys(("sources", "recovery_sources"), list),
    "texts": int,
    **dict.fromkeys(("usage_of", "selection"), str),
}
_CONFIG: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("epoch_size", "conversion_size", "final_size", "stage2_epochs", "seed"), int),
    **dict.fromkeys(("batch_size", "max_length"), int),
    **dict.fromkeys(("learning_rate", "new_learning_rate", "distill_logits", "distill_hidden"), _NUMBER),
    **dict.fromkeys(("balance", "temperature", "weight_decay", "warmup", "swap", "exploration"), _NUMBER),
    **dict.fromkeys(("freeze_embeddings", "freeze_dense", "dropout"), bool),
    **dict.fromkeys(("expander_init", "precision"), str),
    "shrp": Mapping,
    "order": list,
}
_CHOSEN_ON: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("data", "data_fingerprint"), str),
    "n": int,
}
_SHARES_MATCHED: dict[str, type | tuple[type, ...]] = {"data": str, "n": int, "shift": list}
_VOCABULARY: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kept", "size", "min_count", "common", "counted_n"), int),
    "counted_on": str,
}
_SCORE: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "model", "data", "metric", "data_fingerprint", "interval_is"), str),
    **dict.fromkeys(("score", "retained", "constant"), _NUMBER),
    **dict.fromkeys(("n", "per_layer", "budget", "epochs", "max_length"), int),
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
    """The summary of a training, without what is null, there and in the conversion on texts that it names.

    Raises:
        CheckpointError: a field is of another type than it should be, or is no finite number.
    """
    known = _known(training)
    _check("training", known, _TRAINING, finite=True)
    _check_config("training config", known.get("config", {}))
    recovery = known.get("recovery", {})
    _check("training's recovery", recovery, {"config": Mapping})
    _check_config("training's recovery config", recovery.get("config") or {})
    for name, what, fields in (
        ("chosen_on", "choice of experts", _CHOSEN_ON),
        ("shares_matched", "shifted output bias", _SHARES_MATCHED),
        ("vocabulary", "trimmed vocabulary", _VOCABULARY),
    ):
        if (said := known.get(name)) is not None:
            _check(what, said, fields)
            if not set(fields) <= set(_known(said)):
                raise _wrong("training", name, said)
    if "converted" not in known:
        _check_on_texts(known)
        return known
    converted = _known(known["converted"])
    _check_on_texts(converted)
    return known | {"converted": converted}


def _check_on_texts(made: Mapping[str, Any]) -> None:
    """Check what `shrp convert` stores of itself, wherever that stands."""
    what = "conversion on texts"
    _check(what, made, _ON_TEXTS)
    _check_config(f"{what}'s config", made.get("config", {}))
    for name in ("sources", "recovery_sources"):
        if not all(isinstance(source, str) for source in made.get(name) or ()):
            raise _wrong(what, name, made[name])
    further = made.get("recovery")
    _check_config(f"{what}'s recovery", further or {})
    if "texts" in made and further is not None and not _is(further.get("final_size"), int):
        raise _wrong(what, "recovery", further)


def _check_config(what: str, config: Mapping[str, Any]) -> None:
    _check(what, config, _CONFIG, finite=True)
    lists = {"order": config.get("order"), "layers": (config.get("shrp") or {}).get("layers")}
    for name, value in _known(lists).items():
        if not isinstance(value, list) or not all(_is(layer, int) for layer in value):
            raise _wrong(what, name, value)


def check_scores(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Rows of scores, without what is null.

    Raises:
        CheckpointError: a row is no object with a kind, or a field is of another type than it should be, or the metric
            is none of ours.
    """
    for row in rows:
        if not isinstance(row, Mapping) or "kind" not in row:
            raise CheckpointError("the checkpoint's scores must be objects with a kind.")
        _check("row of scores", row, _SCORE)
        _interval("row of scores", row.get("interval"))
        _metric("row of scores", row.get("metric"))
    return tuple(_known(row) for row in rows)


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
    known = _known(row, "converted_layer")
    if not {"epoch", "stage"} <= set(known):
        raise CheckpointError("each row of the checkpoint's history must have an epoch and a stage.")
    if "validation_score" in known and not {"metric", "validation_n"} <= set(known):
        raise CheckpointError(
            f"epoch {known['epoch']!r:.20} of the checkpoint's history has a validation_score; "
            "it must have its metric and validation_n too."
        )
    _check("row of the history", known, _EPOCH)
    _interval("row of the history", known.get("validation_interval"))
    _metric("row of the history", known.get("metric"))
    check_usage(known.get("usage", {}))
    return known


def _metric(what: str, name: str | None) -> None:
    if name is not None and name not in METRICS:
        raise CheckpointError(
            f"the checkpoint's {what} has the metric {name!r:.40}; those known here are {', '.join(METRICS)}."
        )


def _known(found: Mapping[str, Any], *kept: str) -> dict[str, Any]:
    """What is not null, or is to be kept even so."""
    return {name: value for name, value in found.items() if value is not None or name in kept}


def _check(
    what: str,
    found: Mapping[str, Any],
    kinds: Mapping[str, type | tuple[type, ...]],
    *,
    finite: bool = False,
) -> None:
    for name, kind in kinds.items():
        value = found.get(name)
        if value is not None and not (_is(value, kind) and (_is_finite(value) or not finite)):
            raise _wrong(what, name, value)


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # which no float can hold
        return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_finite(value: Any) -> bool:
    """False for inf and nan."""
    return not isinstance(value, _NUMBER) or math.isfinite(value)


def _wrong(what: str, name: str, value: Any) -> CheckpointError:
    return CheckpointError(f"in the checkpoint, {name!r} of its {what} can't be {value!r:.60}.")


def _interval(what: str, value: list[Any] | None) -> None:
    if value is not None and not (len(value) == 2 and all(_is(end, _NUMBER) for end in value)):
        raise CheckpointError(f"in the checkpoint, the interval of a {what} must be two numbers.")


def _is_share(value: Any) -> bool:
    return _is(value, _NUMBER) and _is_finite(value) and value >= 0
