"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.output import stderr
from shrp.data import TextData, load_data
from shrp.errors import DataError, PlanError, TrainingError
from shrp.tasks import TASKS, TEXTS, Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

EvaluatedLength = Annotated[
    int | None,
    typer.Option(
        min=4,
        help="Longest input, in tokens; by default as in the checkpoint's training, and at least 128.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", help="Column of the text in your own file; give it twice for pairs."),
]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Column of the label in your own file.")]
SliceColumn = Annotated[
    str | None, typer.Option("--slice-column", help="Column of a tag to score by, in your own file.")
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
        "each label that is not a class of the checkpoint.",
    ),
]
PLAN_HELP = (
    "A plan instead of a number: a static checkpoint's or an export's folder, or JSON, such as "
    '{"layers": {"6": {"experts": [0, 3], "weights": [0.7, 0.3]}, ...}}; the app saves some.'
)
DataSource = Annotated[
    str,
    typer.Option(
        "--data",
        help="`probe` (shipped sentences), `glue` (the folder in SHRP_DATA_DIR, or the hub), "
        "or a CSV, TSV, JSONL or Parquet file.",
    ),
]


def layer_list(text: str, num_layers: int) -> tuple[int, ...]:
    """Layers from `6-11`, `1,3,5`, `upper:6` or a mix of the first two.

    Raises:
        TrainingError: the text is not of that form, or asks for more upper layers than there are, or none.
    """
    try:
        if text.startswith("upper:"):
            upper = int(text.removeprefix("upper:"))
            if not 0 < upper <= num_layers:
                raise TrainingError(f"upper:N is for N from 1 to {num_layers} on this encoder, not {upper}.")
            return tuple(range(num_layers - upper, num_layers))
        layers: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if dash and int(last) < int(first):
                raise TrainingError(f"{part!r} goes backwards; write the lower layer first, {last}-{first}.")
            if int(last or first) >= num_layers:  # before a range of any length is made
                raise TrainingError(
                    f"layers are 0 to {num_layers - 1} on this encoder; {part!r} goes beyond."
                )
            layers += range(int(first), int(last or first) + 1)
        return tuple(layers)
    except ValueError as error:
        raise TrainingError(f'layers must look like "6-11", "1,3,5" or "upper:6", not {text!r}.') from error


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


def check_has_task(task: Task) -> None:
    """Raise `DataError` of a checkpoint that was converted on texts: nothing has trained its head."""
    if task.name == TEXTS.name:
        raise DataError(
            "this checkpoint was converted on texts and has no task yet, so that its head says nothing; `train "
            "--converted` gives it one."
        )


def evaluation_data(
    source: str,
    task: Task,
    text_columns: list[str] | None,
    label_column: str,
    slice_column: str | None,
    label_means: list[str] | None = None,
    pair_column: str | None = None,
) -> TextData:
    """The data that a checkpoint of `task` is to be run on."""
    meanings = meanings_of(label_means)
    if source in ("probe", "glue"):
        if task.name not in TASKS:
            raise DataError(
                f"the checkpoint's task, '{task.name}', is one of your own, so no data for it come with SHRP: give a "
                "file with --data."
            )
        for name, given in (
            ("--text-column", text_columns),
            ("--slice-column", slice_column),
            ("--pair-column", pair_column),
            ("--label-means", meanings),
        ):
            if given:
                raise DataError(f"{name} is for a file of your own; what {source} holds is known.")
        data = load_data(source, task, "validation")
        if data.task.label_names != task.label_names:
            raise DataError(
                f"the checkpoint's labels ({', '.join(task.label_names)}) are not those of {data.name}; "
                "give data of its own with --data FILE."
            )
        return data
    return load_data(
        source,
        task,
        text_columns=text_columns,
        label_column=label_column,
        slice_column=slice_column,
        meanings=meanings,
        pair_column=pair_column,
    )


def training_data(
    task: str | Task | None,
    train_file: Path | None,
    validation_file: Path | None,
    text_columns: list[str] | None,
    label_column: str,
    label_means: list[str] | None = None,
    task_name: str | None = None,
) -> tuple[TextData, TextData]:
    """Training and validation data: a GLUE task's, or a person's own two files.

    Args:
        task_name: what to call the task of files without one; None takes the training file's name.
    """
    if task_name is not None and (task is not None or train_file is None):
        raise DataError("--task-name is for files of your own, without --task.")
    if (train_file is None) != (validation_file is None):
        raise DataError("give both --train-file and --validation-file, or neither and a GLUE --task.")
    if train_file is None:
        if label_means:
            raise DataError("--label-means is for files of your own, the labels of GLUE are known.")
        if isinstance(task, Task) and task.name not in TASKS:
            raise DataError(
                f"the task, '{task.name}', is one of your own: give --train-file and --validation-file."
            )
        if task is None:
            raise DataError(
                f"name a GLUE task (--task {', '.join(TASKS)}) or your own --train-file and --validation-file."
            )
        return load_data("glue", task, "train"), load_data("glue", task, "validation")
    meanings = meanings_of(label_means)
    train = load_data(
        str(train_file), task, text_columns=text_columns, label_column=label_column, meanings=meanings
    )
    if train.labels is None:
        raise DataError(f"{train_file} has no label column; name it with --label-column.")
    if task_name is not None:
        train = replace(train, task=replace(train.task, name=own_name(task_name)))
    validation = load_data(
        str(validation_file),
        train.task,
        text_columns=text_columns or list(train.task.text_columns),
        label_column=label_column,
        meanings=meanings,
    )
    if validation.labels is None:
        raise DataError(f"{validation_file} has no label column; name it with --label-column.")
    return train, validation


def own_name(name: str) -> str:
    """The name of a person's own task.

    Raises:
        DataError: it is empty, or of a GLUE task, whose data it would be taken for, or that of texts without labels.
    """
    name = " ".join(name.split())
    if not name or name in TASKS or name == TEXTS.name:
        raise DataError(f"a task of your own needs a name of its own, not '{name}'.")
    return name


def labels_of(text: str | None) -> tuple[str, ...]:
    """Comma-separated labels; none for None."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def check_free(file: Path, option: str) -> None:
    """Raise `DataError` where a file can't be written, before anything is computed."""
    if not file.parent.is_dir():
        raise DataError(f"{file.parent} is no folder; make it first, or name another {option} file.")
    if file.exists():
        raise DataError(f"{file} exists already; choose another {option} file.")


def say_resume(out: Path, resume: bool) -> None:
    """Say on stderr that there is nothing to go on with, where `--resume` asks for it: a mistyped `--out`, maybe."""
    from shrp.run_state import holds_a_run, run_folder

    if resume and not holds_a_run(run_folder(out)):
        stderr.print(f"no run to resume in {run_folder(out)}; starting from the beginning", highlight=False)


def say_cut(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, sets: Iterable[TextData], max_length: int
) -> None:
    """Say on stderr how many inputs are read in part only; nothing where none is.

    Args:
        config: of the model that reads them.
        max_length: at most so many tokens are to be read.
    """
    from shrp.batching import token_counts
    from shrp.families import positions

    most = min(positions(config), tokenizer.model_max_length)
    length = min(most, max_length)
    why = "--max-length changes that" if length < most else "the model reads no more"
    for data in sets:
        say_cut_at(length, token_counts(tokenizer, data.texts), data, why)


def say_cut_at(length: int, counts: Iterable[int], data: TextData, why: str) -> None:
    """Say on stderr how many of some token counts are beyond `length`, and why inputs are cut there."""
    if cut := sum(count > length for count in counts):
        stderr.print(
            f"{cut:,} of {len(data):,} inputs of {data.name} are longer than {length:,} tokens and are cut there: "
            f"{why}",
            highlight=False,
        )


def say_data(train: TextData, validation: TextData) -> None:
    """Say on stderr what a training takes its data for, which it tells from the labels."""
    task = train.task
    if task.is_regression:
        what = "a regression, numbers as labels"
    else:
        counts = [f"{name} {int((train.labels == i).sum()):,}" for i, name in enumerate(task.label_names[:6])]
        more = f" and {task.num_labels - 6:,} more" * (task.num_labels > 6)
        what = f"{task.num_labels} classes ({', '.join(counts)}{more})"
    stderr.print(
        f"{train.name}: {len(train):,} examples, {what}; validated on {validation.name}, n = {len(validation):,}, by "
        f"{task.metric}",
        highlight=False,
    )
    if train.fingerprint == validation.fingerprint:
        stderr.print("training and validation data are the same, so scores will say nothing", highlight=False)
    elif not task.is_regression and len(set(validation.labels.tolist())) < 2:
        stderr.print("the validation data have one class only, so scores will say little", highlight=False)


def _carried_plan(text: str) -> dict[str, Any] | None:
    """The plan in a checkpoint's or an export's config; None where it is neither."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):  # said where the plan is read
        return None
    part = data.get("shrp", data) if isinstance(data, dict) else None
    return part.get("plan") if isinstance(part, dict) and isinstance(part.get("plan"), dict) else None


def numbers_of(text: str) -> list[float]:
    """Comma-separated numbers.

    Raises:
        PlanError: a part is no finite number.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise PlanError(f"{text!r} is no list of numbers; separate them by commas, such as 0.3,-0.3.")
    return found


def plan_file(path: Path):
    """The pruning plan in a file, or of a folder: of a static checkpoint, or of an export.

    Raises:
        PlanError: it can't be read, or is not a plan.
    """
    from shrp.plan import PruningPlan

    folder = path if path.is_dir() else None
    path = path if folder is None else folder / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
        if (carried := _carried_plan(text)) is None and folder is not None:
            raise PlanError("carries no plan: it is neither a static checkpoint nor an export of one.")
        return PruningPlan.from_json(text if carried is None else json.dumps(carried))
    except OSError as error:
        raise PlanError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not a text file, so no plan.") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
