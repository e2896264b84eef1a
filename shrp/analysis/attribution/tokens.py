"""What each word adds to one output: input x gradient, integrated gradients, and ablation.

Gradients do not see a change of route, so they are taken with the gates held at the input's own; ablation routes each
copy again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from shrp.analysis.attribution.instance import Instance, Word
from shrp.model.convert import expert_layers
from shrp.model.gates import RoutingRecord, record_routing, use_gates
from shrp.progress import Progress, silent

METHODS = ("input × gradient", "integrated gradients", "word ablation")
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
    """`(W,)`, in units of the output: logits, or the regression's prediction."""
    full: float
    """The output for the input itself."""
    reference: float | None = None
    """The output for the baseline; None if the scores claim no sum."""
    rerouted: np.ndarray | None = None
    """Ablation: routed layers in which replacing the word changed the route, `(W,)`."""
    steps: int | None = None
    """Integrated gradients: points on the path."""
    unit: str = "word"
    """What `words` are, as of the instance."""

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

    `output`: the class, in the order of the task's labels; 0 where there is one output.
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
    instance: Instance, output: int, *, steps: int = STEPS, progress: Progress = silent
) -> WordScores:
    """Integrated gradients on the word embeddings, from a baseline of padding tokens (arXiv 1703.01365).

    `steps`: points of the Gauss-Legendre rule on the straight path.
    """
    from captum.attr import IntegratedGradients  # takes seconds to import

    done = 0

    def forward(embeddings: Tensor) -> Tensor:
        nonlocal done
        values = instance.outputs(embeddings)[:, output]
        done += len(embeddings)
        progress(min(done, steps), steps)
        return values

    baseline = instance.baseline("pad")
    with use_gates(instance.route()):
        by_embedding = IntegratedGradients(forward).attribute(
            instance.embeddings, baselines=baseline, n_steps=steps, internal_batch_size=instance.batch_size
        )
        with torch.no_grad():
            full, reference = instance.outputs(torch.cat([instance.embeddings, baseline]))[:, output].tolist()
    by_token = by_embedding.detach().sum(-1)[0]
    scores = instance.per_word(by_token).detach().cpu().double().numpy()
    return WordScores(METHODS[1], instance.words, scores, full, reference, steps=steps, unit=instance.unit)


def converged_gradients(instance: Instance, output: int, progress: Progress = silent) -> WordScores:
    """`integrated_gradients`, with `STEPS` doubled up to `MOST_STEPS` while the error exceeds `LARGE_ERROR`."""
    steps = STEPS
    while True:
        found = integrated_gradients(instance, output, steps=steps, progress=progress)
        if found.error_part <= LARGE_ERROR or steps >= MOST_STEPS:
            return found
        steps = min(2 * steps, MOST_STEPS)


@dataclass(frozen=True, eq=False)
class Without:
    """The outputs of one input with each of its `W` words replaced in turn."""

    words: tuple[Word, ...]
    unit: str
    """What `words` are, as of the instance."""
    full: np.ndarray
    """Outputs `(C,)` of the input itself."""
    outputs: np.ndarray
    """`(W, C)`."""
    rerouted: np.ndarray | None
    """In how many routed layers the rest of the input takes other experts, `(W,)`; None without routers."""

    def scores(self, output: int) -> WordScores:
        """The drop of one output without each word."""
        drop = self.full[output] - self.outputs[:, output]
        about = METHODS[2], self.words, drop, float(self.full[output])
        return WordScores(*about, rerouted=self.rerouted, unit=self.unit)

    @property
    def margins(self) -> np.ndarray:
        """Logit of the predicted class minus the largest other logit, without each word `(W,)`: below 0 it flips.

        For regression minus the distance from `full`.
        """
        if len(self.full) == 1:
            return -np.abs(self.outputs[:, 0] - self.full[0])
        return self._margin(self.outputs)

    @property
    def weakened(self) -> bool:
        """Whether the model is less sure of its prediction without some word; of a regression, always."""
        return len(self.full) == 1 or bool(self.margins.min() < self._margin(self.full[None])[0])

    def _margin(self, outputs: np.ndarray) -> np.ndarray:
        own = int(self.full.argmax())
        return outputs[:, own] - np.delete(outputs, own, 1).max(1)

    @property
    def decisive(self) -> int:
        """The word that matters most: its loss leaves the smallest margin."""
        return int(self.margins.argmin())


def without_each_word(instance: Instance, progress: Progress = silent) -> Without:
    """Replace each word by the `Instance.usual` token in turn; the model routes each copy again.

    Raises:
        DataError: the tokenizer has no such token.
    """
    changed, rerouted = [], []
    baseline = instance.baseline(instance.usual)[0]
    with torch.no_grad():
        with record_routing() as own:
            full = instance.outputs(instance.embeddings)[0]
        for batch in instance.batches(len(instance.words)):
            words = instance.words[batch]
            rows = instance.embeddings.repeat(len(words), 1, 1)
            for row, word in zip(rows, words, strict=True):
                row[list(word.positions)] = baseline[list(word.positions)]
            with record_routing() as record:
                changed.append(instance.outputs(rows))
            rerouted.append(layers_rerouted(own, record, [word.positions for word in words]))
            progress(batch.stop, len(instance.words))
    outputs = torch.cat(changed).cpu().double().numpy()
    moved = np.concatenate(rerouted) if expert_layers(instance.model) else None
    return Without(instance.words, instance.unit, full.cpu().double().numpy(), outputs, moved)


def ablate_words(instance: Instance, output: int) -> WordScores:
    """The drop of one output without each word. Raises as `without_each_word`."""
    return without_each_word(instance).scores(output)


def layers_rerouted(own: RoutingRecord, record: RoutingRecord, places: Sequence[Sequence[int]]) -> np.ndarray:
    """In how many layers each copy of an input takes other experts, `(B,)`.

    Under token routing: in how many any other token than those at the copy's `places` does.
    """
    counts = np.zeros(len(places), dtype=np.int64)
    for layer in record.layers:
        moved = ((record.last(layer).gates != 0) != (own.last(layer).gates != 0)).any(-1).cpu().numpy()
        if moved.ndim == 2:
            for row, changed in zip(moved, places, strict=True):
                row[list(changed)] = False
            moved = moved.any(1)
        counts += moved
    return counts


def agreement(results: list[WordScores]) -> pd.DataFrame:
    """Rank correlations over words between every two attributions of one input, a row each: `a`, `b` and `spearman`.

    nan where one side is constant.
    """
    known = pd.DataFrame({one.method: one.scores for one in results}).corr("spearman")
    pairs = [(a, b, known.loc[a, b]) for a, b in combinations(known.columns, 2)]
    return pd.DataFrame(pairs, columns=["a", "b", "spearman"])


def to_frame(results: list[WordScores]) -> pd.DataFrame:
    """One row a word or piece: its place, which text of a pair it is in, the tokens, and its score by every method."""
    words, unit = (results[0].words, results[0].unit) if results else ((), "word")
    rows = [(place, word.part + 1, word.text, len(word.positions)) for place, word in enumerate(words, 1)]
    frame = pd.DataFrame(rows, columns=["place", "text", unit, "tokens"])
    for result in results:
        frame[result.method] = result.scores
        if result.rerouted is not None:
            frame["layers rerouted"] = result.rerouted
    return frame
