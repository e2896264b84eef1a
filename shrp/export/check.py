"""A written ONNX graph against the PyTorch model that it is of: its logits, and what int8 gains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.sources import load_probe, probe_for
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.evaluation.timing import latency

_STEP = 5  # of what no score can be had on, a fifth will do; odd, as classes alternate there
_TIMED = (8, 64)


def open_graph(path: Path, *, spin: bool = True) -> Any:
    """An onnxruntime session of a graph, on as many threads as torch takes; it raises exceptions of many kinds.

    Args:
        spin: whether its threads go on spinning after a run, which makes its next one a little faster; what else is
            timed in turns with it they slow down, PyTorch by half.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _random_batch(
    model: PreTrainedModel, names: list[str], lengths: list[int], seed: int
) -> dict[str, Tensor]:
    """Random tokens, one input a length, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    pad = model.config.pad_token_id or 0
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(model.config.vocab_size - 1, mask.shape, generator=generator)
    ids = torch.where(mask.bool(), ids + (ids >= pad), pad)  # no padding token among the real ones
    kinds = getattr(model.config, "type_vocab_size", 0) or 1
    types = torch.randint(kinds, mask.shape, generator=generator) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: batch[name] for name in names}


def probe_of(task: Task) -> TextData:
    """What an export of a task is compared on: its shipped probe set, or where it has none a fifth of another's."""
    if own := probe_for(task):
        return own[0]
    other = load_probe("mrpc" if len(task.text_columns) == 2 else "sst2")
    return other.subset(range(0, len(other), _STEP))


def compare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], path: Path, data: TextData
) -> dict[str, Any]:
    """`checked`, `max_difference`, `label_agreement`, `sentences` and `compared_on` of
    `shrp.export.onnx.ExportReport`, and the size of the `largest_logit`.

    Args:
        data: what both are asked about, beside random tokens.
    """
    session, longest = open_graph(path), longest_input(model, tokenizer)

    def both(batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            reference = model(**batch).logits.numpy()
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
        return reference, logits

    # One input and several, as short as an empty text and as long as fits, of one length and of many.
    sizes = [[2], [longest], [9], [5] * 4, [longest, 2, longest // 2], [17, 3, 11, 2, 16, 7, 17, 5]]
    sizes = [[min(length, longest) for length in lengths] for lengths in sizes]
    found = [both(_random_batch(model, names, lengths, seed)) for seed, lengths in enumerate(sizes)]
    made = len(found)
    encoded = encode(tokenizer, data.texts, max_length=longest)
    for indices in bucketed_batches([len(one["input_ids"]) for one in encoded], 32, shuffle_seed=0):
        batch = collate(tokenizer, encoded, indices)
        found.append(both({name: batch[name] for name in names}))
    differences = [np.abs(reference - logits).max() for reference, logits in found]
    agreement = None
    if model.config.num_labels > 1:
        same = [reference.argmax(-1) == logits.argmax(-1) for reference, logits in found[made:]]
        agreement = float(np.concatenate(same).mean())
    return {
        "checked": sum(len(reference) for reference, _ in found),
        "max_difference": float(np.max(differences)),
        "largest_logit": float(np.max([np.abs(reference).max() for reference, _ in found])),
        "label_agreement": agreement,
        "sentences": len(data),
        "compared_on": data.name,
    }


def speedup(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], float32: Path, int8: Path
) -> float:
    """How many times as fast the int8 graph is, both timed in turn."""
    inputs, tokens = _TIMED
    batch = _random_batch(model, names, [min(tokens, longest_input(model, tokenizer))] * inputs, seed=0)
    feed = {name: tensor.numpy() for name, tensor in batch.items()}
    sessions = {"float32": open_graph(float32, spin=False), "int8": open_graph(int8, spin=False)}
    times = latency(
        {name: lambda session=session: session.run(None, feed) for name, session in sessions.items()},
        repeats=7,
        warmup=2,
    ).set_index("name")["median_ms"]
    return float(times["float32"] / times["int8"])
