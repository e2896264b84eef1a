"""Minimal pairs: two inputs that are alike but for what gives them different labels (as BLiMP's, Warstadt et al. 2020).

Accuracy asks on which side of a threshold each input falls. A pair asks less, and just what it was written to ask: does
the model think better of the better one? A model whose threshold is far off has half of the sentences wrong and may
still have every pair in order. Guessing has half of them in order; a model that gives all inputs the same has none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.data.text_data import TextData, pairs_of
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import EQUAL
from shrp.evaluation.statistics import paired_interval, wilson

ALL, MIXED = "all pairs", "in two slices"
MOST_MIXED = 24
"""Couples of slices at most by which pairs in two are named; where there are more, all such pairs are one group."""


def names_without_a_pair(data: TextData) -> int:
    """How many names of pairs are not of just two inputs with different labels, so that they make none."""
    names = {name for name in data.pairs or () if name}
    return len(names) - len(pairs_of(data))


@dataclass(frozen=True, eq=False)
class PairOutcomes:
    """What a model makes of minimal pairs; `P` of them.

    Attributes:
        pairs: `(P, 2)`, as `pairs_of`.
        ahead: bool `(P,)`, whether the input with the greater label gets more of it: whether its logit for that label,
            less that for the other's, is the larger one (of a regression, its output). Equal ones are not in order.
        both_right: bool `(P,)`, whether both inputs are classified rightly; all False for a regression.
        slices: of the pairs, or None.
    """

    pairs: np.ndarray
    ahead: np.ndarray
    both_right: np.ndarray
    slices: tuple[str, ...] | None

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    @property
    def in_order(self) -> int:
        """How many pairs the model has in order."""
        return int(self.ahead.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95% (Wilson) of the share in order; pairs are taken as independent of one another."""
        return wilson(self.in_order, self.n)

    def by_slice(self) -> pd.DataFrame:
        """Columns slice (`ALL` first), n, in_order, share, low, high (95%, Wilson), both_right."""
        rows = []
        for name, here in pair_groups(self.slices, self.n).items():
            n, hits = int(here.sum()), int(self.ahead[here].sum())
            rows.append((name, n, hits, hits / n, *wilson(hits, n), int(self.both_right[here].sum())))
        return pd.DataFrame(rows, columns=["slice", "n", "in_order", "share", "low", "high", "both_right"])


def pair_outcomes(data: TextData, outputs: Evaluation | np.ndarray) -> PairOutcomes:
    """What a model makes of the data's minimal pairs.

    Args:
        outputs: a complete evaluation on the data, or logits in the data's order, `(N, num_labels)`.

    Raises:
        DataError: the data have no minimal pairs, or the outputs are not of all their inputs.
    """
    if isinstance(outputs, Evaluation):
        outputs = outputs.logits
    if len(outputs) != len(data):
        raise DataError(f"{data.name} has {len(data):,} inputs, but the outputs are of {len(outputs):,}.")
    pairs = pairs_of(data)
    if not len(pairs):
        raise DataError(f"{data.name} has no minimal pairs: two labelled inputs that are named as one pair.")
    if data.task.is_regression:
        margins = outputs[pairs, 0]
        both_right = np.zeros(len(pairs), dtype=bool)
    else:
        low, high = data.labels[pairs].T[:, :, None]
        margins = outputs[pairs, high] - outputs[pairs, low]
        both_right = (outputs[pairs].argmax(-1) == data.labels[pairs]).all(1)
    return PairOutcomes(pairs, margins[:, 1] - margins[:, 0] > EQUAL, both_right, slices_of(data, pairs))


def pair_changes(reference: PairOutcomes, other: PairOutcomes) -> pd.DataFrame:
    """How many pairs two models have in order: `ALL` first, then each slice, the largest loss first.

    Args:
        reference, other: of the same data.

    Returns:
        Columns as `shrp.evaluation.paired.by_group` (shares in order of the pairs, the interval of the change paired), and
        only_reference, only_other: pairs that one of them alone has in order.

    Raises:
        DataError: the outcomes are not of the same pairs.
    """
    if not np.array_equal(reference.pairs, other.pairs):
        raise DataError("Minimal pairs can be compared of two models on the same data only.")
    first, second = reference.by_slice(), other.by_slice()
    frame = pd.DataFrame({"group": first["slice"], "n": first["n"]})
    for who, part in (("reference", first), ("other", second)):
        for name, column in ((who, "share"), (f"{who} low", "low"), (f"{who} high", "high")):
            frame[name] = part[column]
    frame["change"] = frame["other"] - frame["reference"]
    lost, won = reference.ahead & ~other.ahead, other.ahead & ~reference.ahead
    groups = pair_groups(reference.slices, reference.n).values()
    for name, which in (("only_reference", lost), ("only_other", won)):
        frame[name] = [int(which[here].sum()) for here in groups]
    bounds = [paired_interval(r.only_other, r.only_reference, r.n) for r in frame.itertuples()]
    frame["change low"], frame["change high"] = zip(*bounds, strict=True)
    slices = frame.iloc[1:].sort_values("change", kind="stable")
    return pd.concat([frame.iloc[:1], slices], ignore_index=True)


def slices_of(data: TextData, pairs: np.ndarray) -> tuple[str, ...] | None:
    """The slice of each pair, or of its inputs, the first one's first, where they are in two; None without slices.

    Were these more than `MOST_MIXED`, as where slices have nothing to do with pairs, all of them are in `MIXED`.
    """
    if data.slices is None:
        return None
    known = {name: _told_apart(name, set(data.slices)) for name in (ALL, MIXED)}
    slices = [known.get(name, name) for name in data.slices]
    found = [tuple(dict.fromkeys(slices[one] for one in pair)) for pair in pairs]
    many = len({names for names in found if len(names) > 1}) > MOST_MIXED
    return tuple(MIXED if many and len(names) > 1 else " / ".join(names) for names in found)


def _told_apart(name: str, slices: Collection[str]) -> str:
    """A name for a slice that is called as all pairs or as mixed ones are, and as no other slice is."""
    while name in (ALL, MIXED) or name in slices:
        name = f"{name} (slice)"
    return name


def pair_groups(slices: tuple[str, ...] | None, n: int) -> dict[str, np.ndarray]:
    """Masks `(n,)` over pairs: `ALL`, then each slice in the order in which they come."""
    found = {ALL: np.ones(n, dtype=bool)}
    names = np.array(slices or (), dtype=object)
    return found | {name: names == name for name in dict.fromkeys(slices or ())}
