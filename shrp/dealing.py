"""Groups of inputs dealt anew, by which chance is measured: both inputs of a minimal pair, which route much alike, are
dealt as one, or change places where the groups part them.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 8
"""Inputs of neighbouring lengths among which groups are dealt, where length is to be left out of it."""


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

    def deal(self, generator: np.random.Generator, *, neighbours: bool) -> np.ndarray:
        """Codes `(N,)`; dealt among inputs of neighbouring lengths alone, if asked for."""
        dealt = self.codes.copy()
        for part in self.parts:
            own, where = self.codes[part[:, :1]], np.arange(len(part))
            stratum = where // NEIGHBOURS if neighbours else np.zeros(len(part))
            dealt[part] = own[np.lexsort((generator.random(len(part)), stratum))]
        places = self.changing[generator.random(len(self.changing)) < 0.5]
        dealt[places] = dealt[places[:, ::-1]]
        return dealt
