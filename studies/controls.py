"""The controls: what SHRP is compared with, trained by the same loop as SHRP.

- Layer dropping: `drop_layer` makes a dense model with fewer layers.
- Self path alone: `self_path_alone` makes layers that see each token by itself, without attention.
- No router: under `no_router` all experts of a layer contribute equally while a model trains.
- Width pruning: under `width_pruning` layers stay dense and lose heads and neurons, until they are as small as SHRP's
  (Michel et al. 2019; McCarley et al. 2019); `shrp` cannot load such models.

Random experts, the fourth control, are plans (`make_plan(selection="random")`).

Shapes: `B` inputs, `T` tokens, `d` hidden size, `ff` inner size of the feed-forward network, `H` heads of `dh`
dimensions, of which `m` are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, Cost, dense_layer_flops, partly_dense
from shrp.evaluation.layer_params import dense_layer_params, static_layer_params
from shrp.families.families import encoder_layers, family_of
from shrp.families.family import Output
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert_layer, empty_expert_layer, num_experts_of
from shrp.model.gates import add_to_records, straight_through, use_gates
from shrp.model.layers import StaticLayer
from shrp.training.runs import Convert

Batches = Sequence[dict[str, Tensor]]

# --- Layer dropping ---


def drop_layer(model: PreTrainedModel, layer: int) -> None:
    """Remove an encoder layer, in place. Layers above it move down, so remove from the top."""
    layers = encoder_layers(model)
    del layers[layer]
    if kinds := getattr(model.config, "layer_types", None):  # ModernBERT's local and global layers
        model.config.layer_types = [kind for index, kind in enumerate(kinds) if index != layer]
    model.config.num_hidden_layers = len(layers)


# --- No router ---


@contextmanager
def no_router() -> Iterator[None]:
    """Give all experts of every layer equal weight in the passes made inside; train without the balance loss."""
    with use_gates(lambda layer, probs, gates: torch.full_like(probs, 1 / probs.shape[-1])):
        yield


# --- A mixture of experts that becomes a choice ---


@contextmanager
def annealed(steps: float) -> Iterator[None]:
    """Mix all experts by their probabilities at first, and route ever more, until after `steps` training steps all is routed."""
    taken: Counter[int] = Counter()

    def mixed(layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        share = max(0.0, 1 - taken[layer] / steps)
        taken[layer] += torch.is_grad_enabled()
        return share * probs + (1 - share) * straight_through(gates, probs) if share else None

    with use_gates(mixed):
        yield


# --- Self path alone ---


class SelfPathAlone(StaticLayer):
    """A layer without attention: its Expander sees each token's `W_s x`, and nothing of the others."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`."""
        output = self.output(hidden_states, self.qkv(self.read(hidden_states)))
        add_to_records(self.layer, output)
        return self.family.answer(hidden_states, output, kwargs)


def self_path_alone(model: PreTrainedModel, layer: int) -> SelfPathAlone:
    """A conversion step: a layer with the self path and the Expander alone, which starts nearly as a dropped layer."""
    convert_layer(model, layer, ShrpConfig((layer,), self_path=True))
    layers = encoder_layers(model)
    source = layers[layer]
    made = SelfPathAlone(source, ())
    made.expander.load_state_dict(source.expander.state_dict())
    layers[layer] = made.to(source.qkv_weight.device, source.qkv_weight.dtype).train(source.training)
    return layers[layer]


# --- Width pruning ---


class _Rest(nn.Module):
    """In a width-pruned layer, what SHRP has its Expander for: `W_o`, LayerNorm and the feed-forward network."""

    def __init__(self, d: int, width: int, neurons: int, eps: float, activation: str) -> None:
        super().__init__()
        self.out, self.norm = nn.Linear(width, d), nn.LayerNorm(d, eps=eps)
        self.up, self.down = nn.Linear(d, neurons), nn.Linear(neurons, d)
        self.act = ACT2FN[activation]


class WidthPruned(StaticLayer):
    """A dense layer with some of its heads and neurons; `heads` are the kept ones."""

    def __init__(self, model: PreTrainedModel, layer: int, heads: Sequence[int], neurons: int) -> None:
        super().__init__(empty_expert_layer(model, layer, ShrpConfig((layer,))), heads)
        self.neurons = neurons
        # Stored with the weights: a resumed training may choose other heads before it loads these.
        self.register_buffer("kept_heads", torch.tensor(self.heads))
        self.register_load_state_dict_post_hook(_restore_heads)
        width, act = self.kept * self.head_size, getattr(model.config, self.family.activation)
        self.expander = _Rest(self.hidden_size, width, neurons, self.norm.eps, act)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`."""
        family, rest = self.family, self.expander
        mask, relative = family.attention_mask(attention_mask), family.relative(args, kwargs)
        mixed = self.expert_outputs(hidden_states, mask, relative)  # (B, m, T, dh)
        update = rest.out(mixed.transpose(1, 2).flatten(2))
        attended = rest.norm(hidden_states + (self._drop(update) if family.drops_attended else update))
        output = self.norm(attended + self._drop(rest.down(rest.act(rest.up(attended)))))
        add_to_records(self.layer, output)
        return family.answer(hidden_states, output, kwargs)

    def _drop(self, update: Tensor) -> Tensor:
        return F.dropout(update, self.dropout, self.training)


def _restore_heads(layer: WidthPruned, incompatible: object) -> None:
    layer.heads = tuple(layer.kept_heads.tolist())


def size_like(d: int, dh: int, experts: int) -> tuple[int, int]:
    """Heads and neurons of a layer under width pruning, with no more parameters than a static layer of so many experts.

    Half as many heads as experts, since each head has its own output projection, and as many neurons as then fit; at
    least one of each.
    """
    heads = max(1, experts // 2)
    left = static_layer_params(d, dh, experts) - dense_layer_params(d, 0, heads * dh)
    return heads, max(1, left // (2 * d + 1))


def narrow_cost(model: PreTrainedModel, layers: int, experts: int) -> Cost:
    """Cost of the same architecture with `layers` layers under width pruning to the size of so many experts."""
    d, dh = model.config.hidden_size, model.config.hidden_size // model.config.num_attention_heads
    heads, neurons = size_like(d, dh, experts)
    flops = dense_layer_flops(d, neurons, TOKENS, heads * dh)
    flops += family_of(model).position_flops(model.config, TOKENS, heads * dh)
    size = dense_layer_params(d, neurons, heads * dh), flops
    return partly_dense(model, [size] * layers, layers, TOKENS)


def width_pruning(experts: int, batches: Batches) -> Convert:
    """A conversion step that prunes a dense layer's heads and neurons to the size of an SHRP layer.

    It keeps the heads and neurons whose contribution to the residual stream varies most over real tokens: the root mean
    square, about its mean, of what a head adds through the output projection and a neuron through its output weights.
    The means of the removed ones are kept in the biases. `experts`: of the SHRP layer whose size it gets.

    Raises (when it converts):
        ShrpError: the family is pre-norm, or a dense layer is no larger.
    """

    @torch.no_grad()
    def convert(model: PreTrainedModel, layer: int) -> WidthPruned:
        family, layers = family_of(model), encoder_layers(model)
        if family.pre_norm:
            raise ShrpError(
                f"width pruning is for post-norm layers; those of {model.config.model_type} are pre-norm."
            )
        dense, total = layers[layer], num_experts_of(model)
        m, n = size_like(model.config.hidden_size, model.config.hidden_size // total, experts)
        if n > (most := getattr(model.config, family.feed_forward_size)):
            raise ShrpError(
                f"a layer with {most} feed-forward neurons is smaller than one of {experts} experts."
            )
        parts = {name: dense.get_submodule(getattr(family, name)) for name in _PARTS}
        by_head, by_neuron, mixed, active = _measured(model, parts, batches)
        heads, neurons = _largest(by_head, m), _largest(by_neuron, n)
        pruned = WidthPruned(model, layer, heads.tolist(), n)
        dh, rest = pruned.head_size, pruned.expander
        rows = (heads[:, None] * dh + torch.arange(dh, device=heads.device)).flatten()
        qkv = [parts[name] for name in ("query", "key", "value")]
        pruned.qkv.weight.copy_(torch.cat([part.weight[rows] for part in qkv]))
        pruned.qkv.bias.copy_(torch.cat([part.bias[rows] for part in qkv]))
        rest.up.weight.copy_(parts["up"].weight[neurons])
        rest.up.bias.copy_(parts["up"].bias[neurons])
        for whole, part, kept, mean in (
            (parts["attention_out"], rest.out, rows, mixed),
            (parts["down"], rest.down, neurons, active),
        ):
            part.weight.copy_(whole.weight[:, kept])
            gone = torch.ones(whole.in_features, dtype=torch.bool, device=kept.device)
            gone[kept] = False
            part.bias.copy_(whole.bias + whole.weight[:, gone] @ mean[gone].to(whole.weight.dtype))
        rest.norm.load_state_dict(parts["attention_norm"].state_dict())
        pruned.norm.load_state_dict(parts["norm"].state_dict())
        reference = next(dense.parameters())
        layers[layer] = pruned.to(reference.device, reference.dtype).train(dense.training)
        return layers[layer]

    return convert


_PARTS = ("query", "key", "value", "attention_out", "attention_norm", "up", "down", "norm")


def _measured(model: PreTrainedModel, parts: Mapping[str, nn.Module], batches: Batches) -> tuple[Tensor, ...]:
    """Measure what heads and neurons add, over real tokens.

    Returns:
        Mean squares of what each head `(H,)` and neuron `(ff,)` adds, about its mean; the mean input of the output
        projection `(d,)`; the mean activation `(ff,)`.
    """
    out, down, heads = parts["attention_out"], parts["down"], num_experts_of(model)
    caught: dict[str, list[Tensor]] = {}
    hooks = [
        # A feed-forward network may process an input's tokens in several chunks.
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
    means = {name: value / tokens for name, value in sums.items()}
    mean = means["mixed"].view(heads, -1)
    spread = means["products"] - mean[:, :, None] * mean[:, None, :]  # (H, dh, dh)
    weight = out.weight.float().view(len(out.weight), heads, -1)  # (d, H, dh)
    by_head = torch.einsum("dhi,hij,dhj->h", weight, spread, weight)
    by_neuron = (means["squares"] - means["active"].square()) * down.weight.float().square().sum(0)
    return by_head, by_neuron, means["mixed"], means["active"]


def _largest(values: Tensor, count: int) -> Tensor:
    """The places of the largest values, in rising order; of equals the first."""
    return values.argsort(descending=True, stable=True)[:count].sort().values
