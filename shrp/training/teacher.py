"""The dense teacher's outputs for the training data: computed once, kept on disk, read back in every epoch.

A frozen teacher in evaluation mode gives the same outputs each time. Running it costs about a third of a distilled
training step of the dense model, and most of a step once the student is small.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel

from shrp.errors import TrainingError
from shrp.files import write_text
from shrp.model.modules import logits_of
from shrp.progress import Progress, silent
from shrp.training.examples import Examples
from shrp.training.losses import TeacherOutput
from shrp.training.runs import weights_digest

CACHE_BYTES = 16 * 2**30
"""Above this many bytes of hidden states the teacher is run in every step instead."""
SPARE_BYTES = 2**30
"""Left free on the disk for checkpoints."""
_BATCH = 64
_IDENTITY, _LOGITS, _HIDDEN, _LOCK = "teacher.json", "logits.npy", "hidden.bin", ".lock"


class LiveTeacher:
    """Runs the teacher in every step."""

    def __init__(self, model: PreTrainedModel, hidden: bool) -> None:
        self.model, self.hidden = model.eval(), hidden

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], inputs: dict[str, Tensor]) -> TeacherOutput:
        """Logits `(B, C)`, or of tokens `(B, T, C)`, and, if wanted, each layer's hidden states `(B, T, d)` for a batch."""
        output = self.model(**inputs, output_hidden_states=self.hidden)
        return TeacherOutput(logits_of(output), output.hidden_states or ())


class CachedTeacher:
    """Reads the teacher's outputs for each row from a folder; `fill` writes them there first.

    Hidden states are kept unpadded in float16, `(tokens of all rows, layers + 1, d)`, so a row is one stretch of
    the file. They are the targets of a squared error between LayerNorm outputs of order 1, which float16 rounds
    by less than bf16 autocast does.

    Args:
        folder: made if missing, and its twin `<folder>-logits` without hidden states; one that holds the outputs of another
            teacher, or for other data, is filled again.
        rows: the examples `(n,)` that training will visit; only their outputs are kept.
        hidden: whether hidden states are kept.
        precision: `fp32` or `bf16`, which the teacher computes in.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        examples: Examples,
        rows: np.ndarray,
        hidden: bool,
        precision: str = "fp32",
    ) -> None:
        self.folder = folder if hidden else folder.with_name(f"{folder.name}-logits")
        self.model, self.examples = model.eval(), examples
        self.hidden, self.bf16 = hidden, precision == "bf16"
        rows = np.unique(rows)
        # By length, as they are computed, so that the file is written from start to end.
        self.rows = rows[np.argsort(examples.lengths[rows], kind="stable")]
        self.places = {row: place for place, row in enumerate(self.rows.tolist())}
        self.starts = np.concatenate([[0], np.cumsum(examples.lengths[self.rows])])
        self.width = (model.config.num_hidden_layers + 1, model.config.hidden_size)
        self.bytes = int(self.starts[-1]) * self.width[0] * self.width[1] * 2 if hidden else 0
        """Bytes of the hidden states."""
        self.identity = {
            "teacher": weights_digest(model),
            "examples": examples.digest,
            "rows": hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest(),
            "hidden": hidden,
            "precision": precision,
        }

    def or_live(self, progress: Progress = silent) -> LiveTeacher | CachedTeacher:
        """The teacher, run once on each row (`fill`), or in every step where its hidden states exceed `CACHE_BYTES`."""
        if self.bytes > CACHE_BYTES:
            return LiveTeacher(self.model, self.hidden)
        self.fill(progress)
        return self

    def fill(self, progress: Progress = silent) -> None:
        """Run the teacher on every row, unless the folder holds its outputs already.

        Batches depend on the rows alone, so filling a folder again gives the same. One process at a time looks into it; one
        that has opened it goes on reading what it opened.

        Raises:
            TrainingError: there is no room on the disk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file, hidden = self.folder / _IDENTITY, self.folder / _HIDDEN
        with FileLock(self.folder / _LOCK):
            if not (file.is_file() and json.loads(file.read_text(encoding="utf-8")) == self.identity):
                for name in (_IDENTITY, _HIDDEN, _LOGITS):
                    (self.folder / name).unlink(missing_ok=True)
                if self.bytes and self.bytes + SPARE_BYTES > shutil.disk_usage(self.folder).free:
                    raise TrainingError(
                        f"the teacher's hidden states take {self.bytes / 2**30:.1f} GiB, and {self.folder} has no room for "
                        f"them and {SPARE_BYTES / 2**30:.0f} GiB to spare: make room, or train on fewer or shorter texts."
                    )
                self._run(hidden, progress)
                write_text(file, json.dumps(self.identity))
            self.logits = np.load(self.folder / _LOGITS, allow_pickle=False)
            self.of_tokens = len(self.logits) > len(self.rows)  # each has two tokens or more
            shape = (int(self.starts[-1]), *self.width)
            self.states = np.memmap(hidden, np.float16, "r", shape=shape) if self.hidden else None

    def _run(self, hidden: Path, progress: Progress) -> None:
        logits, device = [], next(self.model.parameters()).device
        with hidden.open("wb") as file:
            for done in range(0, len(self.rows), _BATCH):
                progress(done, len(self.rows))
                inputs, _ = self.examples.batch(self.rows[done : done + _BATCH], device)
                cast = torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)
                with torch.inference_mode(), cast:
                    output = self.model(**inputs, output_hidden_states=self.hidden)
                found = logits_of(output).float()  # those of tokens are kept unpadded, too
                logits.append((found[inputs["attention_mask"].bool()] if found.dim() == 3 else found).cpu().numpy())
                if self.hidden:
                    states = torch.stack(output.hidden_states, 2).half()  # (B, T, L + 1, d)
                    file.write(states[inputs["attention_mask"].bool()].cpu().numpy().tobytes())
        np.save(self.folder / _LOGITS, np.concatenate(logits))

    def __call__(self, rows: Sequence[int], inputs: dict[str, Tensor]) -> TeacherOutput:
        """Logits `(B, C)`, or of tokens, and, if wanted, hidden states `(B, T, d)`, both 0 where there is padding."""
        mask, places = inputs["attention_mask"].bool(), [self.places[row] for row in rows]
        if self.of_tokens:
            logits = self._padded(self.logits, places, mask)
        else:
            logits = torch.from_numpy(self.logits[places]).to(mask.device)
        hidden = () if self.states is None else self._padded(self.states, places, mask).unbind(2)
        return TeacherOutput(logits, hidden)

    def _padded(self, flat: np.ndarray, places: Sequence[int], mask: Tensor) -> Tensor:
        """What is kept of the tokens of some rows, `(B, T, ...)`."""
        values = np.concatenate([flat[self.starts[p] : self.starts[p + 1]] for p in places])
        padded = torch.zeros(*mask.shape, *values.shape[1:], dtype=torch.from_numpy(values).dtype)
        padded[mask.cpu()] = torch.from_numpy(values)
        return padded.to(mask.device)
