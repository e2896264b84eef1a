"""An export as it is served: its graph run by onnxruntime, its texts cut and padded by its own tokenizer.

So an export is scored by what it answers, not by what the model that it was made from does: int8 weights, in
particular, are not that model's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from shrp.checkpoints.tokenizer_files import check_content
from shrp.data.batching import check_writable
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError, ExportError, ShrpError, first_line, panics_caught
from shrp.evaluation.evaluate import Texts, last_of, stream
from shrp.evaluation.evaluation import Evaluation
from shrp.export.graph import open_graph
from shrp.export.onnx import CONFIG, FORMAT_VERSION, MODEL, TOKENIZER, read_config
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `shrp.export.onnx`."""
    return bool(read_config(Path(folder)))


@dataclass(frozen=True, eq=False)
class Exported:
    """An export folder, loaded.

    Attributes:
        path: The folder.
        task: What the checkpoint that it was made from answers.
        labels: What each output stands for, in the graph's order; empty for regression.
        max_length: Tokens at which its tokenizer cuts an input, special tokens included.
        precision: "float32" or "int8".
        made_from: Fingerprint of that checkpoint.
        plan: The experts that were kept; None where none were pruned.
        num_experts: Experts of a converted layer, of which the plan keeps some.
        costs: Its parameters and FLOPs as shares of the dense model's (`shrp.evaluation.costs`), which int8 leaves as
            they are.
    """

    path: Path
    task: Task
    labels: tuple[str, ...]
    max_length: int
    precision: str
    made_from: str
    plan: PruningPlan | None
    num_experts: int
    costs: Mapping[str, float]
    _fields: dict[str, str]
    _tokenizer: Tokenizer
    _session: Any

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the graph's file."""
        with open(self.path / MODEL, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the graph's file."""
        return (self.path / MODEL).stat().st_size

    def logits(self, texts: Texts) -> np.ndarray:
        """Outputs for one batch of texts or pairs, in the order of the task's labels; float32 `(batch, num_labels)`.

        Raises:
            DataError: an input has not as many texts as the task, or is no text that can be written down.
            ExportError: the graph can't be run on them.
        """
        if wrong := {len(text) for text in texts} - {len(self.task.text_columns)}:
            reads = counted(len(self.task.text_columns), "text")
            raise DataError(f"{self.path} reads {reads} an input, not {min(wrong)}.")
        encoded = self._tokenizer.encode_batch(_as_read(texts))
        inputs = {
            name: np.array([getattr(one, field) for one in encoded], dtype=np.int64)
            for name, field in self._fields.items()
        }
        try:
            (found,) = self._session.run(["logits"], inputs)
        except Exception as error:  # onnxruntime's have no common ancestor of their own
            raise ExportError(f"{self.path / MODEL} can't be run: {first_line(error)}") from error
        if found.shape != (len(texts), self.task.num_labels):
            raise ExportError(
                f"{self.path / MODEL} gives outputs of shape {found.shape} for {len(texts)} inputs and "
                f"{self.task.num_labels} labels; export the checkpoint again."
            )
        return found[:, [self.labels.index(name) for name in self.task.label_names] or [0]]

    def lengths(self, texts: Texts) -> list[int]:
        """Tokens of each text or pair if nothing were cut, special tokens included."""
        return [len(one.ids) for one in self._uncut.encode_batch(_as_read(texts))]

    @cached_property
    def _uncut(self) -> Tokenizer:
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        whole.no_truncation()
        whole.no_padding()
        return whole

    def evaluate_stream(self, data: TextData) -> Iterator[Evaluation]:
        """As `shrp.evaluation.evaluate.evaluate_stream`, and in the same batches, on which int8's logits depend a little.

        Raises:
            DataError: there are no inputs, or they are data of another task: other texts or classes.
            ExportError: the graph can't be run on them.
        """
        data.check_is_for(self.task, str(self.path))

        def prepare(texts: Texts) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
            lengths = np.minimum(self.lengths(texts), self.max_length)
            return lengths, lambda places: self.logits([texts[i] for i in places])

        yield from stream(data, prepare, batch_size=32)

    def evaluate(self, data: TextData) -> Evaluation:
        """Score the export on all inputs."""
        return last_of(self.evaluate_stream(data))


def load_export(folder: Path) -> Exported:
    """Load an export for scoring, with as many threads as torch has.

    Raises:
        ExportError: the folder is no export, or a file of it is missing, broken or of an earlier version.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not config:
        raise ExportError(f"{folder} is no export: `python -m shrp export` writes some.")
    if (version := config.get("format_version")) != FORMAT_VERSION:
        raise ExportError(
            f"{folder} is an export of version {version!r}, not {FORMAT_VERSION}; export the checkpoint again."
        )
    try:
        task = Task.from_dict(config["task_definition"])
        plan = None if config["plan"] is None else PruningPlan.from_dict(config["plan"])
        labels = tuple(str(label) for label in config["labels"])
        fields = {str(name): str(field) for name, field in config["inputs"].items()}
        costs = {str(name): float(share) for name, share in config["cost"].items()}
        told = (int(config["max_length"]), str(config["precision"]), str(config["made_from"]))
        heads = int(config["num_experts"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ShrpError) as error:
        raise ExportError(
            f"{folder / CONFIG} is not as this version writes it ({first_line(error)}); export the checkpoint again."
        ) from error
    if sorted(labels) != sorted(task.label_names):
        raise ExportError(f"{folder / CONFIG} names other labels for its outputs than for its task.")
    try:
        check_content(folder)
        with panics_caught():
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        graph = open_graph(folder / MODEL)
    except ImportError as error:
        raise ExportError(
            "running an export needs the package onnxruntime; install requirements.txt."
        ) from error
    except Exception as error:  # both packages raise exceptions of many kinds for a broken file
        raise ExportError(f"{folder} can't be loaded: {first_line(error)}") from error
    return Exported(folder, task, labels, *told, plan, heads, costs, fields, tokenizer, graph)


def _as_read(texts: Texts) -> list[str | tuple[str, ...]]:
    """Single texts out of their tuples, as tokenizers takes them. Raises as `check_writable`."""
    check_writable(texts)
    return [text if len(text) > 1 else text[0] for text in texts]
