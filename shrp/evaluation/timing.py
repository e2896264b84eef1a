"""Latency of several models, timed in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrp.errors import ShrpError
from shrp.families.families import positions
from shrp.progress import Progress, silent

SINGLE, BATCHES, BATCH = 100, 7, 32
"""Of `serving_times`: single texts, and batches of so many."""
Texts = tuple[str, ...]


def model_inputs(model: PreTrainedModel, batch: int, tokens: int, seed: int = 0) -> dict[str, Tensor]:
    """Random examples to time a model on, without padding, on the model's device.

    Returns:
        `input_ids` and `attention_mask` (all ones), int64 `(batch, tokens)`; the global random state is left alone.

    Raises:
        ShrpError: the model has no positions for so many tokens.
    """
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
    progress: Progress = silent,
) -> pd.DataFrame:
    """Time several functions side by side, under `torch.inference_mode`.

    Every round calls each function once, in a new random order, so that drift of the machine affects all equally.

    Args:
        model_fns: name -> a function without arguments. On a GPU it must wait for its work: `model(**inputs).logits.cpu()`.
        repeats: timed rounds, after `warmup` rounds that are not timed.

    Returns:
        One row a function: `name`, `median_ms`, `low_ms` and `high_ms` (the quartiles, a call), `p95_ms`, `repeats`.
    """
    order, shuffle = list(model_fns), random.Random(0).shuffle
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
                progress(round_ * len(order) + number, calls)
    rows = [(name, *np.percentile(ms, [50, 25, 75, 95]), repeats) for name, ms in times.items()]
    return pd.DataFrame(rows, columns=["name", "median_ms", "low_ms", "high_ms", "p95_ms", "repeats"])


def serving_times(
    runs: Mapping[str, Callable[[Sequence[Texts]], object]], texts: Sequence[Texts]
) -> dict[str, dict[str, float]]:
    """Time how several models answer texts, tokenization included, in turns on the same texts.

    Args:
        runs: name -> a function that takes a batch of texts or pairs.
        texts: drawn from in a random order, which is always the same.

    Returns:
        Name -> `p50_ms` and `p95_ms` of single texts, and `texts_per_s` in batches of 32, by their median.
    """
    order = np.random.default_rng(0).permutation(len(texts))

    def timed(size: int, repeats: int) -> dict[str, dict[str, float]]:
        places = np.resize(order, (repeats, size))
        batches = [[texts[i] for i in row] for row in places]
        turns = {name: cycle(batches) for name in runs}
        fns = {name: lambda name=name: runs[name](next(turns[name])) for name in runs}
        return latency(fns, repeats=repeats, warmup=1).set_index("name").to_dict("index")

    single, many = timed(1, SINGLE), timed(BATCH, BATCHES)
    return {
        name: {
            "p50_ms": single[name]["median_ms"],
            "p95_ms": single[name]["p95_ms"],
            "texts_per_s": 1e3 * BATCH / many[name]["median_ms"],
        }
        for name in runs
    }
