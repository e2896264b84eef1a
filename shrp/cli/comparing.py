"""`compare`."""

from __future__ import annotations

from dataclasses import replace
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
)
from shrp.cli.output import (
    bar,
    example,
    interval_text,
    numbered,
    print_json,
    print_table,
    records,
    stderr,
    stdout,
    write_csv,
)
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from shrp.cli.subjects import Subject
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

_SHOWN = 30
"""Rows of a table on a terminal; the JSON has all."""
_SIDES = {"reference": "first", "other": "second", "a": "first", "b": "second"}
"""Columns that are of one side, as results call the sides."""


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Two checkpoints or exports on the same inputs",
        epilog=example(
            "compare checkpoints/sst2-6of12 pruned --flips flips.csv",
            "Prints scores, their paired difference and where it lies; writes nothing but the file of "
            "`--flips`.",
        ),
    )(compare)


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint, routed, static or dense, or an export: what the other is held against.",
            show_default=False,
        ),
    ],
    second: Annotated[Path, typer.Argument(help="Another one of the same task.", show_default=False)],
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    pair_column: PairColumn = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    flips: Annotated[
        Path | None, typer.Option(help="Write the inputs that the two judge differently to this CSV file.")
    ] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Two checkpoints or exports on the same inputs: the second's score minus the first's, paired, and where they part.

    An export held against the pruned checkpoint that it was made from says what int8 costs.
    """
    from shrp.cli.subjects import OfCheckpoint, subject
    from shrp.evaluation.evaluate import last_of
    from shrp.evaluation.paired import by_group, far_apart, flip_table, paired_difference

    if flips is not None:
        check_free(flips, "--flips")
    sides = [subject(folder, max_length, device) for folder in (first, second)]
    tasks = [side.task for side in sides]
    if not tasks[0].reads_as(tasks[1]):
        raise DataError(
            f"{first} is for {_told(tasks[0])}, {second} for {_told(tasks[1])}; only checkpoints of one "
            "kind compare: as many texts, the same classes."
        )
    for task in tasks:
        check_has_task(task)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, tasks[0], own)
    # Both read as much of an input as they can, or a difference might be the cut's.
    length = max(side.reads for side in sides)
    sides = [replace(side, length=length) if isinstance(side, OfCheckpoint) else side for side in sides]
    found = []
    with bar("evaluating") as progress:
        shown = progress.add_task("evaluating", total=2)
        for side in sides:
            found.append(last_of(side.stream(source)))
            progress.advance(shown)
    # Once, where both are cut alike; an export first, whose cut can't be changed.
    ordered = sorted(sides, key=lambda side: isinstance(side, OfCheckpoint))
    for side in ordered[: len({side.reads for side in sides})]:
        side.say_cut(source)
    before, after = found
    flipped = flip_table(before, after, source)
    if flips is not None:
        write_csv(numbered(flipped, source), flips)
    change, ends = paired_difference(after, before)
    groups = () if source.labels is None or source.task.is_regression else ("class",)
    groups += ("slice",) if source.labels is not None and source.slices is not None else ()
    result = {
        "data": source.name,
        "first": _side(first, sides[0], before),
        "second": _side(second, sides[1], after),
        "change": change,
        "change_interval": ends,
        **_agreement(before, after),
        "flipped": flipped["direction"].value_counts().to_dict(),
        **({"flipped_by_more_than": far_apart(before)} if source.task.is_regression else {}),
        **{f"by_{name}": records(by_group(before, after, name), renamed=_SIDES) for name in groups},
        **_experts(sides, source),
    }
    if json:
        each = {name: side.provenance(source) for name, side in zip(("first", "second"), sides, strict=True)}
        print_json(result | {"provenance": each})
    else:
        _print(result, source)


def _told(task: Any) -> str:
    return f"{task.name} ({', '.join(task.label_names)})" if task.label_names else task.name


def _side(folder: Path, side: Subject, found: Evaluation) -> dict[str, Any]:
    """A checkpoint's score, and its costs as shares of the dense model's."""
    scored = {
        "metric": found.metric,
        "score": found.score,
        "interval": found.ends(),
        "constant": found.constant,
        "n": found.n,
    }
    return {"checkpoint": str(folder)} | scored | side.costs() | {"bytes": side.bytes}


def _agreement(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Who is right where, with McNemar's test; nothing where there are no labelled classes."""
    from shrp.evaluation.paired import agreement

    if before.labels is None or before.task.is_regression:
        return {}
    found = agreement(before, after)
    return {
        "right": {
            "both": found.both,
            "only_first": found.only_a,
            "only_second": found.only_b,
            "neither": found.neither,
        },
        "mcnemar_p": found.p_value,
    }


def _experts(sides: list[Subject], source: TextData) -> dict[str, Any]:
    """How differently the two use their experts, where both route, or which both keep, where both are pruned."""
    from shrp.analysis.routes import usage_distances
    from shrp.analysis.usage import measure_usage
    from shrp.cli.subjects import OfCheckpoint
    from shrp.data.text_data import pairs_of
    from shrp.model.convert import router_layers
    from shrp.pruning.overlap import kept_alike

    counts = {side.num_experts for side in sides}
    if len(counts) > 1:
        return {}
    if all(side.plan is not None for side in sides):
        kept = kept_alike(*(side.plan for side in sides), counts.pop())
        return {"kept": records(kept, renamed=_SIDES)}
    made = [side.checkpoint for side in sides if isinstance(side, OfCheckpoint)]
    if len(made) < len(sides) or not all(router_layers(one.model) for one in made):
        return {}
    stats = [
        measure_usage(one.model, one.tokenizer, source, max_length=side.length)
        for one, side in zip(made, sides, strict=True)
    ]
    return {"usage": records(usage_distances(*stats, pairs=pairs_of(source)))}


def _print(result: dict[str, Any], source: TextData) -> None:
    sides = [result["first"], result["second"]]
    rows = [
        {
            "checkpoint": Path(side["checkpoint"]).name,
            side["metric"]: side["score"],
            "95%": interval_text({"interval": side["interval"]}) or None,
            "encoder": f"{side['encoder_params']:.1%}",
            "model": f"{side['model_params']:.1%}",
            "FLOPs": f"{side['encoder_flops']:.1%}",
            "MB": f"{side['bytes'] / 1e6:.1f}",
        }
        for side in sides
    ]
    print_table(
        f"{source.name}, n = {len(source):,}\n"
        "encoder, model: parameters, of the dense one's; FLOPs: of the dense encoder's, for one input of "
        "128 tokens; MB: of the file of weights",
        rows,
    )
    if source.labels is None:
        stderr.print(f"{source.name} has no labels, so there are no scores")
    else:
        low, high = result["change_interval"]
        ends = f" (95%: {low:+.4f} to {high:+.4f}, paired)" if low == low else ""
        said = f"the second minus the first: {result['change']:+.4f}{ends}"
        if "right" in result:
            right = result["right"]
            said += f"; right: both {right['both']}, only the first {right['only_first']}, only the second "
            said += (
                f"{right['only_second']}, neither {right['neither']}; McNemar's p = {result['mcnemar_p']:.3g}"
            )
        stdout.print(said)
    flipped = ", ".join(f"{n} {way}" for way, n in result["flipped"].items()) or "none"
    far = f" (by more than {result['flipped_by_more_than']:g})" if source.task.is_regression else ""
    stdout.print(f"judged differently{far}: {flipped}")
    for by in ("class", "slice"):
        shown = result.get(f"by_{by}", [])
        print_table(
            f"by {by}: {'recall' if by == 'class' else sides[0]['metric']}, the largest loss first",
            [
                {
                    by: row["group"],
                    "n": row["n"],
                    "first": row["first"],
                    "second": row["second"],
                    "change": f"{row['change']:+.3f}",
                    "95%, paired": _range(*row["change_interval"]),
                }
                for row in shown[:_SHOWN]
            ],
        )
    print_table(
        "usage by layer: total-variation distance, and what chance makes of it", result.get("usage", [])
    )
    print_table(
        "experts that are kept, by layer: how many by the first, the second and both; jaccard: both of either, and "
        "what chance makes of it; distance: total variation of the weights",
        [
            row | ({"distance": None} if row["distance"] != row["distance"] else {})
            for row in result.get("kept", [])
        ],
    )


def _range(low: float, high: float) -> str:
    return f"{low:+.3f} to {high:+.3f}" if low == low else ""
