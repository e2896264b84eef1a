"""What `prune` trains a pruned model on with, and whether that is of its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shrp.data.tasks import Task, may_be_one
from shrp.data.text_data import TextData
from shrp.errors import TrainingError

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from transformers import PreTrainedModel

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.training.config import TrainConfig


@dataclass(frozen=True)
class Recovery:
    """What a pruned model is trained on with."""

    config: TrainConfig
    training: TextData
    validation: TextData
    teacher: PreTrainedModel | None


def recovery_of(
    source: Checkpoint, data: tuple[TextData, TextData], teacher: Checkpoint | None, **settings: Any
) -> Recovery:
    """Put a recovery together; raises `TrainingError` where data or teacher are not of the checkpoint's task."""
    from shrp.model.config import ShrpConfig
    from shrp.training.config import TrainConfig

    training, validation = data
    _check_same_labels(source.info.task, training.task, training.name)
    if teacher is not None:
        if teacher.info.config.layers:
            raise TrainingError(
                f"{teacher.path} is converted, and a dense teacher is distilled: name the dense model that "
                f"{source.path} was converted from."
            )
        _check_same_labels(source.info.task, teacher.info.task, str(teacher.path))
        if teacher.tokenizer.get_vocab() != source.tokenizer.get_vocab():
            raise TrainingError(
                f"{teacher.path} reads other tokens than {source.path}, so it can't be distilled into that: name the "
                "dense model that it was converted from."
            )
    config = TrainConfig.named(
        "paper" if teacher is None else "retain",
        shrp=ShrpConfig(()),
        balance=0.0,
        freeze_embeddings=True,
        **settings,
    )
    return Recovery(config, training, validation, None if teacher is None else teacher.model)


def _check_same_labels(ours: Task, theirs: Task, whose: str) -> None:
    """Raise `TrainingError` where labels of `whose` are not a checkpoint's. Outputs are taken by their place, so equal
    names in another order would be learned the wrong way round; ids stand for any names, of as many classes.
    """
    mend = "Give data and teacher of the checkpoint's own task."
    if ours.is_regression != theirs.is_regression:
        raise TrainingError(
            f"the labels of {whose} are {_labels(theirs)}, the checkpoint's are {_labels(ours)}. {mend}"
        )
    known, others = ([name.casefold() for name in task.label_names] for task in (ours, theirs))
    ids = [str(number) for number in range(ours.num_labels)]
    if known == others and not may_be_one(ours, theirs):
        raise TrainingError(
            f"{whose} is of the task {theirs.name}, the checkpoint of {ours.name}: their labels have the same names, "
            f"but they are not one task. {mend}"
        )
    if known == others or (len(known) == len(others) and ids in (known, others)):
        return
    why = ": outputs are taken by their place, so that they would be learned for one another" * (
        sorted(known) == sorted(others)
    )
    raise TrainingError(
        f"the labels of {whose} are {_labels(theirs)}, and the checkpoint's are {_labels(ours)}{why}. {mend}"
    )


def _labels(task: Task) -> str:
    return "numbers" if task.is_regression else f"{', '.join(task.label_names)}, in this order"
