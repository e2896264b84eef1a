"""Measure what experts are selected by, and make plans of it, with progress on stderr."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shrp.cli.output import progress_on

if TYPE_CHECKING:  # slow to import, and --help needs none
    from shrp.analysis.usage import UsageStats
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData
    from shrp.pruning.plan import PruningPlan


def measured_usage(
    source: Checkpoint, data: TextData, selection: str, max_length: int, seed: int
) -> UsageStats:
    """Measure usage on data, and what else the selection needs: output norms, ablation or fitted gates."""
    from shrp.analysis.importance import ablation
    from shrp.analysis.usage import measure_usage
    from shrp.pruning.select import GateFit

    model, tokenizer = source.model, source.tokenizer
    norms = selection == "gate_norm"
    with progress_on("measuring usage", len(data)) as show:
        stats = measure_usage(
            model, tokenizer, data, max_length=max_length, output_norms=norms, progress=show
        )
    if selection == "ablation":
        with progress_on("knocking out experts") as show:
            return replace(
                stats, ablation=ablation(model, tokenizer, data, max_length=max_length, progress=show)
            )
    if selection != "fitted":
        return stats
    with progress_on("fitting gates (takes minutes)") as show:
        fit = GateFit(model, tokenizer, data, stats.shares(), max_length=max_length, seed=seed)
        return replace(stats, fitted=fit.finish(show))


def chosen_plan(
    source: Checkpoint, measured_on: TextData | None, selection: str, max_length: int, **options: Any
) -> PruningPlan:
    """Make a plan from usage on data, or without data from the usage that the checkpoint carries.

    Args:
        options: Of `shrp.pruning.plan.make_plan` (`per_layer`, `budget`, `combination`, `seed`).
    """
    from shrp.checkpoints.info import usage_in
    from shrp.pruning.plan import make_plan
    from shrp.pruning.select import plan_from

    if measured_on is None:
        return make_plan(usage_in(source.info), selection=selection, **options)
    stats = measured_usage(source, measured_on, selection, max_length, options["seed"])
    return plan_from(stats, selection=selection, **options)


def smallest_plan(
    source: Checkpoint,
    data: TextData,
    loss: float,
    selection: str,
    max_length: int,
    *,
    combination: str,
    seed: int,
    calibrate: bool,
) -> PruningPlan:
    """Find the smallest plan whose score on the data is at most `loss` below the routed model's."""
    from shrp.pruning.sweep import smallest_within

    stats = measured_usage(source, data, selection, max_length, seed)
    with progress_on("scoring prunings") as show:
        return smallest_within(
            source.model,
            source.tokenizer,
            data,
            stats,
            loss,
            max_length=max_length,
            progress=show,
            selection=selection,
            combination=combination,
            match_shares=calibrate,
        )
