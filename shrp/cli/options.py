"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Argument, Option

from shrp.cli.output import stderr
from shrp.data.sources import from_table, load_data
from shrp.data.tabular import read_table
from shrp.data.tasks import LABEL, TASKS, TEXTS, UNLABELLED, Task
from shrp.data.text_data import TextData
from shrp.errors import ColumnError, DataError, PlanError, ShrpError, TrainingError, first_line

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from shrp.pruning.plan import PruningPlan
    from shrp.training.config import TextConfig

Routed = Annotated[Path, Argument(help="A routed SHRP checkpoint.", show_default=False)]
Loaded = Annotated[Path, Argument(help="A checkpoint.", show_default=False)]
TextColumns = Annotated[
    list[str] | None, Option("--text-column", help="Text column of your file; twice for sentence pairs.")
]
LabelColumn = Annotated[str, Option("--label-column", help="Label column of your file.")]
LabelMeanings = Annotated[
    list[str] | None,
    Option("--label-means", help="good=positive maps your label, neutral= leaves its rows out; repeat."),
]
Device = Annotated[str, Option("--device", help="cpu, cuda, cuda:1, mps ...", metavar="NAME")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object to stdout and nothing else.")]
Out = Annotated[Path, Option("--out", help="Folder of the resulting checkpoint.")]
Base = Annotated[str, Option("--base", help="A hub id (bert-base-uncased) or a model's folder.")]
TrainFile = Annotated[Path | None, Option(help="Your training data: CSV, TSV, JSONL or Parquet.")]
ValidationFile = Annotated[Path | None, Option(help="Your validation data.")]
HeadLabels = Annotated[
    str | None, Option(help="Classes of the base's head in order, such as neg,pos, if its config has none.")
]
Layers = Annotated[str | None, Option(help='Layers: "6-11", "1,3,5" or "upper:6" [default: upper half]')]
PlanFile = Annotated[
    Path | None, Option("--plan", help="Keep what a plan (JSON or a static checkpoint) says.")
]
PerLayer = Annotated[int | None, Option(help="Keep so many experts in every converted layer.")]
Budget = Annotated[int | None, Option(help="Keep so many experts in all, spread by usage.")]
Config = Annotated[Path | None, Option("--config", help="YAML or JSON file of options (docs/training.md).")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses are replaced by their fields, the options that typer sees."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    seen: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            own = get_type_hints(groups[name], include_extras=True)
            for one in fields(groups[name]):
                option = inspect.Parameter(one.name, parameter.KEYWORD_ONLY, default=one.default)
                seen.append(option.replace(annotation=own[one.name]))
        else:
            seen.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        command(**given)

    run.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in seen}
    return run


@dataclass(frozen=True)
class Examples:
    """The data that a model is scored on: where they come from, and how a file is read."""

    data: Annotated[
        str, Option(help="`probe` (shipped sentences), `glue`, or a CSV, TSV, JSONL or Parquet file.")
    ] = "probe"
    text_column: TextColumns = None
    label_column: LabelColumn = LABEL
    label_means: LabelMeanings = None
    slice_column: Annotated[str | None, Option(help="Slice column of your file.")] = None

    def load(self, task: Task) -> TextData:
        """The data, for a checkpoint of this task."""
        if self.data not in ("probe", "glue"):
            return self.read(self.data, task)
        if task.name not in TASKS:
            raise DataError(f"no data for the task '{task.name}' are shipped: give --data FILE.")
        self.refuse(f"describes a file of your own; the columns of {self.data} are known.")
        data = load_data(self.data, task, "validation")
        if data.task.label_names != task.label_names:
            raise DataError(
                f"the checkpoint's labels ({', '.join(task.label_names)}) are not those of {data.name}; give --data FILE."
            )
        return data

    def read(self, path: Path | str, task: str | Task | None) -> TextData:
        """Read a person's own file; rows without a text or a label are left out and counted on stderr."""
        frame, name, meanings = read_table(path), Path(path).name, label_meanings(self.label_means)
        columns = (self.text_column, self.label_column, self.slice_column, meanings)
        try:
            data = from_table(frame, name, task, *columns, skip_incomplete=True)
        except ColumnError as error:
            if self.text_column or error.column in (self.label_column, self.slice_column):
                raise
            raise DataError(f"{error} Name yours with --text-column.") from error
        report_left_out(len(frame), len(data), name, "no text, no label, or unmapped")
        return data

    def refuse(self, why: str) -> None:
        """Raise `DataError` if any of the options that describe a file is given."""
        for name in ("text_column", "label_column", "slice_column", "label_means"):
            if getattr(self, name) and getattr(self, name) != LABEL:
                raise DataError(f"--{name.replace('_', '-')} {why}")


@dataclass(frozen=True)
class Data(Examples):
    """The data that a checkpoint runs on, how far it reads their texts, and where."""

    max_length: Annotated[
        int | None, Option(min=4, help="Cut texts at so many tokens [default: as trained]")
    ] = None
    device: Device = "cpu"


@dataclass(frozen=True)
class TrainingData:
    """The data of a training: a GLUE task's, or a person's own two files."""

    task: Annotated[str | None, Option(help="A GLUE task; or give your own two files.")] = None
    train_file: TrainFile = None
    validation_file: ValidationFile = None
    text_column: TextColumns = None
    label_column: LabelColumn = LABEL
    label_means: LabelMeanings = None

    def load(self, task_name: str | None = None) -> tuple[TextData, TextData]:
        """Training and validation data; the task of own files is named after the training file by default."""
        own = Data(text_column=self.text_column, label_column=self.label_column, label_means=self.label_means)
        if (self.train_file is None) != (self.validation_file is None):
            raise DataError("give both --train-file and --validation-file, or neither, for a GLUE task.")
        if self.train_file is None:
            own.refuse("describes files of your own; GLUE's columns are known.")
            if isinstance(self.task, Task) and self.task.name not in TASKS:
                raise DataError("give --train-file and --validation-file.")
            if self.task is None:
                raise DataError(f"give a GLUE --task ({', '.join(TASKS)}) or --train-file and --validation-file.")
            return load_data("glue", self.task, "train"), load_data("glue", self.task, "validation")
        train = own.read(self.train_file, self.task)
        if task_name is not None:
            train = replace(train, task=replace(train.task, name=own_name(task_name)))
        texts = own.text_column or list(train.task.text_columns)
        validation = replace(own, text_column=texts).read(self.validation_file, train.task)
        for data, file in ((train, self.train_file), (validation, self.validation_file)):
            if data.labels is None:
                raise DataError(f"{file} has no label column; name it with --label-column.")
        return train, validation


def own_name(name: str) -> str:
    """Check the name of a person's own task; raise `DataError` if it is empty or taken by GLUE."""
    name = " ".join(name.split())
    if not name or name in TASKS or name == TEXTS.name:
        raise DataError(f"choose another name for your task than '{name}'.")
    return name


def label_meanings(options: Iterable[str] | None) -> dict[str, str | None] | None:
    """Read `--label-means`: label -> class, or None to leave its rows out."""
    found: dict[str, str | None] = {}
    for option in options or ():
        label, _, meaning = option.rpartition("=")
        if not label:
            raise DataError(f"--label-means takes LABEL=CLASS, such as good=positive, not '{option}'.")
        if found.setdefault(label, meaning or None) != (meaning or None):
            raise DataError(f"--label-means maps '{label}' twice; map it once.")
    return found or None


def sample_texts(
    paths: list[Path], columns: list[str], config: TextConfig | None = None
) -> list[tuple[str, ...]]:
    """The texts that a training visits, or all, of files, folders and patterns; also print what is left out."""
    from shrp.training.corpus import sample, shards

    names = ", ".join(path.name for path in paths)
    most, seed = (config.visited(sys.maxsize), config.seed) if config else (sys.maxsize, 0)
    texts, rows, complete = sample(shards(paths), columns, most, seed)
    if not complete:
        raise DataError(f"of {names} no row is left: each lacks a text.")
    report_left_out(rows, complete, names, "no text")
    if len(texts) < complete:
        stderr.print(f"a random {len(texts):,} of {complete:,} texts, as many as the epochs see")
    return texts


def report_left_out(rows: int, kept: int, name: str, why: str) -> None:
    """Print how many rows of a file are not used; nothing if all are."""
    if left := rows - kept:
        stderr.print(f"left out {left:,} of {rows:,} rows of {name}: {why}")


def enough_texts(
    rows: Sequence[tuple[str, ...]], scored_on: TextData | None
) -> tuple[list[tuple[str, ...]], list[str]]:
    """As `shrp.training.quick.enough`; also print what is added."""
    from shrp.training.quick import FEW, enough

    texts, added = enough(rows, () if scored_on is None else scored_on.texts)
    if added:
        sentences = f"{len(texts) - len(rows):,} shipped sentences ({', '.join(added)})"
        stderr.print(f"{len(rows):,} texts are fewer than {FEW}: {sentences} are added")
    return texts, added


def report_data(train: TextData, validation: TextData) -> None:
    """Print to stderr what a training takes its data for."""
    task, what = train.task, "regression"
    if task.on_spans:
        what = "questions with an answer in a text"
    elif not task.is_regression:
        counts = [f"{name} {int((train.labels == i).sum()):,}" for i, name in enumerate(task.label_names[:6])]
        more = f" and {task.num_labels - 6:,} more" * (task.num_labels > 6)
        what = f"{task.num_labels} classes{' of words' * task.on_words} ({', '.join(counts)}{more})"
    stderr.print(
        f"{train.name}: {len(train):,} examples, {what}; validated on {validation.name} (n = {len(validation):,}) by "
        f"{task.metric}"
    )
    if train.fingerprint == validation.fingerprint:
        stderr.print("warning: training and validation data are the same, so scores mean little")
    elif not task.is_regression and not task.on_spans and len({*validation.labels.ravel().tolist()} - {UNLABELLED}) < 2:
        stderr.print("warning: the validation data have one class only, so scores mean little")


def report_cut(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, data: TextData, max_length: int
) -> None:
    """Print to stderr how many examples are longer than the model reads, and how many answers are lost; nothing if none are."""
    from shrp.data.batching import LONGEST_ANSWER, answer_tokens, context_spans, token_counts
    from shrp.families.families import positions

    most = min(positions(config), tokenizer.model_max_length)
    length = min(most, max_length)
    cut = "change it by --max-length, or for a training by `max_length` in --config"
    why = cut if length < most else "the model reads no more"
    report_cut_at(length, token_counts(tokenizer, data.texts), data.name, why)
    if data.task.on_spans and data.labels is not None:
        read = zip(context_spans(tokenizer, data.texts, length), data.labels, strict=True)
        tokens = [[answer_tokens(places, *one) for one in spans if one[0] >= 0] for places, spans in read]
        lost = sum(not any(first >= 0 and last < first + LONGEST_ANSWER for first, last in each) for each in tokens)
        if lost:
            why = f"beyond the cut, or longer than {LONGEST_ANSWER} tokens"
            stderr.print(f"{lost:,} of {len(data):,} answers of {data.name} can't be predicted: {why}")


def report_cut_at(length: int, counts: Iterable[int], name: str, why: str) -> None:
    """Print how many of these token counts exceed `length`, and why examples are cut there."""
    beyond = [count > length for count in counts]
    if cut := sum(beyond):
        stderr.print(f"{cut:,} of {len(beyond):,} examples of {name} are cut at {length:,} tokens: {why}")


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
        why = f"the folder {file.parent} does not exist"
    elif file.is_file() or file.is_dir():  # a pipe may exist
        why = f"{file} exists already"
    elif not file.exists() and not os.access(file.parent, os.W_OK):
        why = f"{file.parent} is not writable"
    elif re.search(r"\.(zip|zst)$|\.tar(\.(gz|bz2|xz))?$", file.name.lower()):
        why = f"{file.name} would be an archive"
    else:
        return
    raise DataError(f"{why}; choose another {option} file, such as answers.csv or answers.csv.gz.")


def read_plan(path: Path) -> PruningPlan:
    """Read a pruning plan from a JSON file, or the folder of a static checkpoint or of its export."""
    from shrp.pruning.plan import PruningPlan

    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        carried = config.get("shrp", config).get("plan")
        return PruningPlan.from_json(json.dumps(carried or config))
    except OSError as error:
        raise PlanError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ShrpError, ValueError, AttributeError, RecursionError) as error:
        why = "it is not JSON." if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise PlanError(f"{file} holds no plan: {why}") from error


def base_geometry(base: str) -> tuple[int, int]:
    """Layers and heads of a base, from its config alone."""
    from shrp.checkpoints.base import base_config

    config = base_config(base)
    return config.num_hidden_layers, config.num_attention_heads


def layer_list(text: str | None, num_layers: int) -> tuple[int, ...]:
    """Read `--layers`: `6-11`, `1,3,5`, a mix of these, or `upper:6`; by default the upper half."""
    asked = text or f"upper:{max(num_layers // 2, 1)}"
    found: list[int] = []
    try:
        if asked.startswith("upper:"):
            asked = f"{num_layers - int(asked.removeprefix('upper:'))}-{num_layers - 1}"
        for part in asked.split(","):
            first, _, last = part.partition("-")
            if not int(first) <= int(last or first) < num_layers:  # before a huge range is built
                raise ValueError
            found += range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise TrainingError(
            f'--layers takes layers from 0 to {num_layers - 1} as "6-11", "1,3,5" or "upper:6", not {text!r}.'
        ) from error
    return tuple(found)


def labels_of(text: str | None) -> tuple[str, ...]:
    """Comma-separated labels; none for None."""
    return tuple(part.strip() for part in text.split(",")) if text else ()
