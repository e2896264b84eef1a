"""The dense teacher's outputs on known data, which travel with a checkpoint as the small file `teacher.safetensors`.

With them a pruned model can be held against its teacher input by input where the teacher itself is not at hand. The
file holds one float32 tensor `(n, num_labels)` a data set, named by the data's fingerprint, and no text of the data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.files import write_bytes

FILE = "teacher.safetensors"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""Largest file: outputs for a million examples with four classes."""
SET_BYTES = 2 * 2**20
"""Largest outputs of one data set that a training keeps by default."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A dense teacher's outputs on all of one data set.

    Attributes:
        data: The data set's name.
        logits: float32 `(n, num_labels)`, or of words `(n, W, num_labels)`, in the data set's order, columns in the order
            of the task's labels.
        teacher: The fingerprint of the teacher's checkpoint; empty where it had none.
        cut: Tokens at which its texts were cut; 0 where an earlier version did not say.
    """

    data: str
    logits: np.ndarray
    teacher: str = ""
    cut: int = 0

    def evaluation(self, data: TextData) -> Evaluation:
        """The teacher's evaluation on `data`, whose fingerprint must be the one that this is kept under.

        Raises:
            DataError: the outputs are of another number of examples or classes.
        """
        expected = data.output_shape
        if self.logits.shape != expected:
            raise DataError(
                f"The teacher's outputs for '{self.data}' have the shape {list(self.logits.shape)}, "
                f"but '{data.name}' needs {list(expected)}."
            )
        return summarise(data, np.arange(len(data)), self.logits, True)


def from_evaluation(evaluation: Evaluation, teacher: str = "", cut: int = 0) -> Reference:
    """The reference that a dense teacher's evaluation of all examples is, with texts cut at `cut` tokens."""
    return Reference(evaluation.data, evaluation.logits.astype(np.float32), teacher, cut)


def write(folder: str | os.PathLike, references: Mapping[str, Reference]) -> Path:
    """Write the file of a checkpoint folder, all of it or nothing; one that is there is replaced.

    `references`: data fingerprint -> the teacher's outputs.

    Raises:
        CheckpointError: the folder can't be written, or `read` would refuse the file.
    """
    file = Path(folder) / FILE
    if not all(_sound(one.logits) for one in references.values()):
        raise CheckpointError("a teacher's outputs are not all finite numbers; they can't be a reference.")
    tensors = {key: np.ascontiguousarray(one.logits, dtype=np.float32) for key, one in references.items()}
    about = {key: {"data": one.data, "teacher": one.teacher, "cut": one.cut} for key, one in references.items()}
    about = {"format_version": FORMAT_VERSION, "references": about}
    # One entry: safetensors has no order for several.
    content = save(tensors, metadata={"shrp": json.dumps(about, sort_keys=True)})
    if len(content) > MAX_BYTES:
        raise CheckpointError(f"{file} would hold more than {MAX_BYTES // 2**20} MiB of outputs.")
    try:
        write_bytes(file, content)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written: {error}.") from error
    return file


def read(folder: str | os.PathLike, task: Task) -> dict[str, Reference]:
    """A checkpoint folder's references by data fingerprint; empty where there is no file.

    Raises:
        CheckpointError: the file is truncated, too large, of another version, or does not fit the task.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{file} is larger than {MAX_BYTES // 2**20} MiB; it is not a checkpoint's.")
        with safe_open(file, framework="numpy") as stored:
            about = json.loads((stored.metadata() or {})["shrp"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118, it is no dict
        if about["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"{file} is of version {about['format_version']!r}, not {FORMAT_VERSION}.")
        found = {}
        for key, logits in tensors.items():
            known = about["references"][key]
            cut = known.get("cut", 0)
            cut = cut if isinstance(cut, int) and cut > 0 else 0
            found[key] = Reference(str(known["data"]), logits, str(known["teacher"]), cut)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is truncated or not a safetensors file: {error}.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} does not name the data of its outputs: {error!r}.") from error
    for one in found.values():
        kind, shape = one.logits.dtype, one.logits.shape
        if kind != np.float32 or len(shape) != 2 + task.on_words or shape[-1] != task.num_labels or not shape[0]:
            raise CheckpointError(
                f"{file} does not fit the task '{task.name}': outputs for '{one.data}' are {kind} of shape {list(shape)}, "
                f"expected float32 of shape [n, {task.num_labels}]."
            )
        if not _sound(one.logits):
            raise CheckpointError(f"{file} holds outputs for '{one.data}' that are not finite numbers.")
    return found


def _sound(logits: np.ndarray) -> bool:
    """Whether outputs are finite; of words, where there is one."""
    return bool(np.isfinite(logits[~np.isnan(logits).all(-1)] if logits.ndim == 3 else logits).all())
