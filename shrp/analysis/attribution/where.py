"""Where each expert matters: what it is worth to the inputs of every slice, class or length, and whether that is more
than it is worth elsewhere. Shapes: `n` inputs, `E` experts, `G` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from shrp.analysis.attribution.importance import KnockOuts
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.group_test import apart_from_others
from shrp.evaluation.minimal_pairs import pairs_among, units_of
from shrp.evaluation.mixes import FALSE_DISCOVERIES
from shrp.evaluation.worth import worth

FEWEST = 5
"""Inputs that an expert fires for, a minimal pair being one, from which on it is tested: of fewer no test could tell a
group."""


def worth_by_group(
    found: KnockOuts,
    data: TextData,
    groups: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """What is lost in each group without each expert, `shrp.evaluation.worth.worth` of an answer being what counts.

    Args:
        data: the data that `found.rows` are of; with labels.
        groups: name -> mask over all of the data `(N,)`; each input is in one of them.
        progress: called with deals done and in all.

    Returns:
        A row for each expert and group with inputs among `found.rows`: layer, expert, group, n, `uses` (inputs of the
        group that the expert fires for), `lost` (mean over the group's inputs, positive where the expert helps),
        `elsewhere` (mean over all others; nan of a single group), `difference`, p (`shrp.evaluation.group_test`) and q (p
        for all experts and groups, after Benjamini and Hochberg 1995; of two groups, each of which is the other's
        rest, for all experts). p and q are nan of experts that fire for fewer than `FEWEST` inputs.

    Raises:
        DataError: the data have no labels, so that no answer is better than another.
    """
    from scipy.stats import false_discovery_control

    if data.labels is None:
        raise DataError(f"{data.name} has no labels, so what an expert is worth can't be told.")
    labels = data.labels[found.rows]
    lost = worth(data.task, found.base, labels)[:, None, None] - worth(data.task, found.knocked_out, labels)
    lost, fires = (values.reshape(found.n, -1) for values in (lost, found.fires))  # (n, E)
    masks = {name: mask[found.rows] for name, mask in groups.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    members = np.stack(list(masks.values())).astype(np.float64)  # (G, n)
    sums, p = members @ lost, np.full((len(masks), lost.shape[1]), np.nan)
    pairs = pairs_among(data, found.rows)
    units = units_of(found.n, pairs)
    tested = np.array([len(np.unique(units[column])) >= FEWEST for column in fires.T])
    if tested.any():
        codes = members.argmax(0)
        p[:, tested] = apart_from_others(lost[:, tested], codes, pairs, seed=seed, progress=progress)
    n, uses = members.sum(1)[:, None], members @ fires
    others = np.divide(lost.sum(0) - sums, found.n - n, out=np.full(sums.shape, np.nan), where=found.n > n)
    experts = found.fires.shape[2]
    places = pd.MultiIndex.from_product(
        [list(masks), found.layers, range(experts)], names=["group", "layer", "expert"]
    )
    frame = pd.DataFrame(
        {
            "n": np.repeat(n[:, 0].astype(int), lost.shape[1]),
            "uses": uses.astype(int).ravel(),
            "lost": (sums / n).ravel(),
            "elsewhere": others.ravel(),
            "difference": (sums / n - others).ravel(),
            "p": p.ravel(),
        },
        index=places,
    ).reset_index()
    q = np.full_like(p, np.nan)
    if np.isfinite(p).any():
        known = np.isfinite(p)
        q[known] = false_discovery_control(p[known])  # of two groups each has the same p, which changes none
    frame["q"] = q.ravel()
    return frame.sort_values(["layer", "expert"], kind="stable", ignore_index=True)[
        ["layer", "expert", "group", "n", "uses", "lost", "elsewhere", "difference", "p", "q"]
    ]


def count_tests(frame: pd.DataFrame) -> int:
    """How many differences `worth_by_group` tested; two groups make one of each expert."""
    return int(frame["p"].notna().sum()) // (2 if frame["group"].nunique() == 2 else 1)


def beyond_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `worth_by_group` that differ from elsewhere beyond chance, the largest difference first; of two
    groups the one that an expert is worth more to.
    """
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    if frame["group"].nunique() == 2:
        sure = sure[sure["difference"] > 0]
    return sure.sort_values("difference", key=np.abs, ascending=False, kind="stable")
