"""What commands run: a checkpoint, or an export of one as it is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrp.cli.options import Data, check_has_task, report_cut, report_cut_at
from shrp.cli.output import progress_on, stderr
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    import numpy as np

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.checkpoints.info import CheckpointInfo
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluate import Texts
    from shrp.evaluation.evaluation import Evaluation
    from shrp.export.exported import Exported


def opened(folder: Path, data: Data, *, task: bool = True) -> tuple[Checkpoint, TextData, int]:
    """A checkpoint, of a task unless `task` is False, its data, and the tokens at which texts are cut."""
    from shrp.checkpoints.checkpoint import load

    loaded = load(folder, device=data.device)
    if task:
        check_has_task(loaded.info.task)
    return loaded, data.load(loaded.info.task), data.max_length or loaded.info.max_length


def provenance(loaded: Checkpoint, data: TextData, max_length: int) -> dict[str, Any]:
    """What a result was computed from: checkpoint, data, tokens at which texts are cut, versions and device."""
    import torch
    import transformers

    from shrp.data.batching import longest_input

    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    length = longest_input(loaded.model, loaded.tokenizer, max_length)
    return _provenance(loaded.fingerprint, data, length, versions) | {"device": str(loaded.model.device)}


def _provenance(made_from: str, data: TextData, length: int, versions: dict[str, str]) -> dict[str, Any]:
    about = {"data": data.name, "data_fingerprint": data.source_fingerprint, "n": len(data)}
    return {"checkpoint_fingerprint": made_from, **about, "max_length": length, "versions": versions}


def teacher_score(loaded: Checkpoint, data: TextData, length: int) -> float | None:
    """The dense teacher's score on these data, which the checkpoint carries, with texts cut as now; None if unknown."""
    from shrp.checkpoints import info
    from shrp.checkpoints.score_rows import rows_as_now
    from shrp.data.batching import token_counts

    def longest() -> int:
        return max(token_counts(loaded.tokenizer, data.texts), default=0)

    return info.teacher_score(rows_as_now(loaded.info, data, longest, length))


def tokens_read(loaded: Checkpoint, data: TextData, length: int) -> np.ndarray:
    """Tokens `(N,)` that the model reads of each example, special tokens included."""
    import numpy as np

    from shrp.data.batching import longest_input, token_counts

    counts = token_counts(loaded.tokenizer, data.texts)
    return np.minimum(counts, longest_input(loaded.model, loaded.tokenizer, length))


@dataclass(frozen=True)
class Subject:
    """A checkpoint, run by PyTorch, or an export, run by onnxruntime: one of the two."""

    checkpoint: Checkpoint | None
    export: Exported | None
    length: int
    """Tokens at which examples are cut."""

    @property
    def info(self) -> CheckpointInfo | Exported:
        """What has its task and its plan."""
        return self.export or self.checkpoint.info

    @property
    def reads(self) -> int:
        """Most tokens it reads of an example."""
        from shrp.data.batching import longest_input

        if self.export:
            return self.length
        return longest_input(self.checkpoint.model, self.checkpoint.tokenizer, self.length)

    def evaluate(self, source: TextData, doing: str = "evaluating") -> Evaluation:
        """Score it, with progress on stderr."""
        from shrp.evaluation.evaluate import evaluate_stream

        if self.export:
            stream = self.export.evaluate_stream(source)
        else:
            of = (self.checkpoint.model, self.checkpoint.tokenizer, source)
            stream = evaluate_stream(*of, max_length=self.length)
        with progress_on(doing, len(source)) as show:
            for found in stream:
                show(found.n, description=f"{doing}, {found.metric} {found.score:.4f}")
        return found

    def run(self, texts: Texts) -> np.ndarray:
        """Logits of one batch of texts or pairs, float32 `(batch, num_labels)`."""
        from shrp.data.batching import collate, encode
        from shrp.evaluation.evaluate import batch_logits

        if self.export:
            return self.export.logits(texts)
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer
        encoded = encode(tokenizer, texts, self.reads)
        return batch_logits(model, collate(tokenizer, encoded, range(len(texts))))

    def teacher(self, source: TextData) -> float | None:
        """The dense teacher's score on these examples; None if unknown, as an export's is."""
        return None if self.export else teacher_score(self.checkpoint, source, self.length)

    def size(self) -> dict[str, Any]:
        """Parameters and FLOPs as shares of the dense model's, and the size of the file of weights."""
        from shrp.checkpoints.info import MORE_WEIGHTS, WEIGHTS
        from shrp.evaluation.costs import cost, dense_cost

        if self.export:
            return {**self.export.costs, "bytes": self.export.bytes}
        shares = cost(self.checkpoint.model).relative_to(dense_cost(self.checkpoint.model))
        files = (self.checkpoint.path / name for name in (WEIGHTS, MORE_WEIGHTS))
        return {**shares, "bytes": sum(file.stat().st_size for file in files if file.is_file())}

    def report_cut(self, source: TextData) -> None:
        """Print how many examples the model reads only in part."""
        if self.export:
            lengths = self.export.lengths(source.texts)
            report_cut_at(self.length, lengths, source.name, "the export was made so")
        else:
            report_cut(self.checkpoint.model.config, self.checkpoint.tokenizer, source, self.length)

    def provenance(self, source: TextData) -> dict[str, Any]:
        """What a result was computed from."""
        if not self.export:
            return provenance(self.checkpoint, source, self.length)
        import onnxruntime
        import tokenizers

        export = self.export
        versions = {"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__}
        about = {
            "graph_fingerprint": export.fingerprint,
            "precision": export.precision,
            "bytes": export.bytes,
        }
        return _provenance(export.made_from, source, self.length, versions) | about | {"device": "cpu"}


def subject(folder: Path, data: Data) -> Subject:
    """Load what the folder holds; raise `DataError` if it has no task, or options that an export has not are given."""
    from shrp.checkpoints.checkpoint import load
    from shrp.export.exported import is_export, load_export

    if not is_export(folder):
        loaded = load(folder, device=data.device)
        check_has_task(loaded.info.task)
        return Subject(loaded, None, data.max_length or loaded.info.max_length)
    if data.device != "cpu":
        raise DataError(f"{folder} is an export, which runs on the CPU; leave --device out.")
    export = load_export(folder)
    if data.max_length not in (None, export.max_length):
        raise DataError(
            f"{folder} is an export, which cuts texts at {export.max_length} tokens; leave --max-length out."
        )
    return Subject(None, export, export.max_length)


def served(subjects: Mapping[str, Subject], source: TextData) -> dict[str, dict[str, Any]]:
    """What serving each of some models is like: `score`, `interval`, `n`, `serving_times` and the weights' size, `mb`."""
    from shrp.evaluation.timing import serving_times

    stderr.print("scoring ...")
    found = {name: one.evaluate(source, f"scoring {name}") for name, one in subjects.items()}
    stderr.print("measuring latency ...")
    times = serving_times({name: one.run for name, one in subjects.items()}, source.texts)
    return {
        name: {"metric": of.metric, "score": of.score, "interval": of.interval, "n": of.n}
        | times[name]
        | {"mb": subjects[name].size()["bytes"] / 1e6}
        for name, of in found.items()
    }
