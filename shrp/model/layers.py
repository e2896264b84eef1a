"""The three modules of SHRP and the static layer that pruning leaves (method.md, "One converted layer").

Modules hold weights, never results: what a forward pass did is found in the context's `RoutingRecord`.
Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` experts (the dense layer's heads), `dh = d / H`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrp.families.calling import PLAIN, Calling, Output
from shrp.families.relative import HeadPositions, RelativePositions
from shrp.model.attending import KeptHeads, attend, attention_probs, token_mask_of
from shrp.model.config import Routing
from shrp.model.gates import LayerTrace, active_recorders, overridden, straight_through, top_k_gates
from shrp.model.hidden_states import tell
from shrp.model.tracing import traced


def _may_overwrite() -> bool:
    """Whether a pass may work in place: nobody differentiates it, and nobody traces it (tracers fuse better).

    New memory for each intermediate result costs a static layer up to a third of its time.
    """
    return not (torch.is_grad_enabled() or traced())


def _add_and_norm(norm: nn.LayerNorm, hidden_states: Tensor, update: Tensor) -> Tensor:
    """`LayerNorm(x + u)`; `update` is the caller's to lose."""
    if _may_overwrite() and update.dtype == hidden_states.dtype:
        return norm(update.add_(hidden_states))
    return norm(hidden_states + update)


class Router(nn.Module):
    """Linear scores over a layer's experts: `p = softmax(W_r pool(x) + b)` (method.md, step 2)."""

    def __init__(self, hidden_size: int, num_experts: int, routing: Routing) -> None:
        super().__init__()
        self.routing, self.num_experts = routing, num_experts
        if routing == "uniform":
            return
        self.dense = nn.Linear(hidden_size, num_experts)
        # Small weights start every layer near uniform usage; zeros would tie, and argmax would pick expert 0.
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
        """Return probabilities `(B, H)`, or `(B, T, H)` for token routing."""
        if self.routing == "uniform":
            return hidden_states.new_full((len(hidden_states), self.num_experts), 1 / self.num_experts)
        if self.routing == "sequence":
            if token_mask is None:
                hidden_states = hidden_states.mean(1)
            else:
                real = token_mask.unsqueeze(-1).to(hidden_states.dtype)  # (B, T, 1)
                hidden_states = (hidden_states * real).sum(1) / real.sum(1).clamp_min(1.0)
        return self.dense(hidden_states).float().softmax(-1)


class Expander(nn.Module):
    """`E(u) = LayerNorm(GELU(W u + b))`, `dh -> d`: stands in for `W_o` and the FFN (method.md, step 4)."""

    def __init__(self, head_size: int, hidden_size: int, eps: float, gain: float) -> None:
        super().__init__()
        self.dense = nn.Linear(head_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)
        nn.init.normal_(self.dense.weight, std=head_size**-0.5)
        nn.init.zeros_(self.dense.bias)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, mixed: Tensor) -> Tensor:
        """Map the gated sum of expert outputs `(B, T, dh)` to `(B, T, d)`."""
        inner = self.dense(mixed)
        return self.norm(torch.ops.aten.gelu_(inner) if _may_overwrite() else F.gelu(inner))


class ExpertLayer(nn.Module):
    """A converted encoder layer: every head an expert, a Top-k router, one shared Expander.

    Called like the layer that it replaces (`shrp.families.calling`), `layer(hidden_states, attention_mask, ...)`;
    arguments that only decoders use are ignored. `qkv_weight[h]` is expert `h`'s stacked `Wq, Wk, Wv`, `(3 dh, d)`, so
    picking experts is indexing, and all of them together are one product.
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
        calling: Calling = PLAIN,
    ) -> None:
        super().__init__()
        self.layer, self.num_experts, self.top_k = layer, num_experts, top_k
        self.calling = calling
        self.hidden_size, self.head_size = hidden_size, hidden_size // num_experts
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.qkv_weight = nn.Parameter(torch.empty(num_experts, 3 * self.head_size, hidden_size))
        self.qkv_bias = nn.Parameter(torch.zeros(num_experts, 3 * self.head_size))
        nn.init.normal_(self.qkv_weight, std=0.02)
        self.router = Router(hidden_size, num_experts, routing)
        self.expander = Expander(self.head_size, hidden_size, eps, gain)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)

    @property
    def routing(self) -> Routing:
        """`sequence`, `token`, or `uniform` where there is no router."""
        return self.router.routing

    def qkv(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all experts, each `(B, H, T, dh)`."""
        b, t, _ = hidden_states.shape
        fused = F.linear(hidden_states, self.qkv_weight.flatten(0, 1), self.qkv_bias.flatten())
        fused = fused.view(b, t, self.num_experts, 3, self.head_size)
        return fused.permute(3, 0, 2, 1, 4).unbind(0)  # (3, B, H, T, dh)

    def expert_outputs(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Attention output of every expert, `o_h` of method.md step 1, `(B, H, T, dh)`.

        Args:
            relative: in families that have them (`shrp.families.families.relative_positions`).
        """
        dropout = self.attention_dropout if self.training else 0.0
        return attend(*self.qkv(hidden_states), attention_mask, self._positions(relative), dropout)

    def attention_maps(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Attention probabilities of every expert, `(B, H, T, T)`, rows are queries; args as for `expert_outputs`."""
        query, key, _ = self.qkv(hidden_states)
        return attention_probs(query, key, attention_mask, self._positions(relative))

    def _positions(self, relative: RelativePositions | None) -> HeadPositions | None:
        """What relative positions say to all experts."""
        return None if relative is None else relative.of_heads(None, lambda rows: self.project(rows))

    def project(
        self, distances: Tensor, experts: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys of the embeddings of distances, `(S, d)` -> `(m, S, dh)` each, by some experts or all."""
        weight, bias = self.qkv_weight, self.qkv_bias  # (H, 3 dh, d), (H, 3 dh)
        if experts is not None:
            weight, bias = weight[experts], bias[experts]
        rows = F.dropout(distances, self.dropout, self.training)
        both = 2 * self.head_size
        found = rows @ weight[:, :both].transpose(1, 2) + bias[:, None, :both]  # (m, S, 2 dh)
        return found.split(self.head_size, -1)

    def _project_chosen(self, distances: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """As `project` of `chosen` `(B,)`, each expert once, however many inputs chose it."""
        if traced():
            return self.project(distances, chosen)
        experts, places = chosen.unique(return_inverse=True)
        query, key = self.project(distances, experts)
        return query[places], key[places]

    def _chosen_output(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        relative: RelativePositions | None,
        chosen: Tensor,
    ) -> Tensor:
        """Output of one expert an input, computing no other: `chosen` `(B,)` -> `(B, T, dh)`."""
        if hidden_states.is_cpu and _may_overwrite():
            # One product an input, straight from the expert's weights: gathering them costs up to as much again.
            rows = zip(hidden_states, chosen.tolist(), strict=True)
            fused = torch.stack([F.linear(x, self.qkv_weight[e], self.qkv_bias[e]) for x, e in rows])
        else:
            weight, bias = self.qkv_weight[chosen], self.qkv_bias[chosen]  # (B, 3 dh, d), (B, 3 dh)
            fused = torch.baddbmm(bias.unsqueeze(1), hidden_states, weight.transpose(1, 2))  # (B, T, 3 dh)
        query, key, value = fused.unsqueeze(1).split(self.head_size, dim=-1)  # (B, 1, T, dh) each
        positions = None
        if relative is not None:
            positions = relative.of_heads(chosen, lambda rows: self._project_chosen(rows, chosen)).one_each()
        return attend(query, key, value, attention_mask, positions).squeeze(1)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **asked: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)` under the context's gates (method.md, steps 1 to 5)."""
        attention_mask, relative = (
            self.calling.attention_mask(attention_mask),
            self.calling.relative(args, asked),
        )
        token_mask = token_mask_of(attention_mask)
        recorders = active_recorders()
        probs = self.router(hidden_states, token_mask)  # (B, H) or (B, T, H)
        own = probs if self.routing == "uniform" else top_k_gates(probs, self.top_k)
        gates = overridden(self.layer, probs, own)
        mixing = straight_through(gates, probs) if self.training and gates is own else gates

        norms = None
        # The layer's own Top-1 gates need no look, which on an accelerator would wait for them.
        picks_one = (gates is own and self.routing == "sequence" and self.top_k == 1) or _picks_one(mixing)
        if any(r.keep_output_norms for r in recorders) or self.training or not picks_one:
            outputs = self.expert_outputs(hidden_states, attention_mask, relative)  # (B, H, T, dh)
            if any(r.keep_output_norms for r in recorders):
                norms = _mean_norms(outputs, token_mask)
            mixed = _mix(mixing.to(outputs.dtype), outputs)
        else:
            mixed = self._chosen_output(hidden_states, attention_mask, relative, mixing.argmax(-1))

        update = F.dropout(self.expander(mixed), self.dropout, self.training)
        output = _add_and_norm(self.norm, hidden_states, update)
        for record in recorders:
            trace = LayerTrace(
                probs=probs,
                gates=gates,
                token_mask=token_mask,
                output_norms=norms if record.keep_output_norms else None,
            )
            record.traces.setdefault(self.layer, []).append(trace)
        tell(self.layer, hidden_states, output)
        return self.calling.answer(output, asked)


def _picks_one(gates: Tensor) -> bool:
    """Whether gates `(B, H)` are one-hot for every input and constant, so that one expert's output is all."""
    if gates.dim() != 2 or gates.requires_grad:
        return False
    return bool(((gates != 0).sum(-1) == 1).all() and (gates.amax(-1) == 1).all())


def _mix(gates: Tensor, outputs: Tensor) -> Tensor:
    """`sum_h g_h o_h`: gates `(B, H)` or `(B, T, H)` and outputs `(B, H, T, dh)` -> `(B, T, dh)`."""
    if gates.dim() == 2:
        gates = gates.unsqueeze(1)  # (B, 1, H)
    return (gates.transpose(1, 2).unsqueeze(-1) * outputs).sum(1)


def _mean_norms(outputs: Tensor, token_mask: Tensor | None) -> Tensor:
    """Mean over real tokens of each expert's output norm: `(B, H, T, dh)` -> `(B, H)`."""
    norms = outputs.float().norm(dim=-1)  # (B, H, T)
    if token_mask is None:
        return norms.mean(-1)
    real = token_mask.unsqueeze(1).float()
    return (norms * real).sum(-1) / real.sum(-1).clamp_min(1.0)


class StaticLayer(KeptHeads):
    """What pruning leaves of an `ExpertLayer`: `m` experts in one fused product, no router (method.md, "Pruning").

    The plan's weights are folded into the values, so the experts' outputs are simply added. Equal to the
    `ExpertLayer` under the plan's constant gates.
    """

    def __init__(
        self,
        *,
        layer: int,
        hidden_size: int,
        head_size: int,
        kept: int,
        eps: float = 1e-12,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        heads: Sequence[int] = (),
        calling: Calling = PLAIN,
    ) -> None:
        super().__init__()
        self.layer, self.calling = layer, calling
        self.heads = tuple(heads)
        """The kept experts: relative positions, where the family has them, may say another thing to each."""
        self.kept, self.head_size, self.hidden_size = kept, head_size, hidden_size
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.qkv = nn.Linear(hidden_size, 3 * kept * head_size)
        self.expander = Expander(head_size, hidden_size, eps, gain=1.0)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)

    @classmethod
    @torch.no_grad()
    def from_expert_layer(cls, source: ExpertLayer, experts: list[int], weights: list[float]) -> StaticLayer:
        """Keep `experts` of `source`, combined with `weights` (the plan's constant gates)."""
        kept, dh = len(experts), source.head_size
        layer = cls(
            layer=source.layer,
            hidden_size=source.hidden_size,
            head_size=dh,
            kept=kept,
            eps=source.norm.eps,
            dropout=source.dropout,
            attention_dropout=source.attention_dropout,
            heads=experts,
            calling=source.calling,
        ).to(source.qkv_weight.device, source.qkv_weight.dtype)
        # On the CPU: not every accelerator has float64.
        scale = torch.ones(kept, 3, 1, dtype=torch.float64)
        scale[:, 2, 0] = torch.tensor(weights, dtype=torch.float64)
        weight, bias = (one[experts].cpu().double() for one in (source.qkv_weight, source.qkv_bias))
        weight, bias = weight.view(kept, 3, dh, -1) * scale.unsqueeze(-1), bias.view(kept, 3, dh) * scale
        layer.qkv.weight.copy_(weight.transpose(0, 1).reshape(3 * kept * dh, -1))
        layer.qkv.bias.copy_(bias.transpose(0, 1).reshape(-1))
        layer.expander.load_state_dict(source.expander.state_dict())
        layer.norm.load_state_dict(source.norm.state_dict())
        return layer.train(source.training)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **asked: object
    ) -> Output:
        """Map `(B, T, d)` to `(B, T, d)`."""
        attention_mask, relative = (
            self.calling.attention_mask(attention_mask),
            self.calling.relative(args, asked),
        )
        outputs = self.attended(hidden_states, attention_mask, relative)
        mixed = outputs.squeeze(1) if self.kept == 1 else outputs.sum(1)
        update = F.dropout(self.expander(mixed), self.dropout, self.training)
        output = _add_and_norm(self.norm, hidden_states, update)
        tell(self.layer, hidden_states, output)
        return self.calling.answer(output, asked)

    @property
    def of_dense(self) -> Sequence[int]:
        """As in `KeptHeads`."""
        return self.heads


class DroppedLayer(nn.Module):
    """The dropped-layers control: passes its input on and holds no weights."""

    def __init__(self, layer: int, calling: Calling = PLAIN) -> None:
        super().__init__()
        self.layer, self.calling = layer, calling

    def forward(self, hidden_states: Tensor, *_: object, **asked: object) -> Output:
        """Return `hidden_states` unchanged."""
        tell(self.layer, hidden_states, hidden_states)
        return self.calling.answer(hidden_states, asked)
