"""What drives routing: mutual information between an example's class, prediction, slice or length and its expert.

Mutual information is reported minus its mean under permutation, as a part of the most it could be: the experts'
entropy minus the same mean (adjusted as by Vinh, Epps and Bailey 2010). 0 is chance; 1: the group determines the expert.
A minimal pair is permuted as one unit. Under token routing tokens are counted and examples permuted.

Shapes: `L` routed layers, `H` experts, `G` groups, `N` examples, `B` permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import entr

from shrp.analysis.usage import UsageStats
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE, input_groups
from shrp.data.text_data import TextData, pairs_of, units_of
from shrp.evaluation.statistics import permutations
from shrp.progress import Progress, silent

GROUPINGS = (CLASS, ANSWER, SLICE, LENGTH)
MOST_GROUPS = 60
"""Groupings into more groups are left out."""
FEWEST = 40
"""Fewest examples (pairs count once) for a test beyond length."""
EXPECTED = 2
"""A count is tested if this many examples of the group are expected to take the expert, and as many not to."""
PERMUTATIONS, MANY = 1000, 5000
"""Permutations; fewer above `MANY` examples, down to a fifth."""
_BLOCK = 50
"""Most permutations of a block."""
_MOST_PLACES = 1_000_000
"""Pairs of an example and its expert that are counted at once."""
_SAME = 1e-9  # informations that differ by less are equal but for rounding,
_NEAR = 1e-4  # and so are counts, which the permutations hold in float32


@dataclass(frozen=True, eq=False)
class Grouping:
    """How one grouping of the examples relates to the experts they take."""

    by: str
    names: tuple[str, ...]
    layers: tuple[int, ...]
    counts: np.ndarray
    """`(L, G, H)`: examples (or tokens) of each group by Top-1 expert."""
    entropy: np.ndarray
    """Of the experts `(L,)`, in nats."""
    information: np.ndarray
    """Mutual information of group and expert `(L,)`, in nats."""
    chance: np.ndarray
    """Its mean over permutations `(L,)`."""
    p: np.ndarray
    """p-value `(L,)` of the permutation test."""
    cells: np.ndarray
    """p-value of each count `(L, G, H)`, adjusted for all counts of all layers by the permutations' largest deviation
    (Westfall and Young 1993); nan by `EXPECTED`."""
    within: np.ndarray
    """As `chance`, permuted among examples of similar length `(L,)`; nan by `FEWEST`, and for length itself."""
    within_p: np.ndarray

    @property
    def explained(self) -> np.ndarray:
        """Share of the experts' entropy that the groups explain beyond chance `(L,)`; nan if there is no entropy."""
        return _part(self.information, self.chance, self.entropy)

    @property
    def explained_beyond_length(self) -> np.ndarray:
        """The same beyond groups of similar lengths `(L,)`."""
        return _part(self.information, self.within, self.entropy)

    @property
    def ceiling(self) -> np.ndarray:
        """The most that `explained` could be with groups of these sizes `(L,)`."""
        groups = entr(self.counts.sum(2) / self.counts.sum((1, 2))[:, None]).sum(1)
        return _part(np.minimum(groups, self.entropy), self.chance, self.entropy)

    def shares(self, layer: int) -> np.ndarray:
        """Share of each group that takes each expert `(G, H)`; nan for a group without tokens."""
        counts = self.counts[self.layers.index(layer)].astype(np.float64)
        total = counts.sum(1, keepdims=True)
        return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def specialisation(
    stats: UsageStats,
    data: TextData,
    lengths: Sequence[int],
    answers: Sequence[float] | None = None,
    *,
    draws: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Grouping]:
    """Each of `GROUPINGS` that splits the data into 2 to `MOST_GROUPS` groups; numbers are split into quartiles.

    Args:
        lengths: of the examples, in tokens; both of a minimal pair get their mean.
        answers: the routed model's predictions `(N,)`; None leaves that grouping out.

    Raises:
        DataError: answers or lengths are of other examples.
    """
    pairs = pairs_of(data)
    length = np.array(lengths, dtype=np.float64)  # a copy
    length[pairs] = length[pairs].mean(1, keepdims=True)
    known = input_groups(data, answers, length, GROUPINGS)
    found = {
        by: (tuple(groups), np.argmax(np.stack([*groups.values()]), axis=0))
        for by, groups in known.items()
        if 2 <= len(groups) <= MOST_GROUPS
    }
    draws = max(draws // 5, round(draws * min(1, MANY / max(stats.n, 1))))
    step, steps = 0, draws * sum(1 if by == LENGTH else 2 for by in found)

    def tick(done: int) -> None:
        nonlocal step
        step += done
        if step // _BLOCK > (step - done) // _BLOCK:
            progress(step, steps)

    test = _Test(stats, pairs, length, draws, np.random.default_rng(seed), tick)
    return [test.of(by, names, codes) for by, (names, codes) in found.items()]


class _Test:
    """Counts of groups and experts, and permutation tests of them."""

    def __init__(
        self,
        stats: UsageStats,
        pairs: np.ndarray,
        length: np.ndarray,
        draws: int,
        generator: np.random.Generator,
        tick: Callable[[int], None],
    ) -> None:
        self.layers, self.experts = tuple(stats.layers), stats.num_experts
        self.pairs, self.length, self.draws, self.generator, self.tick = pairs, length, draws, generator, tick
        table = np.concatenate([stats.top1[layer] for layer in stats.layers], axis=1)
        self.columns = table.shape[1]
        self.input, self.column = table.nonzero()  # few: of each input one expert a layer
        self.times = table[self.input, self.column].astype(np.float64)

    def counts(self, codes: np.ndarray, groups: int) -> np.ndarray:
        """`(B, L, G, H)`, with each example in the group of `codes` `(B, N)`."""
        first = np.arange(len(codes))[:, None] * groups
        places = (first + codes[:, self.input]) * self.columns + self.column
        times = np.broadcast_to(self.times, places.shape)
        counts = np.bincount(places.ravel(), times.ravel(), minlength=len(codes) * groups * self.columns)
        return counts.reshape(-1, groups, len(self.layers), self.experts).swapaxes(1, 2)

    def of(self, by: str, names: tuple[str, ...], codes: np.ndarray) -> Grouping:
        """Test the grouping with these names and each example's group, `codes` `(N,)`."""
        (counts,) = self.counts(codes[None], len(names))
        information, experts = _information(counts), counts.sum(1, keepdims=True)
        share = experts / experts.sum(2, keepdims=True)
        block = max(1, min(_BLOCK, _MOST_PLACES // max(len(self.input), 1)))

        def permute(near: bool) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
            """Mean information, its p-value, and (not for `near`) blocks `(B, L, G, H)` of `_beyond`."""
            total, as_much, left = np.zeros(len(counts)), np.ones(len(counts)), []
            options = {"length": self.length, "near": near, "block": block}
            for orders in permutations(codes, self.pairs, self.draws, self.generator, **options):
                permuted = self.counts(codes[orders], len(names))
                shared = _information(permuted)
                total += shared.sum(0)
                as_much += (shared >= information - _SAME).sum(0)
                if not near:
                    left.append(_beyond(permuted, share).astype(np.float32))
                self.tick(len(orders))
            return total / self.draws, as_much / (self.draws + 1), left

        chance, p, left = permute(near=False)
        within = within_p = np.full(len(counts), np.nan)
        if by != LENGTH and len(np.unique(units_of(len(codes), self.pairs))) >= FEWEST:
            within, within_p, _ = permute(near=True)
        sizes = np.bincount(codes, minlength=len(names))
        tested = sizes[:, None] * np.minimum(share, 1 - share) >= EXPECTED
        cells = _cells(_beyond(counts, share), np.concatenate(left), tested)
        about = by, names, self.layers, counts.round().astype(np.int64)
        return Grouping(*about, _entropy(experts), information, chance, p, cells, within, within_p)


def _beyond(counts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Counts `(..., L, G, H)` minus those expected by the experts' shares `(L, 1, H)`."""
    return counts - counts.sum(-1, keepdims=True) * share


def _cells(found: np.ndarray, permuted: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """p-values `(L, G, H)` of `found` by the largest tested deviation of each permutation `(B, L, G, H)`."""
    permuted = np.concatenate([found[None].astype(np.float32), permuted])
    mean, spread = permuted.mean(0), permuted.std(0)
    tested = tested & (spread > _NEAR)
    far = np.abs((permuted - mean) / np.where(tested, spread, np.inf))
    largest = far.max((1, 2, 3), keepdims=True)
    return np.where(tested, (largest >= far[0] - _NEAR).mean(0), np.nan)


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Joint entropy over the last two axes of counts `(..., L, ., .)`, in nats `(..., L)`."""
    return entr(counts / counts.sum((-2, -1), keepdims=True, dtype=np.float64)).sum((-2, -1))


def _information(counts: np.ndarray) -> np.ndarray:
    """Mutual information of group and expert `(..., L)` from counts `(..., L, G, H)`, in nats."""
    experts, groups = (counts.sum(axis, keepdims=True) for axis in (-2, -1))
    return _entropy(experts) + _entropy(groups) - _entropy(counts)


def _part(information: np.ndarray, chance: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    room = entropy - chance
    return np.divide(information - chance, room, out=np.full(len(room), np.nan), where=room > _SAME)


def cells_frame(one: Grouping) -> pd.DataFrame:
    """Every tested count of all layers, smallest p first.

    Returns:
        Columns layer, expert, group, n (examples or tokens of the group), count, share, of_all (share of all that take
        the expert), difference, p (`Grouping.cells`).
    """
    rows = []
    for at, layer in enumerate(one.layers):
        shares, counts = one.shares(layer), one.counts[at]
        whole = counts.sum(0) / counts.sum()
        for g, e in np.argwhere(np.isfinite(one.cells[at])):
            n, apart = int(counts[g].sum()), shares[g, e] - whole[e]
            facts = layer, int(e), one.names[g], n, int(counts[g, e]), shares[g, e], whole[e], apart
            rows.append((*facts, one.cells[at, g, e]))
    columns = ["layer", "expert", "group", "n", "count", "share", "of_all", "difference", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.iloc[np.lexsort((-frame["difference"].abs(), frame["p"]))].reset_index(drop=True)


def specialisation_frame(groupings: Sequence[Grouping]) -> pd.DataFrame:
    """One row a grouping and layer.

    Columns by, groups, layer, explained, ceiling, p, q, beyond_length, p_beyond, q_beyond, effective_experts; q is p adjusted
    over all rows (Benjamini and Hochberg 1995), separately beyond length.
    """
    from scipy.stats import false_discovery_control  # slow to import

    if not groupings:
        return pd.DataFrame()
    parts = []
    for one in groupings:
        part = {"by": one.by, "groups": len(one.names), "layer": one.layers, "explained": one.explained}
        part |= {"p": one.p, "beyond_length": one.explained_beyond_length, "p_beyond": one.within_p}
        parts.append(part | {"ceiling": one.ceiling, "effective_experts": np.exp(one.entropy)})
    frame = pd.concat(map(pd.DataFrame, parts), ignore_index=True)
    for p, q, of in (("p", "q", "explained"), ("p_beyond", "q_beyond", "beyond_length")):
        known = frame[of].notna()  # of a layer with one expert for all there is nothing to test
        frame[q] = np.nan
        if known.any():
            frame.loc[known, q] = false_discovery_control(frame.loc[known, p])
    return frame
