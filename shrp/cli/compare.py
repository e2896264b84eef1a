"""`compare`: two or more models on the same examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from shrp.cli.options import AsJson, Data, check_free
from shrp.cli.output import print_json, print_table, records, stdout, write_csv
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    import pandas as pd

    from shrp.cli.subjects import Subject
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

_SHOWN = 30  # rows of a table in a terminal; the JSON has all


def compare(
    models: Annotated[
        list[Path],
        Argument(help="Checkpoints or exports of one task.", show_default=False),
    ],
    *,
    data: Data,
    flips: Annotated[Path | None, Option(help="Write what two answer differently to this CSV file.")] = None,
    json: AsJson = False,
) -> None:
    """Compare two or more models on the same examples: scores, paired differences from the first, sizes.

    With exactly two, also where they differ: by class and slice, changed predictions.
    """
    from shrp.cli.subjects import subject

    check_free(flips, "--flips")
    folders = list({folder.resolve(): folder for folder in models}.values())
    if len(folders) < 2:
        raise DataError("name at least two models to compare.")
    if flips is not None and len(folders) > 2:
        raise DataError("--flips is for two models.")
    first = subject(folders[0], data)
    source = data.load(first.info.task)
    sides = {str(folders[0]): first} | {str(folder): subject(folder, data) for folder in folders[1:]}
    for name, side in sides.items():
        if not first.info.task.reads_as(side.info.task):
            raise DataError(
                f"{name} is for '{side.info.task.name}' and the first model for '{first.info.task.name}'; their texts or "
                "classes differ."
            )
    # All read as much of a text as the longest reader does, or a difference might be the cut's.
    length = max(side.reads for side in sides.values())
    sides = {name: side if side.export else replace(side, length=length) for name, side in sides.items()}
    found = [side.evaluate(source, f"evaluating {name}") for name, side in sides.items()]
    for side in {side.reads: side for side in sides.values()}.values():
        side.report_cut(source)
    rows = _rows(sides, found)
    result: dict[str, Any] = {"data": source.name, "models": rows}
    if len(sides) == 2:
        result |= _pair(found, source, flips)
    if json:
        print_json(result | {"provenance": {name: side.provenance(source) for name, side in sides.items()}})
    else:
        _print(result, len(source), str(folders[0]))


def _rows(sides: dict[str, Subject], found: list[Evaluation]) -> list[dict[str, Any]]:
    """One row per model, best score first; equal scores by size."""
    from shrp.evaluation.paired import paired_difference

    rows = []
    for (name, side), one in zip(sides.items(), found, strict=True):
        change, ends = (None, None) if one is found[0] else paired_difference(one, found[0])
        row = {"checkpoint": name, "metric": one.metric, "score": one.score, "interval": one.ends()}
        row |= {"n": one.n, "constant": one.majority_score, "change": change, "change_interval": ends}
        rows.append(row | side.size() | {"reads": side.reads})
    # An undefined score, as of a model that predicts one number for all, comes last.
    return sorted(rows, key=lambda r: (r["score"] != r["score"], -r["score"], r["bytes"]))


def _pair(found: list[Evaluation], source: TextData, flips: Path | None) -> dict[str, Any]:
    """Where two models differ."""
    from shrp.evaluation.paired import agreement, by_group, far_apart, flip_table

    before, after = found
    flipped = flip_table(before, after, source)
    write_csv(flipped, flips)
    result: dict[str, Any] = {"flipped": flipped["direction"].value_counts().to_dict()}
    if source.task.is_regression:
        result["flipped_by_more_than"] = far_apart(before)
    elif source.labels is not None:
        right = agreement(before, after)
        result["right"] = {"both": right.both, "only_first": right.only_a}
        result["right"] |= {"only_second": right.only_b, "neither": right.neither}
        result["mcnemar_p"] = right.p_value
        result["by_class"] = _side_records(by_group(before, after, "class"))
    if source.labels is not None and source.slices is not None:
        result["by_slice"] = _side_records(by_group(before, after, "slice"))
    return result


def _side_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """`records` whose columns are named after the sides as results call them."""
    return records(frame.rename(columns=lambda name: name.replace("reference", "first").replace("other", "second")))


def _print(result: dict[str, Any], n: int, first: str) -> None:
    rows = [row | {"MB": f"{row['bytes'] / 1e6:.1f}"} for row in result["models"]]
    constant, metric = rows[0]["constant"], rows[0]["metric"]
    floor = f"; majority-class baseline {constant:.4f}" if constant == constant else ""
    print_table(
        f"{result['data']}, n = {n:,}, {metric}{floor}\nchange: from {first}, paired, 95% CI; params, FLOPs (128 tokens): "
        "share of the dense one's; MB: file of weights",
        rows,
        ("checkpoint", "score", "change", "encoder_params", "model_params", "encoder_flops", "MB"),
    )
    if "flipped" not in result:
        return
    if "right" in result:
        right = ", ".join(f"{name.replace('_', ' ')} {k:,}" for name, k in result["right"].items())
        stdout.print(f"right: {right}; McNemar's p = {result['mcnemar_p']:.3g}")
    flipped = ", ".join(f"{k:,} {way}" for way, k in result["flipped"].items()) or "none"
    far = f" by more than {result['flipped_by_more_than']:g}" if "flipped_by_more_than" in result else ""
    stdout.print(f"changed predictions{far}: {flipped}")
    shown = ("group", "n", "first", "second", "change")
    for by, what in (("class", "recall"), ("slice", metric)):
        print_table(f"{what} by {by}, the largest loss first", result.get(f"by_{by}", [])[:_SHOWN], shown)
