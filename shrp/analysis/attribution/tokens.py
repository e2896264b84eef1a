"""What each word adds to one output: input x gradient, integrated gradients, and ablation.

An output is a logit, the difference of two (`against`), or a router's preference (`prefer`), all of
`shrp.analysis.attribution.instance`. Gradients do not see a change of route, so they are taken with the gates held at
the input's own; ablation routes each copy again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shrp.analysis import Progress
from shrp.analysis.attribution.instance import Instance, Word
from shrp.errors import DataError
from shrp.model.convert import expert_layers
from shrp.model.gates import RoutingRecord, record_routing, use_gates

METHODS = ("input × gradient", "integrated gradients", "word ablation")
REPLACEMENTS = ("mask", "pad", "remove")
"""What replaces an ablated word's tokens: the mask token, the padding token (attended to), or nothing."""
STEPS, MOST_STEPS = 32, 200
"""Points of integrated gradients at first, and at most (`converged_gradients`)."""
LARGE_ERROR = 0.05
"""A completeness error above this part of the difference makes signs unreliable."""


@dataclass(frozen=True, eq=False)
class WordScores:
    """An attribution of one output to the words; positive words raise it. `W` words."""

    method: str
    words: tuple[Word, ...]
    scores: np.ndarray
    """`(W,)`, in units of the output: logits, the regression's prediction, or log-odds."""
    full: float
    """The output for the input itself."""
    reference: float | None = None
    """The output for the baseline; None if the scores claim no sum."""
    rerouted: np.ndarray | None = None
    """Ablation: routed layers in which replacing the word changed the route, `(W,)`."""
    steps: int | None = None
    """Integrated gradients: points on the path."""
    unit: str = "word"
    """What `words` are (`shrp.analysis.attribution.instance`)."""

    @property
    def total(self) -> float:
        """Sum of the scores over words."""
        return float(self.scores.sum())

    @property
    def error(self) -> float | None:
        """Completeness error: the sum minus `full - reference`; None without a reference."""
        return None if self.reference is None else self.total - (self.full - self.reference)

    @property
    def error_part(self) -> float | None:
        """The completeness error as a part of `full - reference`; None without a reference."""
        if self.reference is None:
            return None
        return abs(self.error) / max(abs(self.full - self.reference), 1e-9)


def input_x_gradient(instance: Instance, output: int) -> WordScores:
    """Embedding times gradient, summed over a word (a first-order estimate).

    Args:
        output: the class, in the order of the task's labels; 0 where there is one output.
    """
    embeddings = instance.embeddings.clone().requires_grad_()
    with torch.enable_grad():
        # The route is held: with Top-k above 1, gates have gradients of their own, which are the routers'.
        with use_gates(instance.route()):
            value = instance.outputs(embeddings)[0, output]
        # Of the embeddings alone: `.backward()` would leave gradients on parameters that others use.
        (gradient,) = torch.autograd.grad(value, embeddings)
    by_token = (embeddings.detach() * gradient).sum(-1)[0]
    scores = instance.per_word(by_token).detach().cpu().double().numpy()
    return WordScores(METHODS[0], instance.words, scores, float(value.detach()), unit=instance.unit)


def integrated_gradients(
    instance: Instance,
    output: int,
    *,
    steps: int = STEPS,
    frozen: bool = True,
    progress: Progress | None = None,
) -> WordScores:
    """Integrated gradients on the word embeddings, from a baseline of padding tokens (arXiv 1703.01365).

    Args:
        steps: points of the Gauss-Legendre rule on the straight path.
        frozen: hold the input's own route along the path; otherwise the sum is off by the jumps between routes.
    """
    from captum.attr import IntegratedGradients  # takes seconds to import

    done = 0

    def forward(embeddings: Tensor) -> Tensor:
        nonlocal done
        values = instance.outputs(embeddings)[:, output]
        done += len(embeddings)
        if progress:
            progress(min(done, steps), steps)
        return values

    baseline = instance.baseline()
    with use_gates(instance.route() if frozen else {}):
        by_embedding = IntegratedGradients(forward).attribute(
            instance.embeddings, baselines=baseline, n_steps=steps, internal_batch_size=instance.batch_size
        )
        with torch.no_grad():
            full, reference = instance.outputs(torch.cat([instance.embeddings, baseline]))[:, output].tolist()
    by_token = by_embedding.detach().sum(-1)[0]
    scores = instance.per_word(by_token).detach().cpu().double().numpy()
    return WordScores(METHODS[1], instance.words, scores, full, reference, steps=steps, unit=instance.unit)


def converged_gradients(
    instance: Instance, output: int, *, frozen: bool = True, progress: Progress | None = None
) -> WordScores:
    """`integrated_gradients`, with `STEPS` doubled up to `MOST_STEPS` while the error exceeds `LARGE_ERROR`.

    With a route that may change on the path, more steps need not help, and they are kept.
    """
    steps, jumps = STEPS, instance.reroutes and not frozen
    while True:
        found = integrated_gradients(instance, output, steps=steps, frozen=frozen, progress=progress)
        if jumps or found.error_part <= LARGE_ERROR or steps >= MOST_STEPS:
            return found
        steps = min(2 * steps, MOST_STEPS)


@dataclass(frozen=True, eq=False)
class RoutesWithout:
    """The expert of each routed layer, with the input whole and without each word. `L` layers, `W` words."""

    layers: tuple[int, ...]
    top_k: int
    """How many fire; of several, the one with the largest gate counts."""
    own: np.ndarray
    """`(L,)`."""
    without: np.ndarray
    """`(L, W)`: the expert with the word replaced."""


@dataclass(frozen=True, eq=False)
class Without:
    """The outputs and routes of one input with each of its `W` words replaced in turn."""

    instance: Instance
    full: np.ndarray
    """Outputs `(C,)` of the input itself."""
    outputs: np.ndarray
    """`(W, C)`."""
    rerouted: np.ndarray | None
    """In how many routed layers the rest of the input takes other experts, `(W,)`; None without routers."""
    routes: RoutesWithout | None = None
    """None without routers and under token routing, where an input has no one route."""

    def scores(self, output: int) -> WordScores:
        """The drop of one output without each word."""
        drop = self.full[output] - self.outputs[:, output]
        about = METHODS[2], self.instance.words, drop, float(self.full[output])
        return WordScores(*about, rerouted=self.rerouted, unit=self.instance.unit)

    @property
    def margins(self) -> np.ndarray:
        """Logit of the predicted class minus the largest other logit, without each word `(W,)`: below 0 it flips.

        For regression minus the distance from `full`.
        """
        if len(self.full) == 1:
            return -np.abs(self.outputs[:, 0] - self.full[0])
        own = int(self.full.argmax())
        return self.outputs[:, own] - np.delete(self.outputs, own, 1).max(1)

    @property
    def decisive(self) -> int:
        """The word that matters most: its loss leaves the smallest margin."""
        return int(self.margins.argmin())


def without_each_word(
    instance: Instance, replacement: str = "mask", progress: Progress | None = None
) -> Without:
    """Replace each word in turn; the model routes each copy again.

    Args:
        replacement: of `REPLACEMENTS`.

    Raises:
        DataError: an unknown replacement, or one that the tokenizer has no token for.
    """
    check_replacement(replacement)
    changed, rerouted, taken_by, routes = [], [], [], None
    routers = expert_layers(instance.model)
    one_route = any(router.routing != "token" for router in routers.values())

    def taken(record: RoutingRecord) -> np.ndarray:
        return np.stack([record.last(layer).gates.argmax(-1).cpu().numpy() for layer in record.layers])

    with torch.no_grad():
        with record_routing() as own:
            full = instance.outputs(instance.embeddings)[0]
        for batch in instance.batches(len(instance.words)):
            words = instance.words[batch]
            with record_routing() as record:
                changed.append(ablated(instance, words, replacement))
            rerouted.append(layers_rerouted(own, record, words, len(instance.tokens), replacement))
            taken_by += [taken(record)] if one_route else []
            if progress:
                progress(batch.stop, len(instance.words))
    if one_route:
        top_k = routers[own.layers[0]].top_k
        routes = RoutesWithout(tuple(own.layers), top_k, taken(own)[:, 0], np.concatenate(taken_by, 1))
    outputs = torch.cat(changed).cpu().double().numpy()
    moved = np.concatenate(rerouted) if routers else None
    return Without(instance, full.cpu().double().numpy(), outputs, moved, routes)


def ablate_words(
    instance: Instance, output: int, *, replacement: str = "mask", progress: Progress | None = None
) -> WordScores:
    """The drop of one output without each word. Raises as `without_each_word`."""
    return without_each_word(instance, replacement, progress).scores(output)


def check_replacement(replacement: str) -> None:
    """Raise `DataError` unless it is one of `REPLACEMENTS`."""
    if replacement not in REPLACEMENTS:
        raise DataError(f"A word can be replaced by {', '.join(REPLACEMENTS)}, not by '{replacement}'.")


def ablated(instance: Instance, words: tuple[Word, ...], replacement: str) -> Tensor:
    """Outputs `(B, C)` of one copy a word, with that word replaced."""
    rows = instance.embeddings.repeat(len(words), 1, 1)
    if replacement != "remove":
        for row, word in zip(rows, words, strict=True):
            row[list(word.positions)] = instance.replacement(replacement)
        return instance.outputs(rows)
    others = {k: v.repeat(len(words), 1) for k, v in instance.inputs.items() if k != "input_ids"}
    for i, word in enumerate(words):
        left = _left(word, len(instance.tokens))
        for values in (rows, *others.values()):
            values[i, : len(left)] = values[i, left]
        others["attention_mask"][i, len(left) :] = 0
    return instance.outputs(rows, **others)


def _left(word: Word, tokens: int) -> list[int]:
    """Places of the tokens that are not the word's."""
    return [position for position in range(tokens) if position not in word.positions]


def layers_rerouted(
    own: RoutingRecord, record: RoutingRecord, words: tuple[Word, ...], tokens: int, replacement: str
) -> np.ndarray:
    """Layers in which an input, or under token routing any remaining token, took other experts; `(B,)`."""
    counts = np.zeros(len(words), dtype=np.int64)
    for layer in record.layers:
        before, after = own.last(layer).gates[0] != 0, record.last(layer).gates != 0
        for i, word in enumerate(words):
            if before.dim() == 1:
                counts[i] += bool((after[i] != before).any())
                continue
            left = _left(word, tokens)
            now = range(len(left)) if replacement == "remove" else left
            counts[i] += bool((after[i, list(now)] != before[left]).any())
    return counts


def agreement(results: list[WordScores]) -> pd.DataFrame:
    """Rank correlations over words between every two attributions of one input.

    Returns:
        A row a pair: `a`, `b`, `n` words, `spearman`, `kendall` (tau-b) and each one's two-sided p-value. All nan for
        fewer than 3 words, or where one side is constant.
    """
    from scipy.stats import kendalltau

    from shrp.evaluation.statistics import spearman

    rows = []
    for i, a in enumerate(results):
        for b in results[i + 1 :]:
            row = {"a": a.method, "b": b.method, "n": len(a.words)}
            for name, test in (("spearman", spearman), ("kendall", kendalltau)):
                defined = len(a.words) >= 3 and np.ptp(a.scores) > 0 and np.ptp(b.scores) > 0
                found = test(a.scores, b.scores) if defined else (np.nan, np.nan)
                row |= {name: float(found[0]), f"{name} p": float(found[1])}
            rows.append(row)
    return pd.DataFrame(rows)


def to_frame(results: list[WordScores]) -> pd.DataFrame:
    """One row a word, or a phrase or sentence: its place, text, which text of a pair, and its score by every method."""
    words, unit = (results[0].words, results[0].unit) if results else ((), "word")
    rows = [(place, word.part + 1, word.text, len(word.positions)) for place, word in enumerate(words, 1)]
    frame = pd.DataFrame(rows, columns=["place", "text", unit, "tokens"])
    for result in results:
        frame[result.method] = result.scores
        if result.rerouted is not None:
            frame["layers rerouted"] = result.rerouted
    return frame


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
        rows = []
        for one in self.found:
            text = " + ".join(self.words[place].text for place in one.places)
            row = {f"{self.unit}s": text, "places": ", ".join(str(place + 1) for place in one.places)}
            row |= {"answer": labels[one.answer], "probability": one.probability, "margin": one.margin}
            rows.append(row | {"layers rerouted": one.rerouted})
        return pd.DataFrame(rows)


def fewest_words(instance: Instance, *, replacement: str = "mask", progress: Progress | None = None) -> Flips:
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
        random = len(search.flips(search.all(_random_sets(count, size)))), RANDOM
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


def _random_sets(count: int, size: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
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
        columns = best.indices.tolist(), best.values.tolist(), margins, map(int, layers)
        return [Flip(*row) for row in zip(sets, *columns, strict=True)]

    def _together(self, places: tuple[int, ...]) -> Word:
        """Several words as one, whose tokens go together."""
        words = [self.instance.words[place] for place in places]
        return Word("", 0, tuple(position for word in words for position in word.positions))
