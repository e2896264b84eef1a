"""What all tasks of a study start from: encoders that learnt on the texts of GLUE's training splits, without labels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp import checkpoint
from shrp.base import load_base
from shrp.checkpoint import Checkpoint
from shrp.checkpoint_info import CheckpointInfo
from shrp.cli.converting import say_conversion
from shrp.cli.output import stderr
from shrp.config import Control, ShrpConfig
from shrp.data import load_data
from shrp.errors import TrainingError
from shrp.general import (
    RECOVERY_RATES,
    TEXTS,
    GeneralConfig,
    convert_on_text,
    recover_on_text,
    usage_on_text,
)
from shrp.history import history_text, joined
from shrp.plan import make_plan
from shrp.prune import prune

SOURCES = ("mrpc", "rte", "stsb", "qnli", "mnli", "qqp", "cola", "sst2")
MOST = 12_000
"""At most so many texts of each, so that the largest tasks don't crowd out the others."""
SIZES = {"conversion_size": 2500, "final_size": 20_000, "further_size": 60_000}


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
    """Encoders that learnt on texts, each made once and read back, like `benchmarks.stages.Stages`."""

    def __init__(self, base: str, base_name: str, work: Path, sizes: dict[str, int] | None = None) -> None:
        self.base, self.base_name, self.work, self.sizes = base, base_name, work, SIZES | (sizes or {})

    def __call__(self, control: Control, parts: tuple[tuple[int, ...], ...]) -> Checkpoint:
        """Convert the layers of each part in turn, each going on from the one before; returns the last.

        Raises:
            DataError, TrainingError, CheckpointError: as what it calls.
        """
        *before, layers = parts
        shrp = ShrpConfig(tuple(sorted(sum(parts, ()))), control=control)
        sizes = {name: self.sizes[name] for name in ("conversion_size", "final_size")}
        config = GeneralConfig(ShrpConfig(layers, control=control), **sizes)
        folder = self._folder(control, config, before)
        if (found := self._found(folder)) is not None:
            return found
        earlier = self(control, tuple(before)) if before else None
        base, tokenizer = self._base(folder)
        outputs, start, texts = self.work / "general-outputs", earlier.model if earlier else None, corpus()
        model, history = convert_on_text(
            config, base, tokenizer, texts, outputs, start=start, progress=say_conversion
        )
        training: dict[str, Any] = {"config": config.to_dict(), "texts": len(texts)}
        if earlier:
            training["earlier"] = dict(earlier.info.training)
        info = CheckpointInfo(shrp, TEXTS, base_model=self.base_name, training=training)
        history = joined(checkpoint.read_history(earlier.path) if earlier else [], history)
        return self._keep(folder, model, tokenizer, info, history)

    def further(
        self, kind: str, parts: tuple[tuple[int, ...], ...], per_layer: int = 1, seed: int = 0
    ) -> Checkpoint:
        """A converted encoder, pruned and then trained on by `further_size` texts; a control, likewise.

        Args:
            kind: `static`, pruned by usage on the texts; `random`, to experts drawn with `seed`; or a control
                (`dropped`, `uniform`), which is not pruned.
        """
        control = kind if kind in ("dropped", "uniform") else "none"
        config = GeneralConfig(
            ShrpConfig((), control=control), final_size=self.sizes["further_size"], **RECOVERY_RATES
        )
        of = f"{kind}-{per_layer}-{seed}" if control == "none" else kind
        source = self(control, parts)
        folder = self._folder(f"further-{of}", config, [source.path.name, "all layers learn"])
        if (found := self._found(folder)) is not None:
            return found
        base, tokenizer = self._base(folder)
        model, info, history = source.model, source.info, checkpoint.read_history(source.path)
        if control == "none":
            usage = usage_on_text(history)
            selection = "random" if kind == "random" else "usage"
            info = replace(info, plan=make_plan(usage, per_layer=per_layer, selection=selection, seed=seed))
            model = prune(model, info.plan)
        info = replace(info, training=dict(info.training) | {"recovery": config.to_dict()})
        outputs = self.work / "general-outputs"
        model, rows = recover_on_text(
            config, base, tokenizer, corpus(), outputs, model, progress=say_conversion
        )
        return self._keep(folder, model, tokenizer, info, joined(history, rows))

    def _found(self, folder: Path) -> Checkpoint | None:
        """What an earlier run made; raises `TrainingError` where that was of another base."""
        info = checkpoint.info_if_ours(folder)
        if info is None:
            return None
        if info.base_model != self.base_name:
            raise TrainingError(f"{folder} was made of {info.base_model}; name another --work folder.")
        return checkpoint.load(folder)

    def _folder(self, name: str, config: GeneralConfig, made_of: object) -> Path:
        text = json.dumps([config.to_dict(), made_of, SOURCES, MOST], sort_keys=True)
        return self.work / f"general-{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def _base(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        stderr.print(f"stage: {folder.name}", highlight=False)
        base, tokenizer, _ = load_base(self.base, TEXTS)
        return base, tokenizer

    def _keep(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        info: CheckpointInfo,
        history: list[dict[str, Any]],
    ) -> Checkpoint:
        extra = {checkpoint.HISTORY: history_text(history)}
        checkpoint.save(model, tokenizer, info, folder, extra_files=extra)
        return checkpoint.load(folder)
