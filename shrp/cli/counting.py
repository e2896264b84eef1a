"""What experts are chosen by, measured with a progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shrp.cli.output import stderr, told

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from shrp.analysis.usage import UsageStats
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData
    from shrp.pruning.plan import PruningPlan


def usage_counted(
    source: Checkpoint, data: TextData, selection: str, max_length: int, seed: int
) -> UsageStats:
    """Usage on data, with what a selection asks for beside it."""
    from shrp.analysis.usage import measure_usage
    from shrp.pruning.select import GateFit

    norms = selection == "gate_norm"
    stats = measure_usage(source.model, source.tokenizer, data, max_length=max_length, output_norms=norms)
    if selection == "ablation":
        return replace(stats, ablation=_ablated(source, data, max_length))
    if selection != "fitted":
        return stats
    stderr.print(f"fitting gates on texts of {data.name}, some minutes …")
    with told("fitting gates") as progress:
        fit = GateFit(source.model, source.tokenizer, data, stats.shares(), max_length=max_length, seed=seed)
        fitted = fit.finish(progress)
    return replace(stats, fitted=fitted)


def _ablated(source: Checkpoint, data: TextData, max_length: int) -> dict[int, Any]:
    """What knocking out each expert changes, with a progress bar."""
    from shrp.analysis.importance import ablation

    with told("experts knocked out") as progress:
        return ablation(source.model, source.tokenizer, data, max_length=max_length, progress=progress)


def plan_chosen(
    source: Checkpoint,
    measured_on: TextData | None,
    selection: str,
    max_length: int,
    options: Mapping[str, Any],
) -> PruningPlan:
    """The plan that the options ask for, of usage on data or else of the checkpoint's own."""
    from shrp.checkpoints.info import usage_in
    from shrp.pruning.plan import make_plan
    from shrp.pruning.select import plan_from

    if measured_on is None:
        return make_plan(usage_in(source.info), selection=selection, **options)
    stats = usage_counted(source, measured_on, selection, max_length, options["seed"])
    return plan_from(stats, selection=selection, **options)


def plan_within(
    source: Checkpoint,
    data: TextData,
    loss: float,
    selection: str,
    max_length: int,
    options: Mapping[str, Any],
    match_shares: bool,
) -> PruningPlan:
    """The plan of the fewest experts that loses no more than that on the data, with a progress bar."""
    from shrp.pruning.sweep import smallest_within

    stats = usage_counted(source, data, selection, max_length, options["seed"])
    how = {"selection": selection, "combination": options["combination"], "match_shares": match_shares}
    with told("prunings") as progress:
        return smallest_within(
            source.model, source.tokenizer, data, stats, loss, max_length=max_length, progress=progress, **how
        )
