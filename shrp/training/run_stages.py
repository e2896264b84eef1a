"""The trainings of one recipe: each is a stage with a folder of its own, done once and read back after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, TrainingError
from shrp.training.config import TrainConfig, was_made_with, whole_config
from shrp.training.run_state import RUN_FILE, difference, finish, identity_of, kept_identity
from shrp.training.teacher import is_filled
from shrp.training.train import Progress, train


@dataclass(frozen=True)
class Datasets:
    """The data of a run: what is trained on, what usage and scores come from, further data to score on."""

    train: TextData
    validation: TextData
    also: tuple[TextData, ...] = ()


def train_and_keep(
    folder: Path,
    identity: Mapping[str, Any],
    config: TrainConfig,
    model: PreTrainedModel,
    info: CheckpointInfo,
    tokenizer: PreTrainedTokenizerBase,
    train_data: TextData,
    validation: TextData,
    **options: Any,
) -> Checkpoint:
    """Train a model, keep it in `folder` with its history and what tells it from other trainings, and read it back.

    Args:
        identity: of the training (`shrp.training.run_state.identity_of`), by which whoever comes later takes it for
            the same.
        options: of `shrp.training.train.train`.

    Raises:
        TrainingError: as `train`.
    """
    model, info, history = train(config, model, info, tokenizer, train_data, validation, folder, **options)
    extra = {checkpoint.HISTORY: history_text(history), RUN_FILE: json.dumps(identity)}
    checkpoint.save(model, tokenizer, info, folder, extra_files=extra)
    finish(folder)
    return checkpoint.load(folder)


class RunStages:
    """The stages of a run below `folder`.

    Args:
        base_name: what checkpoints call the base.
        resume: go on with a stage that was killed.
        announce: hears of each stage that is trained.
    """

    def __init__(
        self,
        folder: Path,
        base_name: str,
        data: Datasets,
        *,
        resume: bool,
        progress: Progress | None,
        announce: Callable[[str], None],
    ) -> None:
        self.folder, self.base_name, self.data = folder, base_name, data
        self.resume, self.progress, self.announce = resume, progress, announce
        self.auto: str | None = None
        """What the precision `auto` came to in the first stage that was finished, and does in all others."""

    def __call__(
        self,
        name: str,
        config: TrainConfig,
        start: Callable[[], PreTrainedModel],
        info: CheckpointInfo,
        teacher: Checkpoint | None,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Checkpoint:
        """Train one model, or take it from an earlier, killed run.

        Args:
            name: of the stage's folder.
            start: makes the model to train.
            info: what that model is.

        Raises:
            TrainingError: the folder is of another run, or as `train`.
        """
        model, train_data, validation = start(), self.data.train, self.data.validation
        taught_by = teacher.model if teacher else None
        identity = identity_of(config, model, info, train_data, validation, taught_by)
        if (found := self._finished(name, config, identity)) is not None:
            self._settle(config, found.info)
            return found
        self.announce(name)
        folder = self.folder / name
        # One stage asks the teacher for all; but about examples that none comes by, nobody need ask.
        outputs: Path | None = self.folder / "teacher-outputs"
        shared = config.visits_all(len(train_data)) or is_filled(outputs, config.needs_hidden)
        outputs = outputs if teacher is not None and shared else None
        made = train_and_keep(
            folder,
            identity,
            config,
            model,
            info,
            tokenizer,
            train_data,
            validation,
            teacher=taught_by,
            teacher_outputs=outputs,
            precision=self.auto,
            resume=self.resume,
            progress=self.progress,
        )
        self._settle(config, made.info)
        return made

    def _finished(self, name: str, config: TrainConfig, identity: Mapping[str, Any]) -> Checkpoint | None:
        """What an earlier, killed run made of a stage; raises `TrainingError` where that was another run.

        Args:
            identity: of the training that the stage is. Stages that were finished before theirs was kept beside them
                are taken for it where config, base and the data's names say so.
        """
        folder = self.folder / name
        try:
            found = checkpoint.load(folder) if folder.is_dir() else None
        except CheckpointError:
            return None  # not whole: the stage is done again
        if found is not None:
            made, train, validation = found.info.training, self.data.train, self.data.validation
            kept = kept_identity(folder)
            same = {
                "config": was_made_with(config, made),
                "base": found.info.base_model == self.base_name,
                "train": (made.get("train_data"), made.get("train_examples")) == (train.name, len(train)),
                "validation": made.get("validation_data") == validation.name,
            }
            for part in ("train", "validation", "weights", "teacher"):
                same[part] = same.get(part, True) and kept.get(part, identity[part]) == identity[part]
            if changed := [key for key, equal in same.items() if not equal]:
                if "config" in changed:  # by the settings' names
                    changed[0] = difference("config", whole_config(made), config.to_dict()) or "config"
                raise TrainingError(
                    f"{folder} is of another run (its {', '.join(changed)} differ); "
                    f"repeat its options exactly, or delete {self.folder} to start afresh."
                )
        return found

    def _settle(self, config: TrainConfig, made: CheckpointInfo) -> None:
        """Hold on to the precision that a stage was trained in: a timing in another process may turn out otherwise."""
        if config.precision == "auto":
            self.auto = self.auto or made.training.get("precision")
