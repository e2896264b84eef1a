"""The ONNX graph of a classifier without routers: traced, quantised, and compared with the PyTorch model.

Its operators are standard ones that onnxruntime fuses. Attention is two plain products around a softmax, in most
families with one additive mask for all layers; int8 is onnxruntime's dynamic quantisation of that graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import bucketed_batches, collate, encode, longest_input
from shrp.data.sources import load_probe, probe_for
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import ExportError
from shrp.families.families import family_of

OPSET = 20
"""The first with a Gelu of its own, which onnxruntime runs as one kernel."""
_STEP = 5  # of what no score can be had on, a fifth will do; odd, as classes alternate there


class _PlainAttention(TorchFunctionMode):
    """Attention as products and a softmax, scaled beforehand.

    What `scaled_dot_product_attention` decomposes into also looks for rows without any key, with operators between the
    products that no runtime fuses. A mode, so that stock layers and static ones are traced alike, and in this thread only.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is None or dropout_p or is_causal or enable_gqa:
            raise ExportError("this model's attention is not an encoder's; it can't be exported.")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(
                ~attn_mask, torch.finfo(query.dtype).min
            )
        return ((query * scale) @ key.transpose(-1, -2) + attn_mask).softmax(-1) @ value


class _Logits(nn.Module):
    """The model as a function of positional tensors."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names, self.family = model, names, family_of(model)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Token tensors `(B, T)` int64, in the order of `names` -> logits `(B, classes)`."""
        inputs = dict(zip(self.names, tensors, strict=True))
        inputs["attention_mask"] = self.family.graph_mask(inputs["attention_mask"])
        with _PlainAttention():
            return self.model(**inputs).logits


def write_graph(model: PreTrainedModel, names: list[str], path: Path) -> None:
    """Trace the model and save its float32 graph."""
    import onnx

    example = torch.zeros(3, 7, dtype=torch.long)
    example[:, :5] = 1  # as a mask: padded; as ids and types: within any vocabulary
    ids = torch.full_like(example, model.config.vocab_size - 1)
    tensors = [
        ids if name == "input_ids" else example if name == "attention_mask" else 0 * ids for name in names
    ]
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Logits(model, names).eval(),
            tuple(tensors),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple({0: batch, 1: tokens} for _ in names),),
        )
    graph = program.model_proto
    _keep_residuals_apart(graph.graph)
    # The exporter notes where in which source file of this machine each operator is from.
    del graph.metadata_props[:]
    for item in (*graph.graph.node, *graph.graph.initializer, *graph.graph.value_info, *graph.graph.input):
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.graph.metadata_props[:]
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _keep_residuals_apart(graph: Any) -> None:
    """Write the sums that LayerNorms read as `Sum`, in place: the same, but onnxruntime does not fuse it.

    Its fused SkipLayerNormalization takes several times as long on a CPU as the two operators (onnxruntime 1.32:
    a third of the time of an int8 graph with 11 of 12 layers static).
    """
    normed = {node.input[0] for node in graph.node if node.op_type == "LayerNormalization"}
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in normed:
            node.op_type = "Sum"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and on its own code, which nobody can act on."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def quantise(source: Path, target: Path) -> None:
    """Onnxruntime's dynamic quantisation of weights and of their products."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # x86 without VNNI saturates on products of u8 and 8-bit weights; 7 bits are safe anywhere, but cost accuracy.
        reduce_range=not getattr(torch.cpu, "_is_vnni_supported", bool)(),
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )


def open_graph(path: Path) -> Any:
    """An onnxruntime session of a graph, on as many threads as torch takes; it raises exceptions of many kinds.

    Its threads do not go on spinning after a run: that slows down what is timed in turns with it, PyTorch by half.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
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
    """How a graph's outputs differ from the model's, on the texts of `data` and on random tokens.

    Returns:
        `checked`, `max_difference`, `label_agreement`, `sentences` and `compared_on` of
        `shrp.export.onnx.export_onnx`, and the size of the `largest_logit`.
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
