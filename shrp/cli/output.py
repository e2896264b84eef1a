"""How commands print: JSON or tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import time
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

if TYPE_CHECKING:  # slow to import, and --help needs none
    import pandas as pd

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData

# Texts are a person's as often as ours: a slice called `[/x]` is no markup, `:x:` no emoji. Long lines are left to the
# terminal to wrap, so that a command inside one can be copied whole.
_PLAIN = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
stdout = Console(**_PLAIN)
stderr = Console(stderr=True, **_PLAIN)
_PIPED = 200  # width of a table, in characters, where there is no terminal
_EVERY = 30.0  # seconds between lines of progress, where there is no terminal


def use_utf8() -> None:
    """Write UTF-8 to files and pipes, where Windows would choose a code page that lacks many characters."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.isatty() and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def example(command: str) -> str:
    """An example for the end of a command's help, on a line of its own (click's `\\b`)."""
    return f"Example:\n\n\b\n  python -m shrp {command}"


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write a table whole or not at all, compressed if its name says so; a pipe is written to directly.

    Raises:
        OSError: It cannot be written.
    """
    options = csv_options(frame)
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


def print_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout; numbers that are not finite become null."""
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
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(frame: pd.DataFrame, of: str = "score") -> list[dict[str, Any]]:
    """A frame's rows for JSON: snake-case names, and the ends of an interval as one `[low, high]`.

    Args:
        of: What columns named just `low` and `high` bound; the key is `interval` for the score, else `<of>_interval`.
    """
    rows = []
    for row in frame.to_dict("records"):
        found: dict[str, Any] = {}
        for name, value in row.items():
            what, end = _end_of(str(name), of)
            what = what.replace(" ", "_")
            if end is None:
                found[what] = value
            else:
                key = "interval" if what == "score" else f"{what}_interval"
                found.setdefault(key, [None, None])[end] = value
        rows.append(found)
    return rows


def _end_of(name: str, of: str) -> tuple[str, int | None]:
    """What a column is about, and which end of its interval it is (None if it is no end)."""
    for end, word in enumerate(("low", "high")):
        if name == word:
            return of, end
        if name.endswith((f" {word}", f"_{word}")):
            return name[: -len(word) - 1], end
    return name, None


def provenance(loaded: Checkpoint, data: TextData, max_length: int) -> dict[str, Any]:
    """What a result was computed from: checkpoint, data, cut, versions and device."""
    import torch
    import transformers

    from shrp.data.batching import longest_input

    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    length = longest_input(loaded.model, loaded.tokenizer, max_length)
    return provenance_of(loaded.fingerprint, data, length, versions) | {"device": str(loaded.model.device)}


def provenance_of(
    fingerprint: str, data: TextData, max_length: int, versions: dict[str, str]
) -> dict[str, Any]:
    """`provenance` for whatever was run; `max_length` is where examples were cut, in tokens."""
    return {
        "checkpoint_fingerprint": fingerprint,
        "data": data.name,
        "data_fingerprint": data.source_fingerprint,
        "n": len(data),
        "max_length": max_length,
        "versions": versions,
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as a table to stdout; nothing without rows. Cells wrap and are never cut."""
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
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def interval_text(row: Mapping[str, Any]) -> str:
    """The interval of a row of scores; empty if it has none."""
    low, high = stored_interval(row)
    return f"{low:.4f} to {high:.4f}" if low == low else ""


def change_text(change: float, interval: Sequence[float]) -> str:
    """A difference with its interval, where it has one."""
    low, high = interval
    return f"{change:+.4f} ({low:+.4f} to {high:+.4f})" if low == low else f"{change:+.4f}"


def share_text(row: Mapping[str, Any]) -> str:
    """A row's share of its teacher's score with an interval; `-` without a teacher.

    The teacher's own row has no interval, nor has a mean of draws.
    """
    from shrp.checkpoints.score_rows import share_ends

    if (share := row.get("retained")) is None:
        return "-"
    if row.get("kind") == "teacher" or not (row.get("interval_is") or "95%").startswith("95%"):
        return f"{share:.1%}"
    teacher = row["score"] / share if share else None
    return with_ends(share, *share_ends(stored_interval(row), row.get("teacher", teacher)))


def score_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A stored row of scores, shortened for a terminal."""
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


@contextmanager
def progress_on(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show progress on stderr: a bar in a terminal, else a line every 30 seconds.

    Yields:
        `show(done, total, description=...)`, to be called as work proceeds.
    """
    started = reported = time.monotonic()
    with _bar() as bar:
        task = bar.add_task(description, total=total)

        def show(done: float, of: float | None = total, description: str = description) -> None:
            nonlocal reported
            bar.update(task, completed=done, total=of, description=description)
            now = time.monotonic()
            if stderr.is_terminal or now - reported < _EVERY:
                return
            reported = now
            left = f", {(now - started) * (of - done) / done:.0f} s left" if of and done else ""
            stderr.print(f"{description}: {done:,.0f}{f' of {of:,.0f}' if of else ''}{left}")

        yield show


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


class TrainingBar(TrainingProgress):
    """A bar per epoch on stderr, and a line with the score when the epoch ends."""

    def __init__(self) -> None:
        self._bar, self._shown = _bar(), False
        self._task = self._bar.add_task("")

    def step(self, status: Status) -> None:
        """Advance the bar."""
        if not self._shown:
            self._bar.start()
            self._shown = True
        total = status.steps or None
        self._bar.update(self._task, completed=status.step, total=total, description=str(status))

    def epoch(self, row: dict[str, Any]) -> None:
        """Hide the bar and print the epoch's line."""
        self._bar.stop()
        self._shown = False
        stderr.print(epoch_line(row))


def training_progress() -> TrainingProgress:
    """What shows a training: a bar in a terminal, lines in a log."""
    return TrainingBar() if stderr.is_terminal else LogProgress(stderr.print)
