"""Paired comparisons of two evaluations, kept: of many numbers, or of F1, their bootstraps take seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

import pandas as pd

from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import by_group, paired_difference
from ui.store import results


def difference(a: Evaluation, b: Evaluation, *, resamples: int = 2000) -> tuple[float, tuple[float, float]]:
    """As `shrp.evaluation.paired.paired_difference`."""
    if not resamples:  # a running estimate, quickly made and never asked for again
        return paired_difference(a, b, resamples=0)
    store, key = results("paired differences", 1024), (_content(a), _content(b), resamples)
    if (found := store.get(key)) is None:
        found = paired_difference(a, b, resamples=resamples)
        store.put(key, found)
    return found


def groups(reference: Evaluation, other: Evaluation, by: str) -> pd.DataFrame:
    """As `shrp.evaluation.paired.by_group`; a copy of its own."""
    store, key = results("paired groups", 64), (_content(reference), _content(other), by)
    if (found := store.get(key)) is None:
        found = by_group(reference, other, by)
        store.put(key, found)
    return found.copy()


def _content(one: Evaluation) -> tuple[Hashable, ...]:
    """What a comparison takes from an evaluation; slices by other words may stand beside the same outputs."""
    digest = hashlib.sha1(one.logits.tobytes(), usedforsecurity=False)
    digest.update(one.indices.tobytes())
    if one.labels is not None:
        digest.update(one.labels.tobytes())
    if one.slices is not None:
        digest.update("\0".join(("", *one.slices)).encode())
    return one.task, one.data, one.total, one.metric, digest.hexdigest()
