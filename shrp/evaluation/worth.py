"""How good an answer is, by more than right or wrong."""

from __future__ import annotations

import numpy as np

from shrp.data.tasks import Task


def worth(task: Task, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far each answer is on the right side: the margin of the true class (its logit less the largest other one),
    of a regression minus the absolute error.

    Args:
        outputs: `(N, ..., C)`, in the task's order of classes.
        labels: of the inputs `(N,)`, class ids or numbers.

    Returns:
        float64 `(N, ...)`.
    """
    outputs = outputs.astype(np.float64)
    places = (..., *(None,) * (outputs.ndim - 1))
    labels = np.broadcast_to(np.asarray(labels)[places], (*outputs.shape[:-1], 1))
    if task.is_regression:
        return -np.abs(outputs - labels)[..., 0]
    true = np.take_along_axis(outputs, labels, -1)[..., 0]
    np.put_along_axis(outputs, labels, -np.inf, -1)
    return true - outputs.max(-1)
