"""The rows of scores that a run of the recipe stores: each of its models on each of its data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.score_rows import score_row
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.verdicts import HEADS_PRUNED
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan

Plan = Callable[..., PruningPlan]
"""`(routed, per_layer, **options of make_plan)` -> the plan by its usage."""


class RunScores:
    """Rows so far, the dense teacher's first, by whose score the others are divided.

    Args:
        sets: what models are scored on.
        cut: tokens at which an input is cut.
        layers: how many layers are converted.
    """

    def __init__(self, sets: Sequence[TextData], cut: int, layers: int) -> None:
        self.sets, self.cut, self.layers = tuple(sets), cut, layers
        self.rows: list[dict[str, Any]] = []

    def score(
        self,
        label: str,
        kind: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        **facts: Any,
    ) -> list[Evaluation]:
        """Evaluate a model on each data set and add a row for each; returns the evaluations."""
        found = [evaluate(model, tokenizer, data, max_length=self.cut) for data in self.sets]
        self._add(label, kind, [[one] for one in found], facts)
        return found

    def prunings(self, routed: Checkpoint, per_layer: Sequence[int], plan: Plan, draws: int) -> None:
        """Add static models at each budget, without recovery, and beside them random experts.

        Args:
            per_layer: experts a layer.
            plan: makes a plan of the routed model's.
            draws: of random experts, which are averaged; 0 for none.
        """
        live = [
            LiveEvaluator(routed.model, routed.tokenizer, data, max_length=self.cut) for data in self.sets
        ]
        for m in per_layer:
            kept, facts = plan(routed, m), {"per_layer": m}
            self._add(f"static, {m} a layer", "static", [[one.evaluate(kept)] for one in live], facts)
            if not draws or m == routed.model.config.num_attention_heads:
                continue
            drawn = [plan(routed, m, selection="random", seed=seed) for seed in range(draws)]
            found = [[one.evaluate(each) for each in drawn] for one in live]
            self._add(f"random experts, {m} a layer", "control", found, facts)

    def _add(self, label: str, kind: str, found: list[list[Evaluation]], facts: Mapping[str, Any]) -> None:
        """Add a row for each data set from its evaluations; several (draws of one control) are averaged."""
        has_experts = not label.startswith(HEADS_PRUNED)  # a control of their size
        if "per_layer" in facts and has_experts:
            facts = {**facts, "budget": facts["per_layer"] * self.layers}
        for data, evaluations in zip(self.sets, found, strict=True):
            teacher = [
                row["score"] for row in self.rows if (row["kind"], row["data"]) == ("teacher", data.name)
            ]
            row = score_row(label, kind, evaluations, teacher[0] if teacher else None)
            # A data set may change under its name: readers compare scores only where the content is the same.
            about = {"data_fingerprint": data.source_fingerprint, "max_length": self.cut}
            self.rows.append({**row, **about, **facts})
