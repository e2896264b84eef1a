"""What each head of the dense layers adds on a whole data set: zeroed one after another (Michel et al., "Are Sixteen
Heads Really Better than One?", 2019).

A layer's change leaves the layers below as they are, so a head takes a pass through its own layer and those above. Of a
dense model with `L` layers of `H` heads that is `H (L + 1) / 2` passes an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.attribution.importance import KnockOuts, one_batch
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.evaluation.evaluate import label_columns
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import layer_kinds, num_experts_of
from shrp.model.partial import run_from
from shrp.model.replaced import shallow_copy

_OF_USE = ("usage", "uses", "effect_per_use", "effect_per_use_low", "effect_per_use_high")
"""Columns of experts' tables that say nothing of heads, each of which all inputs use."""


class _WithoutHead(nn.Module):
    """A layer's output projection that reads zeros where one head's output is."""

    def __init__(self, projection: nn.Linear, head: int, heads: int) -> None:
        super().__init__()
        size = projection.in_features // heads
        self.projection, self.zeroed = projection, slice(head * size, (head + 1) * size)

    def forward(self, outputs: Tensor) -> Tensor:
        """All heads' outputs side by side, `(B, T, d)`, to what they add, `(B, T, d)`."""
        outputs = outputs.clone()
        outputs[..., self.zeroed] = 0.0
        return self.projection(outputs)


def dense_layers(model: PreTrainedModel) -> list[int]:
    """The layers whose heads can be knocked out, ascending: not converted, pruned or dropped ones."""
    return [index for index, kind in enumerate(layer_kinds(model)) if kind == "dense"]


def check_has_heads(model: PreTrainedModel) -> None:
    """Raise `PlanError` of a model without a dense layer, now and not after its data were read."""
    if not dense_layers(model):
        raise PlanError("this model has no dense layer, so there is no head of one to knock out.")


def without_head(model: PreTrainedModel, layer: int, head: int) -> nn.Module:
    """Dense layer `layer` with the output of one head set to 0; it shares its weights with the model's, which is left
    alone.
    """
    family = family_of(model)
    *path, name = family.attention_out.split(".")
    top = parent = shallow_copy(encoder_layers(model)[layer])
    for part in path:
        parent._modules[part] = shallow_copy(parent.get_submodule(part))
        parent = parent._modules[part]
    parent._modules[name] = _WithoutHead(parent.get_submodule(name), head, num_experts_of(model))
    return top


def head_knock_outs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    rows: Sequence[int] | np.ndarray,
    *,
    max_length: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> KnockOuts:
    """Set the output of every head of every dense layer to 0 in turn, on some inputs of a data set, as one batch.

    Routers above, where there are any, route as they then would. In what is returned the `L` layers are the dense ones,
    and each head fires for every input.

    Args:
        rows: which inputs, at least one; `shrp.analysis.attribution.importance.blocks` gives them in sizes that go together.
        max_length: tokens at which a text is cut, as everywhere in evaluation.
        progress: called with layers run and in all, each head taking its own layer and those above.

    Raises:
        PlanError: no layer is dense.
        DataError: there are no inputs.
    """
    check_has_heads(model)
    layers, heads, depth = dense_layers(model), num_experts_of(model), len(encoder_layers(model))
    rows = np.asarray(rows, dtype=np.int64)
    batch = one_batch(model, tokenizer, data, rows, max_length)
    columns = label_columns(model, data.task)
    done, total = 0, heads * sum(depth - layer for layer in layers)
    with torch.inference_mode():
        logits, entering = run_from(model, batch, watch=layers)
        base = logits.float().cpu().numpy()[:, columns]
        knocked_out = np.empty((len(rows), len(layers), heads, len(columns)), dtype=base.dtype)
        for i, layer in enumerate(layers):
            for head in range(heads):
                without = {layer: without_head(model, layer, head)}
                changed, _ = run_from(model, batch, layer, entering[layer], replacements=without)
                knocked_out[:, i, head] = changed.float().cpu().numpy()[:, columns]
                done += depth - layer
                if progress:
                    progress(done, total)
    places = knocked_out.shape[:3]
    fires, top1 = np.ones(places, dtype=bool), np.ones(places, dtype=np.int64)
    return KnockOuts(data.task, tuple(layers), rows, base, knocked_out, top1, fires)


def of_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """`KnockOuts.table` or `shrp.analysis.attribution.where.worth_by_group` of heads: a column `head`, and none of usage."""
    return frame.rename(columns={"expert": "head"}).drop(columns=list(_OF_USE), errors="ignore")
