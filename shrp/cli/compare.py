"""`compare`: two or more models on the same examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    SliceColumn,
    TextColumns,
    check_free,
    check_has_task,
    evaluation_data,
)
from shrp.cli.output import (
    change_text,
    interval_text,
    print_json,
    print_table,
    progress_on,
    records,
    stderr,
    stdout,
    write_csv,
)
from shrp.errors import DataError, ShrpError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from shrp.cli.subjects import Subject
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

_SHOWN = 30  # rows of a table in a terminal; the JSON has all


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Checkpoints or exports of one task, or a folder of them; others are compared with the first.",
            show_default=False,
        ),
    ],
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    slice_column: SliceColumn = None,
    only: OnlySlices = None,
    flips: Annotated[
        Path | None,
        typer.Option(help="With two models: write the examples they answer differently to this CSV file."),
    ] = None,
    max_length: MaxLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Compare two or more models on the same examples: scores, paired differences from the first, sizes.

    With exactly two, also where they differ: by class and slice, changed predictions, experts.
    """
    check_free(flips, "--flips")
    folders = _folders(models)
    if len(folders) < 2:
        raise DataError("name at least two models to compare.")
    if flips is not None and len(folders) > 2:
        raise DataError("--flips is for two models.")
    from shrp.cli.subjects import subject

    first = subject(folders[0], max_length, device)
    check_has_task(first.task)
    own = OwnFile(text_column, label_column, label_means, slice_column, only)
    source = evaluation_data(data, first.task, own)
    sides, left_out = [first], {}
    for folder in folders[1:]:
        try:
            side = subject(folder, max_length, device)
            _check_same_task(side, first, folder)
            sides.append(side)
        except ShrpError as error:
            if len(folders) == 2:
                raise
            left_out[str(folder)] = str(error)
    named = [folder for folder in folders if str(folder) not in left_out]
    if len(sides) < 2:
        raise DataError(f"only one of these models can be compared: {next(iter(left_out.values()))}")
    # All read as much of a text as the longest reader does, or a difference might be the cut's.
    length = max(side.reads for side in sides)
    sides = [side if hasattr(side, "export") else replace(side, length=length) for side in sides]
    found = _evaluated(sides, source)
    rows = _rows(named, sides, found)
    result: dict[str, Any] = {"data": source.name, "models": rows, "left_out": left_out}
    if len(sides) == 2:
        result |= _pair(sides, found, source, flips)
    if json:
        each = {str(folder): side.provenance(source) for folder, side in zip(named, sides, strict=True)}
        print_json(result | {"provenance": each})
        return
    _print_models(rows, source, str(named[0]))
    for name, why in left_out.items():
        stderr.print(f"left out {name}: {why}")
    if len(sides) == 2:
        _print_pair(result)


def _folders(models: list[Path]) -> list[Path]:
    """The models named, or those directly inside the folders named, each once and in order."""
    from shrp.checkpoints.info import CONFIG, discover
    from shrp.export.exported import is_export

    found: dict[Path, Path] = {}
    for folder in models:
        inside = [folder]
        if folder.is_dir() and not (folder / CONFIG).is_file():
            exports = [one for one in sorted(folder.iterdir()) if is_export(one)]
            inside = sorted({*(folder / name for name in discover(folder)), *exports})
            if not inside:
                raise DataError(f"there is no checkpoint in {folder}.")
        for one in inside:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _check_same_task(side: Subject, first: Subject, folder: Path) -> None:
    check_has_task(side.task)
    if not first.task.reads_as(side.task):
        raise DataError(
            f"{folder} is for '{side.task.name}' and the first model for '{first.task.name}'; their texts or classes "
            "differ."
        )


def _evaluated(sides: list[Subject], source: TextData) -> list[Evaluation]:
    from shrp.evaluation.evaluate import last_of

    found = []
    with progress_on("evaluating", len(sides)) as show:
        for side in sides:
            found.append(last_of(side.stream(source)))
            show(len(found))
    for side in {side.reads: side for side in sides}.values():
        side.report_cut(source)
    return found


def _rows(folders: list[Path], sides: list[Subject], found: list[Evaluation]) -> list[dict[str, Any]]:
    """One row per model, best score first; equal scores by size."""
    from shrp.evaluation.paired import paired_difference

    rows = []
    for folder, side, one in zip(folders, sides, found, strict=True):
        change, ends = (None, None) if one is found[0] else paired_difference(one, found[0])
        row = {"checkpoint": str(folder), "metric": one.metric, "score": one.score, "interval": one.ends()}
        row |= {"n": one.n, "constant": one.constant, "change": change, "change_interval": ends}
        rows.append(row | side.costs() | {"bytes": side.bytes, "reads": side.reads})
    # An undefined score, as of a model that predicts one number for all, comes last.
    return sorted(rows, key=lambda r: (r["score"] != r["score"], -r["score"], r["bytes"]))


def _pair(
    sides: list[Subject], found: list[Evaluation], source: TextData, flips: Path | None
) -> dict[str, Any]:
    """Where two models differ."""
    from shrp.evaluation.paired import agreement, by_group, far_apart, flip_table

    before, after = found
    flipped = flip_table(before, after, source)
    if flips is not None:
        write_csv(flipped.assign(index=source.number_of(flipped["index"].to_numpy())), flips)
    result: dict[str, Any] = {"flipped": flipped["direction"].value_counts().to_dict()}
    if source.task.is_regression:
        result["flipped_by_more_than"] = far_apart(before)
    elif source.labels is not None:
        right = agreement(before, after)
        result["right"] = {
            "both": right.both,
            "only_first": right.only_a,
            "only_second": right.only_b,
            "neither": right.neither,
        }
        result["mcnemar_p"] = right.p_value
        result["by_class"] = _side_records(by_group(before, after, "class"))
    if source.labels is not None and source.slices is not None:
        result["by_slice"] = _side_records(by_group(before, after, "slice"))
    return result | _experts(sides, source)


def _side_records(frame) -> list[dict[str, Any]]:
    """`records` whose columns are named after the sides as results call them."""
    sides = {"reference": "first", "other": "second", "a": "first", "b": "second"}
    ends = {f"{old}_{end}": f"{new}_{end}" for old, new in sides.items() for end in ("low", "high")}
    return records(frame.rename(columns=sides | ends))


def _experts(sides: list[Subject], source: TextData) -> dict[str, Any]:
    """How differently two routed models use their experts, or which experts two pruned ones keep."""
    from shrp.analysis.routes import usage_distances
    from shrp.analysis.usage import measure_usage
    from shrp.data.text_data import pairs_of
    from shrp.model.convert import expert_layers
    from shrp.pruning.overlap import kept_alike

    counts = {side.num_experts for side in sides}
    if len(counts) > 1:
        return {}
    if all(side.plan is not None for side in sides):
        return {"kept": _side_records(kept_alike(sides[0].plan, sides[1].plan, counts.pop()))}
    made = [side.checkpoint for side in sides if not hasattr(side, "export")]
    if len(made) < 2 or not all(expert_layers(one.model) for one in made):
        return {}
    stats = [
        measure_usage(one.model, one.tokenizer, source, max_length=side.length)
        for one, side in zip(made, sides, strict=True)
    ]
    return {"usage": records(usage_distances(*stats, pairs=pairs_of(source)))}


def _print_models(rows: list[dict[str, Any]], source: TextData, first: str) -> None:
    constant = rows[0]["constant"]
    floor = f"; majority-class baseline {constant:.4f}" if constant == constant else ""
    print_table(
        f"{source.name}, n = {len(source):,}{floor}\nchange: from {first}, paired, 95% CI; encoder, model, FLOPs (128 "
        "tokens): share of the dense one's; MB: file of weights",
        [
            {
                "model": row["checkpoint"],
                row["metric"]: float(row["score"]),
                "95% CI": interval_text(row) or None,
                "change": None
                if row["change"] is None
                else change_text(row["change"], row["change_interval"]),
                "encoder": f"{row['encoder_params']:.1%}",
                "model share": f"{row['model_params']:.1%}",
                "FLOPs": f"{row['encoder_flops']:.1%}",
                "MB": f"{row['bytes'] / 1e6:.1f}",
            }
            for row in rows
        ],
    )
    if source.labels is None:
        stderr.print(f"{source.name} has no labels, so there are no scores")


def _print_pair(result: dict[str, Any]) -> None:
    if "right" in result:
        right = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in result["right"].items())
        stdout.print(f"right: {right}; McNemar's p = {result['mcnemar_p']:.3g}")
    flipped = ", ".join(f"{n:,} {way}" for way, n in result["flipped"].items()) or "none"
    far = f" by more than {result['flipped_by_more_than']:g}" if "flipped_by_more_than" in result else ""
    stdout.print(f"changed predictions{far}: {flipped}")
    for by, what in (("class", "recall"), ("slice", result["models"][0]["metric"])):
        rows = [
            {
                by: row["group"],
                "n": row["n"],
                "first": row["first"],
                "second": row["second"],
                "change (95% CI)": change_text(row["change"], row["change_interval"]),
            }
            for row in result.get(f"by_{by}", [])[:_SHOWN]
        ]
        print_table(f"{what} by {by}, the largest loss first", rows)
    print_table("usage by layer: total variation distance, and that of chance", result.get("usage", []))
    print_table("kept experts by layer (jaccard: overlap, and that of chance)", result.get("kept", []))
