"""The fewest words without which the answer is another one.

Ablation of single words misses those that say the same thing twice: each alone can go. So sets of words are replaced,
small ones first, until the prediction flips; the model routes each copy anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from shrp.attribution.instance import Instance, Word
from shrp.attribution.tokens import REPLACEMENTS, ablated, layers_rerouted
from shrp.errors import DataError
from shrp.routing import record_routing

AMONG = 12
"""Sets of two words and more are made of so many: those that lower the answer's margin most when they alone go."""
ALL_OF = 3
"""Up to so many of them are tried in every combination; larger sets grow by the word that lowers the margin most."""
RANDOM = 100
"""Random sets of as many words, the control."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Flip:
    """A set of words without which the answer is another one."""

    places: tuple[int, ...]
    """Of the words, among the input's."""
    answer: int
    """The class that is predicted then."""
    probability: float
    """Of that class, by the softmax over the logits."""
    margin: float
    """Logit of the input's own answer less the largest other one, 0 at most; largely negative: a clear flip."""
    rerouted: int
    """Routed layers in which what is left takes other experts."""


@dataclass(frozen=True, eq=False)
class Flips:
    """What replacing few words does to the answer of one input of `W` words."""

    words: tuple[Word, ...]
    answer: int
    """The class that the input has."""
    size: int
    """Words in each of `found`; where nothing flips, in the largest set that was tried."""
    found: tuple[Flip, ...]
    """All sets of that size that flip it among those tried, the clearest first; empty where nothing does."""
    smallest: bool
    """Whether every smaller set was tried, so that none can flip it."""
    tried: int
    """Sets that were tried, the random ones left out."""
    random: tuple[int, int]
    """How many random sets of as many words flip it, and of how many; of single words, all of them."""

    def to_frame(self, labels: Sequence[str]) -> pd.DataFrame:
        """One row a set.

        Args:
            labels: names of the classes.
        """
        return pd.DataFrame(
            {
                "words": [" + ".join(self.words[place].text for place in one.places) for one in self.found],
                "places": [", ".join(str(place + 1) for place in one.places) for one in self.found],
                "answer": [labels[one.answer] for one in self.found],
                "probability": [one.probability for one in self.found],
                "margin": [one.margin for one in self.found],
                "layers routed anew": [one.rerouted for one in self.found],
            }
        )


def fewest_words(
    instance: Instance, *, replacement: str = "mask", seed: int = 0, progress: Progress | None = None
) -> Flips:
    """Look for the fewest words without which the predicted class is another one.

    Single words are all tried; pairs and triples of the `AMONG` words that lower the margin most alone; larger sets
    grow from the best triple, word by word, among the same. The first size at which anything flips ends the search.

    Args:
        replacement: of `shrp.attribution.tokens.REPLACEMENTS`.
        seed: of the random sets.
        progress: called with sets tried and, as far as is known, in all.

    Raises:
        DataError: the task is a regression, which has no classes; or as `ablate_words`.
    """
    if instance.task.is_regression:
        raise DataError(f"'{instance.task.name}' is a regression: it has no class that could flip.")
    if replacement not in REPLACEMENTS:
        raise DataError(f"A word can be replaced by {', '.join(REPLACEMENTS)}, not by '{replacement}'.")
    search = _Search(instance, replacement, progress)
    count = len(instance.words)
    sets: list[tuple[int, ...]] = [(place,) for place in range(count)]
    tries = search.all(sets)
    first = sorted(range(count), key=lambda place: tries[place].margin)[:AMONG]
    size = 1
    while not (flips := [one for one in tries if one.answer != search.answer]) and size < len(first):
        size += 1
        if size <= ALL_OF:
            sets = list(combinations(sorted(first), size))
        else:
            best = min(tries, key=lambda one: one.margin).places
            sets = [tuple(sorted((*best, place))) for place in first if place not in best]
        tries = search.all(sets)
    flips.sort(key=lambda one: one.margin)
    return Flips(
        instance.words,
        search.answer,
        size,
        tuple(flips),
        size <= 2 or (count <= AMONG and size <= ALL_OF + 1),  # single words are all tried
        search.tried,
        (len(flips), count) if size == 1 else search.by_chance(size, seed),
    )


class _Search:
    """The model as a function of which words are replaced."""

    def __init__(self, instance: Instance, replacement: str, progress: Progress | None) -> None:
        self.instance, self.replacement, self.progress = instance, replacement, progress
        with torch.no_grad(), record_routing() as self.own:
            self.answer = int(instance.outputs(instance.embeddings)[0].argmax())
        self.tried = 0

    def all(self, sets: Sequence[tuple[int, ...]]) -> list[Flip]:
        """What each set of places does, whether it flips anything or not."""
        found = []
        for batch in self.instance.batches(len(sets)):
            found += self._some(sets[batch])
            if self.progress:
                self.progress(self.tried + len(found), self.tried + len(sets))
        self.tried += len(sets)
        return found

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

    def by_chance(self, size: int, seed: int) -> tuple[int, int]:
        """How many random sets of as many words flip the answer."""
        rng, count = np.random.default_rng(seed), len(self.instance.words)
        sets = [tuple(sorted(rng.choice(count, size, replace=False).tolist())) for _ in range(RANDOM)]
        return sum(one.answer != self.answer for one in self.all(sets)), RANDOM
