"""What `evaluate` and `compare` score: a checkpoint, or an export of one as it is served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrp.cli.options import report_cut, report_cut_at
from shrp.cli.output import provenance, provenance_of
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.tasks import Task
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation
    from shrp.export.exported import Exported
    from shrp.pruning.plan import PruningPlan


@dataclass(frozen=True)
class OfCheckpoint:
    """A checkpoint, run by PyTorch."""

    checkpoint: Checkpoint
    length: int
    """Tokens at which examples are cut."""

    @property
    def task(self) -> Task:
        """The task."""
        return self.checkpoint.info.task

    @property
    def plan(self) -> PruningPlan | None:
        """The experts it keeps; None if it was not pruned."""
        return self.checkpoint.info.plan

    @property
    def num_experts(self) -> int:
        """Experts of a converted layer."""
        from shrp.model.convert import num_experts_of

        return num_experts_of(self.checkpoint.model)

    @property
    def reads(self) -> int:
        """Most tokens it reads of an example."""
        from shrp.data.batching import longest_input

        return longest_input(self.checkpoint.model, self.checkpoint.tokenizer, self.length)

    @property
    def bytes(self) -> int:
        """Size of the file of weights."""
        from shrp.checkpoints.info import WEIGHTS

        return (self.checkpoint.path / WEIGHTS).stat().st_size

    def stream(self, source: TextData, batch_size: int = 32) -> Iterator[Evaluation]:
        """Estimates, batch by batch."""
        from shrp.evaluation.evaluate import evaluate_stream

        options = {"batch_size": batch_size, "max_length": self.length}
        return evaluate_stream(self.checkpoint.model, self.checkpoint.tokenizer, source, **options)

    def teacher(self, source: TextData) -> float | None:
        """The dense teacher's score on these examples; None if unknown."""
        from shrp.checkpoints.score_rows import rows_as_now
        from shrp.data.batching import token_counts

        def longest() -> int:
            return max(token_counts(self.checkpoint.tokenizer, source.texts), default=0)

        rows = rows_as_now(self.checkpoint.info, source, longest, self.length)
        return next((row.get("score") for row in rows if row["kind"] == "teacher"), None)

    def costs(self) -> dict[str, float]:
        """Parameters and FLOPs, as shares of the dense model's."""
        from shrp.evaluation.costs import cost, dense_cost

        return cost(self.checkpoint.model).relative_to(dense_cost(self.checkpoint.model))

    def report_cut(self, source: TextData) -> None:
        """Print how many examples the model reads only in part."""
        report_cut(self.checkpoint.model.config, self.checkpoint.tokenizer, (source,), self.length)

    def provenance(self, source: TextData) -> dict[str, Any]:
        """What a result was computed from."""
        return provenance(self.checkpoint, source, self.length)


@dataclass(frozen=True)
class OfExport:
    """An export, run by onnxruntime; where it cuts examples is fixed."""

    export: Exported

    @property
    def task(self) -> Task:
        """The task."""
        return self.export.task

    @property
    def plan(self) -> PruningPlan | None:
        """The experts it keeps; None if it was not pruned."""
        return self.export.plan

    @property
    def num_experts(self) -> int:
        """Experts of a converted layer."""
        return self.export.num_experts

    @property
    def reads(self) -> int:
        """Most tokens it reads of an example."""
        return self.export.max_length

    @property
    def bytes(self) -> int:
        """Size of the graph's file."""
        return self.export.bytes

    def stream(self, source: TextData, batch_size: int = 32) -> Iterator[Evaluation]:
        """Estimates, batch by batch."""
        return self.export.evaluate_stream(source, batch_size=batch_size)

    def teacher(self, source: TextData) -> float | None:
        """The dense teacher's score on these examples; None if the export does not carry it."""
        return self.export.teacher_score(source)

    def costs(self) -> dict[str, float]:
        """Parameters and FLOPs, as shares of the dense model's."""
        return dict(self.export.costs)

    def report_cut(self, source: TextData) -> None:
        """Print how many examples the model reads only in part."""
        report_cut_at(self.reads, self.export.lengths(source.texts), source.name, "the export was made so")

    def provenance(self, source: TextData) -> dict[str, Any]:
        """What a result was computed from."""
        import onnxruntime
        import tokenizers

        export = self.export
        versions = {"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__}
        about = {
            "graph_fingerprint": export.fingerprint,
            "precision": export.precision,
            "bytes": export.bytes,
            "device": "cpu",
        }
        return provenance_of(export.made_from, source, self.reads, versions) | about


Subject = OfCheckpoint | OfExport


def subject(folder: Path, max_length: int | None, device: str = "cpu") -> Subject:
    """Load what the folder holds.

    Args:
        max_length: `--max-length`; None takes the length of the checkpoint.
        device: `--device`.

    Raises:
        CheckpointError, ExportError: It cannot be loaded.
        DataError: `max_length` or a device is given for an export.
        ShrpError: There is no such device.
    """
    from shrp.checkpoints.checkpoint import load
    from shrp.export.exported import is_export, load_export

    if not is_export(folder):
        loaded = load(folder, device=device)
        return OfCheckpoint(loaded, max_length or loaded.info.max_length)
    if device != "cpu":
        raise DataError(f"{folder} is an export, which runs on the CPU; leave --device out.")
    export = load_export(folder)
    if max_length is not None and max_length != export.max_length:
        raise DataError(
            f"{folder} is an export, which cuts texts at {export.max_length} tokens; leave --max-length out."
        )
    return OfExport(export)
