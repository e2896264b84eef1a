"""`knock-out`."""

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
    check_has_task,
    say_cut,
)
from shrp.cli.output import bar, example, print_json, print_table, provenance, records, stderr
from shrp.errors import DataError, PlanError

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData

_WORTH = "margin of the true class (of a number minus the error)"
_LONGEST = 12
"""Characters of an expert that is named."""
_SHOWN = 20
"""Rows of a table on a terminal; the JSON has all."""


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        "knock-out",
        short_help="What is lost without an expert or a head, and for whom",
        epilog=example(
            "knock-out checkpoints/sst2-6of12 --expert 9.11 --expert 10.1",
            "Prints changes of score, logits and margins; writes nothing.",
        ),
    )(knock_out)


def knock_out(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A routed SHRP checkpoint; with --heads any that has dense layers.", show_default=False
        ),
    ],
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    pair_column: PairColumn = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    expert: Annotated[
        list[str] | None,
        typer.Option(
            help="`LAYER.EXPERT`, such as 9.11: take this one away on all of the data; give it several times to take "
            "several away at once. By default every expert is taken away in turn."
        ),
    ] = None,
    heads: Annotated[
        bool,
        typer.Option(
            "--heads",
            help="Take away every head of the dense layers in turn, instead of experts: its output is set to 0, and "
            "the model runs on from there.",
        ),
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Of every expert or head in turn: for whom it matters, by `class`, `slice` or `length`."
        ),
    ] = None,
    inputs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of every expert or head in turn: at most so many inputs (512 by default, of heads 64, each of which "
            "takes passes of its own), in the data's shares of classes.",
            show_default=False,
        ),
    ] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """What experts are worth: take them away, let the router pick the next ones, and compare the answers.

    A change is what is there without them minus what is there with them, so negative where they help; what is lost, of
    every expert in turn, is the other way round. With --heads, the same of the heads of dense layers, such as those of
    your own fine-tuned model.
    """
    from shrp.analysis.importance import check_has_heads, dense_layers
    from shrp.analysis.knock_out import removed_by_layer
    from shrp.checkpoints.checkpoint import load
    from shrp.data.slices import CLASS, LENGTH, SLICE, lacking
    from shrp.model.convert import router_layers

    cells = [_cell(text) for text in expert or ()]
    if cells and heads:
        raise DataError("--heads is for every head in turn; leave --expert out.")
    of_all = {"--by": by, "--inputs": inputs}
    if cells and (given := [name for name, value in of_all.items() if value is not None]):
        raise DataError(f"{given[0]} is for every expert in turn; leave --expert out.")
    of, inputs = "head" if heads else "expert", inputs or (64 if heads else 512)
    if by not in (None, CLASS, SLICE, LENGTH):
        raise DataError(f"{of}s can be told apart by {CLASS}, {SLICE} or {LENGTH}, not by {by!r}.")
    loaded = load(checkpoint, device=device)
    if heads:
        check_has_heads(loaded.model)
    elif not (routed := router_layers(loaded.model)):
        hint = "; its dense layers have heads, for which there is --heads" * bool(dense_layers(loaded.model))
        raise PlanError(f"this model has no routed layer, so there is no expert to knock out{hint}.")
    if cells:
        removed_by_layer(cells, routed)  # now, not after all data were run
    check_has_task(loaded.info.task)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, loaded.info.task, own)
    if by is not None:
        if why := lacking(by, source):
            raise DataError(why)
        if source.labels is None:
            raise DataError(f"{source.name} has no labels, so what each {of} is worth can't be told.")
    length = max_length or loaded.info.max_length
    found = (
        _together(loaded, source, cells, length)
        if cells
        else _in_turn(loaded, source, by, min(inputs, len(source)), length, heads=heads)
    )
    say_cut(loaded.model.config, loaded.tokenizer, (source,), length)
    if json:
        print_json(found | {"provenance": provenance(loaded, source, length)})
    elif cells:
        _print_together(found)
    else:
        _print_in_turn(found)


def _cell(text: str) -> tuple[int, int]:
    layer, _, expert = text.partition(".")
    if not (layer.isdecimal() and expert.isdecimal() and len(text) <= _LONGEST):
        raise PlanError(f"write an expert as LAYER.EXPERT, such as 9.11, not as {text[:_LONGEST]!r}.")
    return int(layer), int(expert)


def _together(
    loaded: Checkpoint, source: TextData, cells: list[tuple[int, int]], length: int
) -> dict[str, Any]:
    """What is lost without all of some experts, and, where they are several, beyond the sum of each alone."""
    from shrp.analysis.knock_out import Prefix, joint, knock_out_effect
    from shrp.data.text_data import pairs_of
    from shrp.evaluation.evaluate import evaluate

    cells = list(dict.fromkeys(cells))
    prefix = Prefix(loaded.model)
    with bar("knocked out") as progress:
        task = progress.add_task("evaluating", total=None)
        before = evaluate(loaded.model, loaded.tokenizer, source, max_length=length)

        def taken(experts: list[tuple[int, int]]):
            progress.update(task, description="without " + ", ".join(f"{a}.{b}" for a, b in experts))
            return knock_out_effect(
                loaded.model,
                loaded.tokenizer,
                source,
                before,
                experts,
                prefix=prefix,
                max_length=length,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )

        found = taken(cells)
        alone = [taken([cell]) for cell in cells] if len(cells) > 1 and source.labels is not None else []
    pairs = pairs_of(source)
    change, ends = found.score_change()
    result: dict[str, Any] = {
        "experts": [f"{layer}.{number}" for layer, number in found.experts],
        "data": source.name,
        "n": len(source),
        "affected": len(found.affected),
        "metric": before.metric,
        "score": before.score,
        "without": found.after.score,
        "change": change,
        "change_interval": ends,
        "flipped": None if source.task.is_regression else found.flipped,
        "logits": records(found.logit_changes(pairs=pairs), "change"),
        "slices": records(found.by_slice(pairs), "change"),
    }
    if alone:
        whole = joint(found, alone, pairs)
        result["worth"] = {
            "together": whole.together,
            "alone": {f"{a}.{b}": one.changes().mean() for (a, b), one in zip(cells, alone, strict=True)},
            "sum": whole.sum,
            "beyond_the_sum": whole.beyond,
            "beyond_the_sum_interval": whole.interval,
        }
    return result


def _print_together(found: dict[str, Any]) -> None:
    stderr.print(
        f"taken from {found['affected']:,} of n = {found['n']:,} inputs of {found['data']}, the router picks "
        "the next"
    )
    title = f"without {', '.join(found['experts'])}"
    if found["score"] == found["score"]:
        row = {name: found[name] for name in ("metric", "score", "without")}
        print_table(
            title,
            [
                row
                | {
                    "change": _with_ends(found["change"], found["change_interval"]),
                    "flipped": found["flipped"],
                }
            ],
        )
    logits = [
        {name: one[name] for name in ("class", "before", "after")}
        | {"change": _with_ends(one["change"], one["change_interval"])}
        for one in found["logits"]
    ]
    print_table(f"{title}: mean logits, over all inputs", logits)
    if "worth" in found:
        worth = found["worth"]
        print_table(
            f"change of the {_WORTH}",
            [{"without": name, "change": f"{value:+.4f}"} for name, value in worth["alone"].items()]
            + [
                {"without": "the sum of these", "change": f"{worth['sum']:+.4f}"},
                {"without": "all of them", "change": f"{worth['together']:+.4f}"},
                {
                    "without": "beyond the sum",
                    "change": _with_ends(worth["beyond_the_sum"], worth["beyond_the_sum_interval"]),
                },
            ],
        )
    shown = ("slice", "n", "affected", "change", "elsewhere", "difference", "q")
    if len(found["slices"]) > 1:
        print_table(
            f"by slice: change of the {_WORTH}",
            [{name: row[name] for name in shown} for row in found["slices"]],
        )


def _with_ends(value: float, ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})" if low == low else f"{value:+.4f} (too few to tell)"


def _in_turn(
    loaded: Checkpoint, source: TextData, by: str | None, inputs: int, length: int, *, heads: bool
) -> dict[str, Any]:
    """Every expert's effect, or every head's, and for whom it matters."""
    import numpy as np

    from shrp.analysis.importance import (
        beyond_chance,
        blocks,
        count_tests,
        head_knock_outs,
        knock_outs,
        merge,
        of_heads,
        worth_by_group,
    )
    from shrp.data.batching import longest_input, token_counts
    from shrp.data.slices import groups_by

    parts = []
    run, told = (head_knock_outs, of_heads) if heads else (knock_outs, lambda frame: frame)
    with bar("knocked out") as progress:
        task = progress.add_task("inputs", total=inputs)
        for rows in blocks(source, inputs):
            before = sum(part.n for part in parts)

            def show(steps: int, of: int, before: int = before, size: int = len(rows)) -> None:
                progress.update(task, completed=before + size * steps / of)

            parts.append(run(loaded.model, loaded.tokenizer, source, rows, max_length=length, progress=show))
        if not parts:
            raise DataError(f"{source.name} is empty; knocking out needs at least one input.")
        found = merge(parts)
        result: dict[str, Any] = {
            "data": source.name,
            "n": found.n,
            "of": len(source),
            "heads" if heads else "experts": records(told(found.table(source, None))),
        }
        if by is not None:
            task = progress.add_task("dealing", total=None)
            read = longest_input(loaded.model, loaded.tokenizer, length)
            frame = worth_by_group(
                found,
                source,
                groups_by(by, source, lengths=np.minimum(token_counts(loaded.tokenizer, source.texts), read)),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
            result |= {"by": by, "groups": records(told(frame)), "tested": count_tests(frame)}
            result["beyond_chance"] = records(told(beyond_chance(frame)))
    return result


def _print_in_turn(found: dict[str, Any]) -> None:
    of = "head" if "heads" in found else "expert"
    where = f"n = {found['n']:,} of {found['of']:,} inputs of {found['data']}"
    rows = sorted(found[f"{of}s"], key=lambda row: -row["effect"])[:_SHOWN]
    use = ("usage", "uses") if of == "expert" else ()
    shown = ("layer", of, *use, "effect", "signed")
    shown += ("score_lost",) if rows[0]["score_lost"] == rows[0]["score_lost"] else ()
    print_table(
        f"every {of} in turn, {where}: mean size of its effect on the predicted class's logit (or the number), and "
        f"its mean; the largest {len(rows)}",
        [{name: row[name] for name in shown} for row in rows],
    )
    if "by" not in found:
        return
    shown = ("layer", of, "group", "n", *use[1:], "lost", "elsewhere", "q")
    sure = found["beyond_chance"]
    print_table(
        f"{_WORTH} that is lost without the {of}, by {found['by']}: unlike elsewhere beyond chance",
        [{name: row[name] for name in shown} for row in sure[:_SHOWN]],
    )
    said = (
        f"{len(sure)} of {found['tested']} differences from elsewhere are beyond chance (q of at most 0.05)"
    )
    stderr.print(said if found["tested"] else "one group, or too few inputs, to tell anything by")
