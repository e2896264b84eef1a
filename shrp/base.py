"""The model that a run starts from: a hub id, a Hugging Face folder, or a checkpoint of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
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
from shrp.errors import TrainingError, first_line
from shrp.families import family_of
from shrp.tasks import TASKS, Task


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


def is_classifier(base: str) -> bool:
    """Whether a base comes with a classification head, of whatever task. Errors as `base_config`."""
    names = base_config(base).architectures or ()
    return any(name.endswith("ForSequenceClassification") for name in names)


def load_base(base: str, task: Task, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """Load a dense encoder with a head for `task`.

    Args:
        base: a hub id (`bert-base-uncased`), a folder, or a dense checkpoint that `finetune` wrote.
        seed: for a head that has to be new.

    Returns:
        Model in float32 and evaluation mode, tokenizer, and whether its head is trained (so that it can be
        converted as it is), or new or another task's (so that it must be fine-tuned first). What tells a task are
        the names of its labels, where the model has any, and between GLUE's tasks their own names.

    Raises:
        TrainingError: nothing loadable by that name, converted already, a tokenizer that does not fit, or a checkpoint
            of ours that has the task's labels in another order.
        UnsupportedModelError: no adapter for its family.
    """
    ours = checkpoint.info_if_ours(base)
    if ours is not None and ours.config.layers:
        raise TrainingError(f"{base} is converted already; start from a dense model.")
    if ours is not None and _may_be_one(ours.task, task):
        theirs, wanted = _folded(ours.task.label_names), _folded(task.label_names)
        if theirs == wanted:
            loaded = checkpoint.load(base)
            return loaded.model, loaded.tokenizer, True
        if sorted(theirs) == sorted(wanted):
            raise TrainingError(
                f"{base} orders its labels {', '.join(ours.task.label_names)}, but {task.name} "
                f"{', '.join(task.label_names)}; name the task that it was fine-tuned on (--task)."
            )
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
        names = [names[i] for i in sorted(names)]
        config.num_labels, config.return_dict = task.num_labels, True
        config.output_attentions = config.output_hidden_states = False
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
    except SafetensorError as error:
        raise TrainingError(
            f"{base}: {checkpoint.WEIGHTS} is truncated or not a safetensors file: {error}."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{base!r} is neither a folder with a model nor one that the hub gives just now: {first_line(error)}"
        ) from error
    finally:
        hf_logging.set_verbosity(verbosity)
    if wrong := checkpoint.unembedded(model, tokenizer):
        raise TrainingError(f"{base} {wrong}")
    checkpoint.read_as(model, tokenizer)
    fresh = bool(report["missing_keys"] or report.get("mismatched_keys"))
    return model.eval(), tokenizer, ours is None and not fresh and _are_of(names, task)


def _may_be_one(theirs: Task, task: Task) -> bool:
    """Whether two tasks whose labels are the same are one: of GLUE's QNLI and RTE share them. The task of a file is
    named after the file, and another file may be of it too.
    """
    if theirs.name in TASKS and task.name in TASKS:
        return theirs.name == task.name
    return theirs.is_regression == task.is_regression and len(theirs.text_columns) == len(task.text_columns)


def _are_of(names: Sequence[str], task: Task) -> bool:
    """Whether a head with these labels may be the task's: they are its own in its order, or stand for any.

    A head that takes the labels in another order (MNLI's are notorious) has to learn ours. Labels that stand for any
    (`LABEL_0`) are those of a task that is known, whose ids everybody shares, or whose classes are ids themselves; of
    somebody's own classes, or numbers, they say nothing.
    """
    theirs = _folded(names)
    if task.label_names and theirs == _folded(task.label_names):
        return True
    ids = bool(task.label_names) and task.label_names == tuple(map(str, range(len(task.label_names))))
    generic = task.is_regression or all(re.fullmatch(r"label_\d+", name) for name in theirs)
    return generic and (ids or TASKS.get(task.name) == task)


def _folded(names: Sequence[str]) -> list[str]:
    return [str(name).casefold() for name in names]
