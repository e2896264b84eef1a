"""Faithfulness of word attributions: infidelity and maximal sensitivity (Yeh et al. 2019, arXiv 1901.09392).

Two controls: an attribution's own scores permuted over the words, and one equal score for all words, which shows how
much the direction alone predicts. Shapes: `W` words, `S` random sets of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from shrp.analysis.attribution.instance import Instance
from shrp.analysis.attribution.tokens import (
    METHODS,
    WordScores,
    ablate_words,
    input_x_gradient,
    integrated_gradients,
)
from shrp.evaluation.statistics import bootstrap
from shrp.progress import Progress, silent

EQUAL, SHUFFLED = "equal scores (control)", "shuffled (control)"
DRAWS = 20
"""Permutations of the scores of each attribution."""
SAMPLES, NOISES = 64, 5
"""Random sets of words replaced, and copies of the input with noise."""
FEWEST_WORDS = 5
"""With fewer words, permutations are too few to be a control."""
RESAMPLES = 2000
SHARE_REPLACED = 0.3
"""Probability of each word to be in a set."""
NOISE = 0.05
"""Largest change of each embedding coordinate, in standard deviations of the input's coordinates."""
_ROUNDING = 1e-6

Explain = Callable[[Instance], np.ndarray]


@dataclass(frozen=True)
class Trust:
    """Checks of one attribution of one input; nan where a check does not apply."""

    method: str
    infidelity: float
    """Mean squared difference between predicted and real change when a random set is replaced; squared logits."""
    explained: float
    """Part of the mean squared change that the scores predict at their best scale of 0 or more; nan if nothing changes."""
    shuffled: float = float("nan")
    """Mean of `explained` over `DRAWS` permutations of the scores."""
    beaten: int = 0
    """Permutations that predict less."""
    sensitivity: float = float("nan")
    """Largest change of the attribution under small noise, relative to its norm."""
    few: bool = False
    """Whether there are fewer than `FEWEST_WORDS` words."""
    behind_low: float = float("nan")
    """Low end of the 95% paired bootstrap interval of the best attribution's `explained` minus this one's."""
    above_equal_low: float = float("nan")
    """Likewise of `explained` minus that of `EQUAL`."""


def check(
    instance: Instance,
    results: Sequence[WordScores],
    output: int,
    *,
    steps: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Trust]:
    """Check attributions of one input, and two controls, on the same random sets of words.

    Returns:
        One for each attribution; then `EQUAL` (the change by replacing all words, spread evenly, of the better sign)
        and `SHUFFLED` (the mean over all permutations of all attributions).
    """
    rng, sets = np.random.default_rng(seed), _Sets(instance, output, seed)
    total, done = (len(results) + 1) * (1 + NOISES), 0

    def sensitivity(explain: Explain) -> float:
        def counted(moved: Instance) -> np.ndarray:
            nonlocal done
            found, done = explain(moved), done + 1
            progress(done, total)
            return found

        return _sensitivity(instance, counted, seed)

    even = np.full(len(instance.words), sets.all_replaced / len(instance.words))
    even = min(even, -even, key=sets.miss)  # replacing all words may move the output the other way
    permuted = [[_permuted(one.scores, rng) for _ in range(DRAWS)] for one in results]
    misses = [np.array([sets.miss(scores) for scores in draws]) for draws in permuted]
    best = min(results, key=lambda one: sets.miss(one.scores)).scores
    found = []
    for one, others in zip(results, misses, strict=True):
        found.append(
            Trust(
                one.method,
                sets.infidelity(one.scores),
                sets.explained(sets.miss(one.scores)),
                sets.explained(float(others.mean())),
                int((others > sets.miss(one.scores) + _ROUNDING * sets.change).sum()),
                sensitivity(_again(one.method, output, steps)),
                len(instance.words) < FEWEST_WORDS,
                np.nan if one.scores is best else sets.lead(best, one.scores),
                sets.lead(one.scores, even),
            )
        )
    shuffled = Trust(
        SHUFFLED,
        float(np.mean([sets.infidelity(scores) for draws in permuted for scores in draws])),
        sets.explained(float(np.mean(misses))),
        sensitivity=sensitivity(lambda _: rng.permutation(results[0].scores)),
    )
    return [*found, Trust(EQUAL, sets.infidelity(even), sets.explained(sets.miss(even))), shuffled]


def to_frame(checks: Sequence[Trust]) -> pd.DataFrame:
    """One row an attribution, the controls last."""
    return pd.DataFrame([vars(check) for check in checks])


def _permuted(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scores in another order; in the same one only where no other is found."""
    for _ in range(10):
        if not np.array_equal(found := rng.permutation(scores), scores):
            break
    return found


def _again(method: str, output: int, steps: int) -> Explain:
    """A method as a function of a changed copy of the input."""
    if method == METHODS[0]:
        return lambda moved: input_x_gradient(moved, output).scores
    if method == METHODS[1]:
        return lambda moved: integrated_gradients(moved, output, steps=steps).scores
    return lambda moved: ablate_words(moved, output).scores


class _Sets:
    """Random sets of words replaced, and the change of the output by each, `changes` `(S,)`."""

    def __init__(self, instance: Instance, output: int, seed: int) -> None:
        words, generator = len(instance.words), torch.Generator().manual_seed(seed)
        sets = (torch.rand((SAMPLES, words), generator=generator) < SHARE_REPLACED).float()
        present = torch.cat([torch.ones(1, words), torch.zeros(1, words), 1 - sets])
        baseline = instance.baseline(instance.usual)
        outputs: list[float] = []
        for batch in instance.batches(len(present)):
            keep = torch.ones(len(present[batch]), len(instance.tokens), 1, device=baseline.device)
            for word, there in zip(instance.words, present[batch].T.to(baseline.device), strict=True):
                keep[:, list(word.positions), 0] = there[:, None]
            with torch.no_grad():
                mixed = baseline + keep * (instance.embeddings - baseline)
                outputs += instance.outputs(mixed)[:, output].tolist()
        whole, none, *left = outputs
        self.sets, self.changes = sets.double().numpy(), np.array(whole - np.array(left))
        self.all_replaced, self.change = whole - none, float(np.mean(self.changes**2))

    def infidelity(self, scores: np.ndarray) -> float:
        return float(np.mean((self.sets @ scores - self.changes) ** 2))

    def misses(self, scores: np.ndarray) -> np.ndarray:
        """The squared error in each set `(S,)` of scores `(W,)` at their best scale of 0 or more."""
        predicted = self.sets @ scores.astype(np.float64)
        size = float(predicted @ predicted)
        scale = max(0.0, float(predicted @ self.changes) / size) if size else 0.0
        return (scale * predicted - self.changes) ** 2

    def miss(self, scores: np.ndarray) -> float:
        return float(self.misses(scores).mean())

    def explained(self, miss: float) -> float:
        return 1 - miss / self.change if self.change > 0 else float("nan")

    def lead(self, scores: np.ndarray, others: np.ndarray) -> float:
        """Low end of the bootstrap interval of how much more `scores` explain than `others`; nan if nothing changes."""
        if not self.change:
            return float("nan")
        apart, squared = self.misses(others) - self.misses(scores), self.changes**2
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = bootstrap(
                lambda rows: apart[rows].mean(1) / squared[rows].mean(1), SAMPLES, resamples=RESAMPLES
            )
        return float(np.quantile(drawn[np.isfinite(drawn)], 0.025))


def _sensitivity(instance: Instance, explain: Explain, seed: int) -> float:
    """The largest relative change of an attribution over `NOISES` copies with noise on the words' embeddings."""
    generator, places = torch.Generator().manual_seed(seed), instance.word_positions
    radius = NOISE * float(instance.embeddings[:, places].std())
    own, worst = explain(instance), 0.0
    for _ in range(NOISES):
        embeddings = instance.embeddings.clone()
        drawn = 2 * torch.rand(embeddings[:, places].shape, generator=generator) - 1
        embeddings[:, places] += radius * drawn.to(embeddings)
        apart = np.linalg.norm(explain(replace(instance, embeddings=embeddings)) - own)
        worst = max(worst, float(apart) / (float(np.linalg.norm(own)) or 1.0))
    return worst
