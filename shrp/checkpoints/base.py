"""The model that a run starts from: a hub id, a Hugging Face folder, or a checkpoint of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import read_as, unembedded
from shrp.checkpoints.info import EXPORT, VOCABULARIES, WEIGHTS, has_vocabulary, kind_of
from shrp.checkpoints.tokenizer_files import check_content, check_made
from shrp.data.tasks import SPANS, TASKS, TEXT, WORDS, Task, may_be_one
from shrp.errors import TrainingError, first_line, panics_caught
from shrp.families.families import family_of, output_layer

_AUTO = {
    TEXT: AutoModelForSequenceClassification,
    WORDS: AutoModelForTokenClassification,
    SPANS: AutoModelForQuestionAnswering,
}
NUMBER = "number"
"""What the one output of a regression is called, where a head's outputs are named."""


def name_of(base: str, given: str | None = None) -> str:
    """What checkpoints call a base, where no name is given.

    What it calls its own base, if it is a checkpoint of ours; of a folder its own name, never where it lies; else the
    hub's id. A path is known by its looks too: a run may go on after the folder is gone.
    """
    if given:
        return given
    if known := checkpoint.info_if_ours(base):
        return known.base_model
    path = Path(base)
    local = path.is_dir() or path.is_absolute() or base.startswith((".", "~"))
    return path.resolve().name if local else base


def base_config(base: str) -> PreTrainedConfig:
    """The config of a base of a supported family, without its weights.

    Raises:
        TrainingError: nothing by that name.
        CheckpointError: an export, which has a family's config but no weights.
        UnsupportedModelError: no adapter for its family.
    """
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _no_model(base, error) from error
    if getattr(config, "format", None) == EXPORT:
        checkpoint.read_config(base)
    family_of(config)
    return config


def _no_model(base: str, error: Exception) -> TrainingError:
    if "safetensors" in str(error) and not any(Path(base).glob("*.safetensors*")):
        return TrainingError(
            f"{base} has no weights in safetensors, and other formats, which may run code, are not read: load it once by "
            "transformers and save it with `save_pretrained`, which writes model.safetensors."
        )
    return TrainingError(
        f"{base!r} is neither a folder with a model nor one that the hub gives just now: {first_line(error)}"
    )


def load_base(
    base: str, task: Task, seed: int = 0, head_labels: Sequence[str] = ()
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """Load a dense encoder with a head for `task`.

    A head that has the task's labels in another order gets its outputs in the task's.

    Args:
        base: a hub id (`bert-base-uncased`), a folder, or a dense checkpoint that `finetune` wrote.
        seed: for a head that has to be new.
        head_labels: what the outputs of the base's head stand for, in their order, of a regression's one output
            `number`; by default what its config says.

    Returns:
        Model in float32 and evaluation mode, tokenizer, and whether its head is trained (so that it can be
        converted as it is), or new or another task's (so that it must be fine-tuned first). What tells a task are
        the names of its labels, where the model has any, and between GLUE's tasks their own names.

    Raises:
        TrainingError: nothing loadable by that name, weights that lack a part of the encoder, converted already, a
            tokenizer that does not fit, or `head_labels` that are not the task's.
        UnsupportedModelError: no adapter for its family.
    """
    ours = checkpoint.info_if_ours(base)
    if ours is not None and ours.config.layers:
        raise TrainingError(f"{base} is converted already; start from a dense model.")
    if head_labels and sorted(_folded(head_labels)) != sorted(_folded(_outputs(task))):
        raise TrainingError(
            f"the head's labels, {', '.join(head_labels)}, are not those of {task.name}: "
            f"{', '.join(_outputs(task))}."
        )
    if ours is not None and (head_labels or may_be_one(ours.task, task)):
        theirs = _folded(head_labels or ours.task.label_names)
        if ours.task.num_labels == task.num_labels and sorted(theirs) == sorted(_folded(task.label_names)):
            loaded = checkpoint.load(base)
            model = _in_order(loaded.model, theirs, task)
            if head_labels:  # whatever its config says
                _name_outputs(model.config, task)
            return model, loaded.tokenizer, True
    config = base_config(base)
    if hasattr(config, "shrp"):
        checkpoint.read_config(base)  # one of ours, but not readable: its error says why
    if Path(base).is_dir():
        check_content(base)
        if not has_vocabulary(base):
            raise TrainingError(f"{base} has no tokenizer: {VOCABULARIES[0]} is missing.")
    same_kind = kind_of(config.architectures) in (task.kind, None)  # no name is no reason to doubt
    names = list(head_labels) or _config_labels(config)
    config.num_labels, config.return_dict = task.num_labels, True
    config.output_attentions = config.output_hidden_states = False
    config.problem_type = "regression" if task.is_regression else "single_label_classification"
    if task.label_names:
        _name_outputs(config, task)
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # a new head is expected here, not worth a warning
    hf_logging.disable_progress_bar()
    torch.manual_seed(seed)
    try:
        model, report = _AUTO[task.kind].from_pretrained(
            base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
    except SafetensorError as error:
        raise TrainingError(f"{base}: {WEIGHTS} is truncated or not a safetensors file: {error}.") from error
    except (OSError, ValueError, KeyError) as error:
        raise _no_model(base, error) from error
    finally:
        hf_logging.set_verbosity(verbosity)
    tokenizer = _tokenizer(base)
    if wrong := unembedded(model, tokenizer):
        raise TrainingError(f"{base} {wrong}")
    read_as(model, tokenizer)
    new = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if untrained := sorted(key for key in new if _is_of_encoder(model, key)):
        raise TrainingError(
            f"{base}: its weights have no {untrained[0]} of the shape that its config says ({len(untrained)} such "
            "tensors are missing), so a part of the encoder would be untrained; name a base whose weights are whole."
        )
    if new and head_labels:
        raise TrainingError(f"{base} has no trained head of {task.num_labels} outputs for labels to be named.")
    trained = bool(head_labels or ours is None) and same_kind and not new and _are_of(names, task)
    return _in_order(model.eval(), _folded(names), task) if trained else model.eval(), tokenizer, trained


def _tokenizer(base: str) -> PreTrainedTokenizerBase:
    try:
        with panics_caught():
            tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    # A broken file raises a bare Exception, a package that it lacks an ImportError.
    except Exception as error:
        raise TrainingError(f"{base} has no usable tokenizer: {first_line(error)}") from error
    check_made(tokenizer)
    return tokenizer


def _is_of_encoder(model: PreTrainedModel, key: str) -> bool:
    """Whether a tensor's name is of the encoder.

    A pooler is not: it reads the first token for the head, and many pretrained encoders come without one.
    """
    below = key.removeprefix(f"{model.base_model_prefix}.")
    return below != key and not below.startswith("pooler.")


def refuse_unclear(base: str, task: Task) -> None:
    """Raise `TrainingError` where a base may be the task's classifier already, and not to be trained over.

    Its config then calls as many outputs as the task has something else (`LABEL_0`, another word).
    """
    config = base_config(base)
    if kind_of(config.architectures) != task.kind or checkpoint.info_if_ours(base) is not None:
        return
    names = _config_labels(config)
    if len(names) == task.num_labels and not _are_of(names, task):
        raise TrainingError(
            f"{base} is a classifier, but its config does not name the labels of {task.name} for its head: it has "
            f"{', '.join(names):.200}, the task {', '.join(task.label_names) or 'numbers':.200}. If it is, name its outputs "
            f"in their order, for example --head-labels {','.join(_outputs(task))}; if not, say in --config how to fine-tune a "
            "teacher from it, such as `teacher: {stage2_epochs: 3, learning_rate: 5.0e-5}`."
        )


def _config_labels(config: PreTrainedConfig) -> list[str]:
    """What a classifier's config calls its outputs, in their order."""
    names = getattr(config, "id2label", None) or {}
    return [str(names[i]) for i in sorted(names)]


def _in_order(model: PreTrainedModel, theirs: Sequence[str], task: Task) -> PreTrainedModel:
    """The model with its outputs in the order of the task's labels.

    Args:
        theirs: labels of its outputs, folded; a model with other labels than the task's is returned as it is.
    """
    wanted = _folded(task.label_names)
    if list(theirs) == wanted or sorted(theirs) != sorted(wanted):
        return model
    if len(set(wanted)) < len(wanted):
        raise TrainingError(f"labels of {task.name} differ by their case alone: {', '.join(task.label_names)}.")
    rows = [list(theirs).index(name) for name in wanted]
    _, last = output_layer(model, len(rows))
    with torch.no_grad():
        for parameter in (last.weight, last.bias):
            if parameter is not None:
                parameter.copy_(parameter[rows])
    _name_outputs(model.config, task)
    return model


def _name_outputs(config: PreTrainedConfig, task: Task) -> None:
    """Set in a model's config that its outputs are the task's classes, in their order."""
    config.id2label = dict(enumerate(task.label_names))
    config.label2id = {name: i for i, name in enumerate(task.label_names)}


def _are_of(names: Sequence[str], task: Task) -> bool:
    """Whether a head with these labels may be the task's: they are its own, in whatever order, or generic.

    Generic labels (`LABEL_0`) are taken for those of a known task, whose ids everybody shares, or of a task whose classes
    are ids themselves; not for other custom classes, or numbers. Starts and ends of answers are one task's.
    """
    theirs = _folded(names)
    if task.on_spans or sorted(theirs) == sorted(_folded(_outputs(task))):
        return True
    ids = bool(task.label_names) and task.label_names == tuple(map(str, range(len(task.label_names))))
    generic = task.is_regression or all(re.fullmatch(r"label_\d+", name) for name in theirs)
    return generic and (ids or TASKS.get(task.name) == task)


def _outputs(task: Task) -> tuple[str, ...]:
    """What the outputs of a head for the task are called."""
    return task.label_names or (NUMBER,)


def _folded(names: Sequence[str]) -> list[str]:
    return [str(name).casefold() for name in names]
