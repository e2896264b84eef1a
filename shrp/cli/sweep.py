"""`sweep`: scores of prunings of all sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.choosing import measured_usage
from shrp.cli.options import (
    AsJson,
    DataSource,
    Device,
    LabelColumn,
    LabelMeanings,
    MaxLength,
    OnlySlices,
    OwnFile,
    Routed,
    SliceColumn,
    TextColumns,
    check_free,
    check_has_task,
    evaluation_data,
    report_cut,
)
from shrp.cli.output import print_json, print_table, progress_on, provenance, records, stderr, write_csv
from shrp.errors import DataError, PlanError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    import pandas as pd

    from shrp.evaluation.evaluation import Evaluation


def sweep(
    checkpoint: Routed,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    slice_column: SliceColumn = None,
    only: OnlySlices = None,
    allocation: Annotated[
        str,
        typer.Option(help="`per_layer`: the same number in every layer; `budget`: a total spread by usage."),
    ] = "per_layer",
    selection: Annotated[
        str,
        typer.Option(help="usage, gate_norm, ablation, fitted, or recorded (usage stored by the training)."),
    ] = "usage",
    draws: Annotated[int, typer.Option(min=0, max=100, help="Random selections per size, the control.")] = 3,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Choose experts on one half of the data and score on the other."),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Match predicted class frequencies to the routed model's (no labels used)."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write every pruning's row to this CSV file.")] = None,
    max_length: MaxLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Score a routed checkpoint's prunings of all sizes next to random selections."""
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.info import usage_in
    from shrp.data.text_data import FEWEST, halves, in_halves
    from shrp.model.convert import expert_layers
    from shrp.pruning.live import LiveEvaluator
    from shrp.pruning.plan import SELECTIONS
    from shrp.pruning.sweep import LOSSES, cheapest_within, match, points, run, to_frame

    if allocation not in ("per_layer", "budget"):
        raise PlanError(f"--allocation is per_layer or budget, not {allocation!r}.")
    known = (*(name for name in SELECTIONS if name != "random"), "recorded")
    if selection not in known:
        raise PlanError(
            f"--selection is one of {', '.join(known)}, not {selection!r}; --draws adds random ones."
        )
    if held_out and selection == "recorded":
        raise PlanError("--held-out has no effect on recorded usage; leave one of them out.")
    check_free(out, "--out")
    loaded = load(checkpoint, device=device)
    if not expert_layers(loaded.model):
        raise PlanError("this model has no routed layer to prune; give a routed checkpoint.")
    task, length = loaded.info.task, max_length or loaded.info.max_length
    check_has_task(task)
    if calibrate and task.is_regression:
        raise PlanError("--calibrate is for classification; leave it out for a regression.")
    own = OwnFile(text_column, label_column, label_means, slice_column, only)
    source = evaluation_data(data, task, own)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels to score by; name the column with --label-column.")
    if held_out and len(source) < FEWEST:
        raise DataError(f"{source.name} has {len(source)} examples; --held-out needs {FEWEST} or more.")
    ranked, scored = in_halves(source, *halves(source)) if held_out else (source, source)
    report_cut(loaded.model.config, loaded.tokenizer, (source,), length)
    stats = measured_usage(loaded, ranked, selection, length, 0)
    chosen_on = ranked.name
    if selection == "recorded":
        stats = replace(stats, recorded=usage_in(loaded.info))
        chosen_on = loaded.info.training.get("validation_data")
    combination = "fitted" if selection == "fitted" else "usage"
    wanted = points(stats, allocation, selection=selection, combination=combination, draws=range(draws))
    evaluator = LiveEvaluator(loaded.model, loaded.tokenizer, scored, max_length=length)
    done = 0
    with progress_on("scoring prunings", len(wanted)) as show:
        routed = evaluator.evaluate(None)

        def advance() -> None:
            nonlocal done
            done += 1
            show(done)

        found = run(evaluator, [point.plan for point in wanted], advance)
    if calibrate:
        found = [match(one, routed, scored) for one in found]
    frame = to_frame(loaded.model, wanted, found, routed)
    if out is not None:
        write_csv(frame, out)
    cheapest = {loss: cheapest_within(frame, routed, loss) for loss in LOSSES}
    if not json:
        _print(frame, routed, f"{selection} on {scored.name}, n = {routed.n:,}" + ", calibrated" * calibrate)
        _print_cheapest(cheapest, routed, flattered=chosen_on == scored.name)
        return
    print_json(
        {
            "selection": selection,
            "combination": combination,
            "allocation": allocation,
            "chosen_on": chosen_on,
            "calibrated": calibrate,
            "routed": {
                "metric": routed.metric,
                "score": routed.score,
                "interval": routed.ends(),
                "constant": routed.constant,
                "n": routed.n,
            },
            "prunings": _records(frame),
            "cheapest": [
                {"loss": loss} | (_records(row.to_frame().T)[0] if row is not None else {"kept": None})
                for loss, row in cheapest.items()
            ],
            "provenance": provenance(loaded, scored, length),
        }
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return records(frame.astype(object).where(frame.notna(), None))


def _print(frame: pd.DataFrame, routed: Evaluation, how: str) -> None:
    drawn = frame[frame["seed"].notna()].groupby("kept")["score"].agg(["min", "max", "size"])
    rows = []
    for row in frame[frame["seed"].isna()].to_dict("records"):
        line = {
            "experts": f"{'* ' * row['pareto']}{row['kept']}",
            routed.metric: row["score"],
            "95% CI": _range(row["low"], row["high"]),
        }
        if len(drawn):
            control = drawn.loc[row["kept"]] if row["kept"] in drawn.index else None
            line["random"] = "" if control is None else _range(control["min"], control["max"])
        rows.append(
            line | {"encoder": f"{row['encoder_params']:.1%}", "FLOPs": f"{row['encoder_flops']:.1%}"}
        )
    print_table(
        f"{how}; the routed model scores {routed.score:.4f}\nencoder, FLOPs (128 tokens): share of the dense encoder's; "
        "random: range over draws; *: no other size scores higher with as few FLOPs",
        rows,
    )


def _range(low: float, high: float) -> str:
    if low != low:
        return ""
    return f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"


def _print_cheapest(cheapest: dict[float, pd.Series | None], routed: Evaluation, *, flattered: bool) -> None:
    for loss, row in cheapest.items():
        if row is None:
            found = "no size"
        else:
            found = f"{row['kept']} experts ({row['score']:.4f}, {row['encoder_params']:.1%} of the encoder)"
        stderr.print(f"at most {loss} below the routed model's {routed.metric}: {found}")
    if flattered:
        stderr.print(
            "experts were chosen on the data that score them, which flatters a little; see --held-out"
        )
