"""One converted encoder layer: Router, Expander, ExpertLayer, and the StaticLayer that pruning leaves.

SHRP replaces a whole Transformer encoder layer (attention, its output projection `W_o` and the feed-forward network).
Every attention head of the dense layer becomes an expert; a router chooses which experts an input gets; one small
Expander, shared by the layer's experts, takes the place of `W_o` and the feed-forward network. For the layer's input `x`:

    (1)  o_h = softmax(q_h k_h^T / sqrt(dh) + mask) v_h      experts: the pretrained heads, before W_o
    (2)  p   = softmax(W_r pool(x) + b_r)                    Router: probabilities over the experts
    (3)  g   = Top-k of p (Top-1: one-hot)                   gates: what each expert contributes
    (4)  E(u) = LayerNorm(GELU(W u + b))                     Expander, for the gated sum u = sum_h g_h o_h
    (5)  y   = LayerNorm(x + E(u))                           the layer's output

In pre-norm families (ModernBERT) the LayerNorm comes first, as in their dense layers: (1), (2) and the self path read
`LayerNorm(x)` in place of `x`, and (5) is `y = x + E(u)`.

Two extensions of the paper, off unless asked for, change nothing until they are trained. The self path adds `W_s x`,
`d -> dh`, to `u`; the experts share it, and it is 0 at the start. Through it the Expander sees the token itself, as the
feed-forward network did. An untied Expander, of a static layer, has columns of its own for each kept expert (and for the
self path): `[W_1 ... W_m] [o_1; ...; o_m]` in place of `W (o_1 + ... + o_m)`.

`shrp.model.gates` makes the gates, gives them a gradient for the router (straight-through), and records or overrides
them for analyses. Pruning follows a plan: the experts that each layer keeps, and a constant weight for each, its gate.
Pruning removes the router and the other experts; the StaticLayer that remains computes (1), (4) and (5).
Modules hold weights, never results: `shrp.model.gates.record_routing` records what a pass did.

Encoders differ in how they call a layer, in the form of its output, and in relative positions (DeBERTa, MPNet). `family`,
an adapter of `shrp.families`, hides this: its `attention_mask` and `relative` read the arguments of the call, and its
`answer` gives the output the form that the encoder expects. In most families `relative` is None.

Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` experts (the dense layer's heads), `dh = d / H`, `m` kept experts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrp.families.attention import (
    RelativePositions,
    attend,
    attention_probs,
    positions_of,
    token_mask_of,
    traced,
)
from shrp.families.family import BERT, Family, Output
from shrp.model.config import Routing
from shrp.model.gates import (
    LayerTrace,
    add_to_records,
    overridden,
    straight_through,
    top_k_gates,
    wants_output_norms,
)


class Router(nn.Module):
    """Equation (2): probabilities over a layer's experts, `p = softmax(W_r pool(x) + b_r)`.

    Sequence routing pools by the mean over real tokens: all tokens of an input get the same experts. Token routing
    pools nothing: every token gets its own.
    """

    def __init__(self, hidden_size: int, num_experts: int, routing: Routing) -> None:
        super().__init__()
        self.routing = routing
        self.dense = nn.Linear(hidden_size, num_experts)
        # Small weights start every layer near uniform usage; with zeros, argmax would always choose expert 0.
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
        """Map `(B, T, d)` to probabilities `(B, H)`, or `(B, T, H)` with token routing."""
        if self.routing == "sequence":
            if token_mask is None:
                hidden_states = hidden_states.mean(1)
            else:
                real = token_mask.unsqueeze(-1).to(hidden_states.dtype)  # (B, T, 1)
                hidden_states = (hidden_states * real).sum(1) / real.sum(1).clamp_min(1.0)
        return self.dense(hidden_states).float().softmax(-1)


class Expander(nn.Module):
    """Equation (4), `E(u) = LayerNorm(GELU(W u + b))`, `dh -> d`: takes the place of `W_o` and the feed-forward network.

    Untied, it takes the outputs of `m` experts side by side, `m dh -> d`.
    """

    def __init__(self, head_size: int, hidden_size: int, eps: float, gain: float) -> None:
        super().__init__()
        self.dense = nn.Linear(head_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)
        nn.init.normal_(self.dense.weight, std=head_size**-0.5)
        nn.init.zeros_(self.dense.bias)
        # A small gain starts the layer near the identity; at 1 the layers above no longer recognise their input.
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, mixed: Tensor) -> Tensor:
        """Map the gated sum of expert outputs `(B, T, dh)`, or untied `(B, T, m dh)`, to `(B, T, d)`."""
        inner = self.dense(mixed)
        return self.norm(torch.ops.aten.gelu_(inner) if _plain_inference() else F.gelu(inner))


class _Experts(nn.Module):
    """What routed and static layers share: attention of their experts (1), and the output from its weighted sum (4, 5).

    Subclasses have `layer` (the index in the encoder), `heads` (the dense layer's heads that they hold), `head_size`,
    `dropout`, `attention_dropout`, `family`, `expander` and `norm`.
    """

    @property
    def attention_type(self) -> str:
        """What some encoders ask each layer for, to hand it the mask and the positions of that type."""
        return self.family.attention_type

    def read(self, hidden_states: Tensor) -> Tensor:
        """What experts, router and self path see of the layer's input `x`: itself, or in pre-norm families its norm."""
        return self.norm(hidden_states) if self.family.pre_norm else hidden_states

    def project(self, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all experts, `(B, m, T, dh)` each, of what `read` returns."""
        raise NotImplementedError

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """Stacked `Wq, Wk, Wv` of every expert, `(m, 3 dh, d)`, and biases `(m, 3 dh)`, for relative positions."""
        raise NotImplementedError

    def expert_outputs(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Equation (1): attention output `o_h` of every expert, `(B, m, T, dh)`.

        The encoder passes `relative`; for a direct call, `shrp.families.families.relative_positions` computes it.
        """
        return self._attended(self.project(self.read(hidden_states)), attention_mask, relative)

    def _attended(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        attention_mask: Tensor | None,
        relative: RelativePositions | None,
        chosen: Tensor | None = None,
    ) -> Tensor:
        """Attention of what `project` returns; or of one expert for each input, `chosen` `(B,)`, `(B, 1, T, dh)` each."""
        positions = positions_of(self, relative, chosen)  # None in most families
        if positions is not None and chosen is not None:
            positions = positions.one_each()
        return attend(*qkv, attention_mask, positions, self.attention_dropout if self.training else 0.0)

    def attention_maps(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Attention probabilities of every expert, `(B, m, T, T)`, rows are queries; args as for `expert_outputs`."""
        query, key, _ = self.project(self.read(hidden_states))
        return attention_probs(query, key, attention_mask, positions_of(self, relative))

    def output(self, hidden_states: Tensor, mixed: Tensor) -> Tensor:
        """Equation (5) for the layer's input and what enters the Expander, `(B, T, dh)` or untied `(B, T, m dh)`."""
        update = F.dropout(self.expander(mixed), self.dropout, self.training)
        if _plain_inference() and update.dtype == hidden_states.dtype:
            update = update.add_(hidden_states)
        else:
            update = hidden_states + update
        return update if self.family.pre_norm else self.norm(update)


class ExpertLayer(_Experts):
    """A converted encoder layer: every head an expert, a Top-k router, one shared Expander.

    `qkv_weight[h]` is expert `h`'s stacked `Wq, Wk, Wv`, `(3 dh, d)`, so picking experts is indexing.
    """

    def __init__(
        self,
        *,
        layer: int,
        hidden_size: int,
        num_experts: int,
        routing: Routing,
        top_k: int,
        eps: float = 1e-12,
        gain: float = 0.1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        family: Family = BERT,
        self_path: bool = False,
        norm: nn.Module | None = None,
    ) -> None:
        """Make an untrained layer.

        Args:
            layer: its index in the encoder.
            eps: of both LayerNorms.
            gain: of the Expander's LayerNorm at the start.
            norm: the other LayerNorm; by default a new one.
        """
        super().__init__()
        self.layer, self.num_experts, self.top_k, self.family = layer, num_experts, top_k, family
        self.hidden_size, self.head_size = hidden_size, hidden_size // num_experts
        self.heads = tuple(range(num_experts))
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.qkv_weight = nn.Parameter(torch.empty(num_experts, 3 * self.head_size, hidden_size))
        self.qkv_bias = nn.Parameter(torch.zeros(num_experts, 3 * self.head_size))
        nn.init.normal_(self.qkv_weight, std=0.02)
        self.router = Router(hidden_size, num_experts, routing)
        self.expander = Expander(self.head_size, hidden_size, eps, gain)
        self.self_path = nn.Linear(hidden_size, self.head_size, bias=False) if self_path else None
        if self.self_path is not None:
            nn.init.zeros_(self.self_path.weight)
        self.norm = nn.LayerNorm(hidden_size, eps=eps) if norm is None else norm

    @property
    def routing(self) -> Routing:
        """What chooses an expert: `sequence` or `token`."""
        return self.router.routing

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`; called by the encoder like the dense layer that it replaces."""
        mask, relative = self.family.attention_mask(attention_mask), self.family.relative(args, kwargs)
        token_mask = token_mask_of(mask)  # (B, T), the real tokens
        read = self.read(hidden_states)  # x, in pre-norm families LayerNorm(x)

        probs = self.router(read, token_mask)  # (2): (B, H) or (B, T, H)
        own = top_k_gates(probs, self.top_k)  # (3): the shape of probs
        gates = overridden(self.layer, probs, own)  # `own` itself unless an analysis replaces it
        mixing = straight_through(gates, probs) if self.training and gates is own else gates

        norms = None
        if self._needs_all(gates, own):
            outputs = self._attended(self.project(read), mask, relative)  # (1): (B, H, T, dh)
            mixed = _weighted_sum(mixing, outputs)  # u = sum_h g_h o_h: (B, T, dh)
            norms = _mean_norms(outputs, token_mask) if wants_output_norms() else None
        else:
            mixed = self._output_of_chosen(read, mask, relative, gates, mixing)  # the same u: one gate is 1, the others 0
        if self.self_path is not None:
            mixed = mixed + self.self_path(read)

        output = self.output(hidden_states, mixed)  # (4) and (5): (B, T, d)
        add_to_records(self.layer, output, LayerTrace(probs, gates, token_mask, norms))
        return self.family.answer(hidden_states, output, kwargs)

    def route(self, hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
        """The router's probabilities for what enters the layer, `(B, T, d)`."""
        return self.router(self.read(hidden_states), token_mask)

    def project(self, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all experts, each `(B, H, T, dh)`."""
        b, t, _ = read.shape
        fused = F.linear(read, self.qkv_weight.flatten(0, 1), self.qkv_bias.flatten())
        fused = fused.view(b, t, self.num_experts, 3, self.head_size)
        return fused.permute(3, 0, 2, 1, 4).unbind(0)  # (3, B, H, T, dh)

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """As in the base class; `m` is `H`."""
        return self.qkv_weight, self.qkv_bias

    def _needs_all(self, gates: Tensor, own: Tensor) -> bool:
        """Whether the output of every expert is needed: not if each input has one gate of 1 and the others are 0.

        For the layer's own gates the config decides; reading their values would make an accelerator wait.
        """
        if wants_output_norms() or gates.dim() == 3:
            return True
        if gates is own and self.top_k == 1:
            return False
        return gates.requires_grad or not bool((gates.amax(-1) == 1).all() and (gates.count_nonzero(-1) == 1).all())

    def _output_of_chosen(
        self, read: Tensor, mask: Tensor | None, relative: RelativePositions | None, gates: Tensor, mixing: Tensor
    ) -> Tensor:
        """`sum_h g_h o_h` for one-hot `gates` `(B, H)`, with the gradients of `mixing`: no backward pass of other experts."""
        chosen = gates.argmax(-1)  # (B,)
        qkv = self._project_chosen(read, chosen)
        mixed = self._attended(qkv, mask, relative, chosen).squeeze(1)  # (B, T, dh)
        if mixing.requires_grad:
            # The gradient of gate h needs o_h even where the gate is 0; none reaches o_h itself there.
            with torch.no_grad():
                outputs = self._attended(self.project(read), mask, relative)
                rows = torch.arange(len(chosen), device=chosen.device)
                outputs[rows, chosen] = mixed.to(outputs.dtype)  # with the same dropout
            mixed = mixed + _weighted_sum(mixing - gates, outputs)  # adds 0
        return mixed

    def _project_chosen(self, read: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `project`, of one expert for each input, `chosen` `(B,)`, computing no other: `(B, 1, T, dh)` each."""
        if read.is_cpu and not traced():
            # One product an input, straight from the expert's weights: gathering them costs up to as much again.
            weights, biases = self.qkv_weight.unbind(), self.qkv_bias.unbind()
            rows = zip(read, chosen.tolist(), strict=True)
            fused = torch.stack([F.linear(row, weights[e], biases[e]) for row, e in rows])
        else:
            weight, bias = self.qkv_weight[chosen], self.qkv_bias[chosen]  # (B, 3 dh, d), (B, 3 dh)
            fused = torch.baddbmm(bias.unsqueeze(1), read, weight.transpose(1, 2))  # (B, T, 3 dh)
        return fused.unsqueeze(1).split(self.head_size, dim=-1)


class StaticLayer(_Experts):
    """What pruning leaves of an `ExpertLayer`: `m` experts and the Expander, no router.

    It equals the `ExpertLayer` with the plan's weights as constant gates (not with its router's own choice). Since
    `o_h` is linear in `v_h`, each weight is folded into its expert's `Wv` and bias: `u` is the plain sum of outputs.
    Untied, the outputs are put side by side instead. All queries, keys and values are one product, whose last `dh` rows
    are the self path, if there is one.
    """

    def __init__(self, source: ExpertLayer, heads: Sequence[int], *, untied: bool = False) -> None:
        """A layer of the geometry of `source` for some of its experts, with a copy of its norm and else fresh weights."""
        super().__init__()
        self.layer, self.heads, self.kept, self.family = source.layer, tuple(heads), len(heads), source.family
        self.hidden_size, self.head_size = source.hidden_size, source.head_size
        self.dropout, self.attention_dropout = source.dropout, source.attention_dropout
        self.self_path, self.untied = source.self_path is not None, untied
        self.parts = self.kept + self.self_path  # what the Expander adds up, or sees side by side
        # All queries, all keys, all values, then the self path.
        self.qkv = nn.Linear(self.hidden_size, (3 * self.kept + self.self_path) * self.head_size)
        width = self.head_size * (self.parts if untied else 1)
        self.expander = Expander(width, self.hidden_size, source.expander.norm.eps, gain=1.0)  # trained weights replace these
        self.norm = copy.deepcopy(source.norm)

    @classmethod
    @torch.no_grad()
    def from_expert_layer(
        cls, source: ExpertLayer, experts: Sequence[int], weights: Sequence[float], *, untied: bool = False
    ) -> StaticLayer:
        """Keep `experts` of `source`, combined with `weights` (the plan's constant gates)."""
        kept, dh, experts = len(experts), source.head_size, list(experts)
        layer = cls(source, experts, untied=untied).to(source.qkv_weight.device, source.qkv_weight.dtype)
        # Scaled in float64, on the CPU: not every accelerator has it.
        scale = torch.ones(kept, 3, 1, dtype=torch.float64)
        scale[:, 2, 0] = torch.tensor(weights, dtype=torch.float64)  # queries and keys stay as they are
        weight, bias = (one[experts].cpu().double() for one in (source.qkv_weight, source.qkv_bias))
        weight, bias = weight.view(kept, 3, dh, -1) * scale.unsqueeze(-1), bias.view(kept, 3, dh) * scale
        layer.qkv.weight[: 3 * kept * dh].copy_(weight.transpose(0, 1).reshape(3 * kept * dh, -1))
        layer.qkv.bias.zero_()[: 3 * kept * dh].copy_(bias.transpose(0, 1).reshape(-1))
        if source.self_path is not None:
            layer.qkv.weight[3 * kept * dh :].copy_(source.self_path.weight)
        expander = source.expander.state_dict()
        if untied:
            expander["dense.weight"] = expander["dense.weight"].repeat(1, layer.parts)
        layer.expander.load_state_dict(expander)
        return layer.train(source.training)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`; called by the encoder like the dense layer that it replaces."""
        mask, relative = self.family.attention_mask(attention_mask), self.family.relative(args, kwargs)
        *qkv, own = self._products(self.read(hidden_states))
        outputs = self._attended(qkv, mask, relative)  # (1): g_h o_h, (B, m, T, dh)
        if self.untied:
            mixed = outputs.transpose(1, 2).flatten(2)  # (B, T, m dh)
            mixed = mixed if own is None else torch.cat([mixed, own], -1)
        else:
            mixed = outputs.squeeze(1) if self.kept == 1 else outputs.sum(1)  # u: (B, T, dh)
            mixed = mixed if own is None else mixed + own
        output = self.output(hidden_states, mixed)  # (4) and (5)
        add_to_records(self.layer, output)
        return self.family.answer(hidden_states, output, kwargs)

    def project(self, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and weighted values of the kept experts, `(B, m, T, dh)` each."""
        return self._products(read)[:3]

    def _products(self, read: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """As `project`, then what the self path adds, `(B, T, dh)`, or None."""
        b, t, _ = read.shape
        fused, own = self.qkv(read), None
        if self.self_path:
            fused, own = fused.split([3 * self.kept * self.head_size, self.head_size], -1)
        fused = fused.view(b, t, 3, self.kept, self.head_size)
        return *fused.permute(2, 0, 3, 1, 4).unbind(0), own

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """As in the base class, of the kept experts."""
        rows = 3 * self.kept * self.head_size
        weight = self.qkv.weight[:rows].view(3, self.kept, self.head_size, -1).transpose(0, 1)
        return weight.flatten(1, 2), self.qkv.bias[:rows].view(3, self.kept, -1).transpose(0, 1).flatten(1)


# Details of the computation


def _weighted_sum(gates: Tensor, outputs: Tensor) -> Tensor:
    """`sum_h g_h o_h`: gates `(B, H)` or `(B, T, H)` and outputs `(B, H, T, dh)` -> `(B, T, dh)`."""
    gates = gates.to(outputs.dtype)
    if gates.dim() == 2:
        gates = gates.unsqueeze(1)  # (B, 1, H)
    return (gates.transpose(1, 2).unsqueeze(-1) * outputs).sum(1)


def _plain_inference() -> bool:
    """Whether no gradient or trace is taken of this pass, so that it may work in place and branch on values.

    New memory for each intermediate result costs a static layer up to a third of its time.
    """
    return not (torch.is_grad_enabled() or traced())


def _mean_norms(outputs: Tensor, token_mask: Tensor | None) -> Tensor:
    """Mean over real tokens of each expert's output norm: `(B, H, T, dh)` -> `(B, H)`."""
    norms = outputs.float().norm(dim=-1)  # (B, H, T)
    if token_mask is None:
        return norms.mean(-1)
    real = token_mask.unsqueeze(1).float()
    return (norms * real).sum(-1) / real.sum(-1).clamp_min(1.0)
