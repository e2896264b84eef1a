"""Predictions and routes of typed inputs. Nothing is kept on the model, so threads may share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from tokenizers.decoders import ByteLevel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import collate, encode, longest_input, read, token_counts
from shrp.data.tasks import Task
from shrp.data.text_data import TextData, named
from shrp.data.typed import MAX_SENTENCES
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import Outputs, batch_logits, label_columns
from shrp.evaluation.metrics import to_predictions
from shrp.model.convert import expert_layers
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from shrp.model.gates import record_routing, use_gates
from shrp.model.partial import run_from
from shrp.progress import Progress, silent

_BATCH = 8
_WORD_STARTS = ("Ġ", "▁")  # byte-level BPE and SentencePiece mark a word's start; WordPiece marks the rest


@dataclass(frozen=True, eq=False)
class Exploration:
    """One typed input: its prediction and how each routed layer routed it. `H` experts, `T` tokens."""

    task: Task
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    """The tokens read, special ones included."""
    full_length: int
    """Tokens of the whole text, before it was cut."""
    logits: np.ndarray
    """`(C,)`, in the order of the task's labels; of words `(W, C)`, of spans the characters of the best one, `(2,)`."""
    probs: Mapping[int, np.ndarray]
    """Layer -> router probabilities `(H,)`, or `(T, H)` under token routing; equal without a router."""
    unknown: int = 0
    """How many tokens are the unknown token."""
    gates: Mapping[int, np.ndarray] = field(default_factory=dict)
    """The gates in effect, in the same shapes; by default those of the largest probability."""

    @property
    def truncated(self) -> bool:
        """Whether the model read only the text's beginning."""
        return self.full_length > len(self.tokens)

    @property
    def layers(self) -> list[int]:
        """Routed layers, ascending."""
        return sorted(self.probs)

    @property
    def by_token(self) -> bool:
        """Whether every token has a route of its own."""
        return any(p.ndim == 2 for p in self.probs.values())

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities `(C,)`, of each word `(W, C)`, or the raw output for regression."""
        return self.logits if self.task.is_regression else softmax(self.logits, axis=-1)

    @property
    def prediction(self) -> int:
        """The predicted class; 0, the only output, for regression."""
        return int(self.logits.argmax())

    @property
    def answer(self) -> str:
        """The prediction's name, or the number for regression; of words their classes, with blanks between; of spans the text."""
        if self.task.is_regression:
            return f"{self.logits[0]:.3g}"
        if self.task.on_words:
            return named(self.task, to_predictions(self.task, self.logits[None]))[0]
        if self.task.on_spans:
            start, end = self.span
            return self.text[1][start:end]
        return self.task.label_names[self.prediction]

    @property
    def labelled_words(self) -> list[tuple[str, str, float]]:
        """Of a task on words, each word with its class and that one's probability; `-` and nan for one that is not read."""
        classes = to_predictions(self.task, self.logits[None])[0]
        best = self.probabilities.max(-1)
        names = [self.task.label_names[i] if i >= 0 else "-" for i in classes]
        return list(zip(self.text[0].split(), names, map(float, best), strict=True))

    @property
    def span(self) -> tuple[int, int]:
        """Of a task on spans, the characters of the answer in the second text."""
        start, end = map(int, self.logits)
        return start, end

    def mean_probs(self, layer: int) -> np.ndarray:
        """Router probabilities `(H,)`, averaged over tokens under token routing."""
        probs = self.probs[layer]
        return probs if probs.ndim == 1 else probs.mean(0)

    def taken(self, layer: int) -> np.ndarray:
        """The expert of every token `(T,)`, or of the whole input `(1,)`: the router's Top-1 or a forced one."""
        return np.atleast_2d(self.gates.get(layer, self.probs[layer])).argmax(-1)

    def fires(self, layer: int) -> np.ndarray:
        """Which experts compute, for every token `(T, H)` or for the whole input `(1, H)`: one under Top-1."""
        gates = np.atleast_2d(self.gates.get(layer, self.probs[layer]))
        if layer in self.gates:
            return gates > 0
        return np.arange(gates.shape[1]) == gates.argmax(-1)[:, None]

    def shares(self, layer: int) -> np.ndarray:
        """Share of each expert in what this input's tokens take `(H,)`: one-hot under sequence routing."""
        taken = self.taken(layer)
        return np.bincount(taken, minlength=self.probs[layer].shape[-1]) / len(taken)

    def choice(self, layer: int) -> int:
        """The chosen expert; under token routing the one that most tokens chose."""
        return int(self.shares(layer).argmax())

    def several(self, layer: int) -> int:
        """How many experts compute for the input, or for each token: the router's k."""
        return int(self.fires(layer).sum(-1).max())

    def margin(self, layer: int) -> float:
        """Smallest router probability taken minus the largest not taken, mean over tokens."""
        probs = np.sort(np.atleast_2d(self.probs[layer]), axis=-1)[:, ::-1]
        k = self.several(layer)
        return float((probs[:, k - 1] - (probs[:, k] if probs.shape[1] > k else 0.0)).mean())

    def runner_up(self, layer: int) -> int:
        """The likeliest other expert than the chosen one that does not fire with it."""
        expert = self.choice(layer)
        others, fires = self.mean_probs(layer).copy(), self.fires(layer)
        others[expert] = -1.0
        if len(fires) == 1 and fires[0, expert] and not fires.all():
            others[fires[0]] = -1.0
        return int(others.argmax()) if len(others) > 1 else expert

    def with_it(self, layer: int) -> list[int]:
        """The other experts that fire with the chosen one, ascending."""
        first, fires = self.choice(layer), self.fires(layer)
        together = fires[fires[:, first]].any(0)
        return [int(expert) for expert in np.flatnonzero(together) if expert != first]

    def choices(self) -> pd.DataFrame:
        """One row a layer: expert, (those with it), probability, (share of tokens), runner-up, margin."""
        rows, several = [], max(map(self.several, self.layers), default=1) > 1
        for layer in self.layers:
            mean, shares, first = self.mean_probs(layer), self.shares(layer), self.choice(layer)
            second = self.runner_up(layer)
            row = {"layer": layer, "expert": first}
            row |= {"with it": ", ".join(map(str, self.with_it(layer)))} if several else {}
            row["probability"] = float(mean[first])
            row |= {"share of tokens": float(shares[first])} if self.by_token else {}
            row |= {"runner-up": second, "its probability": float(mean[second]), "margin": self.margin(layer)}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and expert (and token, under token routing): its probability, and whether it is chosen."""
        rows = []
        for layer in self.layers:
            probs, taken = np.atleast_2d(self.probs[layer]), self.taken(layer)
            for (place, expert), value in np.ndenumerate(probs):
                row = {"layer": layer}
                if self.by_token:
                    row |= {"position": place, "token": self.tokens[place]}
                rows.append(row | {"expert": expert, "probability": value, "chosen": taken[place] == expert})
        return pd.DataFrame(rows)


def explore(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    texts: Sequence[tuple[str, ...]],
    *,
    route: ForcedRoute = AS_ROUTED,
) -> list[Exploration]:
    """Predict `texts` and record their routes, in order.

    Raises:
        DataError: more than `MAX_SENTENCES` inputs, or one without the task's number of texts.
        PlanError: a forced expert does not exist.
    """
    if len(texts) > MAX_SENTENCES:
        raise DataError(f"At most {MAX_SENTENCES} inputs can be explored at once, not {len(texts)}.")
    if not texts:
        return []
    limit, lengths = longest_input(model, tokenizer), token_counts(tokenizer, texts)
    as_scored = Outputs(model, tokenizer, TextData(task, "typed", tuple(texts)), limit)
    found: dict[int, Exploration] = {}
    for rows, inputs in read(model, tokenizer, texts, batch_size=_BATCH, max_length=limit):
        with use_gates(route.gates), record_routing() as record:
            outputs = batch_logits(model, inputs)
        to_predictions(task, outputs)  # raises where the model's width is not the task's
        logits, traces = as_scored(rows, outputs), {layer: record.last(layer) for layer in record.layers}
        for place, row in enumerate(rows):
            probs = {layer: _one(one.probs[place], one.token_mask, place) for layer, one in traces.items()}
            gates = {layer: _one(one.gates[place], one.token_mask, place) for layer, one in traces.items()}
            words = len(texts[row][0].split()) if task.on_words else None  # of longer texts there are more
            ids = inputs["input_ids"][place][inputs["attention_mask"][place].bool()].tolist()
            known = task, texts[row], token_labels(tokenizer, ids), lengths[row], logits[place][:words]
            found[row] = Exploration(*known, probs, ids.count(tokenizer.unk_token_id), gates)
    return [found[row] for row in range(len(texts))]


def _one(values: Tensor, token_mask: Tensor | None, place: int) -> np.ndarray:
    """One input's probabilities or gates, without the padding."""
    real = values[token_mask[place]] if values.dim() == 2 and token_mask is not None else values
    return real.float().cpu().numpy()


def token_labels(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[str, ...]:
    """Tokens for display: without the mark of a word's start, bytes decoded."""
    tokens = tokenizer.convert_ids_to_tokens(ids)
    if isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), ByteLevel):
        return tuple(_of_bytes(tokenizer, token) for token in tokens)
    return tuple(token.lstrip("".join(_WORD_STARTS)) or token for token in tokens)


def _of_bytes(tokenizer: PreTrainedTokenizerBase, token: str) -> str:
    """The text of a byte-level token; the token itself if that is space or part of a character."""
    text = tokenizer.convert_tokens_to_string([token]).strip()
    return token if not text or "\N{REPLACEMENT CHARACTER}" in text else text


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Logits of one input with one expert forced in one layer; the layers above route again."""

    task: Task
    layers: tuple[int, ...]
    base: np.ndarray
    """Logits `(C,)` under `route`."""
    logits: np.ndarray
    """`(L, H, C)`, by routed layer and expert."""
    route: ForcedRoute = AS_ROUTED
    """What is forced throughout."""

    def change(self, output: int) -> np.ndarray:
        """Change of the logit of class `output` against `base`, `(L, H)`."""
        return self.logits[:, :, output] - self.base[output]

    def flips(self) -> np.ndarray:
        """Where the predicted class changes, bool `(L, H)`; nowhere for regression."""
        return self.logits.argmax(-1) != self.base.argmax()

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and expert: each class's logit, its change, and whether the prediction flips."""
        experts = self.logits.shape[1]
        columns = {
            "layer": np.repeat(self.layers, experts),
            "expert": np.tile(range(experts), len(self.layers)),
        }
        for output, name in enumerate(self.task.label_names or ("output",)):
            columns[f"logit({name})"] = self.logits[:, :, output].ravel()
            columns[f"change({name})"] = self.change(output).ravel()
        return pd.DataFrame(columns | {"flips": self.flips().ravel()})


def what_if(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    text: tuple[str, ...],
    *,
    route: ForcedRoute = AS_ROUTED,
    progress: Progress = silent,
) -> WhatIf:
    """Force every expert of every routed layer in turn, each as `route.forced(layer, expert)`.

    One batch a layer, which starts from what enters it.

    Args:
        route: what is forced throughout; changes are against it.

    Raises:
        PlanError: the model has no routed layer.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so no expert can be forced.")
    task.check_of_texts("the grid of forced experts")
    columns = label_columns(model, task)
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer))
    forced = []
    with torch.inference_mode(), use_gates(route.gates):
        base, entering = run_from(model, collate(tokenizer, encoded, [0], model.device), watch=list(routed))
        for done, (layer, module) in enumerate(routed.items(), 1):
            batch = collate(tokenizer, encoded, [0] * module.num_experts, model.device)
            with use_gates({layer: torch.eye(module.num_experts)}):  # row `e` takes expert `e`
                logits, _ = run_from(model, batch, layer, entering[layer])
            forced.append(logits.float().cpu().numpy()[:, columns])
            progress(done, len(routed))
    return WhatIf(task, tuple(routed), base.float().cpu().numpy()[0, columns], np.stack(forced), route)


def rerouted(before: Exploration, after: Exploration, route: ForcedRoute) -> list[int]:
    """Layers that `route` does not force, and that take other experts under it, for any token, as a result."""
    moved = (n for n in before.layers if (before.fires(n) != after.fires(n)).any())
    return [layer for layer in moved if layer not in route.layers]
