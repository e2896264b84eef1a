"""What a checkpoint says of itself: the `shrp` section of its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shrp.checkpoints import stored
from shrp.data.tasks import TASKS, Task, custom_task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, ShrpError
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import PruningPlan

FORMAT_VERSION = 1
EVALUATED_TOKENS = 128
"""Tokens at which usage and scores cut an input, of a checkpoint that learned from no longer ones."""


PLAN_FILE = "a plan from a file"
"""What `training["chosen_by"]` says of a pruned checkpoint whose plan came from a file."""


def evaluated_length(trained: int | None) -> int:
    """Tokens at which usage and scores cut the inputs of a model that was trained on so many; None if not known."""
    return max(trained or 0, EVALUATED_TOKENS)


def chosen_on(data: TextData, selection: str) -> dict[str, Any]:
    """What a pruned checkpoint's `training` says of the data by which its experts were chosen.

    Args:
        selection: as a plan calls it; some look at a part of the data only.
    """
    from shrp.analysis.importance import ABLATED
    from shrp.pruning.select import TEXTS

    parts = {"ablation": ABLATED, "fitted": TEXTS}
    n = min([len(data), *(most for name, most in parts.items() if selection.startswith(name))])
    return {"chosen_on": {"data": data.name, "n": n, "data_fingerprint": data.source_fingerprint}}


def shares_of(data: TextData | None, shift: Sequence[float] | None) -> dict[str, Any]:
    """What `training` says of an output bias that was shifted (`shrp.evaluation.calibration`); nothing of one that was
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
                training=stored.check_training(data.get("training") or {}),
                scores=stored.check_scores(data.get("scores") or ()),
                usage=stored.check_usage(data.get("usage") or {}),
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
