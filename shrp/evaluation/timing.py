"""Latency of several models, timed in turns."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrp.errors import ShrpError
from shrp.families.families import positions

Texts = Sequence[tuple[str, ...]]


def model_inputs(model: PreTrainedModel, batch: int, tokens: int, seed: int = 0) -> dict[str, Tensor]:
    """Random examples to time a model on, without padding, on the model's device.

    Returns:
        `input_ids` and `attention_mask` (all ones), int64 `(batch, tokens)`; the global random state is left alone.

    Raises:
        ShrpError: a size is below 1, or the model has no positions for so many tokens.
    """
    for name, size in (("tokens", tokens), ("batch", batch)):
        if size < 1:
            raise ShrpError(f"{name} must be 1 or more, not {size}.")
    config = model.config
    if tokens > (longest := positions(config)):
        raise ShrpError(f"this model reads at most {longest} tokens, not {tokens}.")
    ids = np.random.default_rng(seed).integers(config.vocab_size - 1, size=(batch, tokens))
    if config.pad_token_id is not None:
        ids += ids >= config.pad_token_id  # skip it
    input_ids = torch.from_numpy(ids).to(model.device)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def dense_like(model: PreTrainedModel) -> PreTrainedModel:
    """The same architecture with every layer dense and random weights, to compare its speed with."""
    return type(model)(model.config).to(model.device).eval()


def latency(
    model_fns: Mapping[Hashable, Callable[[], object]],
    repeats: int = 20,
    warmup: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Time several functions side by side.

    Args and errors: as `in_turns`.

    Returns:
        One row a function: `name`, `median_ms`, `low_ms` and `high_ms` (the quartiles, a call), `repeats`.
    """
    times = in_turns(model_fns, repeats, warmup, seed, progress)
    rows = [(name, *np.percentile(ms, [50, 25, 75]), repeats) for name, ms in times.items()]
    return pd.DataFrame(rows, columns=["name", "median_ms", "low_ms", "high_ms", "repeats"])


def serving_speed(
    answer: Mapping[Hashable, Callable[[Texts], object]],
    texts: Texts,
    singles: int = 300,
    batches: int = 30,
    size: int = 32,
) -> pd.DataFrame:
    """Time from texts to outputs, tokenisation included: single texts, then batches, several models in turns.

    All models get the same texts, taken in order and from the start again where they end.

    Args:
        answer: name -> a function of texts (single ones or pairs).
        singles: timed single texts.
        batches: timed batches of `size` texts.

    Returns:
        One row a model: `name`, `p50_ms` and `p95_ms` of a single text, `texts_per_second` of the median batch.

    Raises:
        ShrpError: there is nothing to time.
    """

    def timed(rounds: int, size: int) -> dict[Hashable, np.ndarray]:
        def calls(answer: Callable[[Texts], object]) -> Callable[[], object]:
            left = itertools.cycle(texts)
            return lambda: answer(list(itertools.islice(left, size)))

        return in_turns({name: calls(fn) for name, fn in answer.items()}, rounds)

    if not texts:
        raise ShrpError("there are no texts to time models on.")
    single, batch = timed(singles, 1), timed(batches, size)
    rows = [
        (name, *np.percentile(ms, [50, 95]), 1e3 * size / np.median(batch[name]))
        for name, ms in single.items()
    ]
    return pd.DataFrame(rows, columns=["name", "p50_ms", "p95_ms", "texts_per_second"])


def in_turns(
    model_fns: Mapping[Hashable, Callable[[], object]],
    repeats: int = 20,
    warmup: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Hashable, np.ndarray]:
    """Times of several functions, in ms, `(repeats,)` each, under `torch.inference_mode`.

    Every round calls each function once, in a new random order, so that drift of the machine affects all equally.

    Args:
        model_fns: name -> a function without arguments. On a GPU it must wait for its work: `model(**inputs).logits.cpu()`.
        repeats: timed rounds, after `warmup` rounds that are not timed.
        seed: of the order within rounds.
        progress: called, outside the timed part, with calls done and in all, warm-up included.

    Raises:
        ShrpError: nothing to time, or a number of rounds out of range.
    """
    if not model_fns:
        raise ShrpError("there is nothing to time; give at least one function.")
    if repeats < 1 or warmup < 0:
        raise ShrpError(f"repeats must be 1 or more and warmup 0 or more, not {repeats} and {warmup}.")
    order, shuffle = list(model_fns), random.Random(seed).shuffle
    times: dict[Hashable, list[float]] = {name: [] for name in model_fns}
    calls = len(order) * (warmup + repeats)
    with torch.inference_mode():
        for round_ in range(warmup + repeats):
            shuffle(order)
            for number, name in enumerate(order, 1):
                start = time.perf_counter()
                model_fns[name]()
                if round_ >= warmup:
                    times[name].append((time.perf_counter() - start) * 1e3)
                if progress is not None:
                    progress(round_ * len(order) + number, calls)
    return {name: np.array(ms) for name, ms in times.items()}
