"""Groups dealt anew: by length where that is asked for, pairs as one, and alike however many are dealt at once."""

import numpy as np
import pytest

from shrp.evaluation.permutation import NEIGHBOURS, Dealer

N, TIMES = 60, 7
CODES = np.random.default_rng(0).integers(3, size=N)
LENGTH = np.random.default_rng(1).integers(3, 30, size=N)
PAIRS = {
    "none": np.empty((0, 2), dtype=int),
    "some": np.array([[2, 3], [10, 40], [7, 8], [20, 21], [30, 33], [50, 59]]),
    "all": np.arange(N).reshape(-1, 2),
}


def one_by_one(codes, pairs, length, generator, neighbours):
    """A deal, as it is told: what is dealt together changes places among its like, and pairs that groups part swap."""
    apart = codes[pairs[:, 0]] != codes[pairs[:, 1]]
    alone = np.setdiff1d(np.arange(len(codes)), pairs)
    dealt = codes.copy()
    for part in (pairs[~apart], alone[:, None]):
        part = part[np.argsort(length[part[:, 0]], kind="stable")]
        drawn, step = generator.random(len(part)), NEIGHBOURS if neighbours else max(len(part), 1)
        for start in range(0, len(part), step):
            here = part[start : start + step]
            dealt[here] = codes[here[:, :1]][np.argsort(drawn[start : start + step])]
    for (one, other), swaps in zip(pairs[apart], generator.random(apart.sum()) < 0.5, strict=True):
        if swaps:
            dealt[[one, other]] = codes[[other, one]]
    return dealt


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_deals_are_those_of_one_by_one_in_blocks_of_any_size(pairs, neighbours, at_once):
    pairs, length = PAIRS[pairs], LENGTH.astype(float)
    length[pairs] = length[pairs].mean(1, keepdims=True)
    dealer, generator = Dealer(CODES, pairs, length), np.random.default_rng(2)
    wanted = [one_by_one(CODES, pairs, length, generator, neighbours) for _ in range(TIMES)]
    blocks = [*dealer.deals(TIMES, np.random.default_rng(2), neighbours=neighbours, at_once=at_once)]
    assert max(map(len, blocks)) == min(at_once, TIMES)
    assert np.array_equal(np.concatenate(blocks), wanted)
    assert not np.array_equal(wanted[0], wanted[1])
    assert all((np.sort(dealt) == np.sort(CODES)).all() for dealt in wanted)
