"""What a checkpoint records about itself: `config.json` with its `shrp` section, and the history of its training.

It may come from anywhere, so all of it is checked when it is read. Nothing here needs torch or transformers.
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

from shrp.data.tabular import is_unicode
from shrp.data.tasks import (
    METRICS,
    QUESTION_COLUMNS,
    SPANS,
    TASKS,
    TEXT,
    WORD_COLUMN,
    WORDS,
    Task,
    custom_task,
)
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, ShrpError
from shrp.model.config import ShrpConfig
from shrp.phrases import listed
from shrp.pruning.plan import PruningPlan

CONFIG, WEIGHTS, HISTORY, GRAPH = "config.json", "model.safetensors", "history.jsonl", "model.onnx"
"""Files of a checkpoint; an export has a graph in place of weights (`shrp.export.onnx`)."""
MORE_WEIGHTS = "model-2.safetensors"
"""The second half of the weights, of a checkpoint that was saved in halves."""
CARD = "README.md"
"""The model card (`shrp.checkpoints.card`), which saving writes."""
EXPORT = "shrp-onnx"
"""The `format` of an export's config."""
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
MADE_OF = (
    CONFIG, WEIGHTS, MORE_WEIGHTS, *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)
"""The files that decide a checkpoint's outputs for a text, of which it has some."""
_MAX_JSON_BYTES = 20 * 2**20
FORMAT_VERSION = 1
EVALUATED_TOKENS = 128
"""Tokens at which usage and scores cut an input, of a checkpoint that learned from no longer ones."""
PREFIX, CLASS_PREFIX = "shrp-", "Shrp"
"""Of the model types of converted checkpoints (`shrp.checkpoints.hub`), and of the classes that their configs name."""
MODEL_TYPES = (
    "bert", "camembert", "deberta-v2", "distilbert", "electra", "ernie", "modernbert", "mpnet", "roberta", "xlm-roberta",
)
"""The model types that can be converted: the keys of `shrp.families.families.FAMILIES`, which imports torch."""
PLAN_FILE = "a plan from a file"
"""Value of `training["chosen_by"]` for a plan that came from a file."""


def evaluated_length(trained: int | None) -> int:
    """Tokens at which usage and scores cut the texts of a model that was trained on so many; None if not known."""
    return max(trained or 0, EVALUATED_TOKENS)


def pruned_training(
    training: Mapping[str, Any],
    fingerprint: str,
    plan: PruningPlan,
    *,
    budget: int | None = None,
    per_layer: int | None = None,
    seed: int | None = None,
    counted_on: TextData | None = None,
    file: Path | None = None,
) -> dict[str, Any]:
    """The `training` of a pruned checkpoint: that of the routed one, and how it was pruned (`card.training_facts`).

    Args:
        training, fingerprint: the routed checkpoint's.
        budget, per_layer: as asked for, if they were.
        seed: of random experts and fitted gates; other selections have none.
        counted_on: the data whose usage the plan is made of; None for the checkpoint's own.
        file: that the plan came from. Its data, and those of a plan with weights by hand, are not known.
    """
    from shrp.analysis.importance import ABLATED
    from shrp.pruning.select import TEXTS

    asked: dict[str, Any] = {"selection": plan.selection, "combination": plan.combination}
    made = dict(training) | {"pruned_from": fingerprint, "pruning": asked}
    if file is not None:
        # Half of a surrogate pair in it would make the checkpoint unreadable.
        asked["plan_file"] = file.name.encode(errors="replace").decode()
        return made | {"chosen_by": PLAN_FILE}
    asked |= {name: n for name, n in (("budget", budget), ("per_layer", per_layer)) if n is not None}
    if seed is not None and plan.selection.startswith(("random", "fitted")):
        asked["seed"] = seed
    if counted_on is not None:
        asked |= {"counted_on": counted_on.name, "counted_n": len(counted_on)}
    if plan.combination == "given weights":
        return made | {"chosen_by": PLAN_FILE}
    if counted_on is None or plan.selection.startswith("random"):  # also with edits
        return made
    parts = {"ablation": ABLATED, "fitted": TEXTS}  # selections that look at a part of the data only
    n = min([len(counted_on), *(most for name, most in parts.items() if plan.selection.startswith(name))])
    chosen = {"data": counted_on.name, "n": n, "data_fingerprint": counted_on.source_fingerprint}
    return made | {"chosen_on": chosen}


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
    """Rows of measured scores: `model` (teacher, routed, static ..., control ...), data, metric, score, n, interval,
    the score of the majority-class baseline (`constant`) where it is defined and, for pruned models, their budget and
    whether they were fine-tuned afterwards (`recovered`)."""
    usage: Mapping[str, list[float]] = field(default_factory=dict)
    """Layer -> Top-1 share of each expert on validation data, which pruning ranks by."""
    reads: int | None = None
    """Tokens to cut texts at instead, where a comparison cuts them for both models the same; no file has it."""

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
        last = self.training.get("recovery", {}).get("config")  # after pruning, if it was on a task
        return evaluated_length((last or self.training.get("config", {})).get("max_length"))

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
        except KeyError as error:
            raise CheckpointError(f"the checkpoint's shrp section has no entry {error}.") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError("the checkpoint's shrp section has an entry of the wrong type or out of range.") from error


def teacher_score(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The dense teacher's score in rows of one data set; None where they do not have it."""
    return next((row.get("score") for row in rows if row["kind"] == "teacher"), None)


HEADS = {TEXT: "ForSequenceClassification", WORDS: "ForTokenClassification", SPANS: "ForQuestionAnswering"}
"""Kind of task -> how the names of transformers' classes for it end."""


def kind_of(heads: Any) -> str | None:
    """The kind of task that a config's `architectures` names a trained head of; None where it names none."""
    name = str(heads[0]) if isinstance(heads, (list, tuple)) and len(heads) == 1 else ""
    return next((kind for kind, end in HEADS.items() if name.endswith(end)), None)


def info_of_classifier(name: str, config: Mapping[str, Any]) -> CheckpointInfo:
    """What is known of a plain Hugging Face classifier's folder: its task is made of the labels in its `config.json`.

    Raises:
        CheckpointError: it has no classification head, or its labels are no list of different names.
    """
    kind = kind_of(config.get("architectures"))
    if kind is None:
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
        if kind == SPANS:
            task = custom_task(name, QUESTION_COLUMNS, kind=SPANS)
        elif kind == WORDS:
            task = custom_task(name, (WORD_COLUMN,), labels, kind=WORDS)
        elif len(labels) == 1:
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
    """Read `config.json` of a checkpoint or of a plain classifier, and nothing else.

    Returns:
        All of it, with the names of the family's own classes; and what its `shrp` section records, or of a plain
        classifier what its labels tell.

    Raises:
        CheckpointError: not a checkpoint; one sentence says why.
    """
    folder = Path(folder)
    file = folder / CONFIG
    if not os.path.lexists(folder):
        raise CheckpointError(
            f"there is no {folder}; name a checkpoint's folder (`finetune --epochs 0` makes one of a dense model)."
        )
    if not os.path.isfile(file):  # False, too, where the folder may not be looked into
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
    data["model_type"] = kind.removeprefix(PREFIX) if isinstance(kind, str) else kind
    if isinstance(names, list):
        data["architectures"] = [str(name).removeprefix(CLASS_PREFIX) for name in names]
    if data["model_type"] not in list(MODEL_TYPES):  # a list: a stranger's value may not be hashable
        raise CheckpointError(
            f"{folder}: model_type {kind!r:.60} is not one of {', '.join(sorted(MODEL_TYPES))}."
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

    A folder is passed over if it has neither a config nor weights, is an export, or may not be looked into, or if its
    name is not valid Unicode.
    """
    found: dict[str, CheckpointInfo | CheckpointError] = {}
    try:
        folders = sorted(Path(root).iterdir())
    except OSError:
        return found
    for folder in folders:
        config, weights, graph = (os.path.isfile(folder / name) for name in (CONFIG, WEIGHTS, GRAPH))
        other = not (config or weights) or (graph and not weights)
        if other or folder.name.startswith(".") or not is_unicode(folder.name):
            continue
        try:
            _, found[folder.name] = read_config(folder)
            shapes_in(folder)
        except CheckpointError as error:
            found[folder.name] = error
        except (SafetensorError, OSError) as error:
            found[folder.name] = CheckpointError(f"{folder / WEIGHTS} is missing or truncated: {error}.")
    return found


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, from the headers of the files of weights.

    Raises:
        SafetensorError, OSError: one is missing or truncated.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in (WEIGHTS, MORE_WEIGHTS):
        if name == WEIGHTS or (folder / name).is_file():
            with safe_open(folder / name, framework="numpy") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in tuple(file.keys())}
    return shapes


def has_vocabulary(folder: str | os.PathLike) -> bool:
    """Whether a model folder has a tokenizer's vocabulary; without one, transformers makes up an empty one."""
    return any(os.path.isfile(Path(folder) / name) for name in VOCABULARIES)


def fingerprint(folder: str | os.PathLike) -> str:
    """SHA-256 over a checkpoint's config, weights and tokenizer: equal bytes, equal fingerprint.

    Files that don't change the outputs for a text (history, the teacher's outputs) don't count.
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


def history_text(history: Sequence[Mapping[str, Any]]) -> str:
    """The history as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in history)


def joined(*histories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Histories of runs that went on from each other, their epochs numbered through."""
    rows = [row for history in histories for row in history]
    return [row | {"epoch": index} for index, row in enumerate(rows)]


# Checks of what is stored: a field that is there must be of its type; a null one counts as missing.

_NUMBER = (int, float)
FINE_TUNED, CALIBRATED = ", fine-tuned", ", threshold calibrated"
"""Ends of a scored model's name."""


def _each(names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


# A field's type: one or several classes, a list of one of them, or the fields of an object.
_CONFIG = {
    **_each("epoch_size conversion_size final_size stage2_epochs seed batch_size max_length", int),
    **_each("learning_rate new_learning_rate distill_logits distill_hidden balance temperature", _NUMBER),
    **_each("weight_decay warmup", _NUMBER),
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
    "vocabulary": {**_each("kept size common counted_n", int), "counted_on": str},
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
    """Rows of scores, without what is null.

    Raises:
        CheckpointError: a row is no object with a kind, model, data, metric and n, or a field is of another type than it
            should be, or the metric is unknown.
    """
    needed = ("kind", "model", "data", "metric", "n")
    return tuple(_check_row("row of scores", row, _SCORE, needed) for row in rows)


def check_usage(usage: Mapping[str, Any]) -> dict[str, list[float]]:
    """Layer -> Top-1 share of each expert.

    Raises:
        CheckpointError: a key is no layer, or a value no list of shares; all lists must be equally long, and not empty.
    """
    if not isinstance(usage, Mapping):
        raise CheckpointError("the checkpoint's usage must be an object of layers.")
    for layer, shares in usage.items():
        numbers = isinstance(shares, list) and shares and all(_is(share, _NUMBER) for share in shares)
        if not (str(layer).isdecimal() and numbers and all(0 <= share <= 1.001 for share in shares)):
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
