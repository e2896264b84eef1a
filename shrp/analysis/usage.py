"""How a routed model uses its experts on a data set (docs/method.md, "Usage and pruning").

Everything is kept by example, so the usage of a group of examples is a sum over rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import entr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import read
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import Outputs
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.gates import LayerTrace, record_routing
from shrp.model.modules import logits_of
from shrp.phrases import counted
from shrp.progress import Progress, silent
from shrp.pruning.plan import FittedGates

COLLAPSE_SHARE = 0.9
"""Above this share of one expert in stage 1, routing has collapsed."""
COLLAPSE_EXPERTS = 1.5
"""Below this number of effective experts after training, a layer's routing has collapsed."""
JUDGED = 50
"""Fewest examples to judge a layer's usage on; and at least four times the experts."""
NOISY_ENTROPY = 0.9
"""Above this part of the maximal entropy, usage hardly ranks experts."""
CLIFF_SHARE = 0.8
"""A score whose interval ends below this part of the dense teacher's is an accuracy cliff."""
NOISY_MARGIN = 0.1
"""Below this mean router margin, many choices are close."""


@dataclass(frozen=True)
class UsageWarning:
    """A failure signature seen in one layer, with the number that triggered it."""

    kind: str
    """`collapse`, `noisy` or `small margins`."""
    layer: int
    text: str


@dataclass(frozen=True, eq=False)
class UsageStats:
    """Routing of every example of a data set, layer by layer. `N` examples, `H` experts."""

    data: str
    unit: str
    """What is counted: `examples` under sequence routing, `tokens` (real ones) under token routing."""
    top1: Mapping[int, np.ndarray]
    """Layer -> `(N, H)`: how often each expert is an example's Top-1 (one-hot, or counts of its tokens)."""
    probs: Mapping[int, np.ndarray]
    """Layer -> `(N, H)`: router probabilities, averaged over real tokens under token routing."""
    margins: Mapping[int, np.ndarray]
    """Layer -> `(N,)`: smallest probability taken minus the largest not taken, averaged as `probs`."""
    norms: Mapping[int, np.ndarray]
    """Layer -> `(N, H)`: mean output norm of each expert; empty unless asked for."""
    logits: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """`(N, C)`, or of words `(N, W, C)`: the model's outputs from the same passes, as `Outputs` gives them."""
    gates: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Layer -> `(N, H)`: gates, averaged as `probs`; empty unless output norms were asked for."""
    ablation: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Layer -> `(H,)`: effect of each knock-out (`shrp.analysis.importance.KnockOuts`), if asked for."""
    recorded: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Layer -> `(H,)`: Top-1 shares on other data, such as a checkpoint's training data, if asked for."""
    fitted: FittedGates | None = None
    """Gates fitted on the same examples, if asked for."""

    def __repr__(self) -> str:  # one line: the arrays are long
        what = f"<UsageStats of {self.data!r}: {counted(self.n, 'input')}"
        if not self.top1:
            return f"{what}, no layer>"
        layers, unit = ", ".join(map(str, self.layers)), self.unit.removesuffix("s")
        return f"{what}, routed by {unit} in layers {layers} of {self.num_experts} experts each>"

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(next(iter(self.top1.values()))) if self.top1 else 0

    @property
    def layers(self) -> list[int]:
        """Routed layers, ascending."""
        return sorted(self.top1)

    @property
    def num_experts(self) -> int:
        """Experts a layer."""
        return next(iter(self.top1.values())).shape[1]

    def counts(self, layer: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Top-1 counts `(H,)` over all examples or those that the mask `rows` `(N,)` marks."""
        return (self.top1[layer] if rows is None else self.top1[layer][rows]).sum(0)

    def share(self, layer: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Top-1 shares `(H,)`, summing to 1; all nan where `rows` marks nothing."""
        counts = self.counts(layer, rows).astype(np.float64)
        total = counts.sum()
        return counts / total if total else np.full(len(counts), np.nan)

    def mean_probs(self, layer: int) -> np.ndarray:
        """Mean router probability `(H,)`."""
        return self.probs[layer].mean(0, dtype=np.float64)

    def shares(self, rows: np.ndarray | None = None) -> dict[int, np.ndarray]:
        """Layer -> Top-1 shares: what plans are made from."""
        return {layer: self.share(layer, rows) for layer in self.layers}

    def gate_norm(self) -> dict[int, np.ndarray]:
        """Layer -> mean over examples of gate x output norm `(H,)`.

        Raises:
            PlanError: output norms were not measured.
        """
        if not (self.norms and self.gates):
            raise PlanError("output norms were not measured; measure usage with output_norms=True.")
        return {layer: (self.gates[layer] * self.norms[layer]).mean(0) for layer in self.layers}

    def effective_experts(self, layer: int) -> float:
        """`exp(entropy)`: the number of evenly used experts with the same entropy, 1 to H."""
        return effective_experts(self.share(layer))

    def summary(self) -> pd.DataFrame:
        """One row a layer: entropy, effective experts, top expert and its share, mean margin; nan without examples."""
        found = []
        for layer in self.layers:
            share, margins = self.share(layer), self.margins[layer]
            top = np.nan if np.isnan(share).any() else int(share.argmax())
            row = {"layer": layer, "entropy": entropy(share), "effective_experts": effective_experts(share)}
            row |= {"top_expert": top, "top_share": float(share.max())}
            found.append(row | {"mean_margin": float(margins.mean()) if len(margins) else np.nan})
        return pd.DataFrame(found)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and expert: count, share, mean probability."""
        columns = {"count": self.counts, "share": self.share, "mean_prob": self.mean_probs}
        frames = {
            layer: pd.DataFrame({name: of(layer) for name, of in columns.items()}) for layer in self.layers
        }
        return pd.concat(frames, names=["layer", "expert"]).reset_index()

    @property
    def too_few(self) -> int:
        """The number of examples needed to judge usage if there are fewer, else 0."""
        needed = max(JUDGED, 4 * self.num_experts)
        return needed if self.n < needed else 0

    def warnings(self) -> list[UsageWarning]:
        """Failure signatures of the trained model; none for too few examples."""
        found = []
        for layer in [] if self.too_few else self.layers:
            effective, margin = self.effective_experts(layer), float(self.margins[layer].mean())
            part = entropy(self.share(layer)) / np.log(self.num_experts)
            signs = {
                "collapse": effective < COLLAPSE_EXPERTS
                and f" uses {effective:.1f} effective experts (below {COLLAPSE_EXPERTS}): routing has collapsed.",
                "noisy": part > NOISY_ENTROPY
                and f"'s usage entropy is {part:.0%} of its maximum (above {NOISY_ENTROPY:.0%}): usage hardly ranks experts.",
                "small margins": margin < NOISY_MARGIN
                and f"'s mean router margin is {margin:.2f} (below {NOISY_MARGIN}): many choices are close.",
            }
            found += [
                UsageWarning(kind, layer, f"layer {layer}{text}") for kind, text in signs.items() if text
            ]
        return found


def history_warnings(history: Sequence[Mapping[str, Any]]) -> list[UsageWarning]:
    """The first collapse of each layer during stage 1; none where usage was counted on too few examples."""
    found: dict[int, UsageWarning] = {}
    for row in history:
        if row.get("stage") != 1:
            continue
        # On texts, usage is counted in the last quarter of the epoch.
        counted = row["texts"] / 4 if "texts" in row else row.get("validation_n", math.inf)
        for name, share in row.get("usage", {}).items():
            layer, top = int(name), max(share)
            if top > COLLAPSE_SHARE and layer not in found and counted >= max(JUDGED, 4 * len(share)):
                on = ", on unlabelled texts" if "texts" in row else ""
                text = f"layer {layer}: expert {int(np.argmax(share))} took {top:.0%} already in stage 1 "
                text += f"(epoch {row['epoch']}{on}; above {COLLAPSE_SHARE:.0%})."
                found[layer] = UsageWarning("collapse", layer, text)
    return [found[layer] for layer in sorted(found)]


def top1_counts(probs: torch.Tensor) -> np.ndarray:
    """How many rows of `probs` `(N, H)` each expert is the Top-1 of, `(H,)`."""
    return np.bincount(probs.argmax(-1).cpu().numpy(), minlength=probs.shape[-1])


def measure_usage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    output_norms: bool = False,
    progress: Progress = silent,
) -> UsageStats:
    """Run a routed model over `data` and record its routing.

    Args:
        output_norms: also measure every expert's output norm (several times slower), and keep the gates.

    Raises:
        PlanError: the model has no layer with a router.
        DataError: the data are empty.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so there is no usage to measure.")
    if not len(data):
        raise DataError(f"{data.name} is empty; usage needs at least one input.")
    n, h = len(data), num_experts_of(model)
    top1 = {layer: np.zeros((n, h), dtype=np.int64) for layer in routed}
    probs = {layer: np.zeros((n, h), dtype=np.float32) for layer in routed}
    margins = {layer: np.zeros(n, dtype=np.float32) for layer in routed}
    norms = {layer: np.zeros((n, h), dtype=np.float32) for layer in routed} if output_norms else {}
    gates = {layer: np.zeros((n, h)) for layer in norms}
    logits: np.ndarray | None = None
    as_scored = Outputs(model, tokenizer, data, max_length)
    options = {"batch_size": batch_size, "max_length": max_length, "progress": progress}
    for rows, inputs in read(model, tokenizer, data.texts, **options):
        with torch.inference_mode(), record_routing(output_norms=output_norms) as record:
            output = as_scored(rows, logits_of(model(**inputs)).float().cpu().numpy(), in_order=False)
        logits = np.zeros((n, *output.shape[1:]), dtype=np.float32) if logits is None else logits
        logits[rows] = output
        for layer in record.layers:
            trace = record.last(layer)
            found = _by_input(trace, routed[layer].top_k)
            top1[layer][rows], probs[layer][rows], margins[layer][rows] = found[:3]
            if output_norms:
                norms[layer][rows], gates[layer][rows] = trace.output_norms.cpu().numpy(), found[3]
    unit = "tokens" if next(iter(routed.values())).routing == "token" else "examples"
    return UsageStats(data.name, unit, top1, probs, margins, norms, logits, gates)


def by_token(trace: LayerTrace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities and gates `(B, T, H)`, and which tokens are real, 0 or 1 `(B, T, 1)`; sequence routing has one token."""
    probs, gates, mask = trace.probs.float().cpu(), trace.gates.double().cpu(), trace.token_mask
    if probs.dim() == 2:
        probs, gates, mask = probs.unsqueeze(1), gates.unsqueeze(1), None
    return probs, gates, torch.ones(*probs.shape[:2], 1) if mask is None else mask.cpu().unsqueeze(-1).float()


def _by_input(trace: LayerTrace, top_k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Top-1 counts `(B, H)`, and means of probabilities `(B, H)`, margins `(B,)` and gates `(B, H)` of one batch."""
    probs, gates, real = by_token(trace)
    top1 = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]) * real
    best = torch.cat([probs, torch.zeros_like(probs[..., :1])], -1).topk(top_k + 1, dim=-1).values
    margins = best[..., -2:-1] - best[..., -1:]
    means = (((values * real).sum(1) / real.sum(1)).numpy() for values in (probs, margins, gates))
    mean_probs, mean_margins, mean_gates = means
    return top1.sum(1).long().numpy(), mean_probs, mean_margins[:, 0], mean_gates


def entropy(share: Sequence[float] | np.ndarray) -> float:
    """Entropy of shares `(H,)` in nats, 0 to `log H`; nan where they are."""
    return float(np.maximum(0.0, entr(np.asarray(share, dtype=np.float64)).sum()))


def effective_experts(share: Sequence[float] | np.ndarray) -> float:
    """`exp(entropy)` of shares `(H,)`, 1 to `H`; nan where they are."""
    return float(np.exp(entropy(share)))
