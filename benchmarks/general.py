"""The conversion that all tasks of a study start from: on the texts of GLUE's training splits, without their labels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from shrp import checkpoint
from shrp.base import load_base
from shrp.checkpoint import Checkpoint, CheckpointInfo
from shrp.cli.converting import say_conversion
from shrp.cli.output import stderr
from shrp.config import ShrpConfig
from shrp.data import load_data
from shrp.general import TEXTS, GeneralConfig, convert_on_text
from shrp.train import history_text, joined

SOURCES = ("mrpc", "rte", "stsb", "qnli", "mnli", "qqp", "cola", "sst2")
MOST = 12_000
"""At most so many texts of each, of which only SST-2 has more: phrases, many of them parts of each other."""
SIZES = {"conversion_size": 2500, "final_size": 20_000}


def corpus(seed: int = 0) -> list[tuple[str, ...]]:
    """Single texts and pairs in random order.

    Raises:
        DataError: a task's training split can't be read.
    """
    generator = np.random.default_rng(seed)
    texts: list[tuple[str, ...]] = []
    for task in SOURCES:
        found = load_data("glue", task, "train").texts
        texts += [found[i] for i in generator.permutation(len(found))[:MOST]]
    return [texts[i] for i in generator.permutation(len(texts))]


class General:
    """Converted encoders, one for each control and depth, made once and read back, like `benchmarks.stages.Stages`."""

    def __init__(self, base: str, base_name: str, work: Path, sizes: dict[str, int] | None = None) -> None:
        self.base, self.base_name, self.work, self.sizes = base, base_name, work, SIZES | (sizes or {})

    def __call__(self, control: str, parts: tuple[tuple[int, ...], ...]) -> Checkpoint:
        """Convert the layers of each part in turn, each going on from the one before; returns the last.

        Raises:
            DataError, TrainingError, CheckpointError: as what it calls.
        """
        *before, layers = parts
        shrp = ShrpConfig(tuple(sorted(sum(parts, ()))), control=control)
        config = GeneralConfig(ShrpConfig(layers, control=control), **self.sizes)
        text = json.dumps([config.to_dict(), before, SOURCES, MOST], sort_keys=True)
        folder = self.work / f"general-{control}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        if checkpoint.info_if_ours(folder) is not None:
            return checkpoint.load(folder)
        earlier = self(control, tuple(before)) if before else None
        stderr.print(f"stage: {folder.name}", highlight=False)
        base, tokenizer, _ = load_base(self.base, TEXTS)
        model, history = convert_on_text(
            config,
            base,
            tokenizer,
            corpus(),
            self.work / "general-outputs",
            start=earlier.model if earlier else None,
            progress=say_conversion,
        )
        info = CheckpointInfo(shrp, TEXTS, base_model=self.base_name, training={"config": config.to_dict()})
        history = joined(checkpoint.read_history(earlier.path) if earlier else [], history)
        extra = {checkpoint.HISTORY: history_text(history)}
        checkpoint.save(model, tokenizer, info, folder, extra_files=extra)
        return checkpoint.load(folder)
