"""`sweep`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.counting import usage_counted
from shrp.cli.data_options import (
    DataSource,
    LabelColumn,
    LabelMeanings,
    OnlySlices,
    OwnFile,
    PairColumn,
    SkipIncomplete,
    SliceColumn,
    SliceWords,
    TextColumns,
    evaluation_data,
)
from shrp.cli.options import (
    AsJson,
    Device,
    EvaluatedLength,
    check_free,
    check_has_task,
    say_cut,
)
from shrp.cli.output import (
    bar,
    example,
    numbered,
    print_json,
    print_table,
    provenance,
    records,
    stderr,
    write_csv,
)
from shrp.data.tasks import LABEL
from shrp.errors import DataError, PlanError
from shrp.phrases import counted, listed

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    import pandas as pd

    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

_RECORDED = "recorded"


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Scores of prunings of all sizes, beside random ones",
        epilog=example(
            "sweep checkpoints/sst2-6of12 --held-out --out sweep.csv",
            "Prints a table, and which size loses little; writes nothing but the file of `--out`.",
        ),
    )(sweep)


def sweep(
    checkpoint: Annotated[Path, typer.Argument(help="A routed SHRP checkpoint.", show_default=False)],
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    pair_column: PairColumn = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    allocation: Annotated[
        str,
        typer.Option(help="`per_layer`: as many experts in every layer; `budget`: so many in all, spread."),
    ] = "per_layer",
    selection: Annotated[
        str,
        typer.Option(
            help="`usage`, `gate_norm`, `ablation` or `fitted`, measured on the data that are scored, or `recorded`: "
            "the usage that the checkpoint carries from its training."
        ),
    ] = "usage",
    combination: Annotated[
        str | None,
        typer.Option(help="`usage` weights, their plain `mean`, or, with that selection, `fitted` ones."),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=0, max=100, help="Draws of as many random experts a layer, the control.")
    ] = 3,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Choose experts on one half of the data and score on the other."),
    ] = False,
    match_shares: Annotated[
        bool,
        typer.Option(
            "--match-shares",
            help="Shift each output bias until classes are given as often as by the routed model; uses no labels.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write every pruning's row to this CSV file.")] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Write every input's row to this CSV file: from how many experts on its answer is the routed model's, "
            "at how many sizes it is another one, and which."
        ),
    ] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Score a routed checkpoint's prunings of all sizes, beside random experts: what is left with how many?"""
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.info import usage_in
    from shrp.model.convert import router_layers
    from shrp.pruning.breaking import breaking
    from shrp.pruning.live import LiveEvaluator
    from shrp.pruning.plan import SELECTIONS
    from shrp.pruning.sweep import LOSSES, cheapest_within, match, points, run, to_frame

    if allocation not in ("per_layer", "budget"):
        raise PlanError(f"--allocation is per_layer or budget, not {allocation!r}.")
    known = (*(name for name in SELECTIONS if name != "random"), _RECORDED)
    if selection not in known:
        raise PlanError(
            f"--selection is one of {', '.join(known)}, not {selection!r}; random ones are --draws."
        )
    for file, option in ((out, "--out"), (inputs, "--inputs")):
        if file is not None:
            check_free(file, option)
    if out is not None and inputs is not None and out.resolve() == inputs.resolve():
        raise PlanError("--out and --inputs are the same file; give two.")
    loaded = load(checkpoint, device=device)
    if not router_layers(loaded.model):
        raise PlanError("this model has no routed layer to prune; give a routed checkpoint.")
    task, length = loaded.info.task, max_length or loaded.info.max_length
    if match_shares and task.is_regression:
        raise PlanError("--match-shares is for classes; a shift changes no correlation of numbers.")
    check_has_task(task)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    if (slice_words or slice_column) and not only:
        raise PlanError(
            "--slice and --slice-column say what slices there are: --only says which of them to score."
        )
    source = evaluation_data(data, task, own)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels, so no pruning of it has a score.")
    recorded = None
    if selection == _RECORDED:
        if held_out:
            raise PlanError("--held-out does nothing for recorded usage, which is not counted here.")
        if not loaded.info.usage:
            raise PlanError(
                f"{checkpoint} carries no usage from its training; leave --selection recorded out."
            )
        recorded = usage_in(loaded.info)
    ranked, scored = _halves(source) if held_out else (source, source)
    say_cut(loaded.model.config, loaded.tokenizer, (source,), length)
    stats = usage_counted(loaded, ranked, selection, length, 0)
    if recorded is not None:
        stats = replace(stats, recorded=recorded)
    chosen_on = loaded.info.training.get("validation_data") if recorded is not None else ranked.name
    combination = combination or ("fitted" if selection == "fitted" else "usage")
    wanted = points(stats, allocation, selection=selection, combination=combination, draws=range(draws))
    evaluator = LiveEvaluator(loaded.model, loaded.tokenizer, scored, max_length=length)
    with bar("prunings") as progress:
        task_id = progress.add_task("prunings", total=len(wanted))
        routed = evaluator.evaluate(None)
        found = run(evaluator, [point.plan for point in wanted], lambda: progress.advance(task_id))
    if match_shares:
        found = [match(one, routed, scored) for one in found]
    frame = to_frame(loaded.model, wanted, found, routed)
    if out is not None:
        write_csv(frame, out)
    if inputs is not None:
        sizes = [
            (point.plan.budget, one) for point, one in zip(wanted, found, strict=True) if point.seed is None
        ]
        write_csv(numbered(breaking(routed, sizes).to_frame(scored), scored), inputs)
    cheapest = {loss: cheapest_within(frame, routed, loss) for loss in LOSSES}
    if json:
        nothing = dict.fromkeys(_records(frame.iloc[:1])[0])
        result = {
            "selection": selection,
            "combination": combination,
            "allocation": allocation,
            "chosen_on": chosen_on,
            "shares_matched": match_shares,
            "routed": {
                "metric": routed.metric,
                "score": routed.score,
                "interval": routed.ends(),
                "constant": routed.constant,
                "n": routed.n,
            },
            "prunings": _records(frame),
            "cheapest": [
                {"loss": loss, **(nothing if row is None else _records(row.to_frame().T)[0])}
                for loss, row in cheapest.items()
            ],
        }
        print_json(result | {"provenance": provenance(loaded, scored, length)})
    else:
        _print(
            frame, routed, scored, f"{selection}, {combination} weights" + ", shares matched" * match_shares
        )
        _say(cheapest, routed, chosen_on == scored.name)
        if not held_out:  # of which no command chooses on just one half
            given = {"--selection": selection, "--combination": combination, "--data": data}
            given |= {"--match-shares": match_shares, "--slice": slice_words, "--only": only}
            given |= {
                "--text-column": text_column,
                "--label-means": label_means,
                "--slice-column": slice_column,
            }
            given |= {"--label-column": label_column if label_column != LABEL else None}
            given |= {"--skip-incomplete": skip_incomplete, "--max-length": max_length, "--device": device}
            layers = len(router_layers(loaded.model))
            each = allocation == "per_layer"
            command = _command(checkpoint, given, "--per-layer" if each else "--budget")
            which = f"kept, divided by the {layers} layers," * each or "kept"
            stderr.print(f"`{command}` makes one of them, N being what is {which} above")


def _command(checkpoint: Path, given: dict[str, Any], size: str) -> str:
    """The command that makes a pruning of the sweep, where its number of experts is put in."""
    words = ["python", "-m", "shrp", "prune", str(checkpoint), size, "N", "--selection", given["--selection"]]
    if given["--combination"] != ("fitted" if given["--selection"] == "fitted" else "usage"):
        words += ["--combination", given["--combination"]]
    if given["--selection"] != _RECORDED or given["--match-shares"]:
        words += ["--data", given["--data"]]
        several = ("--text-column", "--label-means", "--slice", "--only")
        words += [part for name in several for one in given[name] or () for part in (name, one)]
        for name in ("--label-column", "--slice-column"):
            words += [name, given[name]] if given[name] else []
        words += ["--skip-incomplete"] * given["--skip-incomplete"]
    words += ["--max-length", str(given["--max-length"])] if given["--max-length"] else []
    words += ["--match-shares"] * given["--match-shares"]
    words += ["--device", given["--device"]] if given["--device"] != "cpu" else []
    return shlex.join([*words, "--out", "pruned"])


def _halves(source: TextData) -> tuple[TextData, TextData]:
    from shrp.data.text_data import FEWEST, halves, in_halves

    if len(source) < FEWEST:
        raise DataError(f"{source.name} has {len(source)} inputs; --held-out takes {FEWEST} or more.")
    return in_halves(source, *halves(source))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return records(frame.astype(object).where(frame.notna(), None))


def _print(frame: pd.DataFrame, routed: Evaluation, scored: TextData, how: str) -> None:
    drawn = frame[frame["seed"].notna()].groupby("kept")["score"].agg(["min", "max", "size"])
    rows = []
    for row in frame[frame["seed"].isna()].to_dict("records"):
        line = {
            "kept": f"{'* ' * row['pareto']}{row['kept']}",
            routed.metric: row["score"],
            "95%": _range(row["low"], row["high"]),
        }
        if len(drawn):
            control = drawn.loc[row["kept"]] if row["kept"] in drawn.index else None
            most = counted(int(drawn["size"].max()), "draw")
            line[f"random, {most}"] = "" if control is None else _range(control["min"], control["max"])
        rows.append(
            line | {"encoder": f"{row['encoder_params']:.1%}", "FLOPs": f"{row['encoder_flops']:.1%}"}
        )
    print_table(
        f"{how}, on {scored.name}, n = {routed.n:,}; the routed model has {routed.score:.4f}\n"
        "kept: experts in all; encoder: its parameters, of the dense encoder's; FLOPs: of the dense "
        "encoder's, for one input of 128 tokens\n"
        "*: no other size here scores as high with no more of these FLOPs",
        rows,
    )


def _range(low: float, high: float) -> str:
    if low != low:
        return ""
    return f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"  # of one draw


def _say(cheapest: dict[float, pd.Series | None], routed: Evaluation, chosen_here: bool) -> None:
    said: dict[str, list[str]] = {}
    floor = routed.constant
    for loss, row in cheapest.items():
        # The floor is why, where the routed model itself is not above it.
        found = "no size" + f" above a constant answer's {floor:.4f}" * bool(routed.score <= floor)
        if row is not None:
            found = f"{row['kept']} experts in all ({row['score']:.4f}), {row['encoder_params']:.1%} of the encoder's "
            found += "parameters"
        said.setdefault(found, []).append(str(loss))
    for found, losses in said.items():
        below = listed(losses)
        stderr.print(f"at most {below} below the routed model's {routed.metric}: {found}")
    above = f", and above a constant answer's {floor:.4f}" if floor == floor else ""
    stderr.print(f"(picked by its score on these inputs, without an interval{above})")
    if chosen_here:
        stderr.print(
            "experts were chosen on the data that score them, which flatters a little; --held-out parts the two"
        )
