"""What a layer's routing goes by: how much class, answer, slice and length of an input tell of the expert it takes.

The measure is the mutual information of group and Top-1 expert, less what it comes to when groups are dealt anew at
random, as a part of the most that it could be: the entropy of the experts, less the same. That is the adjustment of
Vinh, Epps and Bailey 2010 on the uncertainty coefficient of Theil 1970. 0 is what chance makes; 1 means that whoever
knows the group knows the expert. Under token routing what is counted is tokens, and inputs are dealt as a whole.

Shapes: `L` routed layers, `H` experts, `G` groups, `N` inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from shrp.data import TextData
from shrp.errors import DataError
from shrp.minimal_pairs import pairs_of
from shrp.usage import UsageStats

ANSWER, LENGTH = "answer", "length"
GROUPINGS = ("class", ANSWER, "slice", LENGTH)
MOST_GROUPS = 60
"""A grouping into more, as by a column of names, tells nothing that a person can read, and chance fills it."""
PARTS, STRATA = 4, 10
"""Lengths are told by fourths, and held equal by tenths."""
DEALS = 1000
"""How often groups are dealt anew; no p-value is below 1 in so many."""
_SAME = 1e-9  # what differs by less is equal but for rounding


@dataclass(frozen=True, eq=False)
class Grouping:
    """What one grouping of the inputs tells of the experts that they take."""

    by: str
    names: tuple[str, ...]
    sizes: np.ndarray
    """Inputs of each group `(G,)`."""
    layers: tuple[int, ...]
    counts: np.ndarray
    """`(L, G, H)`: inputs (or tokens) of each group that have the expert as their Top-1."""
    entropy: np.ndarray
    """Of the experts `(L,)`, in nats."""
    information: np.ndarray
    """That group and expert share `(L,)`, in nats."""
    chance: np.ndarray
    """The mean of it over deals `(L,)`."""
    p: np.ndarray
    """Part of the deals `(L,)` that share as much."""
    cells: np.ndarray
    """p-value of each count `(L, G, H)`: the part of the deals in which any count of its layer is as many standard
    deviations from what is to be expected (Westfall and Young 1993, so it holds for all of a layer's counts at once).
    """
    within: np.ndarray | None = None
    """As `chance`, of deals among inputs of about the same length; None for the grouping by length itself."""
    within_p: np.ndarray | None = None

    @property
    def explained(self) -> np.ndarray:
        """The part of the experts' entropy that the groups explain beyond chance `(L,)`; nan where there is none."""
        return _part(self.information, self.chance, self.entropy)

    @property
    def explained_beyond_length(self) -> np.ndarray:
        """The same beyond what groups of such lengths would explain `(L,)`; nan for the grouping by length."""
        nothing = np.full(len(self.layers), np.nan)
        return nothing if self.within is None else _part(self.information, self.within, self.entropy)

    def shares(self, layer: int) -> np.ndarray:
        """Which part of each group takes each expert `(G, H)`; nan where a group has no tokens."""
        counts = self.counts[self.layers.index(layer)].astype(np.float64)
        total = counts.sum(1, keepdims=True)
        return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def specialisation(
    stats: UsageStats,
    data: TextData,
    lengths: Sequence[int],
    answers: Sequence[int] | None = None,
    *,
    deals: int = DEALS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Grouping]:
    """What `GROUPINGS` tell of the routes, each of them that parts the data in 2 to `MOST_GROUPS`.

    The two inputs of a minimal pair are much alike, so where a grouping has both in one group they are dealt together;
    their length is the mean of both.

    Args:
        stats: of `data`, row by row.
        lengths: of the inputs, in tokens.
        answers: the class that the routed model gives each input; None leaves that grouping out.
        deals: how often groups are dealt anew.
        seed: makes the deals reproducible.
        progress: called with deals done and in all.

    Raises:
        DataError: these are of other inputs than each other.
    """
    if not stats.n == len(data) == len(lengths):
        raise DataError(
            f"usage of {stats.n} inputs, {len(data)} inputs and {len(lengths)} lengths don't fit each other."
        )
    table = np.concatenate([stats.top1[layer] for layer in stats.layers], axis=1).astype(np.float64)
    units = np.arange(len(data))
    pairs = pairs_of(data)
    units[pairs[:, 1]] = pairs[:, 0]
    _, units = np.unique(units, return_inverse=True)
    length = (np.bincount(units, np.asarray(lengths)) / np.bincount(units))[units]
    strata = np.quantile(length, np.arange(1, STRATA) / STRATA).searchsorted(length)
    found = _groupings(stats, data, length, answers)
    generator = np.random.default_rng(seed)
    step, steps = 0, deals * sum(1 if by == LENGTH else 2 for by in found)

    def tick() -> None:
        nonlocal step
        step += 1
        if progress and step % 100 == 0:
            progress(step, steps)

    result = []
    for by, (names, codes) in found.items():
        apart = (np.bincount(units, codes) / np.bincount(units))[units] != codes
        rows = np.arange(len(data)) if apart.any() else units
        result.append(_explain(by, names, codes, table, rows, strata, stats, generator, deals, tick))
    return result


def _groupings(
    stats: UsageStats, data: TextData, length: np.ndarray, answers: Sequence[int] | None
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Groupings by name: the groups' names, and each input's group `(N,)`."""
    found = {}
    for by in GROUPINGS:
        try:
            if by == LENGTH:
                groups = _fourths(length)
            elif by == ANSWER:
                groups = {} if answers is None else _classes(np.asarray(answers), data.task.label_names)
            else:
                groups = stats.groups(by)
        except DataError:  # these data have no labels, or no slices
            continue
        groups = {name: mask for name, mask in groups.items() if mask.any()}
        if 2 <= len(groups) <= MOST_GROUPS:
            found[by] = tuple(groups), np.argmax(np.stack([*groups.values()]), axis=0)
    return found


def _classes(answers: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: answers == i for i, name in enumerate(names)}


def _fourths(length: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of the inputs in each fourth of lengths, by what they are from and to."""
    part = np.quantile(length, np.arange(1, PARTS) / PARTS).searchsorted(length)
    found = {}
    for at in np.unique(part):
        mask = part == at
        low, high = length[mask].min(), length[mask].max()
        found[f"{low:g} tokens" if low == high else f"{low:g} to {high:g} tokens"] = mask
    return found


def _explain(
    by: str,
    names: tuple[str, ...],
    codes: np.ndarray,
    table: np.ndarray,
    units: np.ndarray,
    strata: np.ndarray,
    stats: UsageStats,
    generator: np.random.Generator,
    deals: int,
    tick: Callable[[], None],
) -> Grouping:
    """Count, and deal anew.

    Args:
        codes, strata: group and length of each input `(N,)`, the same within a unit.
        table: `(N, L * H)` of Top-1 counts.
        units: which inputs are dealt together `(N,)`, from 0.
    """
    shape = len(names), len(stats.layers), stats.num_experts
    first = np.unique(units, return_index=True)[1]
    whole = np.zeros((len(first), table.shape[1]))
    np.add.at(whole, units, table)
    group, stratum = codes[first], strata[first]

    unit, column = whole.nonzero()  # few: of each input one expert a layer
    times = whole[unit, column]

    def count(of: np.ndarray) -> np.ndarray:
        cells = np.bincount(of[unit] * whole.shape[1] + column, times, minlength=shape[0] * whole.shape[1])
        return cells.reshape(shape).transpose(1, 0, 2)

    counts = count(group)
    information = _information(counts)
    size = np.bincount(group)[:, None] / len(group)
    # Of a group's count, which is a sum over units that are drawn without replacement.
    mean = size * whole.sum(0)
    spread = np.sqrt(size * (1 - size) * len(group) * whole.var(0, ddof=1))
    mean, spread = (part.reshape(shape).transpose(1, 0, 2) for part in (mean, spread))

    def away(of: np.ndarray) -> np.ndarray:
        return np.divide(np.abs(of - mean), spread, out=np.zeros(mean.shape), where=spread > 0)

    far = away(counts) - _SAME

    def deal(draw: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total, as_much, as_far = np.zeros(shape[1]), np.ones(shape[1]), np.ones(counts.shape)
        for _ in range(deals):
            dealt = count(draw())
            shared = _information(dealt)
            total += shared
            as_much += shared >= information - _SAME
            as_far += away(dealt).max((1, 2), keepdims=True) >= far
            tick()
        return total / deals, as_much / (deals + 1), as_far / (deals + 1)

    places = np.argsort(stratum, kind="stable")

    def among_equals() -> np.ndarray:
        dealt = np.empty_like(group)
        dealt[places] = group[np.lexsort((generator.random(len(group)), stratum))]
        return dealt

    chance, p, cells = deal(lambda: generator.permutation(group))
    within, within_p = (None, None) if by == LENGTH else deal(among_equals)[:2]
    experts = counts.sum(1, keepdims=True)
    return Grouping(
        by,
        names,
        np.bincount(codes, minlength=len(names)),
        tuple(stats.layers),
        counts.round().astype(np.int64),
        _entropy(experts),
        information,
        chance,
        p,
        cells,
        within,
        within_p,
    )


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Of the last two axes of counts `(L, ., .)` together, in nats `(L,)`."""
    share = counts / counts.sum((1, 2), keepdims=True, dtype=np.float64)
    return -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum((1, 2))


def _information(counts: np.ndarray) -> np.ndarray:
    """Mutual information of group and expert `(L,)` from counts `(L, G, H)`, in nats."""
    return _entropy(counts.sum(1, keepdims=True)) + _entropy(counts.sum(2, keepdims=True)) - _entropy(counts)


def _part(information: np.ndarray, chance: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    room = entropy - chance
    return np.divide(information - chance, room, out=np.full(len(room), np.nan), where=room > _SAME)


def specialisation_frame(groupings: Sequence[Grouping]) -> pd.DataFrame:
    """A row for each grouping and layer: by, groups, layer, explained, q, beyond_length, q_beyond, effective_experts.

    q is p for all rows looked at (Benjamini and Hochberg 1995), separately beyond length.
    """
    frame = pd.DataFrame(
        [
            {
                "by": one.by,
                "groups": len(one.names),
                "layer": layer,
                "explained": one.explained[at],
                "p": one.p[at],
                "beyond_length": one.explained_beyond_length[at],
                "p_beyond": np.nan if one.within_p is None else one.within_p[at],
                "effective_experts": float(np.exp(one.entropy[at])),
            }
            for one in groupings
            for at, layer in enumerate(one.layers)
        ]
    )
    for p, q in (("p", "q"), ("p_beyond", "q_beyond")):
        known = frame[p].notna()
        frame[q] = np.nan
        if known.any():
            frame.loc[known, q] = false_discovery_control(frame.loc[known, p])
    return frame
