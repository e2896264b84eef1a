"""Gates: how they are made from router probabilities, trained, recorded and overridden.

A gate says how much each expert of a layer contributes. Everything that SHRP does is a choice of gates `g` for each
converted layer, `(B, H)` with one row an input (sequence routing) or `(B, T, H)` with one row a token (token routing):
the router's own Top-k, a recorded route played back, a forced or a knocked-out expert, or the constant gates of a
pruned model. In the equations of `shrp.model.layers`:

    probs  = router(x)                         # (2) softmax over the layer's experts
    own    = top_k_gates(probs, k)             # (3) hard: only k experts are non-zero
    gates  = overridden(layer, probs, own)     # `own`, or what `use_gates` puts in its place
    mixing = straight_through(gates, probs)    # in training with `own`: the same values, and a gradient for the router
    y      = LayerNorm(x + E(sum_h g_h o_h))   # (4), (5), with g = mixing

Recording (`record_routing`) and overriding (`use_gates`) are context managers built on `contextvars`; nothing is
stored on the modules, so several threads can share one model and each sees only its own routes.

Shapes: `B` inputs, `T` tokens, `d` hidden size, `H` experts of a layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor

from shrp.errors import PlanError, UnusedGatesWarning

# --- From probabilities to gates ---


def top_k_gates(probs: Tensor, k: int) -> Tensor:
    """Hard Top-k gates from router probabilities `(..., H)`.

    For `k = 1` a one-hot vector; for `k > 1` the `k` largest probabilities, renormalised to sum to 1. If all of these
    are 0 (`knock_out` removed the choice of a saturated router), they get equal weights.
    """
    top = probs.topk(k, dim=-1)
    if k == 1:
        kept = torch.ones_like(top.values)
    else:
        total = top.values.sum(-1, keepdim=True)
        kept = torch.where(total > 0, top.values / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / k)
    return torch.zeros_like(probs).scatter(-1, top.indices, kept)


def straight_through(gates: Tensor, probs: Tensor) -> Tensor:
    """Straight-through estimator: exactly the hard values of `gates`, with the gradient of `probs`.

    Training and inference then have the same forward pass: no output is scaled by the router's probability.
    """
    # The brackets matter: (g + p) - p rounds, g + (p - p) does not.
    return gates.detach() + (probs - probs.detach())


def real_rows(values: Tensor, token_mask: Tensor | None) -> Tensor:
    """Flatten to `(N, H)`: `(B, H)` has a row per input already; `(B, T, H)` gives a row per real token."""
    if values.dim() == 2:
        return values
    flat = values.flatten(0, 1)
    return flat if token_mask is None else flat[token_mask.flatten()]


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(0)


def balance_loss(
    probs: Tensor, token_mask: Tensor | None = None, mean: Callable[[Tensor], Tensor] = _mean
) -> Tensor:
    """Load-balance loss: keeps the router from collapsing onto a few experts while it is trained.

    Args:
        probs: `(B, H)`, or `(B, T, H)` with `token_mask` `(B, T)` marking the real tokens.
        token_mask: bool; None counts every token.
        mean: of float32 rows `(N, H)`; another one where the batch is shared among processes.

    Returns:
        `KL(mean || uniform) + KL(uniform || mean)` of the batch's mean probabilities, a scalar in nats. At 0 they are
        uniform, but Top-1 shares may still be uneven.
    """
    probs = real_rows(probs, token_mask)
    # In float32 and with a floor: under autocast a probability can round to 0, and the loss would be infinite. The
    # floor is as low as possible: a probability on it has no gradient, and a collapsed router needs one.
    shares = mean(probs.float()).clamp_min(torch.finfo(torch.float32).tiny)
    uniform = 1.0 / shares.numel()
    # Both KLs in one, with p the mean and c = 1 / H: p log(p / c) + c log(c / p) = (p - c) log(p / c)
    return ((shares - uniform) * (shares.log() - torch.tensor(uniform).log())).sum()


# --- Recording ---


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one routed layer did in one forward pass."""

    probs: Tensor
    """Router probabilities, `(B, H)` or `(B, T, H)`."""
    gates: Tensor
    """The gates in effect, of the same shape."""
    token_mask: Tensor | None
    """`(B, T)` bool, the real tokens; None when nothing was padded."""
    output_norms: Tensor | None = None
    """Euclidean norm of each expert's output, mean over real tokens, `(B, H)`, if requested."""


@dataclass(eq=False)
class RoutingRecord:
    """What `record_routing` records: the traces of every forward pass, by layer, in order."""

    keep_hidden_states: bool = False
    keep_output_norms: bool = False
    traces: dict[int, list[LayerTrace]] = field(default_factory=dict)
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    """Outputs `(B, T, d)` of converted layers, routed or static, in the latest pass, if requested."""

    @property
    def layers(self) -> list[int]:
        """The layers that routed, ascending."""
        return sorted(self.traces)

    def probs(self, layer: int) -> Tensor:
        """Router probabilities of all passes, `(N, H)`: N inputs, or real tokens under token routing.

        Raises:
            PlanError: the layer did not route in any recorded pass.
        """
        return torch.cat([real_rows(trace.probs, trace.token_mask) for trace in self._of(layer)])

    def gates(self, layer: int) -> Tensor:
        """Gates of all passes, `(N, H)`, as `probs`."""
        return torch.cat([real_rows(trace.gates, trace.token_mask) for trace in self._of(layer)])

    def last(self, layer: int) -> LayerTrace:
        """The trace of the latest pass; raises as `probs`."""
        return self._of(layer)[-1]

    def _of(self, layer: int) -> list[LayerTrace]:
        if layer not in self.traces:
            raise PlanError(f"layer {layer} did not route in the recorded passes; {self.layers} did.")
        return self.traces[layer]

    def balance_loss(self, mean: Callable[[Tensor], Tensor] = _mean) -> Tensor:
        """Sum of `balance_loss` over the layers of the latest pass; 0 if none routed."""
        last = [traces[-1] for _, traces in sorted(self.traces.items())]
        losses = [balance_loss(trace.probs, trace.token_mask, mean) for trace in last]
        return torch.stack(losses).sum() if losses else torch.zeros(())


_recorders: ContextVar[tuple[RoutingRecord, ...]] = ContextVar("shrp_recorders", default=())


@contextmanager
def record_routing(*, hidden_states: bool = False, output_norms: bool = False) -> Iterator[RoutingRecord]:
    """Record every converted layer in the forward passes made inside, in this context only.

    Args:
        hidden_states: also keep each converted layer's output (for distillation).
        output_norms: also compute every expert's output norm (all experts run, which costs more).
    """
    record = RoutingRecord(keep_hidden_states=hidden_states, keep_output_norms=output_norms)
    token = _recorders.set((*_recorders.get(), record))
    try:
        yield record
    finally:
        _recorders.reset(token)


def wants_output_norms() -> bool:
    """Whether a record of this context needs the output norm of every expert; asked by `ExpertLayer`."""
    return any(record.keep_output_norms for record in _recorders.get())


def add_to_records(layer: int, output: Tensor, trace: LayerTrace | None = None) -> None:
    """Give a layer's output `(B, T, d)`, and its trace if it routed, to the records of this context."""
    for record in _recorders.get():
        if trace is not None:
            record.traces.setdefault(layer, []).append(trace)
        if record.keep_hidden_states:
            record.hidden_states[layer] = output


# --- Overriding ---

GateSource = Callable[[int, Tensor, Tensor], Tensor | None]
"""`(layer, probs, gates) -> gates or None`: replaces a layer's gates; None keeps them."""
_overrides: ContextVar[tuple[GateSource, ...]] = ContextVar("shrp_overrides", default=())


@contextmanager
def use_gates(source: GateSource | Mapping[int, Tensor]) -> Iterator[None]:
    """Override the gates of converted layers in the forward passes made inside, in this context only.

    Args:
        source: a mapping from layer to gates `(H,)`, `(B, H)` or `(B, T, H)`, or a function
            `(layer, probs, gates) -> gates`. Layers that a mapping lacks, or for which the function returns
            None, route as usual. Contexts nest: an inner one sees the outer one's gates.

    Warns:
        UnusedGatesWarning: a layer named by the mapping or by `knock_out` had no router in any of these passes (it is
            dense or pruned), so its gates changed nothing.
    """
    named = frozenset(source) if isinstance(source, Mapping) else frozenset()
    if isinstance(source, _KnockOut):
        named = frozenset(source.removed)
    seen: set[int] = set()

    def gates_of(layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        seen.add(layer)
        return source.get(layer) if isinstance(source, Mapping) else source(layer, probs, gates)

    token = _overrides.set((*_overrides.get(), gates_of))
    try:
        yield
    finally:
        _overrides.reset(token)
    if unused := sorted(named - seen, key=str):
        routed = f"layers that did: {sorted(seen)}" if seen else "no layer did"
        warnings.warn(
            f"layers {unused} did not route, so their gates changed nothing ({routed}).",
            UnusedGatesWarning,
            stacklevel=3,
        )


def overridden(layer: int, probs: Tensor, gates: Tensor) -> Tensor:
    """Apply the context's overrides to a layer's own `gates`; called by `ExpertLayer`.

    Returns:
        Gates of the shape of `probs` (constant or per-input gates are broadcast); `gates` itself if nothing overrides.

    Raises:
        PlanError: an override's shape does not broadcast to the layer's.
    """
    for source in _overrides.get():
        replaced = source(layer, probs, gates)
        if replaced is None:
            continue
        replaced = replaced.to(probs.device, probs.dtype)
        if replaced.dim() == 2 and probs.dim() == 3:
            replaced = replaced.unsqueeze(1)  # (B, H) -> (B, 1, H): one gate for all tokens of an input
        try:
            gates = replaced.expand_as(probs)
        except RuntimeError as error:
            raise PlanError(
                f"gates {list(replaced.shape)} for layer {layer} do not fit its probabilities {list(probs.shape)}."
            ) from error
    return gates


# --- What to override with ---


def play_back(record: RoutingRecord) -> dict[int, Tensor]:
    """Gates for `use_gates` that repeat the latest recorded pass, even for a changed input."""
    return {layer: record.last(layer).gates.detach() for layer in record.layers}


def force_experts(choice: Mapping[int, int], num_experts: int) -> dict[int, Tensor]:
    """Gates for `use_gates` that send every input in layer `l` to expert `choice[l]`.

    Raises:
        PlanError: there is no such expert.
    """
    for layer, expert in choice.items():
        if not 0 <= expert < num_experts:
            raise PlanError(f"layer {layer} has experts 0 to {num_experts - 1}, not {expert}.")
    return {layer: torch.eye(num_experts)[expert] for layer, expert in choice.items()}


def knock_out(removed: Mapping[int, int | Collection[int] | Tensor], top_k: int = 1) -> GateSource:
    """A source for `use_gates` that removes experts: the router chooses among those that remain.

    The forward pass raises `PlanError` where a layer has no such expert, or none would remain.

    Args:
        removed: layer -> the expert; or several, fewer than there are; or int64 `(B,)`: one for each input, -1 for none.
    """
    return _KnockOut(removed, top_k)


@dataclass(frozen=True)
class _KnockOut:
    removed: Mapping[int, int | Collection[int] | Tensor]
    top_k: int

    def __call__(self, layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        if layer not in self.removed:
            return None
        given, num_experts = self.removed[layer], probs.shape[-1]
        if isinstance(given, Tensor):  # one for each input
            gone = given.to(probs.device)[:, None] == torch.arange(num_experts, device=probs.device)  # (B, H)
            valid, most = num_experts > 1 and int(given.max()) < num_experts, 1
        else:  # the same for all inputs
            experts = [int(given)] if isinstance(given, Integral) else sorted(set(map(int, given)))
            gone = torch.tensor([h in experts for h in range(num_experts)], device=probs.device)  # (H,)
            valid, most = int(gone.sum()) == len(experts) < num_experts, len(experts)
        if not valid:
            raise PlanError(
                f"layer {layer} has experts 0 to {num_experts - 1}, of which at least one must remain; "
                f"can't remove {given.max().item() if isinstance(given, Tensor) else experts}."
            )
        if gone.dim() == 2 and probs.dim() == 3:
            gone = gone.unsqueeze(1)  # (B, 1, H): the same for all tokens of an input
        # -1 is below every probability, so a removed expert is never among the top ones.
        picked = top_k_gates(probs.masked_fill(gone, -1.0), min(self.top_k, num_experts - most))
        return torch.where(gone.any(-1, keepdim=True), picked.to(gates.dtype), gates)
