"""Options that several commands share, and what they turn into; those of data are in `shrp.cli.data_options`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.output import stderr
from shrp.data.tasks import TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError, TrainingError

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
Device = Annotated[
    str, typer.Option(help="Where PyTorch computes: cpu, cuda, cuda:1, mps, ...", metavar="NAME")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
FullPrecision = Annotated[
    bool, typer.Option("--full-precision", help="Store float32 weights instead of float16.")
]
PLAN_HELP = (
    "A plan instead of a number: a static checkpoint's or an export's folder, or a JSON file, such as one of "
    '{"layers": {"6": {"experts": [0, 3], "weights": [0.7, 0.3]}, ...}}; the app saves some.'
)


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


def check_has_task(task: Task) -> None:
    """Raise `DataError` of a checkpoint that was converted on texts: nothing has trained its head."""
    if task.name == TEXTS.name:
        raise DataError(
            "this checkpoint was converted on texts and has no task yet, so that its head says nothing; `train "
            "--converted` gives it one."
        )


def labels_of(text: str | None) -> tuple[str, ...]:
    """Comma-separated labels; none for None."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def share_of_dense(text: str) -> float:
    """A share of the dense model from `52.5%` or `0.525`; raises `PlanError` where it is no number."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise PlanError(f"a share of the dense model is written as 52.5% or 0.525, not {text!r}.") from error


def check_free(file: Path, option: str) -> None:
    """Raise `DataError` where a file can't be written, before anything is computed."""
    if not file.parent.is_dir():
        raise DataError(f"{file.parent} is no folder; make it first, or name another {option} file.")
    if file.is_file() or file.is_dir():  # a pipe may be there
        raise DataError(f"{file} exists already; choose another {option} file.")
    if not file.exists() and not os.access(file.parent, os.W_OK):
        raise DataError(f"{file.parent} can't be written to; name another {option} file.")
    if file.suffix.lower() == ".zst":  # pandas would infer it from the name, and lack a package
        raise DataError(
            f"{file.name} would be compressed by zstd, which is not to be had; .gz, .bz2 and .xz are."
        )
    if re.search(r"\.zip$|\.tar(\.(gz|bz2|xz))?$", file.name.lower()):
        raise DataError(f"{file.name} would be an archive; .gz, .bz2 and .xz compress the table itself.")


def say_resume(out: Path, resume: bool) -> None:
    """Say on stderr that there is nothing to go on with, where `--resume` asks for it: a mistyped `--out`, maybe."""
    from shrp.training.runs import holds_a_run, run_folder

    if resume and not holds_a_run(run_folder(out)):
        stderr.print(f"no run to resume in {run_folder(out)}; starting from the beginning")


def say_cut(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, sets: Iterable[TextData], max_length: int
) -> None:
    """Say on stderr how many inputs are read in part only; nothing where none is.

    Args:
        config: of the model that reads them.
        max_length: at most so many tokens are to be read.
    """
    from shrp.data.batching import token_counts
    from shrp.families.families import positions

    most = min(positions(config), tokenizer.model_max_length)
    length = min(most, max_length)
    why = "--max-length changes that" if length < most else "the model reads no more"
    for data in sets:
        say_cut_at(length, token_counts(tokenizer, data.texts), data.name, why)


def say_cut_at(length: int, counts: Iterable[int], name: str, why: str) -> None:
    """Say on stderr how many of some inputs' token counts are beyond `length`, and why inputs are cut there."""
    beyond = [count > length for count in counts]
    if cut := sum(beyond):
        stderr.print(
            f"{cut:,} of {len(beyond):,} inputs of {name} are longer than {length:,} tokens and are cut there: "
            f"{why}"
        )


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
    from shrp.pruning.plan import PruningPlan

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
