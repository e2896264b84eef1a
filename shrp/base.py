"""The model that a run starts from: a hub id, a Hugging Face folder, or a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from shrp import checkpoint
from shrp.errors import TrainingError
from shrp.families import family_of
from shrp.tasks import Task


def base_config(base: str) -> PreTrainedConfig:
    """The config of a base of a supported family, without its weights.

    Raises:
        TrainingError: nothing by that name.
        UnsupportedModelError: no adapter for its family.
    """
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{base!r} is neither a folder with a model nor one that the hub gives just now."
        ) from error
    family_of(config)
    return config


def load_base(base: str, task: Task, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """Load a dense encoder with a head for `task`.

    Args:
        base: a hub id (`bert-base-uncased`), a folder, or a dense checkpoint that `finetune` wrote.
        seed: for a head that has to be new.

    Returns:
        Model in float32 and evaluation mode, tokenizer, and whether its head is trained (so that it can be
        converted as it is) or new (so that it must be fine-tuned first).

    Raises:
        TrainingError: nothing loadable by that name, or converted already.
        UnsupportedModelError: no adapter for its family.
    """
    if checkpoint.info_if_ours(base) is not None:
        loaded = checkpoint.load(base)
        if loaded.info.config.layers:
            raise TrainingError(f"{base} is converted already; start from a dense model.")
        if loaded.info.task.num_labels != task.num_labels:
            raise TrainingError(
                f"{base} was fine-tuned for {loaded.info.task.num_labels} outputs, but {task.name} has "
                f"{task.num_labels}; fine-tune a teacher on {task.name} first."
            )
        if _reordered(loaded.info.task.label_names, task):
            raise TrainingError(
                f"{base} orders its labels {', '.join(loaded.info.task.label_names)}, but {task.name} "
                f"{', '.join(task.label_names)}; name the task that it was fine-tuned on (--task)."
            )
        return loaded.model, loaded.tokenizer, True
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # a new head is expected here, not worth a warning
    hf_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        family_of(config)
        if hasattr(config, "shrp"):
            checkpoint.read_config(base)  # one of ours, but not readable: its error says why
        if Path(base).is_dir() and not checkpoint.has_vocabulary(base):
            raise TrainingError(f"{base} has no tokenizer: {checkpoint.VOCABULARIES[0]} is missing.")
        names = getattr(config, "id2label", None) or {}
        reordered = _reordered([names[i] for i in sorted(names)], task)
        config.num_labels = task.num_labels
        config.problem_type = "regression" if task.is_regression else "single_label_classification"
        if task.label_names:
            config.id2label = dict(enumerate(task.label_names))
            config.label2id = {name: i for i, name in enumerate(task.label_names)}
        torch.manual_seed(seed)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(
            f"{base!r} is neither a folder with a model nor one that the hub gives just now: {first}"
        ) from error
    finally:
        hf_logging.set_verbosity(verbosity)
    fresh = bool(report["missing_keys"] or report.get("mismatched_keys"))
    # A head that takes the labels in another order (MNLI's are notorious) has to learn ours.
    return model.eval(), tokenizer, not fresh and not reordered


def _reordered(names: Sequence[str], task: Task) -> bool:
    """Whether `names` are the task's labels, but in another order."""
    theirs, ours = ([str(name).casefold() for name in labels] for labels in (names, task.label_names))
    return theirs != ours and sorted(theirs) == sorted(ours)
