"""Calibration of a classifier's probabilities, and of a pruned model's threshold.

Confidence is the probability of the predicted class. A model is calibrated if 80% of the examples with 80% confidence are
right (Guo et al. 2017). The measured error is never negative, so it is biased upward for few examples: `Ece` also gives
the error that a calibrated model would have by chance.

Pruning tends to shift all logits of a classifier, and so its threshold. `matching_shift` finds the shift of the output
bias that restores the routed model's predicted class frequencies. It needs no labels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluation import Evaluation, summarise
from shrp.evaluation.metrics import EQUAL, merge_equal
from shrp.evaluation.paired import shared_rows
from shrp.evaluation.statistics import NO_INTERVAL, at_once, bootstrap, of_draws, wilson

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BINS = 10
LEAST = 10
"""Smallest bin, in examples."""
RESAMPLES = 1000
_EDGE = 1e-3  # how far a threshold stands beyond the last margin
_ROUNDS = 100  # over the classes, until their frequencies match; two classes take one


@dataclass(frozen=True)
class Ece:
    """An expected calibration error, as a share: 0.05 is 5 points between confidence and accuracy on average."""

    value: float
    """As measured; nan without examples."""
    interval: tuple[float, float]
    """Bias-corrected 95% bootstrap interval; its low end is 0 unless the value is beyond chance."""
    by_chance: float
    """The mean error of a calibrated model with the same confidences."""
    chance_most: float
    """Its 95th percentile."""

    @property
    def beyond_chance(self) -> bool:
        """Whether fewer than 5% of calibrated models have so large an error."""
        return self.value > self.chance_most


def reliability(evaluation: Evaluation) -> pd.DataFrame:
    """The reliability diagram, with at most `BINS` bins of about equally many examples.

    Bins have at least `LEAST` examples; equal confidences share a bin.

    Returns:
        A row a bin, by rising confidence: low, high (confidences), n, confidence (mean), accuracy, accuracy low,
        accuracy high (Wilson). Empty without examples.

    Raises:
        DataError: there are no labels, or they are numbers.
    """
    confidence, right = _confidence(evaluation)
    placed, rows = _bins(confidence), []
    names = ["low", "high", "n", "confidence", "accuracy", "accuracy low", "accuracy high"]
    for one in range(placed.max(initial=-1) + 1):
        held, hits = confidence[placed == one], right[placed == one]
        bounds = wilson(int(hits.sum()), len(hits))
        rows.append((held.min(), held.max(), len(held), held.mean(), float(hits.mean()), *bounds))
    return pd.DataFrame(rows, columns=names)


def ece(evaluation: Evaluation) -> Ece:
    """The expected calibration error over the bins of `reliability` (Guo et al. 2017).

    In the bootstrap each example stays in its bin.
    """
    confidence, right = _confidence(evaluation)
    placed, n = _bins(confidence), len(confidence)
    if not n:
        return Ece(float("nan"), NO_INTERVAL, float("nan"), float("nan"))
    gaps = right - confidence
    draws = bootstrap(lambda rows: _errors(gaps[rows], placed[rows]), n, resamples=RESAMPLES)
    drawn = np.random.default_rng(1).random
    calibrated = np.concatenate(
        [_errors((drawn((size, n)) < confidence) - confidence, placed) for size in at_once(RESAMPLES, n)]
    )
    value, most = float(_errors(gaps[None], placed)[0]), float(np.percentile(calibrated, 95))
    return Ece(value, _unbiased(value, draws, value > most), float(calibrated.mean()), most)


def brier(evaluation: Evaluation) -> float:
    """The Brier score (Brier 1950), summed over classes: 0 at best, 2 at worst; nan without examples."""
    _confidence(evaluation)  # raises where there are no labelled classes
    errors = ((evaluation.probabilities - np.eye(evaluation.task.num_labels)[evaluation.labels]) ** 2).sum(1)
    return float(errors.mean()) if len(errors) else float("nan")


def shared(a: Evaluation, b: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Both evaluations on the examples that both have seen; their scores are not recomputed."""
    return tuple(one.only(rows) for one, rows in zip((a, b), shared_rows(a, b), strict=True))


def _confidence(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, float64 `(n,)`, and whether the prediction is right, bool `(n,)`."""
    right = evaluation.correct  # raises where there are no labelled classes
    return evaluation.probabilities.astype(np.float64).max(1, initial=0.0), right


def _bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each example, int64 `(n,)`, from 0 without gaps."""
    if not (n := len(confidence)):
        return np.zeros(0, dtype=np.int64)
    _, value, counts = np.unique(merge_equal(confidence), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # rank of equal confidences, from 0
    place = np.floor(max(1, min(BINS, n // LEAST)) * middle / n)
    return np.unique(place, return_inverse=True)[1][value]


def _errors(gaps: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Calibration errors of samples, `(samples,)`, of gaps between correctness and confidence, `(samples, n)`.

    `bins` are of the same shape, or `(n,)`.
    """
    samples, n = gaps.shape
    size = bins.max() + 1
    cells = bins + size * np.arange(samples)[:, None]
    sums = np.bincount(cells.ravel(), gaps.ravel(), samples * size).reshape(samples, size)
    return np.abs(sums).sum(1) / n


def _unbiased(value: float, draws: np.ndarray, beyond_chance: bool) -> tuple[float, float]:
    """The basic bootstrap's interval, which removes the bias at the low end; the high end stays conservative."""
    low, high = of_draws(draws)
    if low != low:
        return NO_INTERVAL
    upper = max(2 * value - low, value + (high - low) / 2)
    lower = float(np.clip(2 * value - high, 0, value)) if beyond_chance else 0.0
    return lower, min(1.0, upper)


def answer_shares(logits: np.ndarray) -> np.ndarray:
    """Predicted class frequencies `(C,)` of logits `(N, C)`."""
    return np.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(logits)


def matching_shift(logits: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What to add to logits `(N, C)` so that each class is predicted as often as by a reference `(M, C)`.

    Both are in the order of the task's labels, on the same texts or similar ones.

    Returns:
        float64 `(C,)` with mean 0, as near as equal logits allow; for a regression the difference of the means.

    Raises:
        DataError: there are no examples, or the classes differ.
    """
    if not len(logits) or not len(reference) or logits.shape[1] != reference.shape[1]:
        raise DataError("Calibrating the threshold needs two sets of outputs with the same classes.")
    logits, classes = logits.astype(np.float64), logits.shape[1]
    if classes == 1:
        return reference.astype(np.float64).mean(0) - logits.mean(0)
    wanted, shift = answer_shares(reference), np.zeros(classes)
    for _ in range(_ROUNDS):
        for c in range(classes == 2, classes):  # of two, the first class gets what the second leaves
            moved = logits + shift
            rivals = np.delete(moved, c, axis=1).max(1)
            shift[c] += _threshold(moved[:, c] - rivals, wanted[c])
        if np.abs(answer_shares(logits + shift) - wanted).max() <= 1 / len(logits):
            break
    return shift - shift.mean()


def _threshold(margins: np.ndarray, share: float) -> float:
    """What to add so that about this share of the margins is above 0: half way between two of them."""
    ordered = np.sort(margins)[::-1]
    ends = np.concatenate([[ordered[0] + 2 * _EDGE], ordered, [ordered[-1] - 2 * _EDGE]])
    places = np.flatnonzero(ends[:-1] - ends[1:] > EQUAL)
    above = places[np.abs(places - share * len(ordered)).argmin()]
    return -(ends[above] + ends[above + 1]) / 2


def matched(
    pruned: PreTrainedModel,
    routed: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    max_length: int = 128,
) -> tuple[PreTrainedModel, np.ndarray]:
    """`pruned` with its threshold calibrated to `routed` on some texts, and the shift `(C,)`; weights are shared."""
    from shrp.evaluation.evaluate import evaluate

    data.task.check_of_texts("calibrating the threshold")
    outputs = [evaluate(m, tokenizer, data, max_length=max_length).logits for m in (pruned, routed)]
    shift = matching_shift(*outputs)
    return with_output_shift(pruned, data.task, shift), shift


def shifted(evaluation: Evaluation, data: TextData, shift: np.ndarray) -> Evaluation:
    """The evaluation with its logits shifted; the interval takes the shift as given."""
    logits = (evaluation.logits + shift).astype(np.float32)
    return summarise(data, evaluation.indices, logits, True)


def with_output_shift(model: PreTrainedModel, task: Task, shift: np.ndarray) -> PreTrainedModel:
    """A copy of `model` with its output bias shifted by `(C,)`, in the order of the task's labels; weights are shared.

    Raises:
        PlanError: the model's last linear layer has no bias of the task's size.
    """
    import torch

    from shrp.evaluation.evaluate import label_columns
    from shrp.families.families import output_layer
    from shrp.model.modules import with_modules

    found = output_layer(model, task.num_labels)
    if found is None or found[1].bias is None or len(shift) != task.num_labels:
        raise PlanError(f"the model has no output bias for the {task.num_labels} outputs of {task.name}.")
    path, last = found
    moved = copy.copy(last)
    moved._parameters = dict(last._parameters)
    bias = last.bias.detach().clone()
    bias[label_columns(model, task)] += torch.as_tensor(shift, dtype=bias.dtype, device=bias.device)
    moved._parameters["bias"] = torch.nn.Parameter(bias, requires_grad=last.bias.requires_grad)
    return with_modules(model, {path: moved})
