"""How often a model gives each answer, and the shift of its output bias that makes it answer as often as another does.

Pruning moves all outputs of a classifier in one direction, and with them its threshold, while their order may stay as
it was. The shift mends the first and needs no labels: the routed model says, on any texts, how often each class is
to be given. So corrects Nagel et al. 2019 (arXiv 1906.04721) the bias of quantised layers, by means instead of answers.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate, label_columns, summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import EQUAL
from shrp.families.families import output_layer
from shrp.model.replaced import shallow_copy

_EDGE = 1e-3
"""How far beyond the last margin a threshold stands."""
_ROUNDS = 100
"""Rounds over the classes until their shares agree; two classes take one."""


def answer_shares(logits: np.ndarray) -> np.ndarray:
    """The share of inputs that get each class, `(C,)`, of logits `(N, C)`."""
    return np.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(logits)


def matching_shift(logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What to add to a model's logits so that it gives each class as often as a reference does, without any labels.

    Args:
        logits: `(N, C)`, in the order of the task's labels; one column for a regression.
        reference: `(M, C)`, on the same texts or others like them.

    Returns:
        float64 `(C,)` with a mean of 0, as near as equal logits allow. Of a regression the difference of the means.

    Raises:
        DataError: there are no inputs, or the two have different classes.
    """
    if not len(logits) or not len(reference) or logits.shape[1] != reference.shape[1]:
        raise DataError(
            "Answer shares are matched of outputs with the same classes, on at least one input each."
        )
    logits, classes = logits.astype(np.float64), logits.shape[1]
    if classes == 1:
        return reference.astype(np.float64).mean(0) - logits.mean(0)
    wanted, shift = answer_shares(reference), np.zeros(classes)
    for _ in range(_ROUNDS):
        for c in range(classes == 2, classes):  # of two, the first one's share is what the other leaves
            moved = logits + shift
            rivals = np.delete(moved, c, axis=1).max(1)
            shift[c] += _threshold(moved[:, c] - rivals, wanted[c])
        if np.abs(answer_shares(logits + shift) - wanted).max() <= 1 / len(logits):
            break
    return shift - shift.mean()


def _threshold(margins: np.ndarray, share: float) -> float:
    """What to add to margins so that about this share of them is above 0: half way between two that are not equal."""
    ordered = np.sort(margins)[::-1]
    ends = np.concatenate([[ordered[0] + 2 * _EDGE], ordered, [ordered[-1] - 2 * _EDGE]])
    places = np.flatnonzero(ends[:-1] - ends[1:] > EQUAL)  # so many are above, were the threshold here
    above = places[np.abs(places - share * len(ordered)).argmin()]
    return -(ends[above] + ends[above + 1]) / 2


def matched(
    pruned: PreTrainedModel,
    routed: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    max_length: int = 128,
) -> tuple[PreTrainedModel, np.ndarray]:
    """`pruned` with its output bias shifted so that it gives each class as often as `routed` on some texts.

    Returns:
        A second model that shares its other weights, and the shift, `(C,)`.
    """
    outputs = [evaluate(m, tokenizer, data, max_length=max_length).logits for m in (pruned, routed)]
    shift = matching_shift(*outputs)
    return with_output_shift(pruned, data.task, shift), shift


def shifted(
    evaluation: Evaluation, data: TextData, shift: np.ndarray, *, with_interval: bool = True
) -> Evaluation:
    """The evaluation of the model with its logits shifted; the interval takes the shift as given."""
    logits = (evaluation.logits + shift).astype(np.float32)
    return summarise(data, evaluation.indices, logits, with_interval)


def with_output_shift(model: PreTrainedModel, task: Task, shift: np.ndarray) -> PreTrainedModel:
    """A second model that shares every weight with `model` but has its output bias shifted.

    Args:
        shift: `(C,)`, in the order of the task's labels.

    Raises:
        PlanError: the model's last linear layer has no bias of the task's size to shift.
    """
    found = output_layer(model, task.num_labels)
    if found is None or found[1].bias is None or len(shift) != task.num_labels:
        raise PlanError(f"the model has no output bias for the {task.num_labels} outputs of {task.name}.")
    path, last = found
    moved = copy.copy(last)
    moved._parameters = dict(last._parameters)
    bias = last.bias.detach().clone()
    bias[label_columns(model, task)] += torch.as_tensor(shift, dtype=bias.dtype, device=bias.device)
    moved._parameters["bias"] = nn.Parameter(bias, requires_grad=last.bias.requires_grad)
    clone = parent = shallow_copy(model)
    *containers, name = path.split(".")
    for each in containers:
        child = shallow_copy(getattr(parent, each))
        parent._modules[each] = child
        parent = child
    parent._modules[name] = moved
    return clone
