"""Dense and static models as ONNX: a graph that onnxruntime serves, with any batch and length, without torch.

The graph is made of standard operators in a form that onnxruntime fuses (attention as two plain products around a
softmax, one additive mask for all layers), and is checked against PyTorch before it is handed over.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import MODEL_INPUTS, bucketed_batches, collate, encode
from shrp.checkpoint import CheckpointInfo, put_in_place
from shrp.convert import expert_layers, layer_kinds, num_experts_of, router_layers
from shrp.data import load_probe
from shrp.errors import ExportError
from shrp.explore import longest_input
from shrp.measure import latency
from shrp.plan import LayerPlan, PruningPlan
from shrp.prune import prune

OPSET = 20
"""The first with a Gelu of its own, which onnxruntime runs as one kernel."""
TOLERANCE = 1e-4
"""Largest difference in logits, float32 against PyTorch, with which a graph is handed over."""
MODEL, TOKENIZER, CONFIG = "model.onnx", "tokenizer.json", "config.json"
FORMAT = "shrp-onnx"
_ENCODING_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_PROBE_STEP = 4
_TIMED = (8, 64)


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares with the PyTorch model in float32."""

    path: Path
    bytes: int
    int8: bool
    inputs: tuple[str, ...]
    """Names of the graph's inputs, int64 `(batch, tokens)` each; its output is `logits`."""
    products: int
    """Products with weights in the graph (MatMul, Gemm), those in int8 not counted."""
    int8_products: int
    """Products with weights that run in int8 (MatMulInteger)."""
    checked: int = 0
    """Inputs compared, in batches of several sizes and lengths, padded and not; 0 where nothing was."""
    max_difference: float | None = None
    """Largest absolute difference in logits over them."""
    label_agreement: float | None = None
    """Share of the compared probe sentences with the same highest logit; None for regression."""
    sentences: int = 0
    """The probe sentences among the inputs compared, which `label_agreement` is of."""
    speedup: float | None = None
    """For int8: how many times as fast as the float32 graph, 8 inputs of 64 tokens (or the most it reads), here."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return asdict(self) | {"path": str(self.path), "inputs": list(self.inputs)}


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    int8: bool = False,
    check: bool = True,
) -> ExportReport:
    """Write a dense or static classifier to the ONNX file `path`; `model` is left as it was.

    With `int8`, weights are stored as int8 (7 bits of it, as older processors overflow on 8; a scale a column), and
    activations are quantised as they come, with one scale a batch: logits then depend a little on what else is in it.

    Args:
        check: compare with PyTorch on `ExportReport.checked` inputs, and time int8 against float32.

    Raises:
        ExportError: the model still routes, the graph can't be made or written, or it differs from PyTorch.
    """
    path = Path(path)
    if router_layers(model):
        raise ExportError(
            "the model still routes, and live routing has no ONNX form; give a pruning plan (--per-layer, --budget or "
            "--plan), or export a pruned checkpoint."
        )
    runtime = _onnx_packages()
    model = _own_copy(model)
    names = _input_names(model, tokenizer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            float32 = Path(scratch) / "float32.onnx"
            written = float32
            _write_graph(model, names, float32)
            if int8:
                written = Path(scratch) / "int8.onnx"
                _quantise(float32, written)
            products, int8_products = _count_products(written)
            if int8 and not int8_products:
                raise ExportError("no product of this model could be quantised; export it without --int8.")
            found: dict[str, Any] = {}
            if check:
                found = _compare(model, tokenizer, names, written)
                if not int8 and not found["max_difference"] <= TOLERANCE:  # nan is no agreement either
                    raise ExportError(
                        f"the graph's logits differ from PyTorch's by {found['max_difference']:.1e}, more than "
                        f"{TOLERANCE:.0e}: nothing was written."
                    )
                if int8:
                    found["speedup"] = _speedup(model, tokenizer, names, float32, written)
            os.replace(written, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error
    except (*runtime, RuntimeError) as error:
        raise ExportError(f"this model can't be turned into ONNX: {_first_line(error)}") from error
    return ExportReport(
        path=path,
        bytes=path.stat().st_size,
        int8=int8,
        inputs=tuple(names),
        products=products,
        int8_products=int8_products,
        **found,
    )


def export_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    info: CheckpointInfo,
    folder: Path,
    *,
    made_from: str = "",
    int8: bool = False,
    check: bool = True,
) -> ExportReport:
    """Write all that serving needs: the graph, the tokenizer, and a small `config.json` that says what they are.

    The tokenizer cuts at the model's longest input and pads batches, so `Tokenizer.from_file` is all it takes.

    Args:
        info: of the exported model, with its plan.
        made_from: fingerprint of the checkpoint.

    Raises:
        ExportError: as `export_onnx`; or `folder` holds something else than an earlier export.
    """
    folder = Path(folder)
    check_free(folder)
    backend = serving_tokenizer(model, tokenizer)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            partial = Path(scratch) / "export"
            partial.mkdir()
            report = export_onnx(model, tokenizer, partial / MODEL, int8=int8, check=check)
            backend.save(str(partial / TOKENIZER))
            config = {
                "format": FORMAT,
                "format_version": 1,
                "model": _describe(model, info, int8),
                "task": info.task.name,
                "texts": list(info.task.text_columns),
                "labels": list(info.task.label_names),
                "max_length": longest_input(model, tokenizer),
                "inputs": {name: _ENCODING_FIELDS[name] for name in report.inputs},
                "output": "logits",
                "precision": "int8" if int8 else "float32",
                "plan": info.plan.to_dict() if info.plan else None,
                "made_from": made_from,
                "check": {k: v for k, v in report.to_dict().items() if k not in ("path", "inputs", "int8")},
            }
            (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            put_in_place(partial, folder)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return ExportReport(**{**vars(report), "path": folder / MODEL})


def check_free(folder: Path) -> None:
    """Raise `ExportError` unless `folder` is new, empty, or an earlier export and nothing else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT
        ours = ours and {file.name for file in folder.iterdir()} <= {MODEL, TOKENIZER, CONFIG}
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise ExportError(
            f"{folder} exists and is not an earlier export alone; choose a new or an empty folder."
        )


def serving_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of the tokenizer's fast core that truncates and pads by itself.

    Raises:
        ExportError: it has no fast core, which is what runs without Python code of its own.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise ExportError(
            "the checkpoint's tokenizer has no fast form (tokenizer.json), which serving without transformers needs."
        )
    core = Tokenizer.from_str(core.to_str())
    core.enable_truncation(longest_input(model, tokenizer))
    core.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=tokenizer.pad_token_id or 0,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token or "[PAD]",
    )
    return core


def _onnx_packages() -> tuple[type[Exception], ...]:
    """The exceptions of the packages that make and run graphs, after making sure that these are installed."""
    try:
        import onnxscript  # noqa: F401  (torch's exporter imports it, and says less when it is missing)
        from onnx.checker import ValidationError
        from onnxruntime.capi import onnxruntime_pybind11_state as ort
        from torch.onnx import OnnxExporterError
    except ImportError as error:
        raise ExportError(
            f"exporting needs the packages onnx, onnxruntime and onnxscript ({error.name} is missing); install "
            "requirements.txt."
        ) from error
    # They have no common ancestor of their own.
    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    return ValidationError, OnnxExporterError, *(getattr(ort, name) for name in names)


def _own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy to trace, in float32 on the CPU: tracing swaps a module's weights for a while, in every thread.

    Expert layers without a router (the uniform control) always take the mean of all experts, which is a plan.
    """
    uniform = expert_layers(model)
    if uniform:
        experts = num_experts_of(model)
        everything = LayerPlan(tuple(range(experts)), (1 / experts,) * experts)
        model = prune(model, PruningPlan(tuple((i, everything) for i in uniform), combination="mean"))
    else:
        model = copy.deepcopy(model)
    return model.eval().cpu().float()


def _input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the tokenizer gives and the model takes, in a fixed order; the mask always."""
    taken = inspect.signature(model.forward).parameters
    given = {*tokenizer.model_input_names, "input_ids", "attention_mask"}
    return [name for name in MODEL_INPUTS if name in taken and name in given]


class _PlainAttention(TorchFunctionMode):
    """Attention as products and a softmax, scaled beforehand: what `scaled_dot_product_attention` decomposes into
    also looks for rows without any key, with operators between the products that no runtime fuses.

    A mode, so that stock layers and static ones are traced alike, and in this thread only.
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
        return ((query * scale) @ key.transpose(-1, -2) + attn_mask).softmax(-1) @ value


class _Logits(nn.Module):
    """The model as a function of positional tensors, its padding mask made additive once for all layers."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Token tensors `(B, T)` int64, in the order of `names` -> logits `(B, classes)`."""
        inputs = dict(zip(self.names, tensors, strict=True))
        padding = 1.0 - inputs["attention_mask"].to(torch.float32)
        inputs["attention_mask"] = padding[:, None, None, :] * torch.finfo(torch.float32).min  # (B, 1, 1, T)
        with _PlainAttention():
            return self.model(**inputs).logits


def _write_graph(model: PreTrainedModel, names: list[str], path: Path) -> None:
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
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter")]
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


def _quantise(source: Path, target: Path) -> None:
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
        reduce_range=True,  # products of u8 and full s8 saturate on x86 without VNNI
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )


def _count_products(path: Path) -> tuple[int, int]:
    """Products with weights in a saved graph: in floating point, and in int8."""
    import onnx

    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    plain = sum(
        node.op_type in ("MatMul", "Gemm") and any(name in weights for name in node.input)
        for node in graph.node
    )
    return plain, sum(node.op_type == "MatMulInteger" for node in graph.node)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
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
    return {name: {"input_ids": ids, "attention_mask": mask}.get(name, 0 * ids) for name in names}


def _compare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], path: Path
) -> dict[str, Any]:
    """`checked`, `max_difference`, `label_agreement` and `sentences` of `ExportReport`."""
    session, longest = _session(path), longest_input(model, tokenizer)

    def both(batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            reference = model(**batch).logits.numpy()
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
        return reference, logits

    # One input and several, as short as an empty text and as long as fits, of one length and of many.
    sizes = [[2], [longest], [9], [5] * 4, [longest, 2, longest // 2], [17, 3, 11, 2, 16, 7, 17, 5]]
    sizes = [[min(length, longest) for length in lengths] for lengths in sizes]
    pairs = [both(_random_batch(model, names, lengths, seed)) for seed, lengths in enumerate(sizes)]
    made = len(pairs)
    texts = load_probe("sst2").texts[::_PROBE_STEP]
    encoded = encode(tokenizer, texts, max_length=longest)
    for indices in bucketed_batches([len(one["input_ids"]) for one in encoded], 32, shuffle_seed=0):
        batch = collate(tokenizer, encoded, indices)
        pairs.append(both({name: batch[name] for name in names}))
    differences = [np.abs(reference - logits).max() for reference, logits in pairs]
    agreement = None
    if model.config.num_labels > 1:
        same = [reference.argmax(-1) == logits.argmax(-1) for reference, logits in pairs[made:]]
        agreement = float(np.concatenate(same).mean())
    return {
        "checked": sum(len(reference) for reference, _ in pairs),
        "max_difference": float(np.max(differences)),
        "label_agreement": agreement,
        "sentences": len(texts),
    }


def _speedup(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], float32: Path, int8: Path
) -> float:
    """How many times as fast the int8 graph is, both timed in turn."""
    inputs, tokens = _TIMED
    batch = _random_batch(model, names, [min(tokens, longest_input(model, tokenizer))] * inputs, seed=0)
    feed = {name: tensor.numpy() for name, tensor in batch.items()}
    sessions = {"float32": _session(float32), "int8": _session(int8)}
    times = latency(
        {name: lambda session=session: session.run(None, feed) for name, session in sessions.items()},
        repeats=7,
        warmup=2,
    ).set_index("name")["median_ms"]
    return float(times["float32"] / times["int8"])


def _describe(model: PreTrainedModel, info: CheckpointInfo, int8: bool) -> str:
    """What the exported model is, in one line."""
    kinds = layer_kinds(model)
    parts = [
        f"{kinds.count(kind)} {kind}" for kind in ("dense", "static", "routed", "dropped") if kind in kinds
    ]
    plan = f", {info.plan.budget} experts kept" if info.plan else ""
    return (
        f"{type(model).__name__} of {info.base_model or 'an unnamed base'}, layers: {', '.join(parts)}{plan}; "
        f"{'int8' if int8 else 'float32'}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
