"""The dense teacher's outputs for the training data: computed once, kept on disk, read back in every epoch.

A frozen teacher in evaluation mode gives the same outputs each time. Running it costs about a third of a distilled
training step of the dense model, and most of a step once the student is small.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import Encoded, collate
from shrp.errors import TrainingError
from shrp.training.losses import TeacherOutput
from shrp.training.runs import write_atomically

CACHE_BYTES = 16 * 2**30
"""Above this many bytes of hidden states the teacher is run in every step instead."""
SPARE_BYTES = 2**30
"""Left free on the disk for checkpoints."""
_LOG = logging.getLogger(__name__)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEPT, _LIVE = "kept", "live"
_BATCH = 64
_IDENTITY, _LOGITS, _HIDDEN, _LOCK = "teacher.json", "logits.npy", "hidden.bin", ".lock"


def _allocate(file: Path, size: int) -> None:
    """Take a file's room on the disk where the system and its file system can; raises `OSError` where there is none."""
    if not hasattr(os, "posix_fallocate"):
        return
    with file.open("r+b") as made:
        try:
            os.posix_fallocate(made.fileno(), 0, size)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise


def is_filled(folder: Path, hidden: bool) -> bool:
    """Whether a folder, or its twin without hidden states, holds a teacher's outputs."""
    return (outputs_folder(folder, hidden) / _IDENTITY).is_file()


def outputs_folder(folder: Path, hidden: bool) -> Path:
    """Where a teacher's outputs are kept, with hidden states or without: a run that needs less would otherwise empty
    the folder of those that need more.
    """
    return folder if hidden else folder.with_name(f"{folder.name}-logits")


class LiveTeacher:
    """Runs the teacher in every step."""

    def __init__(self, model: PreTrainedModel, hidden: bool) -> None:
        self.model, self.hidden = model.eval(), hidden

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], inputs: dict[str, Tensor]) -> TeacherOutput:
        """Logits `(B, C)` and, if wanted, each layer's hidden states `(B, T, d)` for a batch."""
        output = self.model(**inputs, output_hidden_states=self.hidden)
        return TeacherOutput(output.logits, output.hidden_states or ())


class CachedTeacher:
    """Reads the teacher's outputs for each row from a folder; `fill` writes them there first.

    Hidden states are kept unpadded in float16, `(tokens of all rows, layers + 1, d)`, so a row is one stretch of
    the file. They are the targets of a squared error between LayerNorm outputs of order 1, which float16 rounds
    by less than bf16 autocast does.

    Args:
        folder: made if missing; belongs to one teacher and one encoding of the data.
        encoded: all of the training data, as `shrp.data.batching.encode` gives them.
        rows: those that training will visit; only they are kept.
        identity: what the folder must be of; a folder of anything else is filled again.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encoded: Sequence[Encoded],
        rows: np.ndarray,
        *,
        hidden: bool,
        identity: dict[str, str],
    ) -> None:
        self.folder, self.model, self.tokenizer, self.encoded = folder, model.eval(), tokenizer, encoded
        self.rows, self.hidden = np.unique(rows), hidden
        lengths = np.array([len(encoded[row]["input_ids"]) for row in self.rows])
        self.lengths = dict(zip(self.rows.tolist(), lengths.tolist(), strict=True))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self.starts = dict(zip(self.rows.tolist(), starts[:-1].tolist(), strict=True))
        self.tokens = int(starts[-1])
        self.width = (model.config.num_hidden_layers + 1, model.config.hidden_size)
        digest = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        self.identity = identity | {"hidden": hidden, "rows": digest, "tokens": self.tokens}
        self.places = dict(zip(self.rows.tolist(), range(len(self.rows)), strict=True))

    @staticmethod
    def bytes_for(model: PreTrainedModel, tokens: int) -> int:
        """Bytes of hidden states that so many tokens take."""
        return tokens * (model.config.num_hidden_layers + 1) * model.config.hidden_size * 2

    def fill(self, precision: torch.dtype | None, progress: Callable[[int, int], None] | None = None) -> bool:
        """Run the teacher on every row, unless the folder holds its outputs already.

        Batches depend on the rows alone, so filling a folder again gives the same. One process at a time looks into a
        folder or fills it; one that has opened it goes on reading what it opened when another fills it again.

        Args:
            precision: of autocast; None computes in float32.
            progress: receives the rows done, and of how many.

        Returns:
            Whether there was room on the disk; if not, there is nothing to read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / _LOCK):
            file = self.folder / _IDENTITY
            if not (file.is_file() and json.loads(file.read_text(encoding="utf-8")) == self.identity):
                for name in (_IDENTITY, _HIDDEN, _LOGITS):
                    (self.folder / name).unlink(missing_ok=True)
                if self.hidden and not self._take_room():
                    return False
                self._ask(precision, progress)
                write_atomically(file, json.dumps(self.identity))
            self._open()
        return True

    def _take_room(self) -> bool:
        """Make the file of the hidden states, with its whole room on the disk where the system can do that at once: a
        file that is mapped into memory takes it as it is written, and a full disk ends the process.
        """
        size = self.bytes_for(self.model, self.tokens)
        if size + SPARE_BYTES > shutil.disk_usage(self.folder).free:
            return False
        file = self.folder / _HIDDEN
        try:
            with file.open("wb") as made:
                made.truncate(size)
            _allocate(file, size)
        except OSError as error:  # another process may have taken it since
            if error.errno not in _NO_ROOM:
                raise
            file.unlink()
            return False
        return True

    def _ask(self, precision: torch.dtype | None, progress: Callable[[int, int], None] | None = None) -> None:
        states = self._states("r+") if self.hidden else None
        logits = np.zeros((len(self.rows), self.model.config.num_labels), dtype=np.float32)
        order = sorted(self.rows.tolist(), key=lambda row: (self.lengths[row], row))
        device = next(self.model.parameters()).device
        for done in range(0, len(order), _BATCH):
            if progress:
                progress(done, len(order))
            part = order[done : done + _BATCH]
            inputs = collate(self.tokenizer, self.encoded, part)
            inputs = {name: value.to(device) for name, value in inputs.items()}
            cast = torch.autocast(device.type, precision or torch.bfloat16, enabled=precision is not None)
            with torch.inference_mode(), cast:
                output = self.model(**inputs, output_hidden_states=self.hidden)
            logits[[self.places[row] for row in part]] = output.logits.float().cpu().numpy()
            if states is not None:
                stacked = torch.stack(output.hidden_states, 2).half().cpu().numpy()  # (B, T, L + 1, d)
                real = inputs["attention_mask"].bool().cpu().numpy()
                for line, mask, row in zip(stacked, real, part, strict=True):
                    start = self.starts[row]
                    states[start : start + self.lengths[row]] = line[mask]
        if states is not None:
            states.flush()
        np.save(self.folder / _LOGITS, logits)

    def _states(self, mode: Literal["r", "r+"] = "r") -> np.memmap:
        return np.memmap(self.folder / _HIDDEN, np.float16, mode, shape=(self.tokens, *self.width))

    def _open(self) -> None:
        self.logits = np.load(self.folder / _LOGITS, allow_pickle=False)
        self.states = self._states() if self.hidden else None

    def __call__(self, rows: Sequence[int], inputs: dict[str, Tensor]) -> TeacherOutput:
        """Logits `(B, C)` and, if wanted, each layer's hidden states `(B, T, d)`, 0 where there is padding."""
        mask = inputs["attention_mask"].bool()
        logits = torch.from_numpy(self.logits[[self.places[row] for row in rows]]).to(mask.device)
        if self.states is None:
            return TeacherOutput(logits, ())
        states = np.concatenate(
            [self.states[self.starts[r] : self.starts[r] + self.lengths[r]] for r in rows]
        )
        padded = torch.zeros(*mask.shape, *self.width, dtype=torch.float16)
        padded[mask.cpu()] = torch.from_numpy(states)
        return TeacherOutput(logits, padded.to(mask.device).unbind(2))


def open_teacher(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    rows: np.ndarray,
    *,
    hidden: bool,
    identity: dict[str, str],
    bf16: bool,
    settled: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LiveTeacher | CachedTeacher:
    """The teacher, run once on each row where its outputs fit on the disk, or else in every step.

    Args as for `CachedTeacher` and its `fill`.

    Args:
        bf16: whether it computes in that.
        settled: a file that keeps which of the two it came to. Their outputs differ in the last digits, so a run that
            goes on uses the one that it began with.

    Raises:
        TrainingError: a run that began with room for the outputs has none now.
    """
    known = settled.read_text(encoding="utf-8") if settled is not None and settled.is_file() else ""
    if known == _LIVE:
        return LiveTeacher(model, hidden)
    identity = identity | {"precision": "bf16" if bf16 else "fp32"}
    cached = CachedTeacher(folder, model, tokenizer, encoded, rows, hidden=hidden, identity=identity)
    size = CachedTeacher.bytes_for(model, cached.tokens) if hidden else 0
    kept = size <= CACHE_BYTES and cached.fill(torch.bfloat16 if bf16 else None, progress)
    needs = f"the teacher's hidden states take {size / 2**30:.1f} GiB"
    if not kept and known:
        raise TrainingError(
            f"{needs}, with which this run began, and {folder} has no room for them now: make room, or delete "
            f"{settled.parent} to start afresh."
        )
    if settled is not None:
        settled.write_text(_KEPT if kept else _LIVE, encoding="utf-8")
    if kept:
        return cached
    why = (
        f"at most {CACHE_BYTES / 2**30:.0f} GiB are kept; fewer or shorter texts would fit"
        if size > CACHE_BYTES
        else f"{folder} has no room for them and {SPARE_BYTES / 2**30:.0f} GiB to spare"
    )
    _LOG.warning(f"{needs}, and {why}: the teacher is run in every step, which takes longer.")
    return LiveTeacher(model, hidden)
