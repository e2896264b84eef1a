"""Whether an attribution can be trusted: does it foresee what the model does, and does it stay when nothing changes?

Infidelity and sensitivity are captum's; the infidelity at the best scale is computed here. Each attribution is held
against its own scores dealt to the words at random: what does no better than these does not know which word matters,
though it may well know which way words move the output. How much that alone foresees, a control with one score for all
words says: replacing words mostly moves an output one way, so scores of one sign, whatever they are, foresee a lot.
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
"""Ways in which the scores of each attribution are shuffled over the words."""
SAMPLES, NOISES = 64, 5
"""Random sets of words replaced, and slightly moved copies of the input."""
FEWEST_WORDS = 5
"""Of fewer there are hardly other orders, so that no attribution can be told from its shuffles."""
RESAMPLES = 2000
"""Draws of the random sets, for intervals."""
SHARE_REPLACED = 0.3
"""Chance of each word to be in a set."""
NOISE = 0.05
"""Largest move of each embedding coordinate, in standard deviations of the input's own coordinates."""
_ROUNDING = 1e-6
"""Part of the mean squared change by which shuffled scores must be worse to count as beaten: where words have equal
scores, or there are few words, shuffled ones may be the same.
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trust:
    """Checks of one attribution of one input."""

    method: str
    infidelity: float
    """Mean squared difference between the change of the output that the scores foresee when a random set of words is
    replaced and the real one; in squared units of the output."""
    scaled_infidelity: float
    """The same with the scores times the one factor, 0 or more, that suits them best: it forgives a wrong scale, and no
    wrong sign."""
    explained: float
    """Part of the mean squared real change that the so scaled scores foresee, 0 to 1; nan if nothing changes."""
    shuffled: float
    """The same of its scores shuffled over the words, at their best scales: the mean of `DRAWS`; nan of controls."""
    beaten: int
    """How many of these foresee less; of controls 0."""
    sensitivity: float
    """Largest change of the attribution under small noise, relative to its own size (Euclidean norms)."""
    few: bool = False
    """Whether there are fewer than `FEWEST_WORDS` words, so that the shuffles tell nothing."""
    behind: float = float("nan")
    """By how much less it foresees than the one that foresees most; nan of this one and of controls."""
    behind_low: float = float("nan")
    behind_high: float = float("nan")
    """Ends of its 95% interval, by a paired bootstrap over the random sets that takes as given which one is best and at
    what scale. Where it holds 0, these sets do not tell the two apart."""
    above_alike: float = float("nan")
    """By how much more it foresees than `ALIKE`; nan of controls."""
    above_alike_low: float = float("nan")
    above_alike_high: float = float("nan")
    """Ends of its 95% interval, of the same draws."""


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
    """Check attributions of one input, and two controls, which come last: one score for all words, and shuffled ones.

    Words are replaced by `replacement` (by the mask token, where that is `remove`) and the model routes anew, in the
    same random sets for all methods. For the sensitivity, each attribution is made anew on each noisy copy, with that
    copy's own route where the route is frozen.

    Args:
        results: attributions of `instance`, made with the options below.
        steps: of integrated gradients.
        frozen: of integrated gradients.
        replacement: of ablation.
        progress: called with attributions checked and in all, and in between.

    Returns:
        One an attribution; of `ALIKE`, whose scores are the output's change by replacing all words, spread evenly, of
        the better sign; and of `SHUFFLED`, the mean over all shuffles of all attributions, dealt anew for each copy.
    """
    rng = np.random.default_rng(seed)
    present = _Presence(instance, output, substitute(instance, replacement))
    replaced = _Replaced(present, seed)
    changes = float(np.mean(replaced.changes**2))
    total, found = (len(results) + 1) * (1 + NOISES), []

    def explained(misses: float) -> float:
        return float(1 - misses / changes) if changes > 0 else float("nan")

    def sensitivity(explain: Callable[[Instance], np.ndarray]) -> float:
        before = len(found) * (1 + NOISES) + 1
        if progress:
            progress(before, total)
        tick = (lambda done: progress(before + done, total)) if progress else (lambda done: None)
        return _sensitivity(instance, explain, seed, tick)

    words = len(instance.words)
    shuffles = [[_shuffled(result.scores, rng) for _ in range(DRAWS)] for result in results]
    dealt = [np.array([replaced.scaled(scores) for scores in draws]) for draws in shuffles]
    for result, others in zip(results, dealt, strict=True):
        scaled = replaced.scaled(result.scores)
        found.append(
            Trust(
                result.method,
                replaced.infidelity(result.scores),
                scaled,
                explained(scaled),
                explained(float(others.mean())),
                int((others > scaled + _ROUNDING * changes).sum()),
                sensitivity(_again(result.method, output, steps, frozen, replacement)),
                words < FEWEST_WORDS,
            )
        )
    shuffled = Trust(
        SHUFFLED,
        float(np.mean([replaced.infidelity(scores) for draws in shuffles for scores in draws])),
        float(np.mean(dealt)),
        explained(float(np.mean(dealt))),
        float("nan"),
        0,
        sensitivity(lambda moved: rng.permutation(results[0].scores)),
    )
    there = torch.stack([torch.ones(words), torch.zeros(words)])
    whole, none = present(there).tolist()
    even = np.full(words, (whole - none) / words)
    even = min(even, -even, key=replaced.scaled)  # replacing all may move the output the other way
    misses = replaced.scaled(even)
    alike = Trust(ALIKE, replaced.infidelity(even), misses, explained(misses), float("nan"), 0, float("nan"))
    real = _beside_others(found, results, even, replaced, rng) if changes > 0 else found
    return [*real, alike, shuffled]


def substitute(instance: Instance, replacement: str) -> str:
    """What stands for the words of a set in the checks, where they were replaced so: sets are not taken out."""
    usual = "mask" if "mask" in instance.replacements else "pad"
    return replacement if replacement in instance.replacements else usual


def _shuffled(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scores on other words; as they are only where no other order is found."""
    for _ in range(10):
        if not np.array_equal(found := rng.permutation(scores), scores):
            break
    return found


def _again(
    method: str, output: int, steps: int, frozen: bool, replacement: str
) -> Callable[[Instance], np.ndarray]:
    """A method as a function of a moved copy of the input."""

    def explain(moved: Instance) -> np.ndarray:
        if method == METHODS[0]:
            return input_x_gradient(moved, output).scores
        if method == METHODS[1]:
            return integrated_gradients(moved, output, steps=steps, frozen=frozen).scores
        return ablate_words(moved, output, replacement=replacement).scores

    return explain


def _beside_others(
    real: list[Trust],
    results: Sequence[WordScores],
    even: np.ndarray,
    replaced: _Replaced,
    rng: np.random.Generator,
) -> list[Trust]:
    """The checks with how far each is behind the best one, and above the scores of `ALIKE`, which are all `even`."""
    misses = np.array([replaced.misses(result.scores) for result in results])  # (methods, SAMPLES)
    best, alike = int(misses.mean(1).argmin()), replaced.misses(even)
    rows = rng.integers(SAMPLES, size=(RESAMPLES, SAMPLES))
    squared = replaced.changes**2
    change = squared[rows].mean(1)

    def foreseen(more: np.ndarray) -> tuple[float, float, float]:
        """What larger misses, `(SAMPLES,)`, come to as a part of the change, and the ends of its interval."""
        drawn = more[rows].mean(1)[change > 0] / change[change > 0]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return float(more.mean() / squared.mean()), float(low), float(high)

    beside = []
    for i, (one, errors) in enumerate(zip(real, misses, strict=True)):
        above, low, high = foreseen(alike - errors)
        one = replace(one, above_alike=above, above_alike_low=low, above_alike_high=high)
        if i != best:
            behind, low, high = foreseen(errors - misses[best])
            one = replace(one, behind=behind, behind_low=low, behind_high=high)
        beside.append(one)
    return beside


class _Presence:
    """One output as a function of which words are there, `(B, W)` of 0 and 1; what was computed is not done again."""

    def __init__(self, instance: Instance, output: int, substitute: str) -> None:
        self.instance, self.output = instance, output
        self.baseline = instance.baseline(substitute)
        self.known: dict[bytes, float] = {}

    def __call__(self, present: Tensor) -> Tensor:
        keys = [row.numpy().tobytes() for row in present]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        for batch in self.instance.batches(len(new)):
            rows = new[batch]
            with torch.no_grad():
                values = self.instance.outputs(self._embeddings(present[rows]))[:, self.output].tolist()
            self.known |= {keys[i]: value for i, value in zip(rows, values, strict=True)}
        return torch.tensor([self.known[key] for key in keys])

    def _embeddings(self, present: Tensor) -> Tensor:
        present = present.to(self.baseline.device)
        keep = torch.ones(len(present), len(self.instance.tokens), 1, device=present.device)
        for w, word in enumerate(self.instance.words):
            keep[:, list(word.positions), 0] = present[:, w : w + 1]
        return self.baseline + keep * (self.instance.embeddings - self.baseline)


class _Replaced:
    """Random sets of words replaced, the same for every attribution, and what they really change."""

    def __init__(self, present: _Presence, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        words = len(present.instance.words)
        self.present = present
        self.sets = (torch.rand((SAMPLES, words), generator=generator) < SHARE_REPLACED).float()
        whole = torch.ones(1, words)
        self.changes = (present(whole) - present(whole - self.sets)).double().numpy()

    def infidelity(self, scores: np.ndarray) -> float:
        """Captum's infidelity of word scores `(W,)`, on a vector that says which words are there."""
        from captum.metrics import infidelity

        def drop_words(there: Tensor) -> tuple[Tensor, Tensor]:
            return self.sets, there - self.sets

        value = infidelity(
            self.present,
            drop_words,
            torch.ones(1, len(scores)),
            torch.as_tensor(scores, dtype=torch.float32)[None],
            n_perturb_samples=SAMPLES,
        )
        return max(0.0, float(value))

    def scaled(self, scores: np.ndarray) -> float:
        """The same at the best scale from 0 on: scores of the wrong sign are not to be forgiven, as captum's own
        normalisation does.
        """
        return float(self.misses(scores).mean())

    def misses(self, scores: np.ndarray) -> np.ndarray:
        """The squared miss in each set, `(SAMPLES,)`, at that scale."""
        foreseen = self.sets.double().numpy() @ scores.astype(np.float64)
        size = float(foreseen @ foreseen)
        scale = max(0.0, float(foreseen @ self.changes) / size) if size else 0.0
        return (scale * foreseen - self.changes) ** 2


def _sensitivity(
    instance: Instance, explain: Callable[[Instance], np.ndarray], seed: int, tick: Callable[[int], None]
) -> float:
    """Captum's maximal sensitivity, with noise on the words' embeddings."""
    from captum.metrics import sensitivity_max

    generator = torch.Generator().manual_seed(seed)
    places = instance.word_positions
    radius = NOISE * float(instance.embeddings[:, places].std())
    done = -1  # the first is the input itself

    def explained(inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        nonlocal done
        rows = []
        for row in inputs if isinstance(inputs, Tensor) else inputs[0]:
            rows.append(torch.as_tensor(explain(replace(instance, embeddings=row[None].detach()))))
            done += 1
            tick(max(done, 0))
        # Captum hands over now the one, now the other, and wants the same back.
        return torch.stack(rows) if isinstance(inputs, Tensor) else (torch.stack(rows),)

    def move(inputs: Tensor | tuple[Tensor, ...], radius: float) -> Tensor:
        embeddings = inputs if isinstance(inputs, Tensor) else inputs[0]
        noise = torch.zeros_like(embeddings)
        drawn = 2 * torch.rand(noise[:, places].shape, generator=generator) - 1
        noise[:, places] = (radius * drawn).to(noise.device)
        return embeddings + noise

    value = sensitivity_max(
        explained,
        instance.embeddings,
        move,
        perturb_radius=radius,
        n_perturb_samples=NOISES,
        max_examples_per_batch=1,
    )
    return float(value)


def to_frame(checks: Sequence[Trust]) -> pd.DataFrame:
    """One row an attribution, the controls last."""
    return pd.DataFrame([vars(check) for check in checks])
