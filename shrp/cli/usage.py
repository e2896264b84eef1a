"""`usage`: which experts the routers choose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    evaluation_data,
    report_cut,
)
from shrp.cli.output import print_json, print_table, progress_on, provenance, records, stderr, write_csv
from shrp.errors import DataError


def usage(
    checkpoint: Routed,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    slice_column: SliceColumn = None,
    only: OnlySlices = None,
    by: Annotated[
        str | None,
        typer.Option(help="Also by `class`, `answer`, `outcome` (right or wrong), `slice` or `length`."),
    ] = None,
    drivers: Annotated[
        bool,
        typer.Option("--drivers", help="Also what drives routing: class, prediction, slice and length."),
    ] = False,
    permuted: Annotated[
        bool,
        typer.Option("--permuted", help="Also scores with the examples' routes permuted, and with none."),
    ] = False,
    output_norms: Annotated[
        bool, typer.Option("--output-norms", help="Also gate x output norm (slower).")
    ] = False,
    routes: Annotated[
        Path | None, typer.Option(help="Write every example's prediction and experts to this CSV file.")
    ] = None,
    max_length: MaxLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Count which experts the routers choose: shares, entropy, margins, warnings."""
    import numpy as np

    from shrp.analysis.routes import shuffle_routes
    from shrp.analysis.specialisation import specialisation, specialisation_frame
    from shrp.analysis.usage import measure_usage, route_table
    from shrp.checkpoints.checkpoint import load
    from shrp.data.batching import longest_input, token_counts
    from shrp.data.slices import groups_by, lacking
    from shrp.evaluation.evaluate import label_columns
    from shrp.evaluation.metrics import to_predictions

    check_free(routes, "--routes")
    loaded = load(checkpoint, device=device)
    own = OwnFile(text_column, label_column, label_means, slice_column, only)
    source = evaluation_data(data, loaded.info.task, own)
    if by is not None and (why := lacking(by, source)):
        raise DataError(why)
    length = max_length or loaded.info.max_length
    model, tokenizer = loaded.model, loaded.tokenizer
    with progress_on("routing", len(source)) as show:
        stats = measure_usage(
            model, tokenizer, source, max_length=length, output_norms=output_norms, progress=show
        )
    report_cut(model.config, tokenizer, (source,), length)
    answers = to_predictions(source.task, stats.logits[:, label_columns(model, source.task)])
    lengths = token_counts(tokenizer, source.texts)
    read = np.minimum(lengths, longest_input(model, tokenizer, length))
    if routes is not None:
        frame = route_table(stats, source, answers, lengths)
        write_csv(frame.assign(index=source.number_of(frame["index"].to_numpy())), routes)
    result: dict[str, Any] = {
        "task": loaded.info.task.name,
        "data": stats.data,
        "n": stats.n,
        "unit": stats.unit,
        "layers": stats.summary().to_dict("records"),
        "experts": stats.to_frame().to_dict("records"),
        "warnings": [vars(warning) for warning in stats.warnings()],
        "too_few": stats.too_few,
    }
    if by is not None:
        groups = groups_by(by, source, answers, read)
        result["by"] = {
            name: {"n": int(rows.sum()), "shares": stats.shares(rows)} for name, rows in groups.items()
        }
    if drivers:
        with progress_on("permutation test") as show:
            found = specialisation(stats, source, read, answers, progress=show)
        result["drivers"] = specialisation_frame(found).to_dict("records") if found else []
    if permuted:
        with progress_on("permuting routes", len(source)) as show:
            scored = shuffle_routes(model, tokenizer, source, stats, max_length=length, progress=show)
        result["permuted"] = records(scored.frame, "change")
    if output_norms:
        result["gate_norm"] = stats.gate_norm()
    if json:
        print_json(result | {"provenance": provenance(loaded, source, length)})
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    print_table(f"{result['data']}: n = {result['n']:,}, counted in {result['unit']}", result["layers"])
    for name, group in result.get("by", {}).items():
        lines = [
            {"layer": layer} | {f"e{e}": f"{share:.0%}" for e, share in enumerate(shares)}
            for layer, shares in group["shares"].items()
        ]
        print_table(f"Top-1 share, {name}, n = {group['n']:,}", lines)
    if "gate_norm" in result:
        lines = [
            {"layer": layer} | {f"e{e}": float(value) for e, value in enumerate(values)}
            for layer, values in result["gate_norm"].items()
        ]
        print_table("gate x output norm, mean over examples", lines)
    shown = ("by", "layer", "explained", "q", "beyond_length", "q_beyond")
    print_table(
        "what drives routing: share of the choice that a grouping explains beyond chance, and beyond length",
        [{name: row[name] for name in shown} for row in result.get("drivers", [])],
    )
    shown = ("layer", "draws", "moved", "score", "change", "change_interval", "flipped")
    print_table(
        "routes permuted among examples, per layer and in all layers; mixture: no routes",
        [{name: row[name] for name in shown} for row in result.get("permuted", [])],
    )
    if result["too_few"]:
        stderr.print(
            f"{result['n']} examples are too few for warnings; at least {result['too_few']} are needed"
        )
    for warning in result["warnings"]:
        stderr.print(f"{warning['kind']}: {warning['text']}")
