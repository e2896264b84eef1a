"""Whether a model, its tokenizer and its task fit each other, tried out on a few words."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.saving import CONFIG
from shrp.data.batching import collate, encode, longest_input
from shrp.data.tasks import TEXTS
from shrp.errors import CheckpointError, first_line, panics_caught


def try_out(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: CheckpointInfo
) -> None:
    """Raise `CheckpointError` where model, tokenizer and task don't fit each other."""
    outputs = model.config.num_labels
    if wrong := unembedded(model, tokenizer):
        raise CheckpointError(f"{folder} {wrong}")
    if outputs != info.task.num_labels and info.task.name != TEXTS.name:  # whose head nobody uses
        raise CheckpointError(
            f"{folder} has a model of {outputs} outputs and a task, '{info.task.name}', that needs "
            f"{info.task.num_labels}; give the labels in {CONFIG} that it was trained with."
        )
    try:
        with torch.inference_mode(), panics_caught():
            words = ("a few words",) * len(info.task.text_columns)
            limit = longest_input(model, tokenizer, info.max_length)
            model(**collate(tokenizer, encode(tokenizer, [words], limit), [0], model.device))
    except Exception as error:  # whatever a stranger's files make a model raise
        raise CheckpointError(
            f"{folder} has a model that can't compute a text: {first_line(error)}"
        ) from error


def unembedded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """What is wrong where a tokenizer has tokens that the model has no embedding of; empty where it fits."""
    rows = model.get_input_embeddings().num_embeddings
    count = 1 + max(tokenizer.get_vocab().values(), default=-1)  # ids may have gaps
    if count <= rows:
        return ""
    return (
        f"has a tokenizer of {count:,} tokens and a model that embeds {rows:,}; the tokenizer is another "
        "model's, or tokens were added without a row for them."
    )


def read_as(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a tokenizer leave out what the model has no embeddings of: a BERT tokenizer gives the second of two texts a
    type that a RoBERTa, of one type, doesn't know.
    """
    taken = inspect.signature(model.forward).parameters
    if "token_type_ids" not in taken or getattr(model.config, "type_vocab_size", 2) < 2:
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
