"""Groups of inputs dealt anew, by which chance is measured: both inputs of a minimal pair, which route much alike, are
dealt as one, or change places where the groups part them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEIGHBOURS = 8
"""Inputs of neighbouring lengths among which groups are dealt, where length is to be left out of it."""
_BLOCK = 100


class Dealer:
    """Deals the groups of some inputs anew.

    Args:
        codes: each input's group `(N,)`.
        pairs: inputs that are dealt together `(P, 2)`.
        length: of each input `(N,)`, the same for both of a pair.
    """

    def __init__(self, codes: np.ndarray, pairs: np.ndarray, length: np.ndarray) -> None:
        self.codes = codes
        apart = codes[pairs[:, 0]] != codes[pairs[:, 1]]
        self.changing = pairs[apart]
        alone = np.setdiff1d(np.arange(len(codes)), pairs)[:, None]
        # Each part by length: rows of inputs that are in one group, and are dealt for one another.
        self.parts = [part[np.argsort(length[part[:, 0]], kind="stable")] for part in (pairs[~apart], alone)]
        self.movable = len(self.changing) + sum(map(len, self.parts))

    def deals(
        self, times: int, generator: np.random.Generator, *, neighbours: bool, at_once: int
    ) -> Iterator[np.ndarray]:
        """Codes, dealt anew; among inputs of neighbouring lengths alone, if asked for.

        Args:
            at_once: deals of a block; they are the same whatever it is.

        Yields:
            Blocks `(B, N)`, in all `times` rows.
        """
        ends = np.cumsum([0, *map(len, self.parts), len(self.changing)])
        for start in range(0, times, at_once):
            size = min(at_once, times - start)
            dealt, drawn = np.tile(self.codes, (size, 1)), generator.random((size, ends[-1]))
            for part, first, last in zip(self.parts, ends, ends[1:], strict=False):
                stratum = np.arange(len(part)) // NEIGHBOURS if neighbours else 0
                order = np.argsort(drawn[:, first:last] + stratum, axis=1)  # what is drawn is below 1
                dealt[:, part] = self.codes[part[:, 0]][order][:, :, None]
            swap = drawn[:, ends[-2] :] < 0.5
            one, other = self.codes[self.changing].T
            dealt[:, self.changing[:, 0]] = np.where(swap, other, one)
            dealt[:, self.changing[:, 1]] = np.where(swap, one, other)
            yield dealt

    def dealt_values(
        self, values: np.ndarray, times: int, generator: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """What inputs have, dealt to the groups anew, which is the other way round and comes to the same.

        Args:
            values: of each input `(N,)`.

        Yields:
            Blocks `(B, N)`, in all `times` rows.
        """
        for start in range(0, times, _BLOCK):
            size = min(_BLOCK, times - start)
            dealt = np.tile(values, (size, 1))
            for part in self.parts:
                order = generator.permuted(np.tile(np.arange(len(part)), (size, 1)), axis=1)
                dealt[:, part] = values[part][order]
            first, second = values[self.changing].T
            swap = generator.random((size, len(self.changing))) < 0.5
            dealt[:, self.changing[:, 0]] = np.where(swap, second, first)
            dealt[:, self.changing[:, 1]] = np.where(swap, first, second)
            yield dealt
