"""`sweep`: scores of prunings of all sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from shrp.cli.options import AsJson, Data, Routed, check_free, report_cut
from shrp.cli.output import print_json, print_table, progress_on, records, stderr, write_csv
from shrp.errors import DataError, PlanError
from shrp.pruning.plan import Allocation

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from shrp.analysis.usage import UsageStats
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData


def sweep(
    checkpoint: Routed,
    *,
    data: Data,
    allocation: Annotated[
        Allocation, Option(help="The same in every layer, or spread by usage.")
    ] = "per_layer",
    selection: Annotated[
        Literal["usage", "gate_norm", "ablation", "fitted"], Option(help="What experts are chosen by.")
    ] = "usage",
    draws: Annotated[int, Option(min=0, max=100, help="Random selections per size.")] = 3,
    held_out: Annotated[bool, Option("--held-out", help="Choose on one half, score on the other.")] = False,
    out: Annotated[Path | None, Option(help="Write every pruning's row to this CSV file.")] = None,
    json: AsJson = False,
) -> None:
    """Score a routed checkpoint's prunings of all sizes next to random selections."""
    from shrp.cli.subjects import opened, provenance
    from shrp.data.text_data import FEWEST, halves
    from shrp.pruning.sweep import LOSSES, cheapest_within, scored

    check_free(out, "--out")
    loaded, source, length = opened(checkpoint, data)
    check_can_prune(loaded)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels to score by; name the column with --label-column.")
    if held_out and len(source) < FEWEST:
        raise DataError(f"{source.name} has {len(source)} examples; --held-out needs {FEWEST} or more.")
    ranked, on = halves(source) if held_out else (source, source)
    report_cut(loaded.model.config, loaded.tokenizer, source, length)
    stats = measured_usage(loaded, ranked, selection, length, 0)
    how = {"selection": selection, "draws": draws, "max_length": length}
    with progress_on("scoring prunings") as show:
        frame, routed = scored(loaded.model, loaded.tokenizer, on, stats, allocation, **how, progress=show)
    write_csv(frame, out)
    cheapest = []
    for loss in LOSSES:
        row = cheapest_within(frame, routed, loss)
        cheapest.append({"loss": loss} | ({"kept": None} if row is None else records(row.to_frame().T)[0]))
    result = {
        "selection": selection,
        "allocation": allocation,
        "chosen_on": ranked.name,
        "routed": {
            "metric": routed.metric,
            "score": routed.score,
            "constant": routed.majority_score,
            "n": routed.n,
            "interval": routed.ends(),
        },
        "prunings": records(frame),
        "cheapest": cheapest,
        "provenance": provenance(loaded, on, length),
    }
    if json:
        print_json(result)
    else:
        _print(result, on.name)


def check_can_prune(loaded: Checkpoint) -> None:
    """Raise `PlanError` for a checkpoint without routers."""
    from shrp.model.convert import expert_layers

    if not expert_layers(loaded.model):
        raise PlanError(f"{loaded.path} has no routed layer to prune: it is dense, or pruned already.")


def measured_usage(
    loaded: Checkpoint, data: TextData, selection: str, max_length: int, seed: int
) -> UsageStats:
    """Measure usage on data, and what else the selection needs: output norms, knock-outs or fitted gates."""
    from shrp.analysis.importance import in_turn
    from shrp.analysis.usage import measure_usage
    from shrp.pruning.select import GateFit

    of, norms = (loaded.model, loaded.tokenizer, data), selection == "gate_norm"
    with progress_on("measuring usage", len(data)) as show:
        stats = measure_usage(*of, max_length=max_length, output_norms=norms, progress=show)
    if selection == "ablation":
        with progress_on("knocking out experts") as show:
            return replace(stats, ablation=in_turn(*of, max_length=max_length, progress=show).sizes())
    if selection == "fitted":
        with progress_on("fitting gates (takes minutes)") as show:
            fit = GateFit(*of, stats.shares(), max_length=max_length, seed=seed)
            return replace(stats, fitted=fit.finish(show))
    return stats


def _print(result: dict[str, Any], name: str) -> None:
    """One row a size, with the range of the random selections of that size."""
    routed, rows = result["routed"], [row for row in result["prunings"] if row["seed"] is None]
    for row in rows:
        drawn = [
            one["score"]
            for one in result["prunings"]
            if one["seed"] is not None and one["kept"] == row["kept"]
        ]
        row["experts"] = f"{'* ' * row['pareto']}{row['kept']}"
        row["random"] = f"{min(drawn):.3f} to {max(drawn):.3f}" if drawn else None
    print_table(
        f"{result['selection']} on {name}, n = {routed['n']:,}; the routed model's "
        f"{routed['metric']}: {routed['score']:.4f}\nencoder params, FLOPs (128 tokens): share of the dense encoder's; random: "
        "range over draws; *: no other size scores higher with as few FLOPs",
        rows,
        ("experts", "score", "random", "encoder_params", "encoder_flops"),
    )
    for row in result["cheapest"]:
        found = "no size"
        if row["kept"] is not None:
            found = f"{row['kept']} experts ({row['score']:.4f}, {row['encoder_params']:.1%} of the encoder)"
        stderr.print(f"at most {row['loss']} below the routed model's {routed['metric']}: {found}")
    if result["chosen_on"] == name:
        stderr.print("experts were chosen on the data that score them, which flatters a little; see --held-out")
