"""`usage` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    interval_text,
    numbered,
    print_json,
    print_table,
    provenance,
    records,
    share_text,
    stderr,
    stdout,
    told,
    write_csv,
)
from shrp.errors import DataError
from shrp.phrases import counted

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    import numpy as np
    import pandas as pd

    from shrp.analysis.usage import UsageStats
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

Folder = Annotated[Path, typer.Argument(help="An SHRP checkpoint.", show_default=False)]

Scored = Annotated[Path, typer.Argument(help="An SHRP checkpoint, or an export of one.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command(
        short_help="Which experts the routers choose, and by what",
        epilog=example(
            "usage checkpoints/sst2-6of12 --by class --explained",
            "Prints shares of inputs, entropies in nats and margins of router probabilities; "
            "`--output-norms` adds each expert's gate times the norm of its output.",
        ),
    )(usage)
    app.command(
        short_help="Score a checkpoint, or an export of one, on data",
        epilog=example(
            "evaluate checkpoints/sst2-6of12 --data my.csv --predictions answers.csv",
            "Prints the score with its 95% interval, by slice too, and how far probabilities can be trusted; writes "
            "nothing but the file of `--predictions`.",
        ),
    )(evaluate)


def usage(
    checkpoint: Folder,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    pair_column: PairColumn = None,
    by: Annotated[
        str | None,
        typer.Option(help="Also by `class`, `answer`, `outcome` (right or wrong), `slice` or `length`."),
    ] = None,
    explained: Annotated[
        bool,
        typer.Option("--explained", help="Also how much class, answer, slice and length tell of the routes."),
    ] = False,
    exchanged: Annotated[
        bool,
        typer.Option(
            "--exchanged",
            help="Also scores with routes exchanged among inputs, among those answered alike, and with none.",
        ),
    ] = False,
    output_norms: Annotated[bool, typer.Option("--output-norms", help="Also gate x norm (slower).")] = False,
    routes: Annotated[
        Path | None,
        typer.Option(
            help="Write every input's answer and experts to this CSV file; under token routing those of most tokens."
        ),
    ] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Count which experts the routers choose on data: shares, entropy, margins, warnings."""
    import numpy as np

    from shrp.analysis.usage import measure_usage, route_table
    from shrp.checkpoints.checkpoint import load
    from shrp.data.batching import longest_input, token_counts
    from shrp.data.slices import ANSWER, LENGTH, OUTCOME, groups_by, lacking
    from shrp.evaluation.evaluate import label_columns
    from shrp.evaluation.metrics import to_predictions

    if routes is not None:
        check_free(routes, "--routes")
    loaded = load(checkpoint, device=device)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, loaded.info.task, own)
    if by is not None and (why := lacking(by, source)):
        raise DataError(why)
    length = max_length or loaded.info.max_length
    with told("routing", len(source)) as progress:
        stats = measure_usage(
            loaded.model,
            loaded.tokenizer,
            source,
            max_length=length,
            output_norms=output_norms,
            progress=progress,
        )
    answers, lengths, read = None, None, None
    if by in (ANSWER, OUTCOME, LENGTH) or explained or routes is not None:
        answers = to_predictions(source.task, stats.logits[:, label_columns(loaded.model, source.task)])
        lengths = token_counts(loaded.tokenizer, source.texts)
        read = np.minimum(lengths, longest_input(loaded.model, loaded.tokenizer, length))
    groups = {} if by is None else groups_by(by, source, answers, read)
    say_cut(loaded.model.config, loaded.tokenizer, (source,), length)
    if routes is not None:
        write_csv(numbered(route_table(stats, source, answers, lengths), source), routes)
        if not json:
            stderr.print(f"wrote {routes}")
    said = _explained(source, stats, answers, read) if explained else []
    scored = _exchanged(loaded, source, stats, length) if exchanged else None
    if json:
        result = {
            "task": loaded.info.task.name,
            "data": stats.data,
            "n": stats.n,
            "unit": stats.unit,
            "layers": stats.summary().to_dict("records"),
            "experts": stats.to_frame().to_dict("records"),
            "warnings": [vars(warning) for warning in stats.warnings()],
            "too_few": stats.too_few,
            "provenance": provenance(loaded, source, length),
        }
        if by:
            result["by"] = {
                name: {"n": int(rows.sum()), "shares": stats.shares(rows)} for name, rows in groups.items()
            }
        if explained:
            result["explained"] = said
        if exchanged:
            ends = {f"matched_{end}": f"matched_change_{end}" for end in ("low", "high", "min", "max")}
            result["exchanged"] = records(scored.rename(columns=ends), "change")
        if output_norms:
            result["gate_norm"] = stats.gate_norm()
        print_json(result)
        return
    print_table(
        f"{stats.data}: n = {stats.n:,} inputs, counted in {stats.unit}", stats.summary().to_dict("records")
    )
    if output_norms:
        lines = [
            {"layer": layer} | {f"e{e}": float(value) for e, value in enumerate(values)}
            for layer, values in stats.gate_norm().items()
        ]
        print_table("gate times norm of the output, mean over inputs", lines)
    for name, rows in groups.items():
        lines = [
            {"layer": layer} | {f"e{e}": f"{share:.0%}" for e, share in enumerate(stats.share(layer, rows))}
            for layer in stats.layers
        ]
        print_table(f"Top-1 share, {name}, n = {int(rows.sum()):,}", lines)
    if explained and not said:
        stderr.print("no grouping parts these data, so nothing can explain the routes")
    if said:
        shown = ("by", "layer", "explained", "q", "beyond_length", "q_beyond")
        lines = _without_nan(said, shown)
        print_table("part of the choice that groups explain beyond chance, and beyond length", lines)
    if scored is not None:
        shown = ("layer", "draws", "moved", "score", "change", "low", "high", "matched", "flipped")
        lines = [
            one if one["flipped"] is None else one | {"flipped": f"{one['flipped']:g}"}
            for one in _without_nan(scored.to_dict("records"), shown)
        ]
        print_table(
            "routes exchanged, by layer, in all, and in all among inputs answered alike, means of draws; mixture: no "
            "routes; matched: score with answer shares as routed",
            lines,
        )
    if stats.too_few:
        stderr.print(
            f"{stats.n} inputs are too few to tell collapse, noisy usage or near ties by; it takes {stats.too_few}"
        )
    for warning in stats.warnings():
        stderr.print(f"{warning.kind}: {warning.text}")


def _without_nan(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The named columns, None where nothing is known."""
    return [{name: None if row[name] != row[name] else row[name] for name in names} for row in rows]


def _explained(
    source: TextData, stats: UsageStats, answers: np.ndarray, lengths: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of `shrp.analysis.specialisation.specialisation_frame`."""
    from shrp.analysis.specialisation import specialisation, specialisation_frame

    with told("groups dealt anew") as progress:
        found = specialisation(stats, source, lengths, answers, progress=progress)
    return specialisation_frame(found).to_dict("records") if found else []


def _exchanged(loaded: Checkpoint, source: TextData, stats: UsageStats, max_length: int) -> pd.DataFrame:
    """`shrp.analysis.routes.ShuffledRoutes.frame`."""
    from shrp.analysis.routes import shuffle_routes

    with told("routes exchanged", len(source)) as progress:
        found = shuffle_routes(
            loaded.model, loaded.tokenizer, source, stats, max_length=max_length, progress=progress
        )
    return found.frame


def evaluate(
    checkpoint: Scored,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    pair_column: PairColumn = None,
    max_length: EvaluatedLength = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs a batch.")] = 32,
    predictions: Annotated[Path | None, typer.Option(help="Write every prediction to this CSV file.")] = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Score a checkpoint, or an export of one as it is served, with a 95% interval.

    It stands beside its dense teacher's, where that is known.
    """
    from shrp.checkpoints.score_rows import share_ends, share_of
    from shrp.cli.subjects import subject
    from shrp.data.text_data import pairs_of
    from shrp.evaluation.minimal_pairs import names_without_a_pair, pair_outcomes

    if predictions is not None:
        check_free(predictions, "--predictions")
    scored = subject(checkpoint, max_length, device)
    check_has_task(scored.task)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, scored.task, own)
    if source.labels is None and predictions is None:
        raise DataError(
            f"{source.name} has no column '{label_column}' to score by; name it with --label-column, or "
            "have the predictions written with --predictions."
        )
    if pair_column is not None and source.labels is not None and not len(pairs_of(source)):
        raise DataError(
            f"no name in column '{pair_column}' of {source.name} is of two inputs with different labels, "
            "so there are no minimal pairs."
        )
    if pair_column is not None and source.labels is not None and (others := names_without_a_pair(source)):
        stderr.print(
            f"{counted(others, 'name')} in column '{pair_column}' of {source.name} left out: not of two inputs with "
            "different labels"
        )
    with bar("evaluate") as progress:
        task = progress.add_task("evaluating", total=len(source))
        for result in scored.stream(source, batch_size):
            shown = f"{result.metric} {result.score:.4f}"
            progress.update(task, completed=result.n, description=shown)
    scored.say_cut(source)
    teacher = scored.teacher(source)
    if predictions is not None:
        write_csv(numbered(result.to_frame(source.texts), source), predictions)
        if not json:
            stderr.print(f"wrote {predictions}")
    slices = result.by_slice()
    pairs = pair_outcomes(source, result).by_slice() if len(pairs_of(source)) else None
    summary = result.to_dict() | {
        "teacher": teacher,
        "retained": share_of(result.score, teacher),
        "retained_interval": share_ends(result.interval, teacher),
        "constant": result.constant,
        "interval_is": "95%, Wilson" if result.metric == "accuracy" else "95%, bootstrap",
        "slices": records(slices),
        "pairs": [] if pairs is None else records(pairs, "share"),
        "calibration": _calibration(result),
        "provenance": scored.provenance(source),
    }
    if json:
        print_json(summary)
        return
    if source.labels is None:
        stderr.print(f"{source.name} has no labels, so there is no score")
        return
    line = {
        "data": result.data,
        "metric": result.metric,
        "score": result.score,
        "95%": interval_text({"interval": result.ends()}) or None,
        "n": result.n,
        "constant": result.constant,
        "teacher": teacher,
        "of teacher": share_text(summary),
    }
    print_table(str(checkpoint), [line])
    if result.score <= result.constant:
        stdout.print(
            f"not above a constant answer, which has {result.constant:.4f}"
            + ": what is retained says little" * (teacher is not None)
        )
    if (found := summary["calibration"]) is not None:
        ends = interval_text({"interval": found["ece_interval"]}) or None
        line = {"ECE": found["ece"], "95%": ends, "by chance": found["ece_by_chance"]}
        line |= {"by chance 5% over": found["ece_by_chance_most"], "Brier": found["brier"]}
        print_table("calibration, and what chance alone gives", [line])
    print_table("by slice", slices.to_dict("records"))
    if pairs is not None:
        print_table("minimal pairs: in order, and both inputs right", pairs.to_dict("records"))


def _calibration(result: Evaluation) -> dict[str, Any] | None:
    """Errors of a classifier's probabilities (`shrp.evaluation.calibration`); None of numbers, or without labels."""
    from shrp.evaluation.calibration import brier, ece

    if result.labels is None or result.task.is_regression:
        return None
    found = ece(result)
    return {
        "ece": found.value,
        "ece_interval": found.interval,
        "ece_by_chance": found.by_chance,
        "ece_by_chance_most": found.chance_most,
        "brier": brier(result),
    }
