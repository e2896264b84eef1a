"""Dense and static models as ONNX: a graph that onnxruntime serves, with any batch and length, without torch.

The graph (`shrp.export.graph`) is compared with PyTorch before it is handed over. With the family's config, which knows
nothing of pruned layers, and the tokenizer, Optimum's `ORTModelForSequenceClassification` and pipelines load the folder.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints.info import CONFIG, EXPORT, GRAPH, HEADS, CheckpointInfo
from shrp.checkpoints.saving import entries, is_free, named, put_in_place
from shrp.data.batching import MODEL_INPUTS, longest_input
from shrp.data.sources import load_probe
from shrp.data.tasks import TEXT, Task
from shrp.data.text_data import TextData
from shrp.errors import ExportError, first_line
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import label_columns
from shrp.export.graph import compare, probe_of, quantise, write_graph
from shrp.files import read_object
from shrp.model.convert import expert_layers, num_experts_of

TOLERANCE = 1e-4
"""Largest difference in logits, float32 against PyTorch, with which a graph is handed over, as a part of the largest
logit where that is above 1.
"""
MODEL, TOKENIZER, TOKENIZER_CONFIG = GRAPH, "tokenizer.json", "tokenizer_config.json"
SCRIPT = "predict.py"
"""What runs the folder with onnxruntime and tokenizers alone: a copy of the file of this name here."""
FILES = {MODEL, TOKENIZER, TOKENIZER_CONFIG, CONFIG, SCRIPT}
FORMAT, FORMAT_VERSION = EXPORT, 2
_MOST_BYTES = 2**31 - 2**20
"""Of weights in one file: protobuf, which ONNX is written in, holds less than 2 GiB; the rest of a graph is small."""
_COMPARED = 500
_ENCODING_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    int8: bool = False,
    check: bool = True,
    data: TextData | None = None,
) -> dict[str, Any]:
    """Write a dense or static classifier to the ONNX file `path`; `model` is left as it was.

    With `int8`, weights are stored as int8 (a scale a column; 7 bits of it where this processor overflows on 8), and
    activations are quantised as they come, with one scale a batch: logits then depend a little on what else is in it.

    Args:
        check: compare with PyTorch in float32, in batches of several sizes and lengths, padded and not.
        data: whose texts they are compared on; None for sentences of the probe set of sst2.

    Returns:
        `path`, `bytes`, `int8` and `inputs` (names of the graph's inputs, int64 `(batch, tokens)` each; its output is
        `logits`). If it was compared, `checked` (inputs), `max_difference` (of logits, absolute), `sentences` (texts or
        pairs among these inputs; the others are random tokens), `compared_on` (the name of what they are from) and
        `label_agreement` (share of them with the same highest logit; None for regression).

    Raises:
        ExportError: the model still routes, the graph can't be made or written, it differs from PyTorch (in float32:
            int8 always does), or logits are no finite numbers.
    """
    path = Path(path)
    if not type(model).__name__.endswith(HEADS[TEXT]):
        raise ExportError("only classifiers of texts are exported so far, not models that label words or mark answers.")
    if expert_layers(model):
        raise ExportError(
            "the model still routes, and live routing has no ONNX form; give a pruning plan (--per-layer, --budget or "
            "--plan), or export a pruned checkpoint."
        )
    size = sum(value.numel() * 4 for value in model.state_dict().values())
    if size > _MOST_BYTES:
        raise ExportError(
            f"the model's weights take {size / 2**30:.1f} GiB, and an ONNX file holds less than 2; prune more of it, "
            "or trim its vocabulary."
        )
    runtime = _onnx_packages()
    # Tracing swaps a module's weights for a while, in every thread.
    model = copy.deepcopy(model).eval().cpu().float()
    names = _input_names(model, tokenizer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            float32 = Path(scratch) / "float32.onnx"
            written = float32
            write_graph(model, names, float32)
            if int8:
                written = Path(scratch) / "int8.onnx"
                quantise(float32, written)
            found: dict[str, Any] = {}
            if check:
                found = compare(model, tokenizer, names, written, data or load_probe("sst2"))
                if not np.isfinite(found["max_difference"]):
                    raise ExportError(
                        "the model's logits, or its graph's, are not finite numbers: nothing was written."
                    )
                # A regression's outputs may be large, and float32 has seven digits of them.
                allowed = TOLERANCE * max(1.0, found.pop("largest_logit"))
                if not int8 and found["max_difference"] > allowed:
                    raise ExportError(
                        f"the graph's logits differ from PyTorch's by {found['max_difference']:.1e}, more than "
                        f"{allowed:.1e}: nothing was written."
                    )
            os.replace(written, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error
    except (*runtime, RuntimeError) as error:
        raise ExportError(f"this model can't be turned into ONNX: {first_line(error)}") from error
    return {"path": str(path), "bytes": path.stat().st_size, "int8": int8, "inputs": names} | found


def export_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    info: CheckpointInfo,
    folder: Path,
    *,
    made_from: str = "",
    int8: bool = False,
    check: bool = True,
    data: TextData | None = None,
) -> dict[str, Any]:
    """Write all that serving needs: graph, tokenizer, a small `config.json` that says what they are, and `predict.py`.

    The tokenizer cuts inputs where they were cut when the model was scored (`info.max_length`) and pads batches, so
    `Tokenizer.from_file` is all it takes. Hugging Face's tools open the folder too.

    `data`: whose texts, at most 500, the graph is compared on; None for a probe set. Returns as `export_onnx`.

    Raises:
        ExportError: as `export_onnx`; or `folder` holds something else than an earlier export.
    """
    folder = Path(folder)
    check_free(folder)
    longest = longest_input(model, tokenizer, info.max_length)  # as it was scored
    backend = serving_tokenizer(tokenizer, longest)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            partial = Path(scratch) / "export"
            partial.mkdir()
            if data is not None and len(data) > _COMPARED:
                data = data.subset(data.stratified_order()[:_COMPARED])
            data = data or probe_of(info.task)
            report = export_onnx(model, tokenizer, partial / MODEL, int8=int8, check=check, data=data)
            backend.save(str(partial / TOKENIZER))
            # What each of the graph's outputs stands for: the model's order, which need not be the task's.
            names = info.task.label_names
            columns = label_columns(model, info.task)[: len(names)]
            labels = [name for _, name in sorted(zip(columns, names, strict=True))]
            config = hub_config(model, info.task, labels) | {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "task": info.task.name,
                "task_definition": info.task.to_dict(),
                "texts": list(info.task.text_columns),
                "labels": labels,
                "max_length": longest,
                "inputs": {name: _ENCODING_FIELDS[name] for name in report["inputs"]},
                "precision": "int8" if int8 else "float32",
                "plan": info.plan.to_dict() if info.plan else None,
                "num_experts": num_experts_of(model),
                "cost": cost(model).relative_to(dense_cost(model)),
                "made_from": made_from,
                "check": {k: v for k, v in report.items() if k not in ("path", "inputs", "int8")},
            }
            settings = hub_tokenizer(tokenizer, longest, report["inputs"])
            for name, content in ((CONFIG, config), (TOKENIZER_CONFIG, settings)):
                text = json.dumps(content, indent=2, allow_nan=False)
                (partial / name).write_text(f"{text}\n", encoding="utf-8")
            shutil.copyfile(Path(__file__).with_name(SCRIPT), partial / SCRIPT)
            check_free(folder)  # something may have been put there since
            put_in_place(partial, folder)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return report | {"path": str(folder / MODEL)}


def read_config(folder: Path) -> dict[str, Any]:
    """An export's `config.json`; empty where the folder holds no export."""
    found = read_object(folder / CONFIG)
    return found if found.get("format") == FORMAT else {}


def check_free(folder: Path) -> None:
    """Raise `ExportError` unless `folder` is new, empty, or an earlier export and nothing else; also as `is_free`."""
    if is_free(folder):
        return
    if not read_config(folder) or not {file.name for file in entries(folder)} <= FILES:
        raise ExportError(
            f"{folder} exists and is not an earlier export alone; choose a new or an empty folder."
        )


def serving_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenizer:
    """A copy of the tokenizer's fast core that cuts at `max_length` tokens and pads by itself.

    Raises:
        ExportError: it has no fast core, which is what runs without Python code of its own.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise ExportError(
            "the checkpoint's tokenizer has no fast form (tokenizer.json), which serving without transformers needs."
        )
    core = Tokenizer.from_str(core.to_str())
    core.enable_truncation(max_length, direction=tokenizer.truncation_side)
    core.enable_padding(
        direction="right",  # as `collate`
        pad_id=tokenizer.pad_token_id or 0,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=padding_token(tokenizer),
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


def _input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the tokenizer gives and the model takes, in a fixed order; the mask always."""
    taken = inspect.signature(model.forward).parameters
    given = {*tokenizer.model_input_names, "input_ids", "attention_mask"}
    return [name for name in MODEL_INPUTS if name in taken and name in given]


def hub_config(model: PreTrainedModel, task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """The family's config, as JSON-able data; what is no number there is null.

    Args:
        task: what the model answers, by which a pipeline turns logits into probabilities, or leaves them.
        labels: what each of the graph's outputs stands for; none of a regression.
    """
    own = json.dumps(model.config.to_diff_dict(), default=str)
    found = json.loads(own, parse_constant=lambda _: None) | named(model, converted=False)
    found.pop("shrp", None)
    found["problem_type"] = "regression" if task.is_regression else "single_label_classification"
    if labels:
        found["id2label"] = {str(place): name for place, name in enumerate(labels)}
        found["label2id"] = {name: place for place, name in enumerate(labels)}
    return found


def hub_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_length: int, inputs: Sequence[str]
) -> dict[str, Any]:
    """The settings of a fast tokenizer that needs nothing but `tokenizer.json`, whichever class this one is of."""
    special = {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    return special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": list(inputs),
        "pad_token": padding_token(tokenizer),
        "padding_side": "right",
        "truncation_side": tokenizer.truncation_side,
        "clean_up_tokenization_spaces": False,
    }


def padding_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a batch is padded with: of a tokenizer without such a token its first one, as the mask hides it."""
    return tokenizer.pad_token or tokenizer.convert_ids_to_tokens(0)
