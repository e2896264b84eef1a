"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.output import stderr
from shrp.data.slices import only as only_slices
from shrp.data.sources import from_table, load_data
from shrp.data.tabular import read_table
from shrp.data.tasks import LABEL, TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import ColumnError, DataError, PlanError, TrainingError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from shrp.pruning.plan import PruningPlan

Routed = Annotated[Path, typer.Argument(help="A routed SHRP checkpoint.", show_default=False)]
Scored = Annotated[Path, typer.Argument(help="A checkpoint or an ONNX export.", show_default=False)]
DataSource = Annotated[
    str,
    typer.Option(
        "--data",
        help="`probe` (shipped sentences), `glue` (SHRP_DATA_DIR or the hub), or a CSV, TSV, JSONL or Parquet file.",
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", help="Text column of your file; give it twice for sentence pairs."),
]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Label column of your file.")]
SliceColumn = Annotated[
    str | None, typer.Option("--slice-column", help="Column of your file with the slice of each example.")
]
OnlySlices = Annotated[
    list[str] | None, typer.Option("--only", help="Use examples of this slice only; repeat for several.")
]
LabelMeanings = Annotated[
    list[str] | None,
    typer.Option(
        "--label-means",
        help="Map a label of your file to a class: good=positive. `neutral=` leaves its rows out. Repeat per label.",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=4, help="Cut texts at so many tokens [default: as the checkpoint says]"),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps ...", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the resulting checkpoint.")]


def layer_list(text: str, num_layers: int) -> tuple[int, ...]:
    """Read layers from `6-11`, `1,3,5`, `upper:6` or a mix of the first two.

    Raises:
        TrainingError: The text has another form, or names layers that the encoder does not have.
    """
    try:
        if text.startswith("upper:"):
            upper = int(text.removeprefix("upper:"))
            if not 0 < upper <= num_layers:
                raise TrainingError(f"upper:N needs N from 1 to {num_layers} on this encoder, not {upper}.")
            return tuple(range(num_layers - upper, num_layers))
        layers: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if dash and int(last) < int(first):
                raise TrainingError(f"{part!r} runs backwards; write {last}-{first}.")
            if int(last or first) >= num_layers:  # before a huge range is built
                raise TrainingError(
                    f"this encoder has layers 0 to {num_layers - 1}; {part!r} is beyond them."
                )
            layers += range(int(first), int(last or first) + 1)
        return tuple(layers)
    except ValueError as error:
        raise TrainingError(f'layers must look like "6-11", "1,3,5" or "upper:6", not {text!r}.') from error


def number_list(text: str, most: int, option: str) -> tuple[int, ...]:
    """Read distinct numbers from 1 to `most` from `1,2,4`; `option` names the option in errors."""
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise TrainingError(f'{option} takes numbers such as "1,2,4", not {text!r}.') from error
    if any(not 1 <= number <= most for number in numbers):
        raise PlanError(f"{option} takes numbers from 1 to {most}, not {text!r}.")
    return numbers


def share_of_dense(text: str) -> float:
    """Read a share of the dense model from `52.5%` or `0.525`; raise `PlanError` if it is not a number."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise PlanError(f"write a share of the dense model as 52.5% or 0.525, not {text!r}.") from error


def check_has_task(task: Task) -> None:
    """Raise `DataError` for an encoder converted on unlabelled text: its head is untrained."""
    if task.name == TEXTS.name:
        raise DataError(
            "this checkpoint was converted on unlabelled text and has no task yet; `train --converted` adds one."
        )


def check_free(file: Path | None, option: str) -> None:
    """Raise `DataError` if a CSV file cannot be written, before anything is computed."""
    if file is None:
        return
    if not file.parent.is_dir():
        raise DataError(
            f"the folder {file.parent} does not exist; create it, or choose another {option} file."
        )
    if file.is_file() or file.is_dir():  # a pipe may exist
        raise DataError(f"{file} exists already; choose another {option} file.")
    if not file.exists() and not os.access(file.parent, os.W_OK):
        raise DataError(f"{file.parent} is not writable; choose another {option} file.")
    if re.search(r"\.(zip|zst)$|\.tar(\.(gz|bz2|xz))?$", file.name.lower()):
        raise DataError(
            f"{file.name} would be an archive; .csv, .csv.gz, .csv.bz2 and .csv.xz are supported."
        )


def report_cut(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, sets: Iterable[TextData], max_length: int
) -> None:
    """Print to stderr how many examples are longer than the model reads; nothing if none are."""
    from shrp.data.batching import token_counts
    from shrp.families.families import positions

    most = min(positions(config), tokenizer.model_max_length)
    length = min(most, max_length)
    why = "--max-length changes that" if length < most else "the model reads no more"
    for data in sets:
        report_cut_at(length, token_counts(tokenizer, data.texts), data.name, why)


def report_cut_at(length: int, counts: Iterable[int], name: str, why: str) -> None:
    """Print how many of these token counts exceed `length`, and why examples are cut there."""
    beyond = [count > length for count in counts]
    if cut := sum(beyond):
        stderr.print(f"{cut:,} of {len(beyond):,} examples of {name} are cut at {length:,} tokens: {why}")


def read_plan(path: Path) -> PruningPlan:
    """Read a pruning plan from a JSON file, a static checkpoint's folder or an export's folder.

    Raises:
        PlanError: It cannot be read, or holds no plan.
    """
    from shrp.pruning.plan import PruningPlan

    file = path / "config.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
        carried = _carried_plan(text)
        if carried is None and path.is_dir():
            raise PlanError("it holds no plan: it is neither a static checkpoint nor an export of one.")
        return PruningPlan.from_json(text if carried is None else json.dumps(carried))
    except OSError as error:
        raise PlanError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{file} is not a text file.") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def _carried_plan(text: str) -> dict[str, Any] | None:
    """The plan inside a checkpoint's or an export's config; None if there is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    part = data.get("shrp", data) if isinstance(data, dict) else None
    return part.get("plan") if isinstance(part, dict) and isinstance(part.get("plan"), dict) else None


@dataclass(frozen=True)
class OwnFile:
    """How a person's own file is read, as the options of the same names say."""

    text_columns: list[str] | None = None
    label_column: str = LABEL
    label_means: list[str] | None = None
    slice_column: str | None = None
    only: list[str] | None = None

    def load(self, path: Path | str, task: str | Task | None) -> TextData:
        """Read the file; rows without a text or a label are left out and counted on stderr.

        Raises:
            DataError: As `shrp.data.sources.load_file`, or `--label-means` is malformed.
        """
        frame, name, meanings = read_table(path), Path(path).name, label_meanings(self.label_means)
        try:
            data = from_table(
                frame,
                name,
                task,
                text_columns=self.text_columns,
                label_column=self.label_column,
                slice_column=self.slice_column,
                meanings=meanings,
                skip_incomplete=True,
            )
        except ColumnError as error:
            if self.text_columns or error.column in (self.label_column, self.slice_column):
                raise
            raise DataError(f"{error} Name yours with --text-column.") from error
        if left := len(frame) - len(data):
            stderr.print(
                f"left out {left:,} of {len(frame):,} rows of {name}: no text, no label, or unmapped"
            )
        return data

    def refuse(self, why: str) -> None:
        """Raise `DataError` if any of the options that describe a file is given."""
        for name, given in (
            ("--text-column", self.text_columns),
            ("--label-column", self.label_column != LABEL),
            ("--slice-column", self.slice_column),
            ("--label-means", self.label_means),
        ):
            if given:
                raise DataError(f"{name} {why}")


def evaluation_data(source: str, task: Task, own: OwnFile = OwnFile()) -> TextData:
    """Load the data that a checkpoint of `task` runs on.

    Args:
        source: `probe`, `glue` or a file.
        own: How a file is read; for the others only `only` may be set.
    """
    data = _whole(source, task, own)
    return only_slices(data, own.only)[0] if own.only else data


def _whole(source: str, task: Task, own: OwnFile) -> TextData:
    if source not in ("probe", "glue"):
        return own.load(source, task)
    if task.name not in TASKS:
        raise DataError(
            f"'{task.name}' is a task of your own, so no data for it are shipped: give --data FILE."
        )
    own.refuse(f"describes a file of your own; the columns of {source} are known.")
    data = load_data(source, task, "validation")
    if data.task.label_names != task.label_names:
        raise DataError(
            f"the checkpoint's labels ({', '.join(task.label_names)}) are not those of {data.name}; give --data FILE."
        )
    return data


def training_data(
    task: str | Task | None,
    train_file: Path | None,
    validation_file: Path | None,
    own: OwnFile,
    task_name: str | None = None,
) -> tuple[TextData, TextData]:
    """Load training and validation data: a GLUE task's, or a person's own two files.

    Args:
        task_name: Name of the task of own files; None takes the training file's name.

    Raises:
        DataError: The options contradict each other, or a file has no labels.
    """
    if (train_file is None) != (validation_file is None):
        raise DataError("give both --train-file and --validation-file, or neither and a GLUE --task.")
    if train_file is None:
        own.refuse("describes files of your own; GLUE's columns are known.")
        if task is None or (isinstance(task, Task) and task.name not in TASKS):
            raise DataError(f"give a GLUE --task ({', '.join(TASKS)}) or --train-file and --validation-file.")
        return load_data("glue", task, "train"), load_data("glue", task, "validation")
    train = own.load(train_file, task)
    if task_name is not None:
        train = replace(train, task=replace(train.task, name=own_name(task_name)))
    texts = own.text_columns or list(train.task.text_columns)
    validation = replace(own, text_columns=texts).load(validation_file, train.task)
    for data, file in ((train, train_file), (validation, validation_file)):
        if data.labels is None:
            raise DataError(f"{file} has no label column; name it with --label-column.")
    return train, validation


def own_name(name: str) -> str:
    """Check the name of a person's own task; raise `DataError` if it is empty or taken by GLUE."""
    name = " ".join(name.split())
    if not name or name in TASKS or name == TEXTS.name:
        raise DataError(f"choose another name for your task than '{name}'.")
    return name


def label_meanings(options: list[str] | None) -> dict[str, str | None] | None:
    """Read `--label-means`: label -> class, or None to leave its rows out.

    Raises:
        DataError: An entry is malformed, or a label has two meanings.
    """
    found: dict[str, str | None] = {}
    for option in options or ():
        label, equals, meaning = option.rpartition("=")
        if not equals or not label:
            raise DataError(f"--label-means takes LABEL=CLASS, such as good=positive, not '{option}'.")
        if found.get(label, meaning or None) != (meaning or None):
            raise DataError(f"--label-means maps '{label}' twice; map it once.")
        found[label] = meaning or None
    return found or None


def report_data(train: TextData, validation: TextData) -> None:
    """Print to stderr what a training takes its data for."""
    task = train.task
    if task.is_regression:
        what = "regression"
    else:
        counts = [f"{name} {int((train.labels == i).sum()):,}" for i, name in enumerate(task.label_names[:6])]
        more = f" and {task.num_labels - 6:,} more" * (task.num_labels > 6)
        what = f"{task.num_labels} classes ({', '.join(counts)}{more})"
    stderr.print(
        f"{train.name}: {len(train):,} examples, {what}; validated on {validation.name} (n = {len(validation):,}) by "
        f"{task.metric}"
    )
    if train.fingerprint == validation.fingerprint:
        stderr.print("warning: training and validation data are the same, so scores mean little")
    elif not task.is_regression and len(set(validation.labels.tolist())) < 2:
        stderr.print("warning: the validation data have one class only, so scores mean little")


Base = Annotated[str, typer.Option("--base", help="A hub id (bert-base-uncased) or a model's folder.")]
GlueTask = Annotated[str | None, typer.Option("--task", help="A GLUE task; or give your own two files.")]
TrainFile = Annotated[Path | None, typer.Option(help="Your training data: CSV, TSV, JSONL or Parquet.")]
ValidationFile = Annotated[Path | None, typer.Option(help="Your validation data.")]
TaskName = Annotated[str | None, typer.Option(help="Name of your task [default: the training file's]")]
HeadLabels = Annotated[
    str | None,
    typer.Option(
        help="Classes of the base's own head in order, such as neg,pos, if its config does not say."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML or JSON file of further options; docs/training.md lists them."),
]


def refuse_same(base: str | Path, out: Path) -> None:
    """Raise `TrainingError` if a result would replace what it is made of."""
    if Path(base).resolve() == out.resolve():
        raise TrainingError(f"--out {out} is what it is made of; choose another folder.")


def base_geometry(base: str) -> tuple[int, int]:
    """Layers and heads of a base, from its config alone."""
    from shrp.checkpoints.base import base_config

    config = base_config(base)
    return config.num_hidden_layers, config.num_attention_heads


def upper_half(text: str | None, num_layers: int) -> tuple[int, ...]:
    """The layers that `--layers` names; the upper half by default."""
    return layer_list(text or f"upper:{max(num_layers // 2, 1)}", num_layers)


def labels_of(text: str | None) -> tuple[str, ...]:
    """Comma-separated labels; none for None."""
    return tuple(part.strip() for part in text.split(",")) if text else ()
