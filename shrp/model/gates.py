"""Gates: how they are made, recorded and overridden.

Everything that SHRP does or that the app shows is a choice of **gates** `g` for each converted layer,
`(B, H)` for sequence routing or `(B, T, H)` for token routing: live Top-k, a played-back route, a forced
or a knocked-out expert, or the constant gates of a pruned model (method.md, "One converted layer").

Recording and overriding travel in `contextvars`, never on modules, so several threads can share one model
and each sees only its own routes.
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

GateSource = Callable[[int, Tensor, Tensor], Tensor | None]
"""`(layer, probs, gates) -> gates or None`: replaces a layer's own gates; None keeps them."""


def top_k_gates(probs: Tensor, k: int) -> Tensor:
    """Hard Top-k gates from router probabilities `(..., H)` (method.md, step 3).

    For `k = 1` a one-hot vector; for `k > 1` the `k` largest probabilities, renormalised to sum to 1. Where all of
    these are 0, which is left when a saturated router's pick is knocked out, they share evenly.
    """
    top = probs.topk(k, dim=-1)
    if k == 1:
        kept = torch.ones_like(top.values)
    else:
        total = top.values.sum(-1, keepdim=True)
        kept = torch.where(total > 0, top.values / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / k)
    return torch.zeros_like(probs).scatter(-1, top.indices, kept)


def straight_through(gates: Tensor, probs: Tensor) -> Tensor:
    """Gates whose value is exactly the hard one and whose gradient is that of `probs` (method.md, step 3)."""
    # The brackets matter: (g + p) - p rounds, g + (p - p) does not.
    return gates.detach() + (probs - probs.detach())


def balance_loss(probs: Tensor, token_mask: Tensor | None = None) -> Tensor:
    """Bidirectional KL between the mean routing distribution and the uniform one (method.md, "Load balance").

    Args:
        probs: `(B, H)`, or `(B, T, H)` with `token_mask` `(B, T)` marking the real tokens.
        token_mask: bool; None counts every token.

    Returns:
        A scalar in nats: `KL(pbar || u) + KL(u || pbar)`, 0 when usage is perfectly even.
    """
    if probs.dim() == 3:
        flat = probs.flatten(0, 1)
        probs = flat if token_mask is None else flat[token_mask.flatten()]
    # float32 and a floor: under autocast a probability can round to 0, and log(0) would be the loss. A floor as low as
    # can be: what lies on it has no gradient, and a collapse is when there must be one.
    mean = probs.float().mean(0).clamp_min(torch.finfo(torch.float32).tiny)
    log_ratio = mean.log() - torch.tensor(1.0 / mean.numel()).log()
    return ((mean - 1.0 / mean.numel()) * log_ratio).sum()


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one converted layer did in one forward pass."""

    probs: Tensor
    """Router probabilities, `(B, H)` or `(B, T, H)`."""
    gates: Tensor
    """The gates in effect, broadcast to the shape of `probs`."""
    token_mask: Tensor | None
    """`(B, T)` bool, the real tokens; None when nothing was padded."""
    output_norms: Tensor | None = None
    """Euclidean norm of each expert's output, mean over real tokens, `(B, H)`, if asked for."""

    def rows(self, which: str) -> Tensor:
        """`probs` or `gates` as `(N, H)`: one row an input, or one a real token under token routing."""
        values = getattr(self, which)
        if values.dim() == 2:
            return values
        flat = values.flatten(0, 1)
        return flat if self.token_mask is None else flat[self.token_mask.flatten()]


@dataclass(eq=False)
class RoutingRecord:
    """The traces of every forward pass made inside `record_routing`, by layer, in order."""

    keep_hidden_states: bool = False
    keep_output_norms: bool = False
    traces: dict[int, list[LayerTrace]] = field(default_factory=dict)
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    """Converted layers' outputs `(B, T, d)` in the latest pass, if asked for."""

    @property
    def layers(self) -> list[int]:
        """Converted layers seen, ascending."""
        return sorted(self.traces)

    def probs(self, layer: int) -> Tensor:
        """Router probabilities of all passes, `(N, H)`: N inputs, or real tokens under token routing.

        Raises:
            PlanError: the layer did not route in any pass that was recorded.
        """
        return torch.cat([trace.rows("probs") for trace in self._of(layer)])

    def gates(self, layer: int) -> Tensor:
        """Gates of all passes, `(N, H)`, as `probs`."""
        return torch.cat([trace.rows("gates") for trace in self._of(layer)])

    def last(self, layer: int) -> LayerTrace:
        """The trace of the latest pass; raises as `probs`."""
        return self._of(layer)[-1]

    def _of(self, layer: int) -> list[LayerTrace]:
        if layer not in self.traces:
            raise PlanError(
                f"layer {layer} did not route in what was recorded; layers that did: {self.layers}."
            )
        return self.traces[layer]

    def balance_loss(self) -> Tensor:
        """Sum over converted layers of `balance_loss` of the latest pass; 0 where none was recorded."""
        losses = [
            balance_loss(traces[-1].probs, traces[-1].token_mask) for _, traces in sorted(self.traces.items())
        ]
        return torch.stack(losses).sum() if losses else torch.zeros(())


_recorders: ContextVar[tuple[RoutingRecord, ...]] = ContextVar("shrp_recorders", default=())
_overrides: ContextVar[tuple[GateSource, ...]] = ContextVar("shrp_overrides", default=())


@contextmanager
def record_routing(*, hidden_states: bool = False, output_norms: bool = False) -> Iterator[RoutingRecord]:
    """Collect what every converted layer does in the forward passes made inside, in this context only.

    Args:
        hidden_states: also keep each converted layer's output (for distillation).
        output_norms: also compute every expert's output norm (costs a full, all-experts pass).
    """
    record = RoutingRecord(keep_hidden_states=hidden_states, keep_output_norms=output_norms)
    token = _recorders.set((*_recorders.get(), record))
    try:
        yield record
    finally:
        _recorders.reset(token)


@contextmanager
def use_gates(source: GateSource | Mapping[int, Tensor]) -> Iterator[None]:
    """Override the gates of converted layers in the forward passes made inside, in this context only.

    Args:
        source: a mapping from layer to gates `(H,)`, `(B, H)` or `(B, T, H)`, or a function
            `(layer, probs, gates) -> gates`. Layers that a mapping lacks, or for which the function returns
            None, route as usual. Contexts nest: an inner one sees the outer one's gates.

    Warns:
        UnusedGatesWarning: a layer of the mapping, or of `knock_out`'s, had no router in any of these passes, as in a
            dense layer or a pruned model, so that its gates changed nothing.
    """
    named = frozenset(source) if isinstance(source, Mapping) else frozenset()
    if isinstance(source, _KnockedOut):
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
        routed = f"those that did: {sorted(seen)}" if seen else "none did"
        warnings.warn(
            f"no router of layers {unused} ran, so their gates changed nothing ({routed}).",
            UnusedGatesWarning,
            stacklevel=3,
        )


def play_back(record: RoutingRecord) -> dict[int, Tensor]:
    """Gates for `use_gates` that repeat the latest recorded pass, whatever the input becomes."""
    return {layer: record.last(layer).gates.detach() for layer in record.layers}


def force_experts(choice: Mapping[int, int], num_experts: int) -> dict[int, Tensor]:
    """Gates for `use_gates` that send everything in layer `l` to expert `choice[l]`.

    Raises:
        PlanError: there is no such expert.
    """
    for layer, expert in choice.items():
        if not 0 <= expert < num_experts:
            raise PlanError(f"layer {layer} has experts 0 to {num_experts - 1}, not {expert}.")
    return {layer: torch.eye(num_experts)[expert] for layer, expert in choice.items()}


@dataclass(frozen=True)
class _KnockedOut:
    removed: Mapping[int, int | Collection[int] | Tensor]
    top_k: int

    def __call__(self, layer: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        if layer not in self.removed:
            return None
        expert, num_experts = self.removed[layer], probs.shape[-1]
        gone = -1.0  # below every probability, so never among the top
        if not isinstance(expert, Tensor):
            taken = [int(expert)] if isinstance(expert, Integral) else sorted(set(map(int, expert)))
            if not all(0 <= one < num_experts for one in taken) or len(taken) >= num_experts:
                raise PlanError(
                    f"layer {layer} has experts 0 to {num_experts - 1}, of which at least one must be left; {taken} "
                    "can't be taken away."
                )
            left = probs.clone()
            if gates is probs:  # no router: all experts are mixed as they are, and so are those that are left
                left[..., taken] = 0
                return left / left.sum(-1, keepdim=True)
            left[..., taken] = gone
            return top_k_gates(left, min(self.top_k, num_experts - len(taken)))
        expert = expert.to(probs.device)
        if num_experts < 2 or expert.max() >= num_experts:
            raise PlanError(
                f"layer {layer} has experts 0 to {num_experts - 1}, of which at least one must be left; "
                f"{int(expert.max())} can't be taken away."
            )
        rows = torch.nonzero(expert >= 0).flatten()
        left = probs[rows]
        if gates is probs:
            left[torch.arange(len(rows)), ..., expert[rows]] = 0
            picked = gates.clone()
            picked[rows] = left / left.sum(-1, keepdim=True)
            return picked
        left[torch.arange(len(rows)), ..., expert[rows]] = gone
        picked = gates.clone()  # those that nothing is taken from keep theirs, also where k is all experts
        picked[rows] = top_k_gates(left, min(self.top_k, num_experts - 1)).to(picked.dtype)
        return picked


def knock_out(removed: Mapping[int, int | Collection[int] | Tensor], top_k: int = 1) -> GateSource:
    """A source for `use_gates` that takes experts away: the router picks among those that remain; without a router
    they are mixed as before, with weights that again add up to 1.

    In the forward pass it raises `PlanError` where a layer has no such expert, or none would be left.

    Args:
        removed: layer -> the expert; or several, fewer than there are; or int64 `(B,)`: each input's own, -1 for none.
    """
    return _KnockedOut(removed, top_k)


def overridden(layer: int, probs: Tensor, gates: Tensor) -> Tensor:
    """Apply the context's overrides to a layer's own `gates`; used by `ExpertLayer`.

    Returns:
        Gates of the shape of `probs` (constant or per-input gates are broadcast).

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


def active_recorders() -> tuple[RoutingRecord, ...]:
    """The records that forward passes in this context must fill; used by `ExpertLayer`."""
    return _recorders.get()
