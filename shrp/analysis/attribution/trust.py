"""Whether an attribution can be trusted: does it predict what the model does, and does it stay when nothing changes?

Infidelity and maximal sensitivity are those of Yeh et al. 2019 (arXiv 1901.09392). Each attribution is compared with
its own scores permuted over the words: one that does no better does not know which word matters. A second control, one
score for all words, shows how much the direction alone predicts: replacing words mostly moves an output one way.

Shapes: `W` words, `S` random sets of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shrp.analysis.attribution.instance import Instance
from shrp.analysis.attribution.tokens import (
    METHODS,
    WordScores,
    ablate_words,
    input_x_gradient,
    integrated_gradients,
)

ALIKE, SHUFFLED = "every word alike (control)", "shuffled (control)"
DRAWS = 20
"""Permutations of the scores of each attribution."""
SAMPLES, NOISES = 64, 5
"""Random sets of words replaced, and slightly moved copies of the input."""
FEWEST_WORDS = 5
"""With fewer words there are too few orders to tell an attribution from its permutations."""
RESAMPLES = 2000
"""Bootstrap samples of the random sets."""
SHARE_REPLACED = 0.3
"""Probability of each word to be in a set."""
NOISE = 0.05
"""Largest move of each embedding coordinate, in standard deviations of the input's own coordinates."""
_ROUNDING = 1e-6
"""Part of the mean squared change by which permuted scores must be worse to count as beaten."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trust:
    """Checks of one attribution of one input; nan where a check does not apply."""

    method: str
    infidelity: float
    """Mean squared difference between the predicted and the real change of the output when a random set of words is
    replaced, in squared units of the output."""
    scaled_infidelity: float
    """The same with the scores times the factor, 0 or more, that suits them best: a wrong scale is forgiven, a wrong
    sign is not."""
    explained: float
    """Part of the mean squared real change that the scaled scores predict, 0 to 1; nan if nothing changes."""
    shuffled: float = float("nan")
    """The mean of `explained` over `DRAWS` permutations of the scores."""
    beaten: int = 0
    """How many of these permutations predict less."""
    sensitivity: float = float("nan")
    """Largest change of the attribution under small noise, relative to its own size (Euclidean norms)."""
    few: bool = False
    """Whether there are fewer than `FEWEST_WORDS` words, so that the permutations tell nothing."""
    behind: float = float("nan")
    """How much less it predicts than the best attribution, with a 95% interval by a paired bootstrap over the sets."""
    behind_low: float = float("nan")
    behind_high: float = float("nan")
    above_alike: float = float("nan")
    """How much more it predicts than `ALIKE`, with its 95% interval from the same samples."""
    above_alike_low: float = float("nan")
    above_alike_high: float = float("nan")


def check(
    instance: Instance,
    results: Sequence[WordScores],
    output: int,
    *,
    steps: int = 32,
    frozen: bool = True,
    replacement: str = "mask",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Trust]:
    """Check attributions of one input, and two controls.

    Words are replaced by `replacement` (by the mask token, where that is `remove`), in the same random sets for all
    methods, and the model routes each copy again. For the sensitivity each attribution is computed again on each noisy
    copy, under that copy's own route where the route is frozen.

    Args:
        results: attributions of `instance`, made with the options below.
        steps, frozen: of integrated gradients.
        replacement: of ablation.
        progress: called with attributions computed and in all.

    Returns:
        One for each attribution; then `ALIKE`, whose scores are the output's change by replacing all words, spread
        evenly, of the better sign; and `SHUFFLED`, the mean over all permutations of all attributions.
    """
    rng = np.random.default_rng(seed)
    sets = _Sets(instance, output, substitute(instance, replacement), seed)
    total, done = (len(results) + 1) * (1 + NOISES), 0

    def sensitivity(explain: Callable[[Instance], np.ndarray]) -> float:
        nonlocal done

        def tick() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        return _sensitivity(instance, explain, seed, tick)

    permuted = [[_permuted(result.scores, rng) for _ in range(DRAWS)] for result in results]
    misses = [np.array([sets.scaled(scores) for scores in draws]) for draws in permuted]
    found = []
    for result, others in zip(results, misses, strict=True):
        one = sets.trust(result.method, result.scores)
        found.append(
            replace(
                one,
                shuffled=sets.explained(float(others.mean())),
                beaten=int((others > one.scaled_infidelity + _ROUNDING * sets.change).sum()),
                sensitivity=sensitivity(_again(result.method, output, steps, frozen, replacement)),
                few=len(instance.words) < FEWEST_WORDS,
            )
        )
    shuffled = Trust(
        SHUFFLED,
        float(np.mean([sets.infidelity(scores) for draws in permuted for scores in draws])),
        float(np.mean(misses)),
        sets.explained(float(np.mean(misses))),
        sensitivity=sensitivity(lambda _: rng.permutation(results[0].scores)),
    )
    even = np.full(len(instance.words), sets.all_replaced / len(instance.words))
    even = min(even, -even, key=sets.scaled)  # replacing all may move the output the other way
    real = _compared(found, results, even, sets, rng) if sets.change > 0 else found
    return [*real, sets.trust(ALIKE, even), shuffled]


def substitute(instance: Instance, replacement: str) -> str:
    """What replaces the words of a set in the checks; sets are not removed."""
    usual = "mask" if "mask" in instance.replacements else "pad"
    return replacement if replacement in instance.replacements else usual


def to_frame(checks: Sequence[Trust]) -> pd.DataFrame:
    """One row an attribution, the controls last."""
    return pd.DataFrame([vars(check) for check in checks])


def _permuted(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scores in another order; in the same one only where no other is found."""
    for _ in range(10):
        if not np.array_equal(found := rng.permutation(scores), scores):
            break
    return found


def _again(
    method: str, output: int, steps: int, frozen: bool, replacement: str
) -> Callable[[Instance], np.ndarray]:
    """A method as a function of a moved copy of the input."""
    if method == METHODS[0]:
        return lambda moved: input_x_gradient(moved, output).scores
    if method == METHODS[1]:
        return lambda moved: integrated_gradients(moved, output, steps=steps, frozen=frozen).scores
    return lambda moved: ablate_words(moved, output, replacement=replacement).scores


class _Sets:
    """Random sets of words replaced, and what they really change."""

    def __init__(self, instance: Instance, output: int, substitute: str, seed: int) -> None:
        words, generator = len(instance.words), torch.Generator().manual_seed(seed)
        sets = (torch.rand((SAMPLES, words), generator=generator) < SHARE_REPLACED).float()
        present = torch.cat([torch.ones(1, words), torch.zeros(1, words), 1 - sets])
        whole, none, *left = _outputs(instance, output, substitute, present)
        self.sets = sets.double().numpy()
        self.changes = np.array(whole - np.array(left))
        """`(S,)`: the output less the output with the set replaced."""
        self.all_replaced = whole - none
        self.change = float(np.mean(self.changes**2))

    def infidelity(self, scores: np.ndarray) -> float:
        return float(np.mean((self.sets @ scores - self.changes) ** 2))

    def misses(self, scores: np.ndarray) -> np.ndarray:
        """The squared miss in each set `(S,)` of scores `(W,)` at their best scale from 0 on."""
        predicted = self.sets @ scores.astype(np.float64)
        size = float(predicted @ predicted)
        scale = max(0.0, float(predicted @ self.changes) / size) if size else 0.0
        return (scale * predicted - self.changes) ** 2

    def scaled(self, scores: np.ndarray) -> float:
        return float(self.misses(scores).mean())

    def explained(self, miss: float) -> float:
        return 1 - miss / self.change if self.change > 0 else float("nan")

    def trust(self, method: str, scores: np.ndarray) -> Trust:
        scaled = self.scaled(scores)
        return Trust(method, self.infidelity(scores), scaled, self.explained(scaled))


def _outputs(instance: Instance, output: int, substitute: str, present: Tensor) -> list[float]:
    """The output where only some words are there, `present` `(B, W)` of 0 and 1."""
    baseline, found = instance.baseline(substitute), []
    for batch in instance.batches(len(present)):
        keep = torch.ones(len(present[batch]), len(instance.tokens), 1, device=baseline.device)
        for word, there in zip(instance.words, present[batch].T.to(baseline.device), strict=True):
            keep[:, list(word.positions), 0] = there[:, None]
        with torch.no_grad():
            mixed = baseline + keep * (instance.embeddings - baseline)
            found += instance.outputs(mixed)[:, output].tolist()
    return found


def _compared(
    real: list[Trust],
    results: Sequence[WordScores],
    even: np.ndarray,
    sets: _Sets,
    rng: np.random.Generator,
) -> list[Trust]:
    """The checks with how far each is behind the best one, and above the scores `even` of `ALIKE`."""
    misses = np.array([sets.misses(result.scores) for result in results])  # (methods, S)
    best, alike = int(misses.mean(1).argmin()), sets.misses(even)
    rows = rng.integers(SAMPLES, size=(RESAMPLES, SAMPLES))
    squared = sets.changes**2
    change = squared[rows].mean(1)

    def more(gap: np.ndarray, name: str) -> dict[str, float]:
        """A gap of misses `(S,)` as a part of the change, with its interval's ends."""
        low, high = np.quantile(gap[rows].mean(1)[change > 0] / change[change > 0], (0.025, 0.975))
        value = float(gap.mean() / squared.mean())
        return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}

    return [
        replace(
            one,
            **more(alike - mine, "above_alike"),
            **(more(mine - misses[best], "behind") if i != best else {}),
        )
        for i, (one, mine) in enumerate(zip(real, misses, strict=True))
    ]


def _sensitivity(
    instance: Instance, explain: Callable[[Instance], np.ndarray], seed: int, tick: Callable[[], None]
) -> float:
    """The largest relative change of an attribution over `NOISES` copies with noise on the words' embeddings."""
    generator, places = torch.Generator().manual_seed(seed), instance.word_positions
    radius = NOISE * float(instance.embeddings[:, places].std())
    own, worst = explain(instance), 0.0
    tick()
    for _ in range(NOISES):
        embeddings = instance.embeddings.clone()
        drawn = 2 * torch.rand(embeddings[:, places].shape, generator=generator) - 1
        embeddings[:, places] += radius * drawn.to(embeddings)
        apart = np.linalg.norm(explain(replace(instance, embeddings=embeddings)) - own)
        worst = max(worst, float(apart) / (float(np.linalg.norm(own)) or 1.0))
        tick()
    return worst
