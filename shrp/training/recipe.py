"""The whole of SHRP in order: teacher, two-stage training, and scores of the routed model and its prunings.

Teacher and routed model have a training state each in `run_folder(out)`, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.base import base_config, load_base, name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import FINE_TUNED, CheckpointInfo, evaluated_length, joined, usage_in
from shrp.checkpoints.saving import entries, round_as_stored
from shrp.checkpoints.score_rows import score_row
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.training.config import Recipe, TrainConfig
from shrp.training.loop import Trained, train
from shrp.training.processes import from_main
from shrp.training.progress import Progress, Status
from shrp.training.runs import alone_in, finish, holds_a_run, run_folder, weights_digest
from shrp.training.text import graft, load_conversion

TEACHER = TrainConfig(stage2_epochs=3, learning_rate=5e-5)
"""Fine-tuning of a dense teacher, if the recipe has none of its own."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Datasets:
    """The data of a run: training data, validation data (usage and scores), and further data to score on."""

    train: TextData
    validation: TextData
    also: tuple[TextData, ...] = ()


class RecipeRun:
    """One run of a recipe from a base to a finished checkpoint; call it to do all stages, or those that are left."""

    def __init__(
        self,
        recipe: Recipe,
        base: str,
        data: Datasets,
        out: str | Path,
        *,
        head_labels: Sequence[str] = (),
        progress: Progress | None = None,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.recipe, self.base, self.data, self.out = recipe, base, data, Path(out)
        self.base_name, self.head_labels = name_of(base, recipe.base_name), head_labels
        self.dtype = None if recipe.full_precision else torch.float16
        self.progress, self.announce = progress or Progress(), announce
        self.folder = run_folder(self.out)
        self.sets = (data.validation, *data.also)
        self.cut = evaluated_length(recipe.training.max_length)
        """Tokens at which scores cut an example, as readers of the checkpoint do (`CheckpointInfo.max_length`)."""
        self.rows: list[dict[str, Any]] = []
        """Scores so far, the dense teacher's first, by whose score the others are divided."""
        self.references: dict[str, reference.Reference] = {}

    def __call__(self) -> CheckpointInfo:
        """Do all stages; returns the info of the finished checkpoint.

        Raises:
            TrainingError, DataError, CheckpointError: as the stages.
            PlanError: as `Recipe.sizes`.
        """
        with alone_in(self.folder, "train"):
            # A kill may have left a run next to the result that it has written already.
            held = holds_a_run(self.folder)
            if not held and (self.out.is_file() or entries(self.out)):
                raise TrainingError(f"{self.out} exists already; choose another folder for the result.")
            return self._run(new=not held)

    def _run(self, new: bool) -> CheckpointInfo:
        sizes = self.recipe.sizes(base_config(self.base).num_attention_heads)
        source = self._source()
        self.teacher = self._teacher()
        from_main(self._score_teacher)
        made = self._converted(source)
        info = from_main(lambda: self._finished(made, sizes, new))
        finish(self.out)
        return info

    def _score_teacher(self) -> None:
        """Score the dense teacher, and keep its outputs for the checkpoint."""
        found = self._score("dense teacher", "teacher", self.teacher.model)
        _warn_of_a_bad_teacher(found[0], "" if self.teacher.history else self.base)
        for data, one in zip(self.sets, found, strict=True):
            outputs = reference.from_evaluation(one, weights_digest(self.teacher.model), self.cut)
            if outputs.logits.nbytes <= reference.SET_BYTES:
                self.references[data.source_fingerprint] = outputs

    def _finished(self, made: Trained, sizes: Sequence[int], new: bool) -> CheckpointInfo:
        """Score what was made and write the checkpoint; returns its info."""
        self._score_made(made, sizes)
        training = dict(made.info.training) | {"teacher": dict(self.teacher.info.training)}
        info = replace(made.info, scores=tuple(self.rows), training=training)
        checkpoint.save(
            made.model,
            self.tokenizer,
            info,
            self.out,
            dtype=self.dtype,
            history=made.history,
            teacher=self.references,
            new=new,
        )
        return info

    def _source(self) -> Checkpoint | None:
        """The conversion that was made before, if the recipe names one, checked before anything is trained.

        Raises:
            TrainingError: it was not made by `convert`, or not of this base and these layers, or the recipe asks for
                what can't be done with it.
        """
        if self.recipe.converted is None:
            return None
        config = self.recipe.training
        source = load_conversion(self.recipe.converted, self.base, self.base_name)
        if source.info.config.layers != config.shrp.layers:
            raise TrainingError(
                f"{source.path} has layers {list(source.info.config.layers)} converted, and the run is for "
                f"{list(config.shrp.layers)}; give a checkpoint of just these."
            )
        if config.stage2_epochs < 1:
            raise TrainingError("converted layers train on the task in stage 2: give it an epoch or more.")
        if source.is_static and config.freeze_dense:
            raise TrainingError(
                f"{source.path} is pruned, and all of its layers were fine-tuned on text: none can stay as the teacher "
                "has them (freeze_dense)."
            )
        return source

    def _teacher(self) -> Trained:
        """The dense teacher, fine-tuned unless the base has a head of the task; then there is no history."""
        task, config = self.data.train.task, self.recipe.teacher or TEACHER
        model, self.tokenizer, trained = load_base(self.base, task, config.seed, self.head_labels)
        info = CheckpointInfo(ShrpConfig(()), task, base_model=self.base_name)
        if not trained:
            return self._stage("teacher", config, model, info, None, "fine-tuning the teacher")
        if self.recipe.teacher is not None:
            raise TrainingError(
                f"{self.base} has a head of {task.name} already, so it is the teacher as it is: leave `teacher` out, or "
                "fine-tune it first by `finetune`."
            )
        known = checkpoint.info_if_ours(self.base)
        training = dict(known.training) if known else {}
        if self.head_labels:
            training["head_labels"] = list(self.head_labels)
        self.announce(f"teacher, which is {self.base} with its own head")
        return Trained(model, replace(info, training=training), [])

    def _converted(self, source: Checkpoint | None) -> Trained:
        """Both stages, or the second alone from a conversion that was made before, with its history before that."""
        config, teacher = self.recipe.training, self.teacher
        if source is None:
            return self._stage("routed", config, copy.deepcopy(teacher.model), teacher.info, teacher)
        stage2 = replace(config, shrp=replace(config.shrp, layers=()), order=())
        info = replace(teacher.info, config=source.info.config, plan=source.info.plan)
        model = graft(teacher.model, source.model)
        made = self._stage("routed", stage2, model, info, teacher, "stage 2")
        training = dict(made.info.training) | {"converted": dict(source.info.training)}
        history = joined(checkpoint.read_history(source.path), made.history)
        return Trained(made.model, replace(made.info, training=training), history)

    def _stage(
        self,
        name: str,
        config: TrainConfig,
        model: PreTrainedModel,
        info: CheckpointInfo,
        teacher: Trained | None,
        phase: str = "",
    ) -> Trained:
        """Train one model, or restore it from an earlier, killed run."""
        self.announce(name)
        return train(
            config,
            model,
            info,
            self.tokenizer,
            self.data.train,
            self.data.validation,
            self.folder / name,
            teacher=teacher and teacher.model,
            phase=phase,
            progress=self.progress,
        )

    def _score(self, label: str, kind: str, model: PreTrainedModel, **facts: Any) -> list[Evaluation]:
        """Evaluate a model on each data set and add a row for each; returns the evaluations."""
        self.progress.step(Status(f"scoring: {label}", 0, 0))
        found = [evaluate(model, self.tokenizer, data, max_length=self.cut) for data in self.sets]
        self._add(label, kind, [[one] for one in found], facts)
        return found

    def _score_made(self, made: Trained, sizes: Sequence[int]) -> None:
        """Score the routed model and its prunings, next to random experts; or the pruned model."""
        model, plan = copy.deepcopy(made.model), made.info.plan
        round_as_stored(model, self.dtype)
        if plan is not None:
            counts = set(plan.keep_counts().values())
            kept = f"{counts.pop()} a layer" if len(counts) == 1 else f"{plan.budget} in all"
            self._score(f"static, {kept}{FINE_TUNED}", "static", model, budget=plan.budget, recovered=True)
            return
        self._score("routed", "routed", model)
        usage = usage_in(made.info)
        live = [LiveEvaluator(model, self.tokenizer, data, max_length=self.cut) for data in self.sets]
        for m in sizes:
            self.progress.step(Status(f"scoring: {m} experts a layer", 0, 0))
            plan, facts = make_plan(usage, per_layer=m), {"per_layer": m}
            self._add(f"static, {m} a layer", "static", [[one.evaluate(plan)] for one in live], facts)
            if not self.recipe.random_draws or m == model.config.num_attention_heads:
                continue
            seeds = range(self.recipe.random_draws)
            drawn = [make_plan(usage, per_layer=m, selection="random", seed=seed) for seed in seeds]
            found = [[one.evaluate(each) for each in drawn] for one in live]
            self._add(f"random experts, {m} a layer", "control", found, facts)

    def _add(self, label: str, kind: str, found: list[list[Evaluation]], facts: Mapping[str, Any]) -> None:
        """Add a row for each data set from its evaluations; several (random draws) are averaged."""
        if "per_layer" in facts:
            facts = {**facts, "budget": facts["per_layer"] * len(self.recipe.training.shrp.layers)}
        for data, evaluations in zip(self.sets, found, strict=True):
            teacher = [r["score"] for r in self.rows if (r["kind"], r["data"]) == ("teacher", data.name)]
            row = score_row(label, kind, evaluations, teacher[0] if teacher else None, data, self.cut)
            self.rows.append({**row, **facts})


def _warn_of_a_bad_teacher(found: Evaluation, head_of: str) -> None:
    """Warn where a teacher scores no more than the majority-class baseline.

    `head_of`: the base whose own head it has; empty where it was fine-tuned here.
    """
    floor = 0.0 if math.isnan(found.majority_score) else found.majority_score
    if not found.score > floor:
        asked = f" Is {head_of}'s head of this task, with the labels in this order (--head-labels)?"
        _LOG.warning(
            f"the dense teacher has {found.metric} {found.score:.4f} on {found.data} (n = {found.n:,}), no more than "
            f"the majority-class baseline ({floor:.4f}): there may be little to learn from it.{asked * bool(head_of)}"
        )
