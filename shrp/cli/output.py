"""How commands speak: JSON or tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from shrp.data.tabular import csv_options
from shrp.evaluation.statistics import stored_interval
from shrp.phrases import with_ends
from shrp.training.progress import LogProgress, Status, epoch_line
from shrp.training.progress import Progress as TrainingProgress

if TYPE_CHECKING:  # slow to import, and not needed for --help
    import pandas as pd

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData

# What is written is a person's as often as ours: a slice called `[/x]` or a folder `[v2]` is no markup, `:x:` no emoji.
# Long lines are left to the terminal to wrap: a command that is named in one can be copied whole.
_PLAIN = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
stdout = Console(**_PLAIN)
stderr = Console(stderr=True, **_PLAIN)
_PIPED = 200
"""Width of a table, in characters, where there is no terminal whose width it could be."""


def say_in_unicode() -> None:
    """Write UTF-8 where stdout or stderr go to a file or a pipe: Windows has a code page for these that lacks many
    characters, and an arrow, or a person's own text, would end the command after all of its work.
    """
    for stream in (sys.stdout, sys.stderr):
        if not stream.isatty() and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def example(command: str, says: str) -> str:
    """The end of a command's help: how it may be used, on a line of its own (click's `\\b`), and what it then gives."""
    return f"Example:\n\n\b\n  python -m shrp {command}\n\n{says}"


def write_csv(frame: pd.DataFrame, file: Path, **options: Any) -> None:
    """Write a table without its index, all of it or nothing; compressed, where the name ends as of such a file. What is
    no regular file, as a pipe, is written to as it is. Texts may hold anything (`shrp.data.tabular.csv_options`).

    Raises:
        OSError: it can't be written.
    """
    options = csv_options(frame) | options
    if file.exists() and not file.is_file():
        frame.to_csv(file, index=False, **options)
        return
    target = file.resolve()  # a link stays one
    partial = target.with_name(f".{os.getpid()}.partial.{target.name}")
    try:
        frame.to_csv(partial, index=False, **options)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def numbered(frame: pd.DataFrame, data: TextData) -> pd.DataFrame:
    """A table of inputs whose `index` is their number in the whole, as `--slice "odd: #12"` counts them, where only
    some slices or one half were looked at.
    """
    return frame.assign(index=data.number_of(frame["index"].to_numpy()))


def print_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object, and nothing else, to stdout; what is not a finite number becomes null, and so does an
    interval without ends.
    """
    sys.stdout.write(json.dumps(_clean(data), indent=2) + "\n")


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        cleaned = {str(key): _clean(item) for key, item in value.items()}
        return {
            key: None if key.endswith("interval") and item == [None, None] else item
            for key, item in cleaned.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def records(
    frame: pd.DataFrame, of: str = "score", renamed: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """A frame's rows as every command's JSON has them: names in snake case, and an interval as one `[low, high]`, named
    `interval` where it is the score's and `<what>_interval` where it is of anything else.

    Args:
        of: what columns that are just `low` and `high` are the ends for.
        renamed: columns by other names, which hold for their ends too.
    """
    rows = []
    for row in frame.to_dict("records"):
        found: dict[str, Any] = {}
        for name, value in row.items():
            what, end = _end_of(str(name), of)
            what = (renamed or {}).get(what, what).replace(" ", "_")
            if end is None:
                found[what] = value
            else:
                key = "interval" if what == "score" else f"{what}_interval"
                found.setdefault(key, [None, None])[end] = value
        rows.append(found)
    return rows


def _end_of(name: str, of: str) -> tuple[str, int | None]:
    """What a column is of, and which end of its interval; None for a column that is no end."""
    for end, word in enumerate(("low", "high")):
        if name == word:
            return of, end
        if name.endswith((f" {word}", f"_{word}")):
            return name[: -len(word) - 1], end
    return name, None


def provenance(loaded: Checkpoint, data: TextData, max_length: int) -> dict[str, Any]:
    """What a result was found with, by which it can be traced: checkpoint, data, cut, versions and device.

    Args:
        max_length: tokens at which inputs were to be cut; what is told is where they were, which is sooner where the
            model has no positions for so many.
    """
    import torch
    import transformers

    from shrp.data.batching import longest_input

    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    length = longest_input(loaded.model, loaded.tokenizer, max_length)
    return provenance_of(loaded.fingerprint, data, length, versions) | {"device": str(loaded.model.device)}


def provenance_of(
    fingerprint: str, data: TextData, max_length: int, versions: dict[str, str]
) -> dict[str, Any]:
    """`provenance` of whatever was run.

    Args:
        max_length: tokens at which inputs were cut.
        versions: of the packages that ran it.
    """
    return {
        "checkpoint_fingerprint": fingerprint,
        "data": data.name,
        "data_fingerprint": data.source_fingerprint,
        **({"slice_words": data.slice_words} if data.slice_words else {}),
        "n": len(data),
        "max_length": max_length,
        "versions": versions,
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as a table to stdout. What a narrow terminal has no room for goes to a next line,
    and is never cut.
    """
    if not rows:
        return
    table = Table(title=title or None, title_justify="left")
    for column in rows[0]:
        side = "left" if isinstance(rows[0][column], str) else "right"
        table.add_column(column.replace("_", " "), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in rows[0]))
    known = stdout.file.isatty() or os.environ.get("COLUMNS", "").isdigit()
    (stdout if known else Console(**_PLAIN, width=_PIPED)).print(table, soft_wrap=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def interval_text(row: Mapping[str, Any]) -> str:
    """The interval of a row of scores; empty where it has none."""
    low, high = stored_interval(row)
    return f"{low:.4f} to {high:.4f}" if low == low else ""


def share_text(row: Mapping[str, Any]) -> str:
    """A row's share of its teacher's score, which counts as exact, with the interval of the score; `-` for none. The
    teacher's own has no interval, nor has a mean of draws, whose range is none.
    """
    from shrp.checkpoints.score_rows import share_ends

    if (share := row.get("retained")) is None:
        return "-"
    if row.get("kind") == "teacher" or not (row.get("interval_is") or "95%").startswith("95%"):
        return f"{share:.1%}"
    teacher = row["score"] / share if share else None  # of a score of 0 the share doesn't tell it
    return with_ends(share, *share_ends(stored_interval(row), row.get("teacher", teacher)))


def bar(description: str) -> Progress:
    """A progress bar on stderr, to be used as a context manager."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


@contextmanager
def told(description: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for a function that tells what is done: gives the callback, of what is done and of how much."""
    with bar(description) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class TrainingBar(TrainingProgress):
    """A bar an epoch on stderr, and a line with the metric when it ends."""

    def __init__(self) -> None:
        self._bar = bar("")
        self._task = self._bar.add_task("")
        self._shown = False

    def step(self, status: Status) -> None:
        """Advance the bar."""
        if not self._shown:
            self._bar.start()
            self._shown = True
        self._bar.update(
            self._task, completed=status.step, total=status.steps or None, description=str(status)
        )

    def epoch(self, row: dict[str, Any]) -> None:
        """Hide the bar and print the epoch's line."""
        self._bar.stop()
        self._shown = False
        stderr.print(epoch_line(row))


def training_progress() -> TrainingProgress:
    """What shows a training: a bar on a terminal, lines in a log."""
    return TrainingBar() if stderr.is_terminal else LogProgress(stderr.print)


def score_line(row: dict) -> dict:
    """A row of scores, shortened for a terminal."""
    interval = interval_text(row)
    return {
        "model": row["model"],
        "data": row["data"],
        "metric": row["metric"],
        "score": float(row["score"]),
        "interval": f"{interval} ({row['interval_is']})" if interval else "-",
        "n": row["n"],
        "of teacher": share_text(row),
    }
