"""The fewest words without which the prediction changes.

Sets of words are replaced, small ones first, until the prediction flips; the model routes each copy again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import torch

from shrp.analysis import Progress
from shrp.analysis.attribution.instance import Instance, Word
from shrp.analysis.attribution.tokens import ablated, check_replacement, layers_rerouted
from shrp.errors import DataError
from shrp.model.gates import record_routing

AMONG = 12
"""Sets of two or more words are made of this many: those whose loss leaves the smallest margins."""
ALL_OF = 3
"""Sets up to this size are tried in every combination; larger ones grow by the best word."""
RANDOM = 100
"""Random sets of the same size, the control; where all sets were tried, those."""


@dataclass(frozen=True)
class Flip:
    """The prediction without a set of words."""

    places: tuple[int, ...]
    """Indices into the input's words."""
    answer: int
    """The predicted class."""
    probability: float
    """Of that class."""
    margin: float
    """Logit of the input's own class minus the largest other; below 0 the prediction flips."""
    rerouted: int
    """Routed layers that take other experts."""


@dataclass(frozen=True, eq=False)
class Flips:
    """Sets of words that change the prediction of one input."""

    words: tuple[Word, ...]
    answer: int
    """The class predicted for the input."""
    size: int
    """Words in each of `found`; where nothing flips, in the largest set tried."""
    found: tuple[Flip, ...]
    """The sets of that size that flip it, smallest margin first."""
    smallest: bool
    """Whether every smaller set was tried."""
    tried: int
    """Sets tried, without the random ones."""
    random: tuple[int, int]
    """How many random sets of that size flip it, and how many there were."""
    unit: str = "word"
    """What `words` are, as of the instance."""

    def to_frame(self, labels: Sequence[str]) -> pd.DataFrame:
        """One row a set; `labels` are the names of the classes."""
        rows = [
            {
                f"{self.unit}s": " + ".join(self.words[place].text for place in one.places),
                "places": ", ".join(str(place + 1) for place in one.places),
                "answer": labels[one.answer],
                "probability": one.probability,
                "margin": one.margin,
                "layers rerouted": one.rerouted,
            }
            for one in self.found
        ]
        return pd.DataFrame(rows)


def fewest_words(
    instance: Instance, *, replacement: str = "mask", seed: int = 0, progress: Progress | None = None
) -> Flips:
    """Search for the fewest words without which the predicted class changes.

    All single words are tried; of larger sets all where there are at most `RANDOM`, else those among the `AMONG` words
    with the smallest margins. The search ends at the first size that flips anything.

    Raises:
        DataError: the task is a regression; or as `ablate_words`.
    """
    if instance.task.is_regression:
        raise DataError(f"'{instance.task.name}' is a regression: it has no class that could flip.")
    check_replacement(replacement)
    count = len(instance.words)
    search = _Search(instance, replacement, progress, _most(count))
    tries = search.all([(place,) for place in range(count)])
    first = sorted(range(count), key=lambda place: tries[place].margin)[:AMONG]
    size, whole, smallest = 1, True, True  # whether all sets of the size were tried, and of all smaller ones
    while not (flips := search.flips(tries)) and size < len(first):
        size, smallest = size + 1, smallest and whole
        sets = _sets(count, size, first, min(tries, key=lambda one: one.margin).places)
        tries, whole = search.all(sets), len(sets) == comb(count, size)
    tried, random = search.tried, (len(flips), len(tries))
    if not whole:
        random = len(search.flips(search.all(_random_sets(count, size, seed)))), RANDOM
    if progress:
        progress(search.tried, search.tried)
    flips.sort(key=lambda one: one.margin)
    return Flips(instance.words, search.answer, size, tuple(flips), smallest, tried, random, instance.unit)


def _sets(count: int, size: int, first: Sequence[int], best: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sets of two or more words to try.

    Args:
        first: the words they are made of where all sets are too many.
        best: the set of one word fewer with the smallest margin.
    """
    if comb(count, size) <= RANDOM:
        return list(combinations(range(count), size))
    if size <= ALL_OF:
        return list(combinations(sorted(first), size))
    return [tuple(sorted((*best, place))) for place in first if place not in best]


def _most(count: int) -> int:
    """Sets that are tried at most, of so many words."""
    first = tuple(range(min(AMONG, count)))
    larger = sum(len(_sets(count, size, first, first[: size - 1])) for size in range(2, len(first) + 1))
    return count + larger + RANDOM


def _random_sets(count: int, size: int, seed: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.choice(count, size, replace=False).tolist())) for _ in range(RANDOM)]


class _Search:
    """The model as a function of which words are replaced."""

    def __init__(self, instance: Instance, replacement: str, progress: Progress | None, most: int) -> None:
        self.instance, self.replacement, self.progress, self.most = instance, replacement, progress, most
        with torch.no_grad(), record_routing() as self.own:
            self.answer = int(instance.outputs(instance.embeddings)[0].argmax())
        self.tried = 0

    def all(self, sets: Sequence[tuple[int, ...]]) -> list[Flip]:
        """What each set of places does, whether it flips anything or not."""
        found = []
        for batch in self.instance.batches(len(sets)):
            found += self._some(sets[batch])
            if self.progress:
                self.progress(self.tried + len(found), self.most)
        self.tried += len(sets)
        return found

    def flips(self, tries: Sequence[Flip]) -> list[Flip]:
        """Those that flip the answer."""
        return [one for one in tries if one.answer != self.answer]

    def _some(self, sets: Sequence[tuple[int, ...]]) -> list[Flip]:
        words = tuple(self._together(places) for places in sets)
        with torch.no_grad(), record_routing() as record:
            logits = ablated(self.instance, words, self.replacement)
        layers = layers_rerouted(self.own, record, words, len(self.instance.tokens), self.replacement)
        others = logits.clone()
        others[:, self.answer] = -torch.inf
        margins = (logits[:, self.answer] - others.max(1).values).tolist()
        best = logits.softmax(1).max(1)
        return [
            Flip(places, int(answer), float(share), margin, int(changed))
            for places, answer, share, margin, changed in zip(
                sets, best.indices, best.values, margins, layers, strict=True
            )
        ]

    def _together(self, places: tuple[int, ...]) -> Word:
        """Several words as one, whose tokens go together."""
        words = [self.instance.words[place] for place in places]
        return Word("", 0, tuple(position for word in words for position in word.positions))
