"""The whole of SHRP in order: teacher, two-stage training, pruning, fine-tuning after it, and the scores of each.

Every stage leaves a checkpoint of its own in `run_folder(out)`, so a run that was killed goes on where it was; the
checkpoint at `out` is written as soon as the routed model is trained and again as further scores come in.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.base import base_config, load_base, name_of, of_another_task
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import (
    CheckpointInfo,
    evaluated_length,
    history_text,
    joined,
    pruned_training,
    usage_in,
)
from shrp.checkpoints.saving import entries, round_as_stored
from shrp.checkpoints.score_rows import score_row
from shrp.data.text_data import TextData
from shrp.errors import PlanError, TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.training.config import TrainConfig
from shrp.training.loop import train_once
from shrp.training.progress import Progress, Status
from shrp.training.runs import alone_in, finish, holds_a_run, run_folder
from shrp.training.schedule import seed_after
from shrp.training.text import graft, load_conversion

PER_LAYER = (1, 2, 4, 8, 12)
"""Experts a layer at which static models are scored where nothing else is asked for."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Datasets:
    """The data of a run: training data, validation data (usage and scores), and further data to score on."""

    train: TextData
    validation: TextData
    also: tuple[TextData, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """The options of `train`: the conversion, the teacher, and what is pruned and fine-tuned after it.

    Raises:
        TrainingError: no layer is converted.
    """

    config: TrainConfig
    """The conversion, with its layers and distillation."""
    teacher: TrainConfig = field(default_factory=lambda: TrainConfig(stage2_epochs=3, learning_rate=5e-5))
    """Fine-tuning of the dense teacher, where the base has no trained head."""
    per_layer: tuple[int, ...] | None = None
    """Experts a layer at which static models are scored without fine-tuning; None: those of `PER_LAYER` that exist."""
    recover: tuple[int, ...] = ()
    """Experts a layer at which a static model is fine-tuned after pruning, scored and kept."""
    recovery_epochs: int = 1
    """Epochs of that."""
    random_draws: int = 3
    """Random selections of experts that each static model is compared with; 0 for none. One is fine-tuned too."""
    converted: str | None = None
    """A checkpoint that `convert` made of the same base: its layers take the place of stage 1. Where it is pruned
    already, the run trains and scores that static model, and nothing else is pruned."""

    def __post_init__(self) -> None:
        if not self.config.shrp.layers:
            raise TrainingError("name at least one layer to convert; plain fine-tuning is `finetune`.")
        for name, least in (("recovery_epochs", 1), ("random_draws", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} must be {least} or more, not {getattr(self, name)}.")

    def sizes(self, experts: int) -> tuple[int, ...]:
        """Experts a layer at which static models are scored, of layers that have so many.

        Raises:
            PlanError: `per_layer` or `recover` asks for more than these, or for none.
        """
        for m in (*(self.per_layer or ()), *self.recover):
            if not 1 <= m <= experts:
                raise PlanError(f"static models of this base keep 1 to {experts} experts a layer, not {m}.")
        return tuple(m for m in PER_LAYER if m <= experts) if self.per_layer is None else self.per_layer


def stages_folder(out: str | Path) -> Path:
    """Where a run that writes to `out` leaves the models of its stages, if it keeps them."""
    out = Path(out)
    return out.with_name(out.name + "-stages")


class RecipeRun:
    """One run of a recipe from a base to a finished checkpoint; call it to do all stages, or those that are left.

    Args:
        base_name: what checkpoints call the base.
        head_labels: as for `load_base`.
        tune_by: options by which a fine-tuning of the base was asked for, an error where its own head is the teacher's.
        dtype: how weights are stored at `out`; None for float32.
        keep_stages: whether the teacher stays in `stages_folder(out)`, not the fine-tuned static models alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        base: str,
        data: Datasets,
        out: str | Path,
        *,
        base_name: str | None = None,
        head_labels: Sequence[str] = (),
        tune_by: Sequence[str] = (),
        dtype: torch.dtype | None = torch.float16,
        keep_stages: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.recipe, self.base, self.data, self.out = recipe, base, data, Path(out)
        self.base_name, self.head_labels, self.tune_by = name_of(base, base_name), head_labels, tune_by
        self.dtype, self.keep_stages, self.resume = dtype, keep_stages, resume
        self.progress, self.announce = progress or Progress(), announce
        self.folder = run_folder(self.out)
        self.cut = evaluated_length(recipe.config.max_length)
        """Tokens at which scores cut an example, as readers of the checkpoint do (`CheckpointInfo.max_length`)."""
        self.rows: list[dict[str, Any]] = []
        """Scores so far, the dense teacher's first, by whose score the others are divided."""
        self.recovered: dict[str, tuple[str, int]] = {}
        """Stages that are fine-tuned static models -> what their rows of scores call them, and experts a layer."""
        self.references: dict[str, reference.Reference] = {}
        self.auto: str | None = None
        """What the precision `auto` came to in the first finished stage, and does in all others."""

    def __call__(self) -> CheckpointInfo:
        """Do all stages; returns the info of the finished checkpoint.

        Raises:
            TrainingError, DataError, CheckpointError: as the stages.
            PlanError: as `Recipe.sizes`.
        """
        leaves = self.keep_stages or bool(self.recipe.recover)
        # A kill may have left a run beside the result that it has written already.
        if leaves and stages_folder(self.out).exists() and not holds_a_run(self.folder):
            raise TrainingError(
                f"{stages_folder(self.out)} exists already; choose another folder for the result."
            )
        with alone_in(self.folder, "train"):
            return self._run()

    def _run(self) -> CheckpointInfo:
        self.saved = False
        if holds_a_run(self.folder):
            if not self.resume:
                raise TrainingError(
                    f"{self.folder} holds an unfinished run: resume it, or delete it to start afresh."
                )
            self.saved = self.out.exists()
        elif self.out.exists() and (self.out.is_file() or entries(self.out)):
            raise TrainingError(f"{self.out} exists already; choose another folder for the result.")
        sizes = self.recipe.sizes(base_config(self.base).num_attention_heads)
        source = self._source()
        self.teacher, own_head = self._teacher()
        self.tokenizer = self.teacher.tokenizer
        found = self._score("dense teacher", "teacher", self.teacher.model)
        _warn_of_a_bad_teacher(found[0], self.base if own_head else "")
        for data, one in zip(self._sets(), found, strict=True):
            outputs = reference.from_evaluation(one, self.teacher.fingerprint, self.cut)
            if outputs.logits.nbytes <= reference.SET_BYTES:
                self.references[data.source_fingerprint] = outputs
        made, before = self._converted(source)
        self._score_made(replace(made, model=self._as_stored(made.model)), sizes, source)
        self._save(made, before, source)
        for m in self.recipe.recover:
            for random in (False, True)[: 2 if self.recipe.random_draws else 1]:
                self._recover(made, m, random)
                self._save(made, before, source)
        for name, (label, m) in self.recovered.items():
            self._serve(name, label, m)
        if self.keep_stages:
            self._keep_teacher(own_head)
        finish(self.out)
        return self._info(made, source)

    def _source(self) -> Checkpoint | None:
        """The conversion that was made before, if the recipe names one, checked before anything is trained.

        Raises:
            TrainingError: it was not made by `convert`, or not of this base and these layers, or the recipe asks for
                what can't be done with it.
        """
        if self.recipe.converted is None:
            return None
        config = self.recipe.config
        source = load_conversion(self.recipe.converted, self.base, self.base_name)
        if source.info.config.layers != config.shrp.layers:
            raise TrainingError(
                f"{source.path} has layers {list(source.info.config.layers)} converted, and the run is for "
                f"{list(config.shrp.layers)}; give a checkpoint of just these."
            )
        if config.stage2_epochs < 1:
            raise TrainingError(
                "what was converted before trains on the task in stage 2: give it an epoch or more."
            )
        if source.is_static and (self.recipe.recover or config.freeze_dense):
            raise TrainingError(
                f"{source.path} is pruned already: it can't be pruned again, and all of its layers were fine-tuned on "
                "text, so none can stay as the teacher has them (freeze_dense)."
            )
        return source

    def _teacher(self) -> tuple[Checkpoint, bool]:
        """The dense teacher, fine-tuned unless the base has a head of the task; and whether it has."""
        task, config = self.data.train.task, self.recipe.teacher
        model, tokenizer, trained = load_base(self.base, task, config.seed, self.head_labels)
        info = CheckpointInfo(ShrpConfig(()), task, base_model=self.base_name)
        if not trained:
            if other := of_another_task(self.base, task):
                _LOG.warning(other)
            phase = "fine-tuning the teacher"
            return self._stage("teacher", config, lambda: model, info, tokenizer, None, phase), False
        if self.tune_by:
            raise TrainingError(
                f"{self.base} has a head of {task.name} already, so it is the teacher as it is: leave "
                f"{' and '.join(self.tune_by)} out, or fine-tune it first by `finetune`."
            )
        known = checkpoint.info_if_ours(self.base)
        training = dict(known.training) if known else {}
        if self.head_labels:
            training["head_labels"] = list(self.head_labels)
        self.announce(f"teacher, which is {self.base} with its own head")
        return Checkpoint(self.folder, replace(info, training=training), model, tokenizer, ""), True

    def _keep_teacher(self, own_head: bool) -> None:
        """Write the teacher next to the result; one that came with its own head, with the length it was scored at."""
        training = self.teacher.info.training
        if own_head and "config" not in training:
            training = {"adopted": True, "config": {"max_length": self.cut}, **training}
        info = replace(self.teacher.info, training=training)
        extra = (
            {} if own_head else {checkpoint.HISTORY: history_text(checkpoint.read_history(self.teacher.path))}
        )
        folder = stages_folder(self.out) / "teacher"
        checkpoint.save(self.teacher.model, self.tokenizer, info, folder, extra_files=extra)

    def _converted(self, source: Checkpoint | None) -> tuple[Checkpoint, list[dict[str, Any]]]:
        """Both stages, or the second alone from a conversion that was made before; and the history before it."""
        config, teacher = self.recipe.config, self.teacher
        if source is None:
            start = partial(copy.deepcopy, teacher.model)
            return self._stage("routed", config, start, teacher.info, teacher.tokenizer, teacher), []
        stage2 = replace(config, shrp=replace(config.shrp, layers=()), order=())
        info = replace(teacher.info, config=source.info.config, plan=source.info.plan)
        # Another conversion's is another stage.
        name = f"{'static' if source.is_static else 'routed'}-{source.fingerprint[:8]}"
        start = partial(graft, teacher.model, source.model)
        made = self._stage(name, stage2, start, info, teacher.tokenizer, teacher, "stage 2")
        return made, checkpoint.read_history(source.path)

    def _recover(self, routed: Checkpoint, m: int, random: bool) -> None:
        """Prune to `m` experts a layer, the most used or random ones, fine-tune and score."""
        config, usage = self.recipe.config, usage_in(routed.info)
        config = replace(
            config,
            shrp=ShrpConfig(()),
            order=(),
            stage2_epochs=self.recipe.recovery_epochs,
            balance=0.0,
            seed=seed_after(config.seed),  # else it would visit the same examples first
        )
        # Of the draws that are scored without fine-tuning, another one for each seed.
        draw = self.recipe.config.seed % max(self.recipe.random_draws, 1)
        plan = make_plan(usage, per_layer=m, selection="random" if random else "usage", seed=draw)
        of = f"-{routed.fingerprint[:8]}" if self.recipe.converted else ""
        name = f"recovered-{'random-' * random}{m}{of}"
        info, start = replace(routed.info, plan=plan), partial(prune, routed.model, plan)
        phase = "fine-tuning after pruning"
        made = self._stage(name, config, start, info, self.tokenizer, self.teacher, phase)
        label = f"{'random experts' if random else 'static'}, {m} a layer, recovered"
        kind = "control" if random else "static"
        self._score(label, kind, self._as_stored(made.model), per_layer=m, recovered=True)
        if not random:
            self.recovered[name] = label, m

    def _stage(
        self,
        name: str,
        config: TrainConfig,
        start: Callable[[], PreTrainedModel],
        info: CheckpointInfo,
        tokenizer: PreTrainedTokenizerBase,
        teacher: Checkpoint | None,
        phase: str = "",
    ) -> Checkpoint:
        """Train one model, or take it from an earlier, killed run; all in the number format of the first."""
        folder, outputs = self.folder / name, self.folder / "teacher-outputs"
        if not (folder / checkpoint.CONFIG).is_file():
            self.announce(name)
        # One stage runs the teacher on all examples for the others; but not where none visits them all.
        shared = self.recipe.config.visits_all(len(self.data.train))
        made = train_once(
            folder,
            config,
            start(),
            info,
            tokenizer,
            self.data.train,
            self.data.validation,
            teacher=teacher and teacher.model,
            teacher_outputs=outputs if teacher is not None and shared else None,
            precision=self.auto,
            resume=self.resume,
            phase=phase,
            progress=self.progress,
        )
        if config.precision == "auto":
            self.auto = self.auto or made.info.training.get("precision")
        return made

    def _sets(self) -> tuple[TextData, ...]:
        return (self.data.validation, *self.data.also)

    def _score(self, label: str, kind: str, model: PreTrainedModel, **facts: Any) -> list[Evaluation]:
        """Evaluate a model on each data set and add a row for each; returns the evaluations."""
        self.progress.step(Status(f"scoring: {label}", 0, 0))
        found = [evaluate(model, self.tokenizer, data, max_length=self.cut) for data in self._sets()]
        self._add(label, kind, [[one] for one in found], facts)
        return found

    def _score_made(self, made: Checkpoint, sizes: Sequence[int], source: Checkpoint | None) -> None:
        """Score the routed model and its prunings, next to random experts; or the static model."""
        if made.is_static:
            plan = made.info.plan
            counts = set(plan.keep_counts().values())
            kept = f"{counts.pop()} a layer" if len(counts) == 1 else f"{plan.budget} in all"
            by_task = source.info.training.get("usage_of")
            how = "recovered on texts and the task" if by_task else "pruned on texts"
            self._score(f"static, {kept}, {how}", "static", made.model, budget=plan.budget, recovered=True)
            return
        self._score("routed", "routed", made.model)
        usage = usage_in(made.info)
        live = [LiveEvaluator(made.model, made.tokenizer, data, max_length=self.cut) for data in self._sets()]
        for m in sizes:
            self.progress.step(Status(f"scoring: {m} experts a layer", 0, 0))
            plan, facts = make_plan(usage, per_layer=m), {"per_layer": m}
            self._add(f"static, {m} a layer", "static", [[one.evaluate(plan)] for one in live], facts)
            if not self.recipe.random_draws or m == made.model.config.num_attention_heads:
                continue
            seeds = range(self.recipe.random_draws)
            drawn = [make_plan(usage, per_layer=m, selection="random", seed=seed) for seed in seeds]
            found = [[one.evaluate(each) for each in drawn] for one in live]
            self._add(f"random experts, {m} a layer", "control", found, facts)

    def _add(self, label: str, kind: str, found: list[list[Evaluation]], facts: Mapping[str, Any]) -> None:
        """Add a row for each data set from its evaluations; several (random draws) are averaged."""
        if "per_layer" in facts:
            facts = {**facts, "budget": facts["per_layer"] * len(self.recipe.config.shrp.layers)}
        for data, evaluations in zip(self._sets(), found, strict=True):
            teacher = [r["score"] for r in self.rows if (r["kind"], r["data"]) == ("teacher", data.name)]
            row = score_row(label, kind, evaluations, teacher[0] if teacher else None)
            # A data set may change under its name: readers compare scores only where the content is the same.
            about = {"data_fingerprint": data.source_fingerprint, "max_length": self.cut}
            self.rows.append({**row, **about, **facts})

    def _as_stored(self, model: PreTrainedModel) -> PreTrainedModel:
        """A copy of a model as the result stores it; fine-tuning goes on from the one that is not rounded."""
        if self.dtype is None:
            return model
        model = copy.deepcopy(model)
        round_as_stored(model, self.dtype)
        return model

    def _info(self, made: Checkpoint, source: Checkpoint | None) -> CheckpointInfo:
        training = dict(made.info.training) | {"teacher": dict(self.teacher.info.training)}
        if source is not None:
            training["converted"] = dict(source.info.training)
        return replace(made.info, scores=tuple(self.rows), training=training)

    def _save(self, made: Checkpoint, before: list[dict[str, Any]], source: Checkpoint | None) -> None:
        """Write the result, with the scores so far. What others added to it since it was first written stays: a card,
        say, or the teacher's outputs on data of their own.
        """
        history = history_text(joined(before, checkpoint.read_history(made.path)))
        checkpoint.save(
            made.model,
            made.tokenizer,
            self._info(made, source),
            self.out,
            dtype=self.dtype,
            extra_files={checkpoint.HISTORY: history},
            teacher=self.references,
            new=not self.saved,
            keep_others=self.saved,
        )
        self.saved = True

    def _serve(self, name: str, label: str, per_layer: int) -> None:
        """Write a fine-tuned static model as `prune --fine-tune` would have: stored as the result is, with its scores,
        the teacher's, and those of random experts of its size.
        """
        stage, (_, routed) = checkpoint.load(self.folder / name), checkpoint.read_config(self.out)
        control = ("control", per_layer, True)
        rows = [
            row
            for row in self.rows
            if row["model"] == label
            or row["kind"] == "teacher"
            or (row["kind"], row.get("per_layer"), row.get("recovered")) == control
        ]
        pruned_from = checkpoint.fingerprint(self.out)
        training = pruned_training(routed.training, pruned_from, stage.info.plan, per_layer=per_layer)
        training |= {"recovery": dict(stage.info.training)}
        history = joined(checkpoint.read_history(self.out), checkpoint.read_history(stage.path))
        checkpoint.save(
            stage.model,
            stage.tokenizer,
            replace(stage.info, usage={}, scores=tuple(rows), training=training),
            stages_folder(self.out) / name,
            dtype=self.dtype,
            extra_files={checkpoint.HISTORY: history_text(history)},
            teacher=self.references,
        )


def _warn_of_a_bad_teacher(found: Evaluation, head_of: str) -> None:
    """Warn where a teacher scores no more than the majority-class baseline.

    Args:
        head_of: the base whose own head it has; empty where it was fine-tuned here.
    """
    floor = 0.0 if found.task.is_regression else found.constant
    if not found.score > floor:
        asked = f" Is {head_of}'s head of this task, with the labels in this order (--head-labels)?"
        _LOG.warning(
            f"the dense teacher has {found.metric} {found.score:.4f} on {found.data} (n = {found.n:,}), no more than "
            f"the majority-class baseline ({floor:.4f}): there may be little to learn from it.{asked * bool(head_of)}"
        )
