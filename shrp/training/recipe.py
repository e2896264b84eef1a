"""The whole of SHRP in order: teacher, two-stage training, pruning, recovery, controls, and the scores of each.

Every stage leaves a checkpoint of its own in `run_folder(out)`, so a run that was killed goes on where it was; the
checkpoint at `out` is written as soon as the routed model is trained and again as further scores come in.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.base import base_config, load_base, name_of, of_another_task
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text, joined
from shrp.checkpoints.info import CheckpointInfo, evaluated_length, usage_in
from shrp.checkpoints.saving import entries, round_as_stored
from shrp.errors import PlanError, TrainingError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.verdicts import HEADS_PRUNED, KINDS_OF_CONTROL
from shrp.model.config import ShrpConfig
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.prune import prune
from shrp.training.config import TrainConfig, seed_after
from shrp.training.conversions import load_conversion
from shrp.training.general import graft
from shrp.training.run_results import leave_stages, stages_folder
from shrp.training.run_scores import RunScores
from shrp.training.run_stages import Datasets, RunStages
from shrp.training.run_state import (
    RUN_FILE,
    alone_in,
    finish,
    holds_a_run,
    run_folder,
)
from shrp.training.train import Progress

CONTROLS = ("random", "uniform", "dropped", "narrow")
PER_LAYER = (1, 2, 4, 8, 12)
"""Experts a layer at which static models are scored where nothing else is asked for."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What `run` does beside the conversion itself."""

    config: TrainConfig
    """The conversion, with its layers and distillation."""
    teacher: TrainConfig = field(default_factory=lambda: TrainConfig(stage2_epochs=3, learning_rate=5e-5))
    """Fine-tuning of the dense teacher, where the base has no trained head."""
    per_layer: tuple[int, ...] | None = None
    """Experts a layer at which static models are scored without recovery; None: those of `PER_LAYER` that there are."""
    recover: tuple[int, ...] = ()
    """Experts a layer at which a static model is trained on and scored."""
    recovery_epochs: int = 1
    controls: tuple[str, ...] = ("random",)
    """`random` experts kept instead of the most used; layers without a router (`uniform`); layers `dropped`; and, as
    large as what is recovered, dense layers of which heads and neurons are pruned (`narrow`)."""
    random_seeds: int = 3
    """Draws of random experts that the control without recovery averages over."""
    converted: str | None = None
    """A checkpoint that `shrp convert` made of the same base: its layers take the place of stage 1. Where it is pruned
    already, the run trains and scores that static model, and `per_layer` and the random control don't apply."""

    def __post_init__(self) -> None:
        for name in self.controls:
            if name not in CONTROLS:
                raise TrainingError(f"controls are {', '.join(CONTROLS)}; {name!r} is not among them.")
        if "narrow" in self.controls and not self.recover:
            raise TrainingError(
                "the control `narrow` is as large as what is recovered: say --recover 1, for example."
            )
        if not self.config.shrp.layers:
            raise TrainingError("name at least one layer to convert; plain fine-tuning is `finetune`.")

    def sizes(self, experts: int) -> tuple[int, ...]:
        """Experts a layer at which static models are scored, of layers that have so many.

        Raises:
            PlanError: `per_layer` or `recover` asks for more than these, or for none.
        """
        for m in (*(self.per_layer or ()), *self.recover):
            if not 1 <= m <= experts:
                raise PlanError(f"static models of this base keep 1 to {experts} experts a layer, not {m}.")
        return tuple(m for m in PER_LAYER if m <= experts) if self.per_layer is None else self.per_layer


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
        head_labels: Sequence[str] = (),
        tune_by: Sequence[str] = (),
        dtype: torch.dtype | None = torch.float16,
        keep_stages: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Args: base_name, what checkpoints call the base; head_labels, as for `load_base`; tune_by, options by
        which a fine-tuning of the base was asked for, an error where its own head is the teacher's; dtype, how
        weights are stored at `out`; keep_stages, whether all else that was trained stays in `stages_folder(out)`,
        not what was recovered alone.
        """
        self.recipe, self.base, self.data, self.out = recipe, base, data, Path(out)
        self.keep_stages, self.announce, self.head_labels = keep_stages, announce, tuple(head_labels)
        self.base_name, self.tune_by = name_of(base, base_name), tuple(tune_by)
        self.dtype, self.resume = dtype, resume
        self.stages = RunStages(
            run_folder(self.out),
            self.base_name,
            data,
            resume=resume,
            progress=progress,
            announce=announce,
        )
        self.cut = evaluated_length(recipe.config.max_length)
        """Tokens at which scores cut an input, as whoever reads the checkpoint does (`CheckpointInfo.max_length`)."""
        self.served: dict[str, tuple[str, int]] = {}
        """Stages that are static models to serve, with what their rows of scores call them, and experts a layer."""
        self.own_head = False
        """Whether the teacher is the base with the head that it came with."""
        self.scores = RunScores((data.validation, *data.also), self.cut, len(recipe.config.shrp.layers))
        self.references: dict[str, reference.Reference] = {}
        self.stage1: list[dict[str, Any]] = []
        """History of a conversion that was made before."""
        self.provenance: dict[str, Any] = {}
        """How it was made, to go with what comes of it."""
        self.saved = False
        """Whether `out` holds what this run, or the killed one that it goes on with, has made so far."""

    def __call__(self) -> CheckpointInfo:
        """Do all stages; returns the info of the finished checkpoint.

        Raises:
            TrainingError, DataError, CheckpointError: as the stages.
            PlanError: as `Recipe.sizes`.
        """
        leaves = self.keep_stages or bool(self.recipe.recover)
        # A kill may have left a run beside what it has written already.
        begun = holds_a_run(run_folder(self.out))
        if leaves and stages_folder(self.out).exists() and not begun:
            raise TrainingError(
                f"{stages_folder(self.out)} exists already; choose another folder for the result."
            )
        with alone_in(run_folder(self.out)):
            return self._run()

    def _run(self) -> CheckpointInfo:
        folder = run_folder(self.out)
        if (folder / RUN_FILE).is_file():
            raise TrainingError(
                f"{folder} holds an unfinished run of another command: go on with that, delete it, or choose another "
                "folder for the result."
            )
        if holds_a_run(folder):
            if not self.resume:
                raise TrainingError(
                    f"{folder} holds an unfinished run: pass --resume to go on, or delete it to start afresh."
                )
            self.saved = self.out.exists()
        elif self.out.exists() and (self.out.is_file() or entries(self.out)):
            raise TrainingError(f"{self.out} exists already; choose another folder for the result.")
        sizes = self.recipe.sizes(base_config(self.base).num_attention_heads)
        source = self._source()
        teacher = self._teacher()
        self.teacher_training = teacher.info.training
        scored = self._score("dense teacher", "teacher", teacher.model)
        _warn_of_a_bad_teacher(scored[0], self.base if self.own_head else "")
        for data, one in zip(self.scores.sets, scored, strict=True):
            said = reference.from_evaluation(one, teacher.fingerprint, self.cut)
            if said.logits.nbytes <= reference.SET_BYTES:
                self.references[data.source_fingerprint] = said
        made = self._converted(teacher, source)
        written = replace(made, model=self._as_stored(made.model))
        if made.is_static:
            self._score_static(written)
        else:
            self._score("routed", "routed", written.model)
            draws = self.recipe.random_seeds * ("random" in self.recipe.controls)
            self.scores.prunings(written, sizes, self._plan, draws)
        del written  # a second model, which what comes now does not need
        self._save(made)
        for _ in self._train_further(teacher, made):
            self._save(made)
        also = self._other_stages(made) if self.keep_stages else ()
        if self.served or also:
            leave_stages(self.out, self.served, self.scores.rows, self.dtype, self.references, also)
        finish(self.out)
        return self._info(made)

    def _other_stages(self, result: Checkpoint) -> list[Path | Checkpoint]:
        """The teacher and the controls: all that was trained but the result and what was recovered."""
        folders = [path.parent for path in sorted(run_folder(self.out).glob(f"*/{checkpoint.CONFIG}"))]
        others = [path for path in folders if path.name not in self.served and path != result.path]
        return [*others, self._as_adopted()] if self.own_head else others  # which no stage has trained

    def _as_adopted(self) -> Checkpoint:
        """The teacher that came with a head of its own, with the length at which it was scored; as `finetune` has it,
        whose own results know theirs.
        """
        training = self.adopted.info.training
        if "config" in training:
            return self.adopted
        about = {"adopted": True, "config": {"max_length": self.cut}, **training}
        return replace(self.adopted, info=replace(self.adopted.info, training=about))

    def _as_stored(self, model: PreTrainedModel) -> PreTrainedModel:
        """A model as whoever loads the result has it; what is trained on goes on from the one that is not rounded."""
        if self.dtype is None:
            return model
        model = copy.deepcopy(model)
        round_as_stored(model, self.dtype)
        return model

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
        made, layers = source.info, config.shrp.layers
        if made.config.layers != layers:
            raise TrainingError(
                f"{source.path} has layers {list(made.config.layers)} converted, and the run is for "
                f"{list(layers)}; give a checkpoint of just these."
            )
        if config.stage2_epochs < 1:
            raise TrainingError(
                "what was converted before trains on the task in stage 2: give it an epoch or more."
            )
        if source.is_static and (self.recipe.recover or config.freeze_dense):
            raise TrainingError(
                f"{source.path} is pruned already: there is nothing to prune and recover, and all of its layers "
                "learned on the texts, so none can stay as the teacher has them (--recover, --freeze-dense)."
            )
        return source

    def _teacher(self) -> Checkpoint:
        folder = run_folder(self.out)
        task = self.data.train.task
        model, tokenizer, trained = load_base(self.base, task, self.recipe.teacher.seed, self.head_labels)
        info = CheckpointInfo(ShrpConfig(()), task, base_model=self.base_name)
        if trained and (known := checkpoint.info_if_ours(self.base)):
            info = replace(info, training=known.training)
        if trained and self.head_labels:
            info = replace(info, training={**info.training, "head_labels": list(self.head_labels)})
        self.own_head = trained
        if trained and self.tune_by:
            raise TrainingError(
                f"{self.base} has a head of {task.name} already, so it is the teacher as it is: leave "
                f"{' and '.join(self.tune_by)} out, or fine-tune it first by `finetune`."
            )
        if trained:
            self.announce(f"teacher, which is {self.base} with its own head")
            self.adopted = Checkpoint(folder, info, model, tokenizer, "")
            return self.adopted
        if said := of_another_task(self.base, task):
            _LOG.warning(said)
        self.tokenizer = tokenizer
        return self.stages("teacher", self.recipe.teacher, lambda: model, info, None, tokenizer)

    def _converted(self, teacher: Checkpoint, source: Checkpoint | None) -> Checkpoint:
        """Both stages; or the second alone, where layers come from a conversion that was made before."""
        config = self.recipe.config
        if source is None:
            return self._stage("routed", config, lambda: copy.deepcopy(teacher.model), teacher.info, teacher)
        stage2 = replace(config, shrp=replace(config.shrp, layers=()), order=())
        info = replace(teacher.info, config=source.info.config, plan=source.info.plan)
        self.stage1 = checkpoint.read_history(source.path)
        self.provenance = {"converted": dict(source.info.training)}
        kind = "static" if source.is_static else "routed"
        name = f"{kind}-{source.fingerprint[:8]}"  # another conversion's is another stage
        return self._stage(name, stage2, lambda: graft(teacher.model, source.model), info, teacher)

    def _stage(
        self,
        name: str,
        config: TrainConfig,
        start: Callable[[], PreTrainedModel],
        info: CheckpointInfo,
        teacher: Checkpoint,
    ) -> Checkpoint:
        return self.stages(name, config, start, info, teacher, teacher.tokenizer)

    def _plan(self, routed: Checkpoint, m: int, **options: Any) -> PruningPlan:
        return make_plan(usage_in(routed.info), per_layer=m, **options)

    def _score_static(self, made: Checkpoint) -> None:
        """Score a model that was pruned, and learned on from texts, before it is trained on the task."""
        plan = made.info.plan
        counts = set(plan.keep_counts().values())
        kept = f"{counts.pop()} a layer" if len(counts) == 1 else f"{plan.budget} in all"
        by_task = self.provenance["converted"].get("usage_of")
        how = "recovered on texts and the task" if by_task else "pruned on texts"
        self._score(f"static, {kept}, {how}", "static", made.model, budget=plan.budget, recovered=True)

    def _train_further(self, teacher: Checkpoint, routed: Checkpoint) -> Iterator[None]:
        """Train and score recovered static models, then the controls; yields after each.

        Args:
            routed: what is pruned; a static model where the recipe recovers none.
        """
        recovery = replace(
            self.recipe.config,
            shrp=ShrpConfig(()),
            order=(),
            stage2_epochs=self.recipe.recovery_epochs,
            balance=0.0,
            seed=seed_after(self.recipe.config.seed),  # else it would visit the same examples first
        )
        for m in self.recipe.recover:
            for control in (False, True):
                if control and "random" not in self.recipe.controls:
                    continue
                # Of the draws that are scored without training, another one for each seed.
                draw = self.recipe.config.seed % max(self.recipe.random_seeds, 1)
                plan = self._plan(routed, m, selection="random" if control else "usage", seed=draw)
                kind, label = ("control", "random experts") if control else ("static", "static")
                # Of another conversion it is another stage.
                of = f"-{routed.fingerprint[:8]}" if self.recipe.converted else ""
                stage = f"recovered-{'random-' * control}{m}{of}"
                info = replace(routed.info, plan=plan)
                static = self._stage(
                    stage, recovery, lambda plan=plan: prune(routed.model, plan), info, teacher
                )
                name = f"{label}, {m} a layer, recovered"
                self._score(name, kind, self._as_stored(static.model), per_layer=m, recovered=True)
                if not control:
                    self.served[stage] = name, m
                yield
        for control, label, size in self._trained_again():
            config = self.recipe.config
            # The recovery epochs that the static models get on top, the control gets too.
            extra = self.recipe.recovery_epochs if self.recipe.recover else 0
            config = replace(
                config,
                shrp=replace(config.shrp, control=control, narrow_to=size),
                stage2_epochs=config.stage2_epochs + extra,
            )
            model = self._stage(
                f"control-{control}" + (f"-{size}" if size else ""),
                config,
                lambda: copy.deepcopy(teacher.model),
                teacher.info,
                teacher,
            ).model
            epochs = len(list(config.schedule()))
            untaught = ", not trained on texts" if self.recipe.converted else ""
            facts = {"per_layer": size, "recovered": True} if size else {}
            self._score(f"{label}, {epochs} epochs{untaught}", "control", model, epochs=epochs, **facts)
            yield

    def _trained_again(self) -> Iterator[tuple[str, str, int]]:
        """The wanted controls that start from the teacher: name, words, and of `narrow` the experts of its size."""
        dropped, _, no_router = KINDS_OF_CONTROL
        for control, label in (("dropped", dropped), ("uniform", f"{no_router}, all experts")):
            if control in self.recipe.controls:
                yield control, label, 0
        for m in self.recipe.recover if "narrow" in self.recipe.controls else ():
            yield "narrow", f"{HEADS_PRUNED} to the size of {counted(m, 'expert')}", m

    def _score(self, label: str, kind: str, model: PreTrainedModel, **facts: Any) -> list[Evaluation]:
        return self.scores.score(label, kind, model, self.tokenizer_of(), **facts)

    def tokenizer_of(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer, loaded once."""
        if not hasattr(self, "tokenizer"):
            self.tokenizer = load_base(self.base, self.data.train.task)[1]
        return self.tokenizer

    def _info(self, made: Checkpoint) -> CheckpointInfo:
        training = dict(made.info.training) | {"teacher": dict(self.teacher_training)} | self.provenance
        return replace(made.info, scores=tuple(self.scores.rows), training=training)

    def _save(self, made: Checkpoint) -> None:
        """Write the result, with the scores that there are so far. What others added to it since it was first there
        stays: a card, say, or the teacher's outputs on data of their own.
        """
        history = history_text(joined(self.stage1, checkpoint.read_history(made.path)))
        checkpoint.save(
            made.model,
            made.tokenizer,
            self._info(made),
            self.out,
            dtype=self.dtype,
            extra_files={checkpoint.HISTORY: history},
            teacher=self.references,
            new=not self.saved,
            keep_others=self.saved,
        )
        self.saved = True


def _warn_of_a_bad_teacher(found: Evaluation, head_of: str) -> None:
    """Say so where a teacher scores no more than a constant answer.

    Args:
        head_of: the base whose own head it has; empty where it was fine-tuned here.
    """
    floor = 0.0 if found.task.is_regression else found.constant
    if not found.score > floor:
        asked = f" Is {head_of}'s head of this task, with the labels in this order (--head-labels)?"
        _LOG.warning(
            f"the dense teacher has {found.metric} {found.score:.4f} on {found.data} (n = {found.n:,}), no more than "
            f"a constant answer ({floor:.4f}): there may be little to learn from it.{asked * bool(head_of)}"
        )
