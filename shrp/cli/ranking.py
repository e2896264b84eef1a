"""`rank`: many checkpoints or exports on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.data_options import (
    DataSource,
    LabelColumn,
    LabelMeanings,
    OnlySlices,
    OwnFile,
    SkipIncomplete,
    SliceColumn,
    SliceWords,
    TextColumns,
    evaluation_data,
)
from shrp.cli.options import AsJson, Device, EvaluatedLength, check_free, check_has_task
from shrp.cli.output import bar, example, interval_text, print_json, print_table, stderr, write_csv
from shrp.errors import DataError, ShrpError
from shrp.phrases import by_chance, counted

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from shrp.data.tasks import Task
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation

_COSTS = ("encoder_params", "model_params", "encoder_flops", "model_flops")


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Many checkpoints or exports on the same inputs, best first",
        epilog=example(
            "rank mine mine/my-checkpoint-stages --data dev.csv --against mine/dense --out ranked.csv",
            "Prints a table; writes nothing but the file of `--out`.",
        ),
    )(rank)


@dataclass(frozen=True)
class _Ranked:
    """A model's result, without the model: only one is in memory at a time."""

    folder: Path
    evaluation: Evaluation
    costs: dict[str, Any]
    size: int
    reads: int
    provenance: dict[str, Any] = field(repr=False)


def rank(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Checkpoints and exports of one task, or folders that hold some.", show_default=False
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Which one the others are held against; by default the first that can be scored.",
            show_default=False,
        ),
    ] = None,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    out: Annotated[Path | None, typer.Option(help="Write every model's row to this CSV file.")] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Score many checkpoints or exports on the same inputs, best first, each beside its size and its paired lead over
    one of them. What can't be scored there is left out, and told.
    """
    if out is not None:
        check_free(out, "--out")
    if (slice_words or slice_column) and not only:
        raise DataError(
            "--slice and --slice-column say what slices there are: --only says which of them to score."
        )
    from shrp.checkpoints.info import CONFIG

    if against is not None and not (against / CONFIG).is_file():
        raise DataError(f"--against takes one model, and {against} is none: name a checkpoint or an export.")
    named = _models(([against] if against is not None else []) + folders)
    task, left_out = _first_task(named, against), {}
    found: list[_Ranked] = []
    check_has_task(task)
    own = OwnFile(
        text_column, label_column, slice_column, None, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, task, own)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels, so there is nothing to rank by.")
    with bar("scoring") as progress:
        shown = progress.add_task("scoring", total=len(named))
        for folder in named:
            try:
                found.append(_scored(folder, source, max_length, device))
            except ShrpError as error:
                if folder == against:  # without which nothing has a lead
                    raise
                left_out[str(folder)] = str(error)
            progress.advance(shown)
    if len(found) < 2:
        for name, why in left_out.items():
            stderr.print(f"left out {name}: {why}")
        raise DataError("fewer than two models can be scored on these data; name further ones.")
    rows = _rows(found)
    if out is not None:
        _write(rows, out)
    if json:
        each = {str(one.folder): one.provenance for one in found}
        told = {"data": source.name, "against": str(found[0].folder), "models": rows, "left_out": left_out}
        print_json(told | {"provenance": each})
        return
    _print(rows, source, str(found[0].folder))
    for name, why in left_out.items():
        stderr.print(f"left out {name}: {why}")
    if len({one.reads for one in found}) > 1:
        stderr.print(
            "they cut inputs at different lengths (column reads), so part of a difference may be the cut's; "
            "--max-length has all checkpoints read alike"
        )


def _models(folders: Sequence[Path]) -> list[Path]:
    """The models that are named, or that lie directly in the folders that are, each once."""
    from shrp.checkpoints.info import CONFIG, discover
    from shrp.export.exported import is_export

    found: dict[Path, Path] = {}
    for folder in folders:
        if (folder / CONFIG).is_file():
            inside = [folder]
        else:
            names = set(discover(folder))
            exports = [one for one in sorted(folder.iterdir()) if is_export(one)] if folder.is_dir() else []
            inside = sorted({*(folder / name for name in names), *exports})
            if not inside:
                raise DataError(
                    f"there is no checkpoint in {folder}; name its folder, or one that holds several."
                )
        for one in inside:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _first_task(named: Sequence[Path], against: Path | None) -> Task:
    """The task of what the others are held against, or of the first that can be read."""
    for place, folder in enumerate(named):
        try:
            return _task(folder)
        except ShrpError:
            if folder == against or place == len(named) - 1:
                raise
    raise DataError("name at least two models.")


def _task(folder: Path) -> Task:
    """The task of a checkpoint, of which no weights are read, or of an export."""
    from shrp.checkpoints.checkpoint import read_config
    from shrp.export.exported import is_export, load_export

    return load_export(folder).task if is_export(folder) else read_config(folder)[1].task


def _scored(folder: Path, source: TextData, max_length: int | None, device: str) -> _Ranked:
    """A model's result on the data.

    Raises:
        ShrpError: it can't be loaded, or is of another task.
    """
    from shrp.checkpoints.checkpoint import read_config
    from shrp.cli.subjects import subject
    from shrp.evaluation.evaluate import last_of
    from shrp.export.exported import is_export

    if is_export(folder):
        one = subject(folder, None)
        _check_is_of(one.task, source)
    else:
        _check_is_of(read_config(folder)[1].task, source)  # before its weights are read
        one = subject(folder, max_length, device)
    found = last_of(one.stream(source))
    one.say_cut(source)
    return _Ranked(folder, found, one.costs(), one.bytes, one.reads, one.provenance(source))


def _check_is_of(task: Task, source: TextData) -> None:
    from shrp.data.tasks import may_be_one

    check_has_task(task)
    if not (task.reads_as(source.task) and may_be_one(task, source.task)):
        raise DataError(f"it is for the task {task.name}, and {source.name} is for {source.task.name}.")


def _rows(found: list[_Ranked]) -> list[dict[str, Any]]:
    """A row a model, best first; of equal scores the smaller first."""
    from shrp.evaluation.paired import paired_difference

    first, rows = found[0].evaluation, []
    for one in found:
        score = one.evaluation
        row = {"checkpoint": str(one.folder), "metric": score.metric, "score": score.score}
        row |= {"interval": score.ends(), "n": score.n, "constant": score.constant}
        if one is not found[0]:
            lead, ends = paired_difference(score, first)
            row |= {"lead": lead, "lead_interval": ends}
        else:
            row |= {"lead": None, "lead_interval": (float("nan"),) * 2}
        rows.append(
            row | {name: one.costs[name] for name in _COSTS} | {"bytes": one.size, "reads": one.reads}
        )
    # A score that is not defined, as of a model that gives all inputs one number, comes last.
    return sorted(
        rows, key=lambda r: (r["score"] != r["score"], -r["score"], r["encoder_params"], r["bytes"])
    )


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    import pandas as pd

    parts = []
    for row in rows:
        part = dict(row)
        for name in ("interval", "lead_interval"):
            of = name.removesuffix("interval")
            part[f"{of}low"], part[f"{of}high"] = part.pop(name) or (float("nan"),) * 2
        parts.append(part)
    write_csv(pd.DataFrame(parts), out)


def _print(rows: list[dict[str, Any]], source: TextData, first: str) -> None:
    table = []
    for row in rows:
        low, high = row["lead_interval"]
        lead = "" if row["lead"] is None else f"{row['lead']:+.4f}"
        table.append(
            {
                "model": row["checkpoint"],
                row["metric"]: float(row["score"]),
                "95%": interval_text(row) or "-",
                "lead": f"{lead} ({low:+.4f} to {high:+.4f})" if low == low else lead or "-",
                "encoder": f"{row['encoder_params']:.1%}",
                "model's": f"{row['model_params']:.1%}",
                "FLOPs": f"{row['encoder_flops']:.1%}",
                "MB": f"{row['bytes'] / 1e6:.1f}",
                "reads": row["reads"],
            }
        )
    constant = rows[0]["constant"]
    floor = f"; a constant answer has {constant:.4f}" if constant == constant else ""
    print_table(
        f"{source.name}, n = {len(source):,}{floor}\nlead: over {first}, on the same inputs, 95% in brackets. encoder, "
        "model's: parameters, of the dense one's; FLOPs: of the dense encoder's, for one input of 128 tokens; MB: of "
        "the file of weights; reads: most tokens of an input",
        table,
    )
    looks = sum(row["lead"] is not None for row in rows)
    stderr.print(
        f"{counted(len(rows), 'model')}.{by_chance(looks)} The best of several is flattered by having been picked."
    )
