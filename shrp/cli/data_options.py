"""Options that say which data a command runs on, and the loading of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.output import stderr
from shrp.data.slices import only, parse_slices, sliced_by_words
from shrp.data.sources import from_table, load_data
from shrp.data.tabular import read_table
from shrp.data.tasks import LABEL, TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import ColumnError, DataError, IncompleteError

TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", help="Column of the text in your own file; give it twice for pairs."),
]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Column of the label in your own file.")]
SliceColumn = Annotated[
    str | None, typer.Option("--slice-column", help="Column of a tag to score by, in your own file.")
]
SliceWords = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        help="A slice of your own, of any data: its name and the words that make it, such as 'negation: not, *n't', or "
        "inputs' numbers from 0, 'odd: #12, #30-41'. Once for each; an input is in the first one that it is in.",
    ),
]
OnlySlices = Annotated[
    list[str] | None,
    typer.Option(
        "--only", help="Only inputs of this slice, of any data that have slices. Once for each of several."
    ),
]
PairColumn = Annotated[
    str | None,
    typer.Option(
        "--pair-column", help="Column that names minimal pairs, two inputs a name, in your own file."
    ),
]
LabelMeanings = Annotated[
    list[str] | None,
    typer.Option(
        "--label-means",
        help="What a label of your own file means, such as good=positive; `neutral=` leaves its rows out. Once for "
        "each label that is not a class of the checkpoint; in training, for each to be renamed or left out.",
    ),
]
SkipIncomplete = Annotated[
    bool,
    typer.Option("--skip-incomplete", help="Leave out rows of your own file that lack a text or a label."),
]
DataSource = Annotated[
    str,
    typer.Option(
        "--data",
        help="`probe` (shipped sentences), `glue` (the folder in SHRP_DATA_DIR, or the hub), "
        "or a CSV, TSV, JSONL or Parquet file.",
    ),
]


@dataclass(frozen=True)
class OwnFile:
    """How a person's own file is read: what the options of the same names say."""

    text_columns: list[str] | None = None
    label_column: str = LABEL
    slice_column: str | None = None
    pair_column: str | None = None
    label_means: list[str] | None = None
    skip_incomplete: bool = False
    slices: list[str] | None = None
    """By words, of any data, not of files alone."""
    only: list[str] | None = None
    """Slices whose inputs are looked at alone, likewise."""

    def load(self, path: Path | str, task: str | Task | None) -> TextData:
        """What the file holds; rows that are left out are counted on stderr.

        Raises:
            DataError: as `shrp.data.sources.load_file`, or what a label means is not said well.
        """
        frame, name, meanings = read_table(path), Path(path).name, meanings_of(self.label_means)
        try:
            data = from_table(
                frame,
                name,
                task,
                text_columns=self.text_columns,
                label_column=self.label_column,
                slice_column=self.slice_column,
                meanings=meanings,
                pair_column=self.pair_column,
                skip_incomplete=self.skip_incomplete,
            )
        except ColumnError as error:
            if self.text_columns or error.column in (self.label_column, self.slice_column, self.pair_column):
                raise
            raise DataError(f"{error} Name yours with --text-column.") from error
        except IncompleteError as error:
            raise DataError(
                f"{error} --skip-incomplete leaves out all rows that lack a text or a label."
            ) from error
        if left := len(frame) - len(data):
            why = ["without a text or a label"] * self.skip_incomplete
            why += ["with a label that --label-means leaves out"] * (None in (meanings or {}).values())
            stderr.print(f"left out {left:,} of {len(frame):,} rows of {name}, {' or '.join(why)}")
        return data

    def refuse(self, why: str) -> None:
        """Refuse all that is given.

        Raises:
            DataError: something is given.
        """
        for name, given in (
            ("--text-column", self.text_columns),
            ("--label-column", self.label_column != LABEL),
            ("--slice-column", self.slice_column),
            ("--pair-column", self.pair_column),
            ("--label-means", self.label_means),
            ("--skip-incomplete", self.skip_incomplete),
        ):
            if given:
                raise DataError(f"{name} {why}")


def evaluation_data(source: str, task: Task, own: OwnFile = OwnFile()) -> TextData:
    """The data that a checkpoint of `task` is to be run on.

    Args:
        source: `probe`, `glue` or a file.
        own: how a file is read; nothing of it but `slices` and `only` may be given for the others.
    """
    slices = parse_slices("\n".join(own.slices or ()))
    if slices and own.slice_column is not None:
        raise DataError("--slice and --slice-column each say what the slices are; give one of them.")
    data = _whole(source, task, own)
    data = sliced_by_words(data, slices) if slices else data
    if none := [one.name for one in slices if one.name not in data.slices]:
        stderr.print(f"no input of {data.name} is in the slice {' or '.join(none)}")
    return only(data, own.only)[0] if own.only else data


def _whole(source: str, task: Task, own: OwnFile) -> TextData:
    """`evaluation_data` with the slices that the data have."""
    if source not in ("probe", "glue"):
        return own.load(source, task)
    if task.name not in TASKS:
        raise DataError(
            f"the checkpoint's task, '{task.name}', is one of your own, so no data for it come with SHRP: give a "
            "file with --data."
        )
    own.refuse(f"is for a file of your own; what {source} holds is known.")
    data = load_data(source, task, "validation")
    if data.task.label_names != task.label_names:
        raise DataError(
            f"the checkpoint's labels ({', '.join(task.label_names)}) are not those of {data.name}; "
            "give data of its own with --data FILE."
        )
    return data


def training_data(
    task: str | Task | None,
    train_file: Path | None,
    validation_file: Path | None,
    own: OwnFile,
    task_name: str | None = None,
) -> tuple[TextData, TextData]:
    """Training and validation data: a GLUE task's, or a person's own two files.

    Args:
        own: how the files are read.
        task_name: what to call the task of files without one; None takes the training file's name.
    """
    if task_name is not None and (task is not None or train_file is None):
        raise DataError("--task-name is for files of your own, without --task.")
    if (train_file is None) != (validation_file is None):
        raise DataError("give both --train-file and --validation-file, or neither and a GLUE --task.")
    if train_file is None:
        own.refuse("is for files of your own; what GLUE holds is known.")
        if isinstance(task, Task) and task.name not in TASKS:
            raise DataError(
                f"the task, '{task.name}', is one of your own: give --train-file and --validation-file."
            )
        if task is None:
            raise DataError(
                f"name a GLUE task (--task {', '.join(TASKS)}) or your own --train-file and --validation-file."
            )
        return load_data("glue", task, "train"), load_data("glue", task, "validation")
    train = own.load(train_file, task)
    if train.labels is None:
        raise DataError(f"{train_file} has no label column; name it with --label-column.")
    if task_name is not None:
        train = replace(train, task=replace(train.task, name=own_name(task_name)))
    texts = own.text_columns or list(train.task.text_columns)
    validation = replace(own, text_columns=texts).load(validation_file, train.task)
    if validation.labels is None:
        raise DataError(f"{validation_file} has no label column; name it with --label-column.")
    return train, validation


def validation_data(
    task: str | Task | None, validation_file: Path | None, own: OwnFile, task_name: str | None = None
) -> TextData:
    """The validation data of `training_data` alone, where nothing is trained; args as there."""
    if validation_file is None:
        own.refuse("is for files of your own; what GLUE holds is known.")
        if task is None or task_name is not None:
            raise DataError(
                "name a GLUE task (--task) or your own --validation-file, which --task-name is for."
            )
        return load_data("glue", task, "validation")
    data = own.load(validation_file, task)
    if data.labels is None:
        raise DataError(f"{validation_file} has no label column; name it with --label-column.")
    if task_name is None:
        return data
    if task is not None:
        raise DataError("--task-name is for files of your own, without --task.")
    return replace(data, task=replace(data.task, name=own_name(task_name)))


def own_name(name: str) -> str:
    """The name of a person's own task.

    Raises:
        DataError: it is empty, or of a GLUE task, whose data it would be taken for, or that of texts without labels.
    """
    name = " ".join(name.split())
    if not name or name in TASKS or name == TEXTS.name:
        raise DataError(f"a task of your own needs a name of its own, not '{name}'.")
    return name


def meanings_of(options: list[str] | None) -> dict[str, str | None] | None:
    """What `--label-means` says: label -> class, or None to leave its rows out.

    Raises:
        DataError: one is not of that form, or a label has two meanings.
    """
    found: dict[str, str | None] = {}
    for option in options or ():
        label, equals, meaning = option.rpartition("=")
        if not equals or not label:
            raise DataError(
                f"--label-means takes a label and a class, such as good=positive, not '{option}'."
            )
        if found.get(label, meaning or None) != (meaning or None):
            raise DataError(f"--label-means gives '{label}' two meanings; give it one.")
        found[label] = meaning or None
    return found or None


def say_data(train: TextData, validation: TextData, *, trains: bool = True) -> None:
    """Say on stderr what a training takes its data for, which it tells from the labels.

    Args:
        trains: whether a model learns from them; or data that are the same are no matter.
    """
    task = train.task
    if task.is_regression:
        what = "a regression, numbers as labels"
    else:
        counts = [f"{name} {int((train.labels == i).sum()):,}" for i, name in enumerate(task.label_names[:6])]
        more = f" and {task.num_labels - 6:,} more" * (task.num_labels > 6)
        what = f"{task.num_labels} classes ({', '.join(counts)}{more})"
    stderr.print(
        f"{train.name}: {len(train):,} examples, {what}; validated on {validation.name}, n = {len(validation):,}, by "
        f"{task.metric}"
    )
    if trains and train.fingerprint == validation.fingerprint:
        stderr.print("training and validation data are the same, so scores will say nothing")
    elif not task.is_regression and len(set(validation.labels.tolist())) < 2:
        stderr.print("the validation data have one class only, so scores will say little")
