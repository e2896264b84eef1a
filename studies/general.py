"""What all tasks of a study start from: encoders that learnt on the texts of GLUE's training splits, without labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text, joined
from shrp.checkpoints.info import CheckpointInfo
from shrp.cli.converting import say_conversion
from shrp.cli.output import stderr
from shrp.data.sources import load_data
from shrp.data.tasks import TEXTS
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.model.config import Control, ShrpConfig
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from shrp.studies.studies import AS_TRAINED, UNROUTED
from shrp.training.examples import FIT_EXAMPLES
from shrp.training.general import (
    FURTHER_SIZE,
    RECOVERY_RATES,
    GeneralConfig,
    convert_on_text,
    recover_on_text,
    texts_digest,
)
from shrp.training.precision import resolve_precision
from shrp.training.run_state import (
    RUN_FILE,
    RunState,
    alone_in,
    check_identity,
    finish,
    kept_identity,
    run_folder,
    weights_digest,
)

SOURCES = ("mrpc", "rte", "stsb", "qnli", "mnli", "qqp", "cola", "sst2")
FROM = [f"glue/{task} train" for task in SOURCES]
MOST = 12_000
"""At most so many texts of each, so that the largest tasks don't crowd out the others."""
SIZES = {
    "conversion_size": GeneralConfig.conversion_size,
    "final_size": GeneralConfig.final_size,
    "further_size": FURTHER_SIZE,
}


def corpus() -> list[tuple[str, ...]]:
    """Single texts and pairs in random order, the same at each call.

    Raises:
        DataError: a task's training split can't be read.
    """
    generator = np.random.default_rng(0)
    texts: list[tuple[str, ...]] = []
    for task in SOURCES:
        found = load_data("glue", task, "train").texts
        texts += [found[i] for i in generator.permutation(len(found))[:MOST]]
    return [texts[i] for i in generator.permutation(len(texts))]


@dataclass(frozen=True, eq=False)
class Narrow:
    """What the layers of the `narrow` control are pruned to. SHRP keeps what a task uses, so they are told the task."""

    size: int
    """Experts of the SHRP layer whose size they get."""
    data: TextData
    """The task's training data; some of their texts, without labels, say which heads and neurons stay."""

    @property
    def measured(self) -> list[tuple[str, ...]]:
        """These texts."""
        rows = np.random.default_rng(0).permutation(len(self.data))[:FIT_EXAMPLES]
        return [self.data.texts[row] for row in rows]


class General:
    """Encoders that learnt on texts, each made once and read back, like `studies.stages.Stages`."""

    def __init__(self, base: str, base_name: str, work: Path) -> None:
        self.base, self.base_name, self.work = base, base_name, work

    def __call__(
        self, control: Control, parts: tuple[tuple[int, ...], ...], narrow: Narrow | None = None
    ) -> Checkpoint:
        """Convert the layers of each part in turn, each going on from the one before; returns the last.

        Args:
            narrow: of the `narrow` control, what it is pruned to.

        Raises:
            DataError, TrainingError, CheckpointError: as what it calls.
        """
        *before, layers = parts
        layers_in_all = tuple(sorted(sum(parts, ())))
        shrp = ShrpConfig(layers_in_all, control=control, narrow_to=narrow.size if narrow else 0)
        sizes = {name: SIZES[name] for name in ("conversion_size", "final_size")}
        config = GeneralConfig(replace(shrp, layers=layers), **sizes)
        folder = self._folder(control, config, [before, narrow.data.name] if narrow else before)
        earlier = self(control, tuple(before), narrow) if before else None
        if (found := self._found(folder, earlier, narrow)) is not None:
            return found
        outputs, start = self.work / "general-outputs", earlier.model if earlier else None
        state = RunState(run_folder(folder))
        with alone_in(state.folder):  # another command may have made it since
            if (found := self._found(folder, earlier, narrow)) is not None:
                return found
            same = self._identity(folder, earlier, narrow)
            base, tokenizer = self._base(folder)
            texts = self.texts
            precision = state.open(same, True, lambda: self._settled(config.precision))
            settled = replace(config, precision=precision)
            model, history = convert_on_text(
                settled,
                base,
                tokenizer,
                texts,
                outputs,
                start=start,
                measured=narrow.measured if narrow else (),
                state=state,
                progress=say_conversion,
            )
            training: dict[str, Any] = {"config": config.to_dict(), "texts": len(texts), "sources": FROM}
            if narrow:
                training["measured_on"] = narrow.data.name
            training["precision"] = precision  # what `auto` came to
            if earlier:
                training["earlier"] = dict(earlier.info.training)
            info = CheckpointInfo(shrp, TEXTS, base_model=self.base_name, training=training)
            history = joined(checkpoint.read_history(earlier.path) if earlier else [], history)
            made = self._keep(folder, model, tokenizer, info, history, same)
            finish(folder)
            return made

    def further(
        self,
        kind: str,
        parts: tuple[tuple[int, ...], ...],
        plan: PruningPlan | None = None,
        task: str | None = None,
        narrow: Narrow | None = None,
    ) -> Checkpoint:
        """A converted encoder, pruned and then trained on by `further_size` texts; a control, likewise.

        Args:
            kind: what to call it; a control (`dropped`, `uniform`, `narrow`) is not pruned, or was before; `unrouted`
                is a pruned `uniform`.
            plan: what to prune it to, otherwise.
            task: the one whose usage chose what is kept.
            narrow: of the `narrow` control, what it is pruned to.

        Raises:
            DataError, TrainingError, CheckpointError: as what it calls.
        """
        control = kind if kind in AS_TRAINED else "none"
        if control == "none" and plan is None:
            raise TrainingError(f"{kind} needs a plan to be pruned to.")
        config = GeneralConfig(
            ShrpConfig((), control=control, narrow_to=narrow.size if narrow else 0),
            final_size=SIZES["further_size"],
            **RECOVERY_RATES,
        )
        source = self("uniform" if kind == UNROUTED else control, parts, narrow)
        made_of = [source.path.name, "all layers learn"]
        if plan is not None:
            made_of += ["and each is asked", plan.to_dict()]
        folder = self._folder(f"further-{kind}", config, made_of)
        if (found := self._found(folder, source)) is not None:
            return found
        with alone_in(run_folder(folder)):  # another command may have made it since
            if (found := self._found(folder, source)) is not None:
                return found
            return self._further(folder, config, source, plan, task)

    def _further(
        self,
        folder: Path,
        config: GeneralConfig,
        source: Checkpoint,
        plan: PruningPlan | None,
        task: str | None,
    ) -> Checkpoint:
        """What `further` makes, in a folder that this process holds."""
        same = self._identity(folder, source)
        base, tokenizer = self._base(folder)
        model = source.model if plan is None else prune(source.model, plan)
        training = dict(source.info.training) | {"recovery": config.to_dict(), "recovery_sources": FROM}
        if plan is not None:
            training |= {"usage_of": task} if plan.selection == "usage" else {"selection": plan.selection}
        info = replace(source.info, plan=plan, training=training)
        model, rows = recover_on_text(
            # As it was converted, and a control likewise.
            replace(config, precision=source.info.training.get("precision", config.precision)),
            base,
            tokenizer,
            self.texts,
            self.work / "general-outputs",
            model,
            progress=say_conversion,
        )
        history = joined(checkpoint.read_history(source.path), rows)
        return self._keep(folder, model, tokenizer, info, history, same)

    @cached_property
    def texts(self) -> list[tuple[str, ...]]:
        """What all of them learn on."""
        return corpus()

    @cached_property
    def _made_of(self) -> dict[str, str]:
        base, _, _ = load_base(self.base, TEXTS)
        return {"weights": weights_digest(base), "texts": texts_digest(self.texts)}

    def _identity(
        self, folder: Path, earlier: Checkpoint | None, narrow: Narrow | None = None
    ) -> dict[str, str]:
        """What makes two of one folder the same; earlier, what it goes on from."""
        same = {"folder": folder.name, **self._made_of, "earlier": earlier.fingerprint if earlier else ""}
        return same if narrow is None else same | {"measured": texts_digest(narrow.measured)}

    def _settled(self, wanted: str) -> str:
        """What a new conversion computes in: as those before it, so that SHRP and its controls can't differ."""
        for folder in sorted(self.work.glob("general-*")) if wanted == "auto" else ():
            info = checkpoint.info_if_ours(folder)
            if info is not None and (known := info.training.get("precision")):
                return known
        return resolve_precision(wanted)

    def _found(
        self, folder: Path, earlier: Checkpoint | None, narrow: Narrow | None = None
    ) -> Checkpoint | None:
        """What an earlier run made; raises `TrainingError` where that was of another base, or of other texts."""
        info = checkpoint.info_if_ours(folder)
        if info is None:
            return None
        if info.base_model != self.base_name:
            raise TrainingError(f"{folder} was made of {info.base_model}; name another --work folder.")
        if kept_identity(folder):  # else base and texts need not be here
            check_identity(folder, self._identity(folder, earlier, narrow))
        return checkpoint.load(folder)

    def _folder(self, name: str, config: GeneralConfig, made_of: object) -> Path:
        text = json.dumps([config.to_dict(), made_of, SOURCES, MOST], sort_keys=True)
        return self.work / f"general-{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def _base(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        stderr.print(f"stage: {folder.name}")
        base, tokenizer, _ = load_base(self.base, TEXTS)
        return base, tokenizer

    def _keep(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        info: CheckpointInfo,
        history: list[dict[str, Any]],
        identity: Mapping[str, str],
    ) -> Checkpoint:
        extra = {checkpoint.HISTORY: history_text(history), RUN_FILE: json.dumps(identity)}
        checkpoint.save(model, tokenizer, info, folder, extra_files=extra)
        return checkpoint.load(folder)
