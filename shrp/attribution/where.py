"""Where each expert matters: what it is worth to the inputs of every slice, class or length, and whether that is more
than it is worth elsewhere. Shapes: `n` inputs, `E` experts, `G` groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from shrp.attribution.importance import KnockOuts
from shrp.data import TextData
from shrp.dealing import Dealer
from shrp.errors import DataError
from shrp.minimal_pairs import pairs_of
from shrp.mixes import FALSE_DISCOVERIES
from shrp.worth import worth

FEWEST = 5
"""Inputs that an expert fires for, from which on it is tested: of fewer no test could tell a group."""
DEALS = 2000
"""Random deals of inputs to groups at the least: more where there is more to test, so that one could be told of all."""


def worth_by_group(
    found: KnockOuts,
    data: TextData,
    groups: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """What is lost in each group without each expert, `shrp.worth.worth` of an answer being what counts.

    Args:
        data: the data that `found.rows` are of; with labels.
        groups: name -> mask over all of the data `(N,)`; each input is in one of them.
        progress: called with deals done and in all.

    Returns:
        A row for each expert and group with inputs among `found.rows`: layer, expert, group, n, `uses` (inputs of the
        group that the expert fires for), `lost` (mean over the group's inputs, positive where the expert helps),
        `elsewhere` (mean over all others; nan of a single group), `difference`, p (two-sided, by dealing the inputs to
        the groups anew, both of a minimal pair as one) and q (p for all experts and groups, after Benjamini and
        Hochberg 1995). p and q are nan of experts that fire for fewer than `FEWEST` inputs.

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
    tested = fires.sum(0) >= FEWEST
    if len(masks) > 1 and tested.any():
        p[:, tested] = _chance(lost[:, tested], members, _pairs_among(found.rows, data), seed, progress)
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
    frame["q"] = np.nan
    known = frame["p"].notna()
    if known.any():
        frame.loc[known, "q"] = false_discovery_control(frame.loc[known, "p"])
    return frame.sort_values(["layer", "expert"], kind="stable", ignore_index=True)[
        ["layer", "expert", "group", "n", "uses", "lost", "elsewhere", "difference", "p", "q"]
    ]


def beyond_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `worth_by_group` that differ from elsewhere beyond chance, the largest difference first."""
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    return sure.sort_values("difference", key=np.abs, ascending=False, kind="stable")


def _pairs_among(rows: np.ndarray, data: TextData) -> np.ndarray:
    """The minimal pairs whose two inputs are both among the rows, as places in these `(P, 2)`."""
    places = np.full(len(data), -1)
    places[rows] = np.arange(len(rows))
    pairs = places[pairs_of(data)]
    return pairs[(pairs >= 0).all(1)]


def _chance(
    lost: np.ndarray,
    members: np.ndarray,
    pairs: np.ndarray,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """How often deals of the inputs give each expert and group a difference as large, `(G, E)`."""
    count, total = members.shape
    names, sizes, whole = np.arange(count)[:, None], members.sum(1)[:, None], lost.sum(0)

    def differences(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums / sizes - (whole - sums) / (total - sizes))

    found, reached = (
        differences(members @ lost),
        np.ones((count, lost.shape[1])),
    )  # the deal that was found is one
    deals = max(DEALS, math.ceil(reached.size / FALSE_DISCOVERIES))
    codes, done = members.argmax(0), 0
    dealer = Dealer(codes, pairs, np.zeros(total))
    for orders in dealer.dealt_values(np.arange(total), deals, np.random.default_rng(seed)):
        dealt = np.empty_like(orders)  # each input gets the group of the place that it comes to
        np.put_along_axis(dealt, orders, np.broadcast_to(codes, orders.shape), 1)
        sums = (dealt[:, None] == names).reshape(-1, total).astype(
            float
        ) @ lost  # as one product it is much faster
        reached += (differences(sums.reshape(len(orders), count, -1)) >= found - 1e-12).sum(0)
        done += len(orders)
        if progress:
            progress(done, deals)
    return reached / (deals + 1)
