"""The difference between two models' scores on the same inputs."""

from __future__ import annotations

import numpy as np

from shrp.errors import DataError
from shrp.evaluation import Evaluation
from shrp.metrics import NO_INTERVAL, score


def paired_difference(
    a: Evaluation, b: Evaluation, *, resamples: int = 400, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Headline score of `a` minus that of `b` on the inputs that both have seen.

    Paired, so it is far less noisy than the two scores: what is hard for both models cancels out.

    Args:
        resamples: draws of the bootstrap over inputs; 0 leaves the interval out.
        seed: makes the interval reproducible.

    Returns:
        The difference and its 95% interval; nan without labels or shared inputs.

    Raises:
        DataError: the evaluations are not on the same data.
    """
    if a.task != b.task or a.data != b.data or a.total != b.total:
        raise DataError(f"Evaluations on '{a.data}' and '{b.data}' are of different inputs.")
    _, in_a, in_b = np.intersect1d(a.indices, b.indices, return_indices=True)
    if a.labels is None or not len(in_a):
        return float("nan"), NO_INTERVAL
    labels, ours, theirs = a.labels[in_a], a.predictions[in_a], b.predictions[in_b]

    def difference(rows: np.ndarray | slice) -> float:
        first, second = (score(a.task, labels[rows], side[rows])[a.metric] for side in (ours, theirs))
        return first - second

    value = difference(slice(None))
    if not resamples:
        return value, NO_INTERVAL
    generator = np.random.default_rng(seed)
    draws = np.array(
        [difference(generator.integers(len(labels), size=len(labels))) for _ in range(resamples)]
    )
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return value, NO_INTERVAL
    low, high = np.percentile(draws, [2.5, 97.5])
    return value, (float(low), float(high))
