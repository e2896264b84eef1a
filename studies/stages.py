"""Trainings that one study shares: each is a stage with a folder of its own, done once, resumed where it was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.cli.output import TrainingBar, stderr
from shrp.data.augment import augmented
from shrp.data.batching import encode, longest_input
from shrp.data.sources import load_data
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import ShrpConfig
from shrp.training.config import TrainConfig, was_made_with
from shrp.training.run_stages import train_and_keep
from shrp.training.run_state import check_identity, identity_of, kept_identity
from shrp.training.train import Progress

TEACHER_EPOCHS = {"rte": 4, "qnli": 2, "sst2": 1}
"""Epochs of dense fine-tuning, fewer where there are more examples; 3 for the others."""
SMALL = 512
"""Up to this hidden size an encoder is a small one, whose teacher learns at a higher rate."""


def teacher_config(epochs: int, hidden_size: int, max_length: int) -> TrainConfig:
    """The dense fine-tuning of a base of this hidden size."""
    rate = 1e-4 if hidden_size <= SMALL else 5e-5
    return TrainConfig(
        stage2_epochs=epochs, learning_rate=rate, freeze_embeddings=True, max_length=max_length
    )


class Stages:
    """The stages of one task and seed, from the dense teacher on, under one work folder.

    The teacher is the same for all seeds: these vary the conversion, which is what is studied.

    A stage's folder carries a digest of its config and of the stage that it starts from, so a changed recipe trains
    anew and an unchanged one is read back, unless it was made of other weights or data than there are now.
    """

    def __init__(
        self,
        base: str,
        base_name: str,
        work: Path,
        task: str,
        seed: int,
        max_length: int = 128,
        teacher_epochs: int | None = None,
    ) -> None:
        """Args: teacher_epochs, of the dense fine-tuning, where they are not the task's usual ones."""
        self.base, self.base_name, self.seed, self.max_length = base, base_name, seed, max_length
        self.shared, self.folder = work / task, work / f"{task}-s{seed}"
        self.train_data = load_data("glue", task, "train")
        self.validation = load_data("glue", task)
        self.more: dict[int, TextData] = {}
        self.teacher = self._teacher(teacher_epochs or TEACHER_EPOCHS.get(task, 3))

    def _teacher(self, epochs: int) -> Checkpoint:
        folder = self.shared / "teacher"
        if checkpoint.info_if_ours(folder) is not None:
            found = checkpoint.load(folder)
            config = teacher_config(epochs, found.model.config.hidden_size, self.max_length)
            made = found.info.training
            theirs = found.info.base_model, made.get("train_data"), made.get("train_examples")
            ours = self.base_name, self.train_data.name, len(self.train_data)
            if theirs != ours or not was_made_with(config, made):
                raise TrainingError(
                    f"{folder} holds a teacher of another base, recipe or data; name another --work folder."
                )
            if not kept_identity(folder):  # else the base need not be here
                return found
        model, tokenizer, _ = load_base(self.base, self.train_data.task)
        config = teacher_config(epochs, model.config.hidden_size, self.max_length)
        info = CheckpointInfo(ShrpConfig(()), self.train_data.task, base_model=self.base_name)
        return self._made(folder, config, model, info, tokenizer, None)

    def stage(
        self,
        name: str,
        config: TrainConfig,
        start: Checkpoint,
        model: Callable[[], PreTrainedModel] | None = None,
        info: CheckpointInfo | None = None,
        made_of: str = "",
        data: TextData | None = None,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """Train `config` from `start` (or from a model made of it), or read back what an earlier run made.

        Args:
            model: makes the model to train, for example a pruning of `start`; by default `start`'s own.
            info: what that model is.
            made_of: what else that model depends on, beside `start` and its plan.
            data: what to train on instead of the task's own training data.
            progress: hears of the run; by default it is drawn as bars.
        """
        start_info = info or start.info
        identity = [config.to_dict(), start.path.name, start_info.to_dict().get("plan"), made_of]
        if data is not None:
            identity.append(data.fingerprint)
        text = json.dumps(identity, sort_keys=True)
        folder = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        made = model() if model else checkpoint.load(start.path).model
        return self._made(folder, config, made, start_info, start.tokenizer, self.teacher, data, progress)

    def _made(
        self,
        folder: Path,
        config: TrainConfig,
        model: PreTrainedModel,
        info: CheckpointInfo,
        tokenizer: Any,
        teacher: Checkpoint | None,
        data: TextData | None = None,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """Train, or read back; raises `TrainingError` where what is there began otherwise, or was told other things."""
        train_data, taught_by = data or self.train_data, teacher.model if teacher else None
        identity = identity_of(config, model, info, train_data, self.validation, taught_by)
        if checkpoint.info_if_ours(folder) is not None:
            check_identity(folder, identity)
            return checkpoint.load(folder)
        stderr.print(f"stage: {folder.parent.name}/{folder.name}")
        return train_and_keep(
            folder,
            identity,
            config,
            model,
            info,
            tokenizer,
            train_data,
            self.validation,
            teacher=taught_by,
            # Of other data elsewhere: what a folder holds makes room for what is asked of it next.
            teacher_outputs=self.shared / ("teacher-outputs" if data is None else "more-teacher-outputs"),
            resume=True,
            # As the teacher was, so that SHRP and its controls can't come to compute in different formats.
            precision=teacher.info.training.get("precision") if teacher else None,
            progress=progress or TrainingBar(),
        )

    @cached_property
    def tokens(self) -> int:
        """Tokens of the training data, special ones among them, where they are read in full or cut."""
        texts = self.train_data.texts
        longest = longest_input(self.teacher.model, self.teacher.tokenizer, self.max_length)
        return sum(len(row["input_ids"]) for row in encode(self.teacher.tokenizer, texts, longest))

    def more_data(self, copies: int) -> TextData | None:
        """The training data and so many changed copies of each example; None for none."""
        if copies and copies not in self.more:
            embeddings = self.teacher.model.get_input_embeddings().weight
            self.more[copies] = augmented(self.train_data, copies, self.teacher.tokenizer, embeddings)
        return self.more.get(copies)

    def evaluate(self, model: PreTrainedModel, data: TextData | None = None) -> Evaluation:
        """A model on the validation data."""
        return evaluate(model, self.teacher.tokenizer, data or self.validation, max_length=self.max_length)
