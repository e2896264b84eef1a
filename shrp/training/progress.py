"""What a long computation reports of itself, and how a log shows it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shrp.files import write_text
from shrp.phrases import duration

EVERY = 30.0
"""Seconds between two lines in a log, at most."""
STATUS_FILE = "SHRP_STATUS_FILE"
"""Variable of the environment that names a file for `FileProgress`."""
STORING = "storing the teacher's outputs"


@dataclass(frozen=True)
class Status:
    """How far a training is."""

    phase: str
    """What it does, such as "stage 1: converting layer 7 (3 of 6)"."""
    step: int
    """Steps done in this phase's epoch."""
    steps: int
    """Steps of the epoch."""
    epoch: int = 1
    """Counted from 1."""
    epochs: int = 1
    """Of the whole training."""
    stage: int = 0
    """1 or 2 in a training's steps (`Epoch.stage`); 0 for all that is no training step."""
    loss: float | None = None
    """Of the last step."""
    seconds_left: float | None = None
    """Estimate for the whole training; None where nothing is known yet."""

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch} of {self.epochs}"] if self.epochs > 1 else []
        parts += [f"step {self.step:,} of {self.steps:,}"] if self.steps else []
        parts += [f"loss {self.loss:.4f}"] if self.loss is not None else []
        parts += [f"about {duration(self.seconds_left)} left"] if self.seconds_left is not None else []
        return ": ".join(filter(None, [self.phase, ", ".join(parts)]))


MOST_LOSSES = 200
"""That `FileProgress` keeps."""


class Progress:
    """A listener of a training, which by default does nothing."""

    def begin(self, processes: int) -> None:
        """Called when a training begins or goes on, with how many processes train together."""

    def step(self, status: Status) -> None:
        """Called after every step, and before and while something else takes long."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Called after every epoch, with its row of the history."""


class LogProgress(Progress):
    """Writes lines for a log: each new phase, then one at least every 30 seconds (of `clock`), and one an epoch."""

    def __init__(
        self, write: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self.clock, self._phase, self._last = clock, "", 0.0

    def begin(self, processes: int) -> None:
        """Write how many processes train."""
        self.write(begin_line(processes))

    def step(self, status: Status) -> None:
        """Write a line if the phase is new or 30 seconds have passed."""
        now = self.clock()
        if status.phase != self._phase or now - self._last >= EVERY:
            self._phase, self._last = status.phase, now
            self.write(str(status))

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the epoch's line."""
        self._last = self.clock()
        self.write(epoch_line(row))


class FileProgress(LogProgress):
    """Writes the log, and a JSON file that other processes read: `status`, `losses` (of some steps) and `history`.

    `file`: replaced as a whole each second at most, and after each epoch.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.losses, self.history = file, [], []
        self.status: Status | None = None
        self._written = float("-inf")
        self._every = 1

    def step(self, status: Status) -> None:
        """Log it, keep its loss, and write the file if a second has passed."""
        super().step(status)
        self.status = status
        if status.loss is not None and status.step % self._every == 0:
            self.losses.append(status.loss)
            if len(self.losses) >= MOST_LOSSES:  # half of them, of twice as many steps
                self.losses, self._every = self.losses[::2], self._every * 2
        if self.clock() - self._written >= 1:
            self._write()

    def epoch(self, row: dict[str, Any]) -> None:
        """Log it, keep the row, and write the file."""
        super().epoch(row)
        self.history.append(row)
        self._write()

    def _write(self) -> None:
        self._written = self.clock()
        about = {"status": self.status and asdict(self.status), "losses": self.losses, "history": self.history}
        write_text(self.file, json.dumps(about))


def begin_line(processes: int) -> str:
    """A training's first line: a launcher may have started fewer processes than one thinks."""
    return f"training in {processes} process{'es' * (processes > 1)}"


def epoch_line(row: dict[str, Any]) -> str:
    """A line for a row of the history, of a training on a task or on text."""
    converted = row["converted_layer"]
    parts = [f"layer {converted} converted"] if converted is not None else []
    parts += [f"{row['texts']:,} texts"] if "texts" in row else []
    names = {"loss": "loss", "distill_hidden_loss": "error of hidden states", "balance_loss": "balance"}
    parts += [f"{words} {row[name]:.4f}" for name, words in names.items() if row.get(name)]
    if "metric" in row:
        ends = row["validation_interval"]
        interval = f"95% CI {ends[0]:.3f} to {ends[1]:.3f}, " if ends else ""
        score = f"{row['metric']} {row['validation_score']:.4f}"
        parts.append(f"{score} ({interval}n = {row['validation_n']:,})")
    return f"epoch {row['epoch'] + 1} (stage {row['stage']}): {', '.join(parts)}, {row['seconds']:.0f} s"
