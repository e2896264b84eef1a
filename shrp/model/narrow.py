"""A control: a dense layer pruned the plain way, of heads and feed-forward neurons, to the size of an SHRP layer.

What SHRP puts in a dense layer's place, a pruned layer of `m` experts and an Expander, has a small share of its
parameters. Pruning heads and neurons of the same layer to that size (Michel et al. 2019; McCarley et al. 2019) asks
what the conversion itself is worth.

Shapes: `B` inputs, `T` tokens, `d` hidden size, `ff` inner size of the feed-forward network, `H` heads of `dh = d / H`
dimensions, of which `m` are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from shrp.errors import ShrpError
from shrp.families.calling import PLAIN, Calling, Output
from shrp.families.families import family_of
from shrp.model.attending import KeptHeads
from shrp.model.hidden_states import tell
from shrp.model.sizes import narrow_layer_params, static_layer_params


def size_like(d: int, dh: int, experts: int) -> tuple[int, int]:
    """Heads and neurons of a layer that has no more parameters than an SHRP layer pruned to so many experts.

    Half as many heads as there are experts, as a head brings an output projection of its own, and as many neurons as
    then fit in; at least one of each, which for a single expert is a few more parameters: `3 d + 1`.
    """
    heads = max(1, experts // 2)
    left = static_layer_params(d, dh, experts) - narrow_layer_params(d, dh, heads, 0)
    return heads, max(1, left // (2 * d + 1))


class _Rest(nn.Module):
    """Of a narrow layer what SHRP has its Expander for: `W_o`, both feed-forward maps and the LayerNorm between."""

    def __init__(self, d: int, width: int, neurons: int, eps: float) -> None:
        super().__init__()
        self.out, self.norm = nn.Linear(width, d), nn.LayerNorm(d, eps=eps)
        self.up, self.down = nn.Linear(d, neurons), nn.Linear(neurons, d)


class NarrowLayer(KeptHeads):
    """A post-LayerNorm encoder layer of some of a dense one's heads and neurons; called like the layer it replaces."""

    def __init__(
        self,
        *,
        layer: int,
        hidden_size: int,
        head_size: int,
        heads: int,
        neurons: int,
        activation: str = "gelu",
        eps: float = 1e-12,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drops_attended: bool = True,
        calling: Calling = PLAIN,
    ) -> None:
        """Args: drops_attended, whether the output projection's result drops out too, as in most families."""
        super().__init__()
        self.layer, self.calling = layer, calling
        self.hidden_size, self.head_size, self.neurons = hidden_size, head_size, neurons
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.drops_attended = drops_attended
        # Which of the dense layer's they are: stored, since relative positions may say another thing to each.
        self.register_buffer("kept_heads", torch.arange(heads))
        self.qkv = nn.Linear(hidden_size, 3 * heads * head_size)
        self.rest = _Rest(hidden_size, heads * head_size, neurons, eps)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)
        self.act = ACT2FN[activation]

    def check_kept(self, num_heads: int) -> None:
        """Raise `ShrpError` unless the kept heads are some of a dense layer's, each once, in rising order."""
        kept = self.kept_heads.tolist()
        if self.kept_heads.dtype != torch.int64 or kept != sorted({h for h in kept if 0 <= h < num_heads}):
            raise ShrpError(
                f"the heads kept in layer {self.layer} must be some of 0 to {num_heads - 1}, in rising order, not "
                f"{kept}."
            )

    @property
    def heads(self) -> tuple[int, ...]:
        """The kept heads of the dense layer."""
        return tuple(self.kept_heads.tolist())

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **asked: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`."""
        attention_mask, relative = (
            self.calling.attention_mask(attention_mask),
            self.calling.relative(args, asked),
        )
        mixed = self.attended(hidden_states, attention_mask, relative)
        rest = self.rest
        update = rest.out(mixed.transpose(1, 2).flatten(2))
        attended = rest.norm(hidden_states + (self._drop(update) if self.drops_attended else update))
        output = self.norm(attended + self._drop(rest.down(self.act(rest.up(attended)))))
        tell(self.layer, hidden_states, output)
        return self.calling.answer(output, asked)

    @property
    def of_dense(self) -> Tensor:
        """As in `KeptHeads`."""
        return self.kept_heads

    def _drop(self, update: Tensor) -> Tensor:
        return F.dropout(update, self.dropout, self.training)


def empty_narrow_layer(model: PreTrainedModel, index: int, experts: int) -> NarrowLayer:
    """A `NarrowLayer` of the model's geometry, as large as an SHRP layer of so many experts, with fresh weights.

    Raises:
        ShrpError: a dense layer has not so many heads, or is no larger.
    """
    family, hf = family_of(model), model.config
    total = hf.num_attention_heads
    if not 1 <= experts <= total:
        raise ShrpError(f"narrow_to must be 1 to {total}, the heads of a layer, not {experts}.")
    head_size = hf.hidden_size // total
    heads, neurons = size_like(hf.hidden_size, head_size, experts)
    if neurons > (most := getattr(hf, family.feed_forward_size)):
        raise ShrpError(f"a layer with {most} feed-forward neurons is smaller than one of {experts} experts.")
    return NarrowLayer(
        layer=index,
        hidden_size=hf.hidden_size,
        head_size=head_size,
        heads=heads,
        neurons=neurons,
        activation=getattr(hf, family.activation),
        eps=family.layers(model)[index].get_submodule(family.last_norm).eps,
        dropout=getattr(hf, family.dropout),
        attention_dropout=getattr(hf, family.attention_dropout),
        drops_attended=family.drops_attended,
        calling=family.calling,
    )


@torch.no_grad()
def narrow_layer(
    model: PreTrainedModel, index: int, experts: int, batches: Iterable[dict[str, Tensor]]
) -> NarrowLayer:
    """Replace dense layer `index` of `model`, in place, by what pruning its heads and neurons leaves; return it.

    Kept are those that change most, from token to token, what is added to the residual stream: by the root mean square
    of what a head adds through the output projection, and a neuron through its output weights, about its mean, over
    real tokens. The means of the others are kept as well, in the biases.

    Args:
        experts: of the SHRP layer whose size it gets.
        batches: model inputs, `(B, T)` each, to measure that on; all are used.

    Raises:
        ShrpError: as `empty_narrow_layer`, or there is no input to measure on.
    """
    family = family_of(model)
    layers = family.layers(model)
    dense = layers[index]
    parts = {name: dense.get_submodule(getattr(family, name)) for name in _PARTS}
    narrow = empty_narrow_layer(model, index, experts)
    found = _measured(model, parts, batches)
    heads = _largest(found.heads, len(narrow.kept_heads))
    neurons = _largest(found.neurons, narrow.neurons)
    narrow.kept_heads.copy_(heads.cpu())
    dh = narrow.head_size
    rows = (heads[:, None] * dh + torch.arange(dh, device=heads.device)).flatten()
    for place, name in enumerate(("query", "key", "value")):
        span = slice(place * len(rows), (place + 1) * len(rows))
        narrow.qkv.weight[span] = parts[name].weight[rows].cpu()
        narrow.qkv.bias[span] = parts[name].bias[rows].cpu()
    rest = narrow.rest
    rest.up.weight.copy_(parts["up"].weight[neurons])
    rest.up.bias.copy_(parts["up"].bias[neurons])
    for whole, part, kept, mean in (
        (parts["attention_out"], rest.out, rows, found.mixed),
        (parts["down"], rest.down, neurons, found.active),
    ):
        part.weight.copy_(whole.weight[:, kept])
        gone = torch.ones(whole.in_features, dtype=torch.bool, device=kept.device)
        gone[kept] = False
        part.bias.copy_(whole.bias + whole.weight[:, gone] @ mean[gone].to(whole.weight.dtype))
    rest.norm.load_state_dict(parts["attention_norm"].state_dict())
    narrow.norm.load_state_dict(parts["last_norm"].state_dict())
    reference = next(dense.parameters())
    layers[index] = narrow.to(reference.device, reference.dtype).train(dense.training)
    return layers[index]


_PARTS = ("query", "key", "value", "attention_out", "attention_norm", "up", "down", "last_norm")


@dataclass(frozen=True, eq=False)
class _Measured:
    """What a dense layer's heads and neurons do, over real tokens."""

    heads: Tensor
    """`(H,)`: mean square of what each adds, about its mean."""
    neurons: Tensor
    """`(ff,)`: likewise."""
    mixed: Tensor
    """`(d,)`: mean input of the output projection."""
    active: Tensor
    """`(ff,)`: mean activation."""


def _measured(
    model: PreTrainedModel, parts: Mapping[str, nn.Module], batches: Iterable[dict[str, Tensor]]
) -> _Measured:
    out, down, heads = parts["attention_out"], parts["down"], model.config.num_attention_heads
    caught: dict[str, list[Tensor]] = {}
    hooks = [
        # A feed-forward network may take a text's tokens in several chunks.
        part.register_forward_pre_hook(lambda module, args, name=name: caught[name].append(args[0]))
        for name, part in (("mixed", out), ("active", down))
    ]
    sums: dict[str, Tensor] = {}
    was_training, tokens = model.training, 0
    model.eval()
    try:
        for batch in batches:
            inputs = {name: value.to(out.weight.device) for name, value in batch.items()}
            caught |= {"mixed": [], "active": []}
            model(**inputs)
            real = inputs["attention_mask"].bool()
            mixed, active = (torch.cat(caught[name], 1).float()[real] for name in ("mixed", "active"))
            by_head = mixed.view(len(mixed), heads, -1)
            one = {
                "mixed": mixed.sum(0),
                "products": torch.einsum("nhi,nhj->hij", by_head, by_head),  # (H, dh, dh)
                "active": active.sum(0),
                "squares": active.square().sum(0),
            }
            sums = {name: sums.get(name, 0) + value for name, value in one.items()}
            tokens += len(mixed)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise ShrpError("give at least one input to measure heads and neurons on.")
    means = {name: value / tokens for name, value in sums.items()}
    mean = means["mixed"].view(heads, -1)
    spread = means["products"] - mean[:, :, None] * mean[:, None, :]  # (H, dh, dh)
    weight = out.weight.float().view(len(out.weight), heads, -1)  # (d, H, dh)
    return _Measured(
        heads=torch.einsum("dhi,hij,dhj->h", weight, spread, weight),
        neurons=(means["squares"] - means["active"].square()) * down.weight.float().square().sum(0),
        mixed=means["mixed"],
        active=means["active"],
    )


def _largest(values: Tensor, count: int) -> Tensor:
    """The places of the largest values, in rising order; of equals the first."""
    return values.argsort(descending=True, stable=True)[:count].sort().values
