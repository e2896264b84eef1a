"""How commands print: JSON or tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import math
import os
import re
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
from shrp.files import replacing
from shrp.training.progress import (
    EVERY,
    STATUS_FILE,
    FileProgress,
    LogProgress,
    Status,
    begin_line,
    epoch_line,
)
from shrp.training.progress import Progress as TrainingProgress

if TYPE_CHECKING:  # slow to import, and --help needs none
    import pandas as pd

# Texts are a person's as often as ours: a slice called `[/x]` is no markup, `:x:` no emoji. Long lines are left to the
# terminal to wrap, so that a command inside one can be copied whole.
_PLAIN = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
stdout = Console(**_PLAIN)
stderr = Console(stderr=True, **_PLAIN)
_PIPED = 200  # width of a table, in characters, where there is no terminal
_SHARES = ("retained", "share", "encoder_params", "model_params", "encoder_flops")
_CHANGES = ("change", "loses")
_END = re.compile(r"(?:(.+)[ _])?(low|high)")


def use_utf8() -> None:
    """Write UTF-8 to files and pipes, where Windows would choose a code page that lacks many characters."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.isatty() and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def write_csv(frame: pd.DataFrame, file: Path | None) -> None:
    """Write a table whole or not at all, compressed if its name says so; a pipe is written to directly."""
    if file is None:
        return
    if file.exists() and not file.is_file():
        frame.to_csv(file, index=False, **csv_options(frame))
        return
    with replacing(file.resolve()) as partial:  # a link stays one
        frame.to_csv(partial, index=False, **csv_options(frame))
    stderr.print(f"wrote {file}")


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
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        found: dict[str, Any] = {}
        for name, value in row.items():
            what = re.sub(r"\W", "_", name)
            if end := _END.fullmatch(what):
                what = end[1] or of
                key = "interval" if what == "score" else f"{what}_interval"
                found.setdefault(key, [None, None])[end[2] == "high"] = value
            else:
                found[what] = value
        rows.append(found)
    return rows


def print_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows as a table to stdout; nothing without rows. Cells wrap and are never cut.

    Args:
        columns: Keys of the rows; by default those of the first row. An interval stands in the cell of what it bounds.
    """
    if not rows:
        return
    columns = columns or [name for name in rows[0] if not name.endswith("interval")]
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        side = "left" if isinstance(rows[0].get(column), str) else "right"
        table.add_column(column.replace("_", " "), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row) for column in columns))
    known = stdout.file.isatty() or os.environ.get("COLUMNS", "").isdigit()
    (stdout if known else Console(**_PLAIN, width=_PIPED)).print(table, soft_wrap=False)


def _cell(name: str, row: Mapping[str, Any]) -> str:
    """A value with its interval, where it has one."""
    value, form = row.get(name), ".4f"
    if value is None or value != value:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if name in _SHARES or name in _CHANGES:
        form = ".1%" if name in _SHARES else "+.4f"
    low, high = row.get("interval" if name == "score" else f"{name}_interval") or (None, None)
    if low is None or low != low:
        return f"{value:{form}}"
    drawn = row.get("interval_is", "95%") if name == "score" else "95%"
    return f"{value:{form}} ({low:{form}} to {high:{form}}{'' if drawn.startswith('95%') else f', {drawn}'})"


def print_scores(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a checkpoint's rows of scores as a table; `retained` is the share of the teacher's score."""
    print_table(title, rows, ("model", "data", "metric", "score", "n", "retained"))


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
            if stderr.is_terminal or now - reported < EVERY:
                return
            reported = now
            left = f", {(now - started) * (of - done) / done:.0f} s left" if of and done else ""
            stderr.print(f"{description}: {done:,.0f}{f' of {of:,.0f}' if of else ''}{left}")

        yield show


def _bar() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    hidden = not stderr.is_terminal
    return Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True, disable=hidden)


class _TrainingBar(TrainingProgress):
    """A bar per epoch on stderr, and a line with the score when the epoch ends."""

    def __init__(self) -> None:
        self._bar = _bar()
        self._task = self._bar.add_task("")

    def begin(self, processes: int) -> None:
        """Print how many processes train."""
        stderr.print(begin_line(processes))

    def step(self, status: Status) -> None:
        """Advance the bar."""
        self._bar.start()  # no effect on one that runs
        total = status.steps or None
        self._bar.update(self._task, completed=status.step, total=total, description=str(status))

    def epoch(self, row: dict[str, Any]) -> None:
        """Hide the bar and print the epoch's line."""
        self._bar.stop()
        stderr.print(epoch_line(row))


def training_progress() -> TrainingProgress:
    """What shows a training: a bar in a terminal, lines in a log, and a file where the environment names one.

    Of several processes the main one alone shows anything.
    """
    from shrp.training.processes import rank

    if rank():
        return TrainingProgress()
    if file := os.environ.get(STATUS_FILE):
        return FileProgress(Path(file))
    return _TrainingBar() if stderr.is_terminal else LogProgress(stderr.print)
