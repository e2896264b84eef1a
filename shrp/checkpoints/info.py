"""What a checkpoint records about itself: `config.json` with its `shrp` section, and the history of its training.

It may come from anywhere, so all of it is checked when it is read: what is there must be of its kind, what is not there
is simply not known. Nothing here needs torch or transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from shrp.checkpoints import hub
from shrp.data.tabular import is_unicode
from shrp.data.tasks import METRICS, TASKS, Task, custom_task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, ShrpError
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import PruningPlan

CONFIG, WEIGHTS, HISTORY, GRAPH = "config.json", "model.safetensors", "history.jsonl", "model.onnx"
"""Files of a checkpoint; an export has a graph in place of weights (`shrp.export.onnx`)."""
CARD = "README.md"
"""The model card (`shrp.checkpoints.card`), which saving writes."""
EXPORT = "shrp-onnx"
"""The `format` of an export's config."""
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)
MADE_OF = (
    *(CONFIG, WEIGHTS, *VOCABULARIES),
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""The files that decide a checkpoint's outputs for a text, of which it has some."""
_MAX_JSON_BYTES = 20 * 2**20
FORMAT_VERSION = 1
EVALUATED_TOKENS = 128
"""Tokens at which usage and scores cut an input, of a checkpoint that learned from no longer ones."""


PLAN_FILE = "a plan from a file"
"""Value of `training["chosen_by"]` for a plan that came from a file."""


def evaluated_length(trained: int | None) -> int:
    """Tokens at which usage and scores cut the inputs of a model that was trained on so many; None if not known."""
    return max(trained or 0, EVALUATED_TOKENS)


def chosen_on(data: TextData, selection: str) -> dict[str, Any]:
    """The data by which a pruned checkpoint's experts were chosen, from its `training`.

    Args:
        selection: as a plan calls it; some look at a part of the data only.
    """
    from shrp.analysis.importance import ABLATED
    from shrp.pruning.select import TEXTS

    parts = {"ablation": ABLATED, "fitted": TEXTS}
    n = min([len(data), *(most for name, most in parts.items() if selection.startswith(name))])
    return {"chosen_on": {"data": data.name, "n": n, "data_fingerprint": data.source_fingerprint}}


def pruning_facts(
    plan: PruningPlan,
    *,
    budget: int | None = None,
    per_layer: int | None = None,
    seed: int | None = None,
    counted_on: TextData | None = None,
    file: Path | None = None,
) -> dict[str, Any]:
    """How a plan was made, from `training["pruning"]`; `picked` and `kept` read it.

    Args:
        budget, per_layer: as asked for; what is not given was not.
        seed: of what is drawn, of random experts and fitted gates; other selections have none.
        counted_on: the data whose usage the plan is made of; None for the checkpoint's own.
        file: that the plan came from, and with it all that is said here of it.
    """
    asked: dict[str, Any] = {"selection": plan.selection, "combination": plan.combination}
    if file is not None:
        # Half of a surrogate pair in it would make the checkpoint unreadable.
        return asked | {"plan_file": file.name.encode(errors="replace").decode()}
    asked |= {name: n for name, n in (("budget", budget), ("per_layer", per_layer)) if n is not None}
    if seed is not None and plan.selection.startswith(("random", "fitted")):
        asked["seed"] = seed
    if counted_on is not None:
        asked |= {"counted_on": counted_on.name, "counted_n": len(counted_on)}
    return asked


def pruned_training(
    training: Mapping[str, Any],
    fingerprint: str,
    plan: PruningPlan,
    *,
    counted_on: TextData | None = None,
    file: Path | None = None,
    **asked: int | None,
) -> dict[str, Any]:
    """What a pruned checkpoint's `training` says: that of the routed one, which it is pruned from, and how.

    Args:
        training, fingerprint: the routed checkpoint's.
        counted_on, file, asked: as for `pruning_facts`. A plan with weights by hand or file is a file's, whose data are
            not known here.
    """
    facts = pruning_facts(plan, counted_on=counted_on, file=file, **asked)
    made = dict(training) | {"pruned_from": fingerprint, "pruning": facts}
    if file is not None or plan.combination == "given weights":
        return made | {"chosen_by": PLAN_FILE}
    drawn = plan.selection.startswith("random")  # also with edits
    return made if counted_on is None or drawn else made | chosen_on(counted_on, plan.selection)


def shares_of(data: TextData | None, shift: Sequence[float] | None) -> dict[str, Any]:
    """What `training` records of a shifted output bias (`shrp.evaluation.calibration`); nothing if it was
    not.

    Args:
        data: on which the routed model said how often each class is to be given.
        shift: `(C,)`, in the order of the task's labels.
    """
    if data is None or shift is None:
        return {}
    return {"shares_matched": {"data": data.name, "n": len(data), "shift": [float(part) for part in shift]}}


@dataclass(frozen=True)
class CheckpointInfo:
    """The `shrp` section of a checkpoint's config: everything known of it but the weights."""

    config: ShrpConfig
    task: Task
    plan: PruningPlan | None = None
    """Set for a static checkpoint."""
    base_model: str = ""
    """What the encoder was before fine-tuning: a hub id or a description."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Summary of how it was trained (recipe, data, epochs, seed)."""
    scores: tuple[Mapping[str, Any], ...] = ()
    """Rows of measured scores: `model` (teacher, routed, static ..., control ...), data, metric, score, n,
    interval, the best `constant` answer's score where it is defined and, for pruned models, budget and recovery."""
    usage: Mapping[str, list[float]] = field(default_factory=dict)
    """Layer -> Top-1 share of each expert on validation data, which pruning ranks by."""
    reads: int | None = None
    """Tokens to cut inputs at instead, where a comparison has both sides read alike; no file has it."""

    def to_dict(self) -> dict[str, Any]:
        """The section as JSON-able data."""
        return {
            "format_version": FORMAT_VERSION,
            **self.config.to_dict(),
            "task": self.task.to_dict(),
            "plan": self.plan.to_dict() if self.plan else None,
            "base_model": self.base_model,
            "training": dict(self.training),
            "scores": [dict(row) for row in self.scores],
            "usage": {layer: list(share) for layer, share in self.usage.items()},
        }

    @property
    def max_length(self) -> int:
        """Tokens at which usage and scores cut an input: where its training did, if that is later than usual."""
        if self.reads is not None:
            return self.reads
        recovered = self.training.get("recovery", {}).get(
            "config"
        )  # the last training, if there was one on a task
        config = recovered or self.training.get("config", {})
        return evaluated_length(config.get("max_length"))

    def scores_on(self, fingerprint: str) -> list[Mapping[str, Any]]:
        """The rows measured on data of this content, whatever it was called there."""
        return [row for row in self.scores if row.get("data_fingerprint") == fingerprint]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckpointInfo:
        """Read the section; raises `CheckpointError` where it is of another version or incomplete."""
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"checkpoint format version {version!r} is not {FORMAT_VERSION}, the one this SHRP reads; "
                "write the checkpoint again with this version."
            )
        try:
            return cls(
                config=ShrpConfig.from_dict(data),
                task=Task.from_dict(data["task"]),
                plan=PruningPlan.from_dict(data["plan"]) if data.get("plan") else None,
                base_model=str(data.get("base_model", "")),
                training=check_training(data.get("training") or {}),
                scores=check_scores(data.get("scores") or ()),
                usage=check_usage(data.get("usage") or {}),
            )
        except ShrpError as error:
            raise CheckpointError(f"the checkpoint's shrp section is not valid: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(f"the checkpoint's shrp section is incomplete: {error!r}.") from error


def info_of_classifier(name: str, config: Mapping[str, Any]) -> CheckpointInfo:
    """What is known of a plain Hugging Face classifier: the task is made of the labels that its config names.

    Args:
        name: of its folder.
        config: its `config.json`.

    Raises:
        CheckpointError: it has no classification head, or its labels are no list of different names.
    """
    heads = config.get("architectures")
    if not isinstance(heads, list) or not str(heads[:1]).endswith("ForSequenceClassification']"):
        raise CheckpointError(
            f"{name} is a model without a trained classification head; `python -m shrp finetune` trains one."
        )
    named = config.get("id2label")
    if named is None:
        named = {str(i): f"LABEL_{i}" for i in range(2)}
    try:
        labels = [str(named[key]) for key in sorted(named, key=int)]
        if sorted(map(int, named)) != list(range(len(labels))):
            raise ValueError
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{name}: its config's id2label must number its labels from 0.") from error
    folded = tuple(label.casefold() for label in labels)
    same = [task for task in TASKS.values() if task.label_names == folded]
    try:
        if len(labels) == 1:
            task = custom_task(name, ("text",), regression=True)
        elif len(same) == 1:
            task = same[0]
        else:
            texts = same[0].text_columns if same else ("text",)
            task = custom_task(name, texts, labels)
    except ShrpError as error:
        raise CheckpointError(f"{name}: its labels make no task: {error}") from error
    return CheckpointInfo(ShrpConfig(()), task, base_model=name, training={"adopted": True})


def usage_in(info: CheckpointInfo) -> dict[int, Any]:
    """The Top-1 shares that a checkpoint carries, in the form that plans are made from.

    Raises:
        CheckpointError: it carries none.
    """
    if not info.usage:
        raise CheckpointError(
            "this checkpoint carries no usage; measure it on data first (on the command line, --data)."
        )
    return {int(layer): share for layer, share in info.usage.items()}


def read_config(folder: str | os.PathLike) -> tuple[dict[str, Any], CheckpointInfo]:
    """Read `config.json` of a checkpoint or of a plain classifier: the whole of it, with the names of the family's own
    classes, and what its `shrp` section says, or of a plain classifier its labels. Reads no weights.

    Raises:
        CheckpointError: not a checkpoint; one sentence says why.
    """
    folder = Path(folder)
    file = folder / CONFIG
    if not os.path.isfile(file):  # False, too, where the folder may not be looked into
        if not os.path.lexists(folder):
            raise CheckpointError(
                f"there is no {folder}; name a checkpoint's folder (`finetune --epochs 0` makes one of a dense model)."
            )
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {CONFIG} that can be read.")
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{file} is larger than any model's config; it is not a checkpoint's.")
        data = json.loads(file.read_text(encoding="utf-8"))
        # Half of a surrogate pair can't be shown, or written again.
        json.dumps(data, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:  # also of a number of too many digits
        raise CheckpointError(f"{file} is not readable JSON: {error}.") from error
    if isinstance(data, dict) and data.get("format") == EXPORT:
        raise CheckpointError(
            f"{folder} is an export to ONNX, which onnxruntime serves; give the checkpoint that it was made from."
        )
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds no object, so it is not a model's config.")
    kind, names = data.get("model_type"), data.get("architectures")
    data["model_type"] = kind.removeprefix(hub.PREFIX) if isinstance(kind, str) else kind
    if isinstance(names, list):
        data["architectures"] = [str(name).removeprefix(hub.CLASS_PREFIX) for name in names]
    if data["model_type"] not in list(hub.MODEL_TYPES):  # a list: a stranger's value may not be hashable
        raise CheckpointError(
            f"{folder}: model_type {kind!r:.60} is not one of {', '.join(sorted(hub.MODEL_TYPES))}."
        )
    if "shrp" in data or kind != data["model_type"]:
        if not isinstance(data.get("shrp"), dict):
            raise CheckpointError(f'{folder} is not an SHRP checkpoint: its {CONFIG} has no "shrp" section.')
        return data, CheckpointInfo.from_dict(data["shrp"])
    return data, info_of_classifier(folder.resolve().name, data)


def info_if_ours(folder: str | os.PathLike) -> CheckpointInfo | None:
    """The `shrp` section of `folder`, or None where that is no checkpoint of ours (a hub id, say)."""
    try:
        data, info = read_config(folder)
    except CheckpointError:
        return None
    return info if "shrp" in data else None


def discover(root: str | os.PathLike) -> dict[str, CheckpointInfo | CheckpointError]:
    """Every SHRP checkpoint in the folders directly under `root`, by name; a broken one maps to its error.

    A folder with neither a config nor weights is no checkpoint at all and is passed over, and so is an export, or one
    that may not be looked into, or whose name is not valid Unicode and can't be shown.
    """
    found: dict[str, CheckpointInfo | CheckpointError] = {}
    root = Path(root)
    try:
        folders = sorted(root.iterdir())
    except OSError:
        return found
    for folder in folders:
        is_model = any(os.path.isfile(folder / name) for name in (CONFIG, WEIGHTS))
        if folder.name.startswith(".") or not is_model or not is_unicode(folder.name):
            continue
        if not os.path.isfile(folder / WEIGHTS) and os.path.isfile(folder / GRAPH):  # an export
            continue
        try:
            found[folder.name] = _describe(folder)
        except CheckpointError as error:
            found[folder.name] = error
    return found


def _describe(folder: Path) -> CheckpointInfo:
    """The info of a checkpoint after checking that its weights file is whole, which reads only its header."""
    _, info = read_config(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or truncated: {error}.") from error
    return info


def has_vocabulary(folder: str | os.PathLike) -> bool:
    """Whether a model folder has a tokenizer's vocabulary; without one, transformers makes up an empty one."""
    return any(os.path.isfile(Path(folder) / name) for name in VOCABULARIES)


def fingerprint(folder: str | os.PathLike) -> str:
    """SHA-256 over a checkpoint's config, weights and tokenizer: equal bytes, equal fingerprint.

    What does not decide the outputs for a text (history, the teacher's outputs) does not count.
    """
    digest = hashlib.sha256()
    for name in MADE_OF:
        path = Path(folder) / name
        if path.is_file() or name in (CONFIG, WEIGHTS):
            with open(path, "rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_history(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The epochs of a checkpoint's training, oldest first; empty where none were kept."""
    file = Path(folder) / HISTORY
    if not os.path.isfile(file):
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not readable JSON lines: {error}.") from error
    return check_history(rows)


def history_text(history: list[dict[str, Any]]) -> str:
    """The history as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in history)


def joined(*histories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Histories of runs that went on from each other, their epochs numbered through."""
    rows = [row for history in histories for row in history]
    return [row | {"epoch": index} for index, row in enumerate(rows)]


def _each(names: str, kind: type | tuple[type, ...]) -> dict[str, type | tuple[type, ...]]:
    return dict.fromkeys(names.split(), kind)


_NUMBER = (int, float)
_TRAINING = {
    **_each("config teacher converted chosen_on shares_matched recovery pruning vocabulary", Mapping),
    **_each("train_data validation_data precision recipe chosen_by", str),
    **_each("train_examples epochs", int),
    "seconds": _NUMBER,
}
_ON_TEXTS = {
    **_each("config earlier recovery", Mapping),
    **_each("sources recovery_sources", list),
    **_each("usage_of selection", str),
    "texts": int,
}
_CONFIG = {
    **_each("epoch_size conversion_size final_size stage2_epochs seed batch_size max_length", int),
    **_each("learning_rate new_learning_rate distill_logits distill_hidden balance temperature", _NUMBER),
    **_each("weight_decay warmup swap exploration", _NUMBER),
    **_each("freeze_embeddings freeze_dense dropout", bool),
    **_each("expander_init precision", str),
    "shrp": Mapping,
    "order": list,
}
_CHOSEN_ON = {**_each("data data_fingerprint", str), "n": int}
_SHARES_MATCHED = {"data": str, "n": int, "shift": list}
_VOCABULARY = {**_each("kept size min_count common counted_n", int), "counted_on": str}
_SCORE = {
    **_each("kind model data metric data_fingerprint interval_is", str),
    **_each("score retained constant", _NUMBER),
    **_each("n per_layer budget epochs max_length", int),
    "interval": list,
}
_EPOCH = {
    **_each("epoch stage converted_layer validation_n texts", int),
    **_each("validation_score seconds loss task_loss balance_loss", _NUMBER),
    **_each("distill_logits_loss distill_hidden_loss", _NUMBER),
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
