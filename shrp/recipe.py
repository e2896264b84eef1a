"""The whole of SHRP in order: teacher, two-stage training, pruning, recovery, controls, and the scores of each.

Every stage leaves a checkpoint of its own in `run_folder(out)`, so a run that was killed goes on where it was; the
checkpoint at `out` is written as soon as the routed model is trained and again as further scores come in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp import checkpoint
from shrp.base import load_base
from shrp.checkpoint import Checkpoint, CheckpointInfo
from shrp.config import ShrpConfig
from shrp.data import TextData
from shrp.errors import CheckpointError, TrainingError
from shrp.evaluate import Evaluation, evaluate
from shrp.plan import PruningPlan, make_plan
from shrp.prune import prune
from shrp.train import Progress, finish, history_text, run_folder, train
from shrp.training_config import TrainConfig

CONTROLS = ("random", "uniform", "dropped")


@dataclass(frozen=True)
class Recipe:
    """What `run` does beside the conversion itself."""

    config: TrainConfig
    """The conversion, with its layers and distillation."""
    teacher: TrainConfig = field(default_factory=lambda: TrainConfig(stage2_epochs=3, learning_rate=5e-5))
    """Fine-tuning of the dense teacher, where the base has no trained head."""
    per_layer: tuple[int, ...] = (1, 2, 4, 8, 12)
    """Experts a layer at which static models are scored without recovery."""
    recover: tuple[int, ...] = ()
    """Experts a layer at which a static model is trained on and scored."""
    recovery_epochs: int = 1
    controls: tuple[str, ...] = ("random",)
    """`random` experts kept instead of the most used; layers without a router (`uniform`); layers `dropped`."""
    random_seeds: int = 3
    """Draws of random experts that the control without recovery averages over."""

    def __post_init__(self) -> None:
        for name in self.controls:
            if name not in CONTROLS:
                raise TrainingError(f"controls are {', '.join(CONTROLS)}; {name!r} is not among them.")
        if not self.config.shrp.layers:
            raise TrainingError("name at least one layer to convert; plain fine-tuning is `finetune`.")


@dataclass(frozen=True)
class Datasets:
    """The data of a run: what is trained on, what usage and scores come from, further data to score on."""

    train: TextData
    validation: TextData
    also: tuple[TextData, ...] = ()


class Run:
    """One run of a recipe from a base to a finished checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        base: str,
        data: Datasets,
        out: str | Path,
        *,
        base_name: str | None = None,
        dtype: torch.dtype | None = torch.float16,
        resume: bool = False,
        progress: Progress | None = None,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Args: base_name, what checkpoints call the base; dtype, how weights are stored at `out`."""
        self.recipe, self.base, self.data, self.out = recipe, base, data, Path(out)
        known = checkpoint.info_if_ours(base)
        self.base_name = base_name or (known.base_model if known else base)
        self.dtype, self.resume, self.progress, self.announce = dtype, resume, progress, announce
        self.scores: list[dict[str, Any]] = []

    def __call__(self) -> CheckpointInfo:
        """Do all stages; returns the info of the finished checkpoint.

        Raises:
            TrainingError, DataError, CheckpointError: as the stages.
        """
        folder = run_folder(self.out)
        if folder.exists() and not self.resume:
            raise TrainingError(
                f"{folder} holds an unfinished run: pass --resume to go on, or delete it to start afresh."
            )
        if self.out.exists() and not folder.exists() and any(self.out.iterdir()):
            raise TrainingError(f"{self.out} exists already; choose another folder for the result.")
        folder.mkdir(parents=True, exist_ok=True)
        teacher = self._teacher()
        self.teacher_training = teacher.info.training
        self._score("dense teacher", "teacher", teacher.model)
        routed = self._stage(
            "routed", self.recipe.config, lambda: copy.deepcopy(teacher.model), teacher.info, teacher
        )
        self._score("routed", "routed", routed.model)
        self._prune(routed)
        self._save(routed)
        for rows in self._trained_scores(teacher, routed):
            self.scores += rows
            self._save(routed)
        finish(self.out)
        return self._info(routed)

    def _teacher(self) -> Checkpoint:
        folder = run_folder(self.out)
        task = self.data.train.task
        if (found := self._finished("teacher")) is not None:
            return found
        model, tokenizer, trained = load_base(self.base, task, self.recipe.teacher.seed)
        info = CheckpointInfo(ShrpConfig(()), task, base_model=self.base_name)
        if trained and (known := checkpoint.info_if_ours(self.base)):
            info = replace(info, training=known.training)
        if trained:
            return Checkpoint(folder, info, model, tokenizer, "")
        self.tokenizer = tokenizer
        return self._stage("teacher", self.recipe.teacher, lambda: model, info, None)

    def _finished(self, name: str) -> Checkpoint | None:
        folder = run_folder(self.out) / name
        try:
            return checkpoint.load(folder) if folder.is_dir() else None
        except CheckpointError:
            return None  # not whole: the stage is done again

    def _stage(
        self,
        name: str,
        config: TrainConfig,
        start: Callable[[], PreTrainedModel],
        info: CheckpointInfo,
        teacher: Checkpoint | None,
    ) -> Checkpoint:
        """Train one model, or take it from an earlier, killed run."""
        if (found := self._finished(name)) is not None:
            return found
        self.announce(name)
        tokenizer: PreTrainedTokenizerBase = teacher.tokenizer if teacher else self.tokenizer
        folder = run_folder(self.out) / name
        model, info, history = train(
            config,
            start(),
            info,
            tokenizer,
            self.data.train,
            self.data.validation,
            folder,
            teacher=teacher.model if teacher else None,
            resume=self.resume,
            progress=self.progress,
        )
        checkpoint.save(
            model, tokenizer, info, folder, extra_files={checkpoint.HISTORY: history_text(history)}
        )
        finish(folder)
        return checkpoint.load(folder)

    def _plan(self, routed: Checkpoint, m: int, **options: Any) -> PruningPlan:
        return make_plan(usage_in(routed.info), per_layer=m, **options)

    def _prune(self, routed: Checkpoint) -> None:
        """Score static models at each budget without recovery, and random experts beside them."""
        for m in self.recipe.per_layer:
            model = prune(routed.model, self._plan(routed, m), share_weights=True)
            self._score(f"static, {m} a layer", "static", model, per_layer=m)
            if "random" not in self.recipe.controls or m == routed.model.config.num_attention_heads:
                continue
            drawn = [
                prune(routed.model, self._plan(routed, m, selection="random", seed=s), share_weights=True)
                for s in range(self.recipe.random_seeds)
            ]
            self._score(f"random experts, {m} a layer", "control", *drawn, per_layer=m)

    def _trained_scores(self, teacher: Checkpoint, routed: Checkpoint) -> Iterator[list[dict[str, Any]]]:
        """Rows of everything that takes training: recovered static models, then the controls."""
        recovery = replace(
            self.recipe.config,
            shrp=ShrpConfig(()),
            order=(),
            stage2_epochs=self.recipe.recovery_epochs,
            balance=0.0,
        )
        for m in self.recipe.recover:
            for control in (False, True):
                if control and "random" not in self.recipe.controls:
                    continue
                plan = self._plan(routed, m, selection="random" if control else "usage")
                name, label = (
                    (f"recovered-random-{m}", "random experts") if control else (f"recovered-{m}", "static")
                )
                info = replace(routed.info, plan=plan)
                static = self._stage(
                    name, recovery, lambda plan=plan: prune(routed.model, plan), info, teacher
                )
                yield self._rows(
                    f"{label}, {m} a layer, recovered",
                    "control" if control else "static",
                    static.model,
                    per_layer=m,
                    recovered=True,
                )
        for control, label in (("dropped", "layers dropped"), ("uniform", "no router, all experts")):
            if control in self.recipe.controls:
                config = self.recipe.config
                # The recovery epochs that the static models get on top, the control gets too.
                extra = self.recipe.recovery_epochs if self.recipe.recover else 0
                config = replace(
                    config,
                    shrp=replace(config.shrp, control=control),
                    stage2_epochs=config.stage2_epochs + extra,
                )
                model = self._stage(
                    f"control-{control}",
                    config,
                    lambda: copy.deepcopy(teacher.model),
                    teacher.info,
                    teacher,
                ).model
                epochs = len(list(config.schedule()))
                yield self._rows(f"{label}, {epochs} epochs", "control", model, epochs=epochs)

    def _score(self, label: str, kind: str, *models: PreTrainedModel, **facts: Any) -> None:
        self.scores += self._rows(label, kind, *models, **facts)

    def _rows(self, label: str, kind: str, *models: PreTrainedModel, **facts: Any) -> list[dict[str, Any]]:
        """A row for each data set; several models (draws of one control) are averaged."""
        tokenizer = self.tokenizer_of()
        rows = []
        for data in (self.data.validation, *self.data.also):
            length = self.recipe.config.max_length
            found = [evaluate(model, tokenizer, data, max_length=length) for model in models]
            teacher = [r for r in self.scores if r["kind"] == "teacher" and r["data"] == data.name]
            row = score_row(label, kind, found, teacher[0]["score"] if teacher else None)
            if "per_layer" in facts:
                facts["budget"] = facts["per_layer"] * len(self.recipe.config.shrp.layers)
            rows.append(row | facts)
        return rows

    def tokenizer_of(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer, loaded once."""
        if not hasattr(self, "tokenizer"):
            self.tokenizer = load_base(self.base, self.data.train.task)[1]
        return self.tokenizer

    def _info(self, routed: Checkpoint) -> CheckpointInfo:
        training = dict(routed.info.training) | {"teacher": dict(self.teacher_training)}
        return replace(routed.info, scores=tuple(self.scores), training=training)

    def _save(self, routed: Checkpoint) -> None:
        history = history_text(checkpoint.read_history(routed.path))
        checkpoint.save(
            routed.model,
            routed.tokenizer,
            self._info(routed),
            self.out,
            dtype=self.dtype,
            extra_files={checkpoint.HISTORY: history},
        )


def score_row(
    label: str, kind: str, evaluations: list[Evaluation], teacher_score: float | None
) -> dict[str, Any]:
    """One row of a checkpoint's scores.

    Args:
        kind: `teacher`, `routed`, `static` or `control`.
        evaluations: one, or several draws of the same thing, whose scores are averaged; the interval of an
            average is its lowest and highest draw.
        teacher_score: for the retained share; None leaves it out.
    """
    scores = [e.score for e in evaluations]
    first, mean = evaluations[0], sum(scores) / len(scores)
    row: dict[str, Any] = {
        "model": label,
        "kind": kind,
        "data": first.data,
        "metric": first.metric,
        "score": mean,
        "n": first.n,
        "interval": list(first.interval) if len(scores) == 1 else [min(scores), max(scores)],
        "interval_is": "95%" if len(scores) == 1 else f"range of {len(scores)} draws",
    }
    if teacher_score:
        row["retained"] = mean / teacher_score
    return row


def usage_in(info: CheckpointInfo) -> dict[int, Any]:
    """The Top-1 shares that a checkpoint carries, in the form that plans are made from.

    Raises:
        CheckpointError: it carries none.
    """
    if not info.usage:
        raise CheckpointError("this checkpoint carries no usage; measure it on data first (option --data).")
    return {int(layer): share for layer, share in info.usage.items()}
