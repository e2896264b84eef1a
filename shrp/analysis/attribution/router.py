"""Why a layer took an expert: one input's preference of its router, to be explained as a logit is.

A router is linear in the pooled hidden states before its softmax, so the log-odds of two experts are a difference of
two of its logits. Every attribution of `shrp.analysis.attribution.tokens` explains them: positive words draw the input to the
first expert, and under a frozen route below the layer integrated gradients add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from shrp.analysis.attribution.instance import Instance
from shrp.analysis.attribution.tokens import Progress, ablated
from shrp.errors import DataError
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import num_experts_of, router_layers
from shrp.model.gates import RoutingRecord, record_routing
from shrp.model.layers import DroppedLayer
from shrp.model.replaced import with_layers


@dataclass(frozen=True, eq=False)
class RouterInstance(Instance):
    """One input as its router in one layer sees it; `prefer` makes it."""

    layer: int
    expert: int
    rather_than: int

    @property
    def reroutes(self) -> bool:
        """As of `Instance`: the layer's own choice comes after what its router reads."""
        return any(layer < self.layer for layer in router_layers(self.model))

    def outputs(self, embeddings: Tensor, **inputs: Tensor) -> Tensor:
        """The log-odds `(B, 1)` of `expert` against `rather_than`, in nats: above 0 the router prefers the first.

        Under token routing, their mean over all tokens. Probabilities below float32's smallest, of a router that is
        quite sure of another expert, count as that. Args as of `Instance.outputs`.
        """
        with record_routing() as record:
            super().outputs(embeddings, **inputs)
        trace = record.last(self.layer)
        # A saturated router's probability may round to 0, which has no logarithm.
        logs = trace.probs.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        odds = logs[..., self.expert] - logs[..., self.rather_than]
        if odds.dim() == 2:
            mask = torch.ones_like(odds) if trace.token_mask is None else trace.token_mask.to(odds.dtype)
            odds = (odds * mask).sum(-1) / mask.sum(-1)
        return odds.unsqueeze(-1)


@dataclass(frozen=True, eq=False)
class RoutesWithout:
    """Which expert each routed layer takes, and which it takes without a word. `L` layers, `W` words."""

    layers: tuple[int, ...]
    experts: int
    """In each layer."""
    top_k: int
    """How many of them fire; what is taken is the one with the largest gate."""
    own: np.ndarray
    """`(L,)`."""
    without: np.ndarray
    """`(L, W)`: the same where the word is replaced and the model routes anew."""


def routes_without(
    instance: Instance, replacement: str = "mask", progress: Progress | None = None
) -> RoutesWithout:
    """Replace one word at a time, and see where the input is routed.

    Args:
        replacement: what stands for the word, as in `shrp.analysis.attribution.tokens.ablate_words`.
        progress: called with words done and in all.

    Raises:
        DataError: the model has no router, or one for each token, or the tokenizer has nothing that may stand for it.
    """
    routers = router_layers(instance.model)
    if not routers:
        raise DataError(
            "this model has no router, so no word can change its route; pick a routed checkpoint."
        )
    layers, first = tuple(sorted(routers)), next(iter(routers.values()))
    if first.routing == "token":
        raise DataError(
            "every token has a route of its own in this model, so there is no one route to change."
        )

    def taken(record: RoutingRecord) -> Tensor:
        return torch.stack([record.last(layer).gates.argmax(-1) for layer in layers])  # (L, B)

    parts = []
    with torch.no_grad():
        with record_routing() as record:
            instance.outputs(instance.embeddings)
        own = taken(record)[:, 0]
        for batch in instance.batches(len(instance.words)):
            with record_routing() as record:
                ablated(instance, instance.words[batch], replacement)
            parts.append(taken(record))
            if progress:
                progress(batch.stop, len(instance.words))
    without = torch.cat(parts, 1).cpu().numpy()
    return RoutesWithout(layers, num_experts_of(instance.model), first.top_k, own.cpu().numpy(), without)


def prefer(instance: Instance, layer: int, expert: int, rather_than: int) -> RouterInstance:
    """The input with the router's preference in place of the logits; the layers above are left out.

    Raises:
        DataError: the layer has no router, or these are no two of its experts.
    """
    routed = sorted(router_layers(instance.model))
    if layer not in routed:
        raise DataError(f"layer {layer} has no router to explain; routed layers are {routed}.")
    experts = num_experts_of(instance.model)
    if expert == rather_than or not {expert, rather_than} <= set(range(experts)):
        raise DataError(f"name two different experts of 0 to {experts - 1}, not {expert} and {rather_than}.")
    calling = family_of(instance.model).calling
    above = range(layer + 1, len(encoder_layers(instance.model)))
    model = with_layers(instance.model, {index: DroppedLayer(index, calling) for index in above})
    own = {field.name: getattr(instance, field.name) for field in fields(Instance)} | {"model": model}
    return RouterInstance(**own, layer=layer, expert=expert, rather_than=rather_than)
