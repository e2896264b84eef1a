"""What an expert's inputs are made of, against all inputs: shares of groups, and which differ beyond chance.

Shapes: `N` inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from shrp.evaluation.metrics import share_interval
from shrp.evaluation.minimal_pairs import units_of
from shrp.evaluation.permutation import Dealer

FALSE_DISCOVERIES = 0.05
"""Expected part of the groups that are said to differ and do not."""
DEALS = 2000
"""Deals of the groups of data with minimal pairs."""


def mix_frame(
    mine: np.ndarray,
    everything: np.ndarray,
    groups: Mapping[str, np.ndarray],
    *,
    pairs: np.ndarray | None = None,
) -> pd.DataFrame:
    """How an expert's inputs (or tokens) split over groups, against all of them.

    Args:
        mine: `(N,)`: of each input, what was routed to the expert.
        everything: `(N,)`: of each input, what was routed at all.
        groups: name -> mask `(N,)`; each input is in one of them.
        pairs: rows of minimal pairs `(P, 2)`. Where there are some, a test that took their two inputs, which route much
            alike, for independent would find too much: groups are dealt anew instead, `DEALS` times. So they are where
            tokens are counted: whole inputs move, with what the expert has of each beyond its share of all.

    Returns:
        Columns group, count (of the expert's), here (its share of the expert's), low and high (the share's 95%
        interval, `shrp.evaluation.metrics.share_interval` with an input, or both of a pair, as one unit), n (of all),
        base, lift, p (Fisher's exact test of the expert against all other experts, two-sided, or that of the deals)
        and q (p for all groups looked at, after Benjamini and Hochberg 1995). nan where there is nothing to say.
    """
    from scipy.stats import false_discovery_control, fisher_exact

    total, whole = int(mine.sum()), int(everything.sum())
    tested, by_token = 0 < total < whole, len(everything) > 0 and everything.max() > 1
    pairs = np.empty((0, 2), dtype=int) if pairs is None else pairs
    dealt, units = by_token or len(pairs) > 0, units_of(len(mine), pairs)
    rows = []
    for name, mask in groups.items():
        count, n = int(mine[mask].sum()), int(everything[mask].sum())
        low, high = share_interval(mine * mask, units, mine) if tested else (np.nan, np.nan)
        table = [[count, total - count], [n - count, whole - total - (n - count)]]
        p = float(fisher_exact(table).pvalue) if tested and not dealt else np.nan
        rows.append((name, count, count / max(total, 1), low, high, n, n / max(whole, 1), p))
    frame = pd.DataFrame(rows, columns=["group", "count", "here", "low", "high", "n", "base", "p"])
    if tested and dealt:
        beyond = mine - everything * (total / whole)
        frame["p"] = _dealt(beyond, np.argmax(np.stack(list(groups.values())), axis=0), len(groups), pairs)
    lift = frame["here"] / frame["base"].where(frame["base"] > 0)
    q = false_discovery_control(frame["p"]) if tested and len(frame) else np.nan
    return frame.assign(lift=lift, q=q)[
        ["group", "count", "here", "low", "high", "n", "base", "lift", "p", "q"]
    ]


def _dealt(beyond: np.ndarray, codes: np.ndarray, groups: int, pairs: np.ndarray) -> np.ndarray:
    """For each group how often dealing the groups anew, pairs together, gives it a count as far from what is expected,
    `(G,)`.

    Args:
        beyond: of each input, what the expert has of it more than its share of all, `(N,)`.
        codes: each input's group `(N,)`.
    """
    members = np.eye(groups)[codes]  # (N, G)
    dealer, generator = Dealer(codes, pairs, np.zeros(len(codes))), np.random.default_rng(0)
    dealt = np.concatenate([block @ members for block in dealer.dealt_values(beyond, DEALS, generator)])
    far = np.abs(dealt - dealt.mean(0)) >= np.abs(beyond @ members - dealt.mean(0)) - 1e-9
    return (1 + far.sum(0)) / (1 + DEALS)


def differing(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The groups of a `mix_frame` that an expert takes more often than the others do, and those less often.

    Largest difference first; at most `FALSE_DISCOVERIES` of them are expected to be chance.
    """
    sure = frame[frame["q"] <= FALSE_DISCOVERIES]
    difference = sure["here"] - sure["base"]
    ordered = sure.iloc[np.argsort(-difference.abs().to_numpy(), kind="stable")]
    more = ordered["here"] > ordered["base"]
    return ordered.loc[more, "group"].tolist(), ordered.loc[~more, "group"].tolist()
