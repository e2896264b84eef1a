"""The models that `studies.throughput` times, and the runtimes that run them.

A geometry is a dense model; its contenders share every layer that they have in common with it, so that a dozen fit
into memory. Speed depends on shapes, not on weights, so random ones serve.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.evaluation.costs import counted_flops
from shrp.evaluation.timing import dense_like
from shrp.families.families import encoder_layers
from shrp.families.relative import RelativePositions
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, expert_layers, num_experts_of
from shrp.model.hidden_states import hooked
from shrp.model.layers import ExpertLayer
from shrp.model.replaced import with_layers
from shrp.pruning.plan import first_experts, make_plan
from shrp.pruning.prune import prune

BERT_BASE = "bert-base"
DENSE = "dense"
PER_LAYER = {6: 2, 11: 1}
"""Converted layers of BERT-base -> experts a layer of the static model."""

Call = Callable[[Mapping[str, Tensor]], object]
"""Runs a model on `input_ids` and `attention_mask`, `(B, T)`."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A model in one number format and runtime."""

    model: str
    dtype: str
    runtime: str
    flop_limit: float
    """FLOPs of the dense model over this one's, for one input: how much faster it could be at most."""
    call: Call


class NaiveExpertLayer(ExpertLayer):
    """A routed layer that computes all experts and then takes the chosen one's output."""

    def _chosen_output(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        relative: RelativePositions | None,
        chosen: Tensor,
    ) -> Tensor:
        outputs = self.expert_outputs(hidden_states, attention_mask, relative)
        gates = F.one_hot(chosen, self.num_experts).to(outputs.dtype)
        return torch.einsum("bh,bhtd->btd", gates, outputs)


def naive(model: PreTrainedModel) -> PreTrainedModel:
    """The same routed model, sharing its weights, with every expert computed."""
    layers = {}
    for index, layer in expert_layers(model).items():
        layers[index] = copy.copy(layer)
        layers[index].__class__ = NaiveExpertLayer
    return with_layers(model, layers)


def bert_base() -> dict[str, PreTrainedModel]:
    """BERT-base with random weights: dense, converted and pruned at two depths, and a 6-layer DistilBERT."""
    torch.manual_seed(0)
    config = BertConfig(num_labels=2)
    dense = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").eval()
    hooked(dense)  # whose layers all of these share
    depth, models = len(encoder_layers(dense)), {DENSE: dense}
    for count, m in PER_LAYER.items():
        converted, name = tuple(range(depth - count, depth)), f"{count}of{depth}"
        routed = with_layers(dense, {})  # converting replaces layers of this clone only
        convert(routed, ShrpConfig(converted)).eval()
        plan = first_experts(dict.fromkeys(converted, m))
        models |= {
            f"routed-{name}": routed,
            f"naive-routed-{name}": naive(routed),
            f"static-{name}-m{m}": prune(routed, plan, share_weights=True).eval(),
        }
    distilled = DistilBertConfig(num_labels=2, n_layers=6)
    models["distilbert-6"] = AutoModelForSequenceClassification.from_config(
        distilled, attn_implementation="sdpa"
    ).eval()
    return models


def of_checkpoint(checkpoint: Checkpoint) -> dict[str, PreTrainedModel]:
    """A checkpoint's model, the dense one of its geometry, and its prunings to 1 and 2 experts a layer."""
    info, model = checkpoint.info, checkpoint.model.eval()
    models = {DENSE: dense_like(model)}
    if not expert_layers(model):
        return models | {"static" if info.plan is not None else "itself": model}
    models |= {"routed": model, "naive-routed": naive(model)}
    if info.usage:
        for m in (1, 2):
            plan = make_plan(usage_in(info), per_layer=min(m, num_experts_of(model)))
            models[f"static-m{m}"] = prune(model, plan, share_weights=True).eval()
    return models


def flop_limits(models: Mapping[str, PreTrainedModel], tokens: int) -> dict[str, float]:
    """By model: counted FLOPs of the dense one over its own, for one input of `tokens` tokens."""
    flops = {name: counted_flops(model, tokens) for name, model in models.items()}
    return {name: flops[DENSE] / count for name, count in flops.items()}


def in_bfloat16(models: Mapping[str, PreTrainedModel]) -> dict[str, PreTrainedModel]:
    """All of the models, whole, in bfloat16; what they share is shared again."""
    memo: dict[int, Any] = {}
    # `Module.to` works in place and meets a shared parameter again as already cast.
    return {name: copy.deepcopy(model, memo).to(torch.bfloat16) for name, model in models.items()}


def compiled(model: PreTrainedModel) -> PreTrainedModel:
    """A clone sharing all weights whose layers go through `torch.compile`.

    Layer by layer, as one layer's code serves all of its kind: minutes less than compiling the whole.
    """
    layers = {index: copy.copy(layer) for index, layer in enumerate(encoder_layers(model))}
    for layer in layers.values():
        layer.compile(dynamic=True)
    return with_layers(model, layers)


def torch_call(model: PreTrainedModel) -> Call:
    """A model as it is."""
    return lambda inputs: model(**inputs)


@contextmanager
def onnx_calls(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, *, int8: bool
) -> Iterator[tuple[dict[str, Call], dict[str, str]]]:
    """Models exported to ONNX and opened with ONNX Runtime on as many threads as torch uses.

    Yields:
        By model, its call; and for those that could not be exported, the reason.
    """
    from shrp.export.check import open_graph
    from shrp.export.onnx import export_onnx

    calls, reasons = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, model in models.items():
            path = Path(scratch) / f"{name}.onnx"
            try:
                export_onnx(model, tokenizer, path, int8=int8, check=False)
                session = open_graph(path, spin=False)
            except Exception as error:  # onnxruntime's have no ancestor of their own; the reason is reported
                reasons[name] = first_line(error)
                continue
            finally:
                path.unlink(missing_ok=True)  # the session holds all of it
            calls[name] = _onnx_call(session)
        yield calls, reasons


def _onnx_call(session: Any) -> Call:
    wanted = [given.name for given in session.get_inputs()]

    def call(inputs: Mapping[str, Tensor]) -> object:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        if "token_type_ids" in wanted:
            arrays["token_type_ids"] = torch.zeros_like(inputs["input_ids"]).numpy()
        return session.run(None, {name: arrays[name] for name in wanted})

    return call


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
