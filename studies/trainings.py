"""The trainings that studies share, each done once: one dense teacher per task, conversions on unlabelled text, controls.

Each is a `shrp.training.runs.Run` in a folder of its own under `--work`: the same call goes on with one that was killed, and
reads back one that is finished. A process waits while another one is at work there, which may be on another machine, if their
file system's locks hold between machines. All under one work folder compute in one number format.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import base_config, load_base, name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.cli.output import stderr
from shrp.data.batching import encode, longest_input, read
from shrp.data.sources import load_data, load_file
from shrp.data.tasks import TEXTS
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.costs import Cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.families.families import encoder_layers
from shrp.files import write_text
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from shrp.training.config import WIDE_RATES, TextConfig, TrainConfig
from shrp.training.corpus import sample, shards
from shrp.training.device import resolve_precision
from shrp.training.examples import FIT_EXAMPLES
from shrp.training.loop import train
from shrp.training.progress import LogProgress
from shrp.training.runs import Convert
from shrp.training.text import graft, train_on_text
from studies.augment import augmented
from studies.controls import drop_layer, width_pruning

MAX_LENGTH = 128
EPOCH_SIZE = 20_000
"""Examples an epoch on a task, at most."""
TEACHER_EPOCHS = {"rte": 4, "qnli": 2, "sst2": 1}
"""Epochs of dense fine-tuning; 3 for the other tasks."""
SOURCES = ("mrpc", "rte", "stsb", "qnli", "mnli", "qqp", "cola", "sst2")
"""Tasks whose training texts, without labels, encoders are converted on."""
MOST = 12_000
"""Texts of each source, at most, so that the largest do not crowd out the others."""
TEXT_SIZES = {"conversion_size": 2500, "final_size": 20_000, "further_size": 60_000}
"""Texts per converted layer, of the epoch after the last one, and of fine-tuning after pruning."""
FURTHER_RATES = {"learning_rate": 5e-4, "new_learning_rate": 2e-3}
"""Learning rates of fine-tuning on text after pruning: a pruned layer is small, and its steps are many."""


def slug(name: str) -> str:
    """A name as part of a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@cache
def split(task: str) -> tuple[TextData, TextData]:
    """A task's training split: what trains, and what tuning is scored on, a tenth of it, at most 1,000 examples."""
    whole = load_data("glue", task, "train")
    order, n = whole.stratified_order(), min(1000, len(whole) // 10)
    return whole.subset(np.sort(order[n:])), whole.subset(np.sort(order[:n]))


def corpus() -> list[tuple[str, ...]]:
    """Single texts and pairs in random order, the same at each call.

    Raises:
        DataError: a source's training split cannot be read.
    """
    generator = np.random.default_rng(0)
    texts: list[tuple[str, ...]] = []
    for task in SOURCES:
        found = split(task)[0].texts
        texts += [found[i] for i in generator.permutation(len(found))[:MOST]]
    return not_scored([texts[i] for i in generator.permutation(len(texts))])


def not_scored(texts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those without a text that tuning is scored on, in any task."""
    scored = {text for task in SOURCES for texts in split(task)[1].texts for text in texts}
    return [one for one in texts if scored.isdisjoint(one)]


@contextmanager
def alone_at(place: Path) -> Iterator[None]:
    """Wait until no other process is inside for the same file or folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        yield


class Base:
    """The dense encoder of a study, its work folder, and the encoders that are trained on unlabelled text."""

    def __init__(
        self,
        base: str,
        work: Path,
        base_name: str | None = None,
        effort: float = 1.0,
        *,
        task_effort: float | None = None,
        shared: bool = False,
        data: Path | None = None,
        more_texts: tuple[Path, int] | None = None,
    ) -> None:
        """Raises `TrainingError` if there is no such base, without reading its weights.

        Args:
            effort: share of the usual texts and of the steps on them.
            task_effort: share of the usual steps on a task after pruning, and of its augmented copies; by default `effort`.
            more_texts: a folder of Parquet or JSONL files with a column `text`, and on how many distinct texts pruned
                encoders are fine-tuned instead: GLUE's, and as many of the folder's as are wanting.
            shared: whether several machines share the work folder.
            data: a folder of tasks of one's own, `<task>_train.parquet` and `<task>_validation.parquet`; None for GLUE's.
        """
        config = base_config(base)
        self.base, self.work, self.name = base, work, name_of(base, base_name)
        self.sizes = {name: max(1, round(effort * size)) for name, size in TEXT_SIZES.items()}
        usual = self.sizes.pop("further_size")
        self.further_size = more_texts[1] if more_texts else usual
        """Texts that a pruned encoder is fine-tuned on."""
        self.effort, self.shared, self.data, self.more_texts = effort, shared, data, more_texts
        self.task_effort = effort if task_effort is None else task_effort
        self.layers, self.experts = config.num_hidden_layers, config.num_attention_heads
        self.text_rates, self.pace = (WIDE_RATES, 0.5) if config.hidden_size > 512 else ({}, 1.0)
        """Learning rates of conversions on text, and a factor of others: wide encoders do not settle at small ones'."""
        self.histories: dict[str, list[dict[str, Any]]] = {}
        """Name of a training on text -> its history, a row per epoch."""

    @cached_property
    def precision(self) -> str:
        """The number format of all trainings in the work folder, settled by the first of them."""
        file = self.work / "precision.txt"
        with alone_at(file):
            if not file.is_file():
                write_text(file, resolve_precision("auto"))
            return file.read_text(encoding="utf-8")

    @property
    def outputs(self) -> Path:
        """Folder for the outputs of teachers: a training replaces another's while that reads them, so not on a shared disk."""
        if not self.shared:
            return self.work
        digest = hashlib.sha256(str(self.work).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"shrp-teacher-outputs-{digest}"

    @cached_property
    def _encoder(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return load_base(self.base, TEXTS)[:2]

    @cached_property
    def texts(self) -> list[tuple[str, ...]]:
        """The unlabelled texts; with less effort as many fewer, so that each is seen as often."""
        found = corpus()
        return found[: math.ceil(self.effort * len(found))]

    def encoder(
        self,
        name: str,
        parts: Sequence[tuple[int, ...]],
        convert: Convert | None = None,
        balance: float = 0.1,
        **options: Any,
    ) -> PreTrainedModel:
        """Convert the layers of each part in turn on unlabelled text, each going on from the part before.

        `options` are of `ShrpConfig`. Parts that two calls of the same `name` share are trained once.
        """
        model, done = None, ()
        for layers in parts:
            done = tuple(sorted((*done, *layers)))
            config = TextConfig(ShrpConfig(layers, **options), balance=balance, **self.sizes, **self.text_rates)
            model = self._on_text(f"{name}-{len(done)}", config, model, convert, name)
        return model

    def further(self, name: str, model: PreTrainedModel) -> PreTrainedModel:
        """Fine-tune a pruned encoder, or a control's, on unlabelled text."""
        config = TextConfig(final_size=self.further_size, **{name: self.pace * rate for name, rate in FURTHER_RATES.items()})
        if self.more_texts:
            return self._on_text(f"further-{name}-{self.further_size}", config, model, None, "", self._distinct_texts)
        return self._on_text(f"further-{name}", config, model, None, "")

    def keep(self, name: str, encoder: PreTrainedModel, info: CheckpointInfo) -> None:
        """Save a fine-tuned encoder below the work folder, for `shrp train --converted` and `studies.alternatives`."""
        about = {"texts": self.further_size, "effort": self.effort}
        folder = self.work / "encoders" / f"{name}-{self.further_size}"
        checkpoint.save(encoder, self._encoder[1], replace(info, training=about), folder)

    @cached_property
    def _distinct_texts(self) -> list[tuple[str, ...]]:
        found, n = corpus(), self.further_size
        if n <= len(found):
            return found[:n]
        return found + not_scored(sample(shards([self.more_texts[0]]), ["text"], n - len(found), 0)[0])

    @torch.no_grad()
    def hidden_error(self, encoder: PreTrainedModel, texts: Sequence[tuple[str, ...]]) -> float:
        """Mean squared difference of the last layer's output from the dense encoder's, over the texts' tokens."""
        base, tokenizer = self._encoder
        total, n = 0.0, 0
        for _, inputs in read(base, tokenizer, texts, batch_size=32, max_length=MAX_LENGTH):
            ours, theirs = (m.base_model(**inputs).last_hidden_state.float() for m in (encoder, base))
            real = inputs["attention_mask"].bool()
            total, n = total + (ours - theirs)[real].square().sum().item(), n + int(real.sum())
        return total / n / base.config.hidden_size

    def _on_text(
        self,
        name: str,
        config: TextConfig,
        model: PreTrainedModel | None,
        convert: Convert | None,
        converts_by: str,
        texts: Sequence[tuple[str, ...]] | None = None,
    ) -> PreTrainedModel:
        stderr.print(f"on texts: {name}")
        base, tokenizer = self._encoder
        with alone_at(folder := self.work / "texts" / name):
            made, self.histories[name] = train_on_text(
                replace(config, precision=self.precision),
                base,
                tokenizer,
                self.texts if texts is None else texts,
                folder,
                self.outputs / "texts" / "teacher-outputs" if texts is None else None,
                model=model,
                convert=convert,
                converts_by=converts_by if convert is not None else "",
                progress=LogProgress(stderr.print),
            )
        return made


class Trainings:
    """The trainings of one task and seed, from the task's dense teacher on.

    The teacher is the same for all seeds: these vary the conversion, which is what is studied. Nothing is loaded before
    it is needed.
    """

    def __init__(self, base: Base, task: str, seed: int = 0) -> None:
        self.base, self.task, self.seed = base, task, seed
        self.shared, self.folder = base.work / task, base.work / f"{task}-s{seed}"
        self.epochs = TEACHER_EPOCHS.get(task, 3)
        """Of the teacher's fine-tuning."""
        self.histories: dict[str, list[dict[str, Any]]] = {}
        """Name of a training -> its history, a row per epoch."""
        self._more: dict[int, TextData] = {}

    @cached_property
    def train_data(self) -> TextData:
        """The task's training split."""
        folder = self.base.data
        return load_file(folder / f"{self.task}_train.parquet") if folder else load_data("glue", self.task, "train")

    @cached_property
    def validation(self) -> TextData:
        """The task's validation split, which all scores are on."""
        if self.base.data is None:
            return load_data("glue", self.task)
        return load_file(self.base.data / f"{self.task}_validation.parquet", self.train_data.task)

    @cached_property
    def teacher(self) -> Checkpoint:
        """The dense teacher: the base with its own head, where that is of the task already."""
        model, tokenizer, has_head = load_base(self.base.base, self.train_data.task)
        info = CheckpointInfo(ShrpConfig(()), self.train_data.task, base_model=self.base.name)
        common = {"freeze_embeddings": True, "max_length": MAX_LENGTH}
        config = TrainConfig(stage2_epochs=self.epochs, learning_rate=1e-4 * self.base.pace, **common)
        start = Checkpoint(self.shared / "teacher", info, model, tokenizer, "")
        return start if has_head else self.train("teacher", config, start, distil=False)

    @cached_property
    def best(self) -> Evaluation:
        """The teacher's evaluation; a `TrainingError` if its score is not above 0, so there are no shares of it."""
        found = self.evaluate(self.teacher.model)
        if not found.score > 0:
            raise TrainingError(f"the teacher scores {found.score:g} on {found.data}: train it for longer.")
        return found

    @cached_property
    def dense(self) -> Cost:
        """What the teacher costs."""
        return dense_cost(self.teacher.model)

    @cached_property
    def tokens(self) -> int:
        """Tokens of the training data, cut as they are read."""
        longest = longest_input(self.teacher.model, self.teacher.tokenizer, MAX_LENGTH)
        rows = encode(self.teacher.tokenizer, self.train_data.texts, longest)
        return sum(len(row["input_ids"]) for row in rows)

    def config(self, recipe: str, layers: Sequence[int] = (), part: int = 0, **values: Any) -> TrainConfig:
        """A config of a recipe. Each part of a pipeline has a seed of its own, so it visits other examples."""
        common = {"freeze_embeddings": True, "epoch_size": EPOCH_SIZE, "max_length": MAX_LENGTH}
        own = {"shrp": ShrpConfig(tuple(layers)), "seed": 10 * self.seed + part}
        config = TrainConfig.named(recipe, **common | own | values)
        rates = {name: getattr(config, name) * self.base.pace for name in ("learning_rate", "new_learning_rate")}
        return replace(config, **rates)

    def train(
        self,
        name: str,
        config: TrainConfig,
        start: Checkpoint,
        *,
        data: TextData | None = None,
        convert: Convert | None = None,
        converts_by: str = "",
        distil: bool = True,
    ) -> Checkpoint:
        """Train a copy of `start` with the task's teacher, go on with it, or read it back; `name` is its folder's.

        `distil`: with the teacher; without it, as itself, for all seeds.

        Returns:
            The trained model and its info. The path names the training; no checkpoint is saved there.
        """
        folder = (self.folder if distil else self.shared) / name
        data = self.train_data if data is None else data
        teacher = self.teacher.model if distil else None
        stderr.print(f"{folder.parent.name}: {folder.name}")
        # Outputs on other data have a folder of their own: it makes room for what is asked of it last.
        outputs = "teacher-outputs" if data is self.train_data else "more-teacher-outputs"
        with alone_at(folder):
            model, info, history = train(
                replace(config, precision=self.base.precision),
                copy.deepcopy(start.model),
                start.info,
                start.tokenizer,
                data,
                self.validation,
                folder,
                teacher=teacher,
                teacher_outputs=None if teacher is None else self.base.outputs / self.task / outputs,
                convert=convert,
                converts_by=converts_by,
                progress=LogProgress(stderr.print),
            )
        self.histories[folder.name] = history
        return Checkpoint(folder, info, model, start.tokenizer, "")

    def evaluate(self, model: PreTrainedModel) -> Evaluation:
        """Score a model on the validation data."""
        return evaluate(model, self.teacher.tokenizer, self.validation, max_length=MAX_LENGTH)

    def pruned(self, made: Checkpoint, plan: PruningPlan) -> Checkpoint:
        """A pruned copy of a routed model."""
        return replace(made, model=prune(made.model, plan), info=replace(made.info, plan=plan, usage={}))

    def with_layers_of(self, encoder: PreTrainedModel, info: CheckpointInfo, whole: bool) -> Checkpoint:
        """The task's teacher with the layers of an encoder that was trained on text: all of them, or the converted ones."""
        teacher = self.teacher.model
        if len(encoder_layers(encoder)) == len(encoder_layers(teacher)):
            model = graft(teacher, encoder, None if whole else info.config.layers)
        else:  # layer dropping
            model, theirs = copy.deepcopy(teacher), encoder_layers(encoder)
            for layer in reversed(range(len(theirs), len(encoder_layers(model)))):
                drop_layer(model, layer)
            for i, layer in enumerate(theirs):
                encoder_layers(model)[i] = copy.deepcopy(layer).to(model.device)
            for module in model.modules():  # transformers' hooks, which read hidden states, went with the old layers
                vars(module).pop("_output_capturing_hooks_installed", None)
        return Checkpoint(self.folder, info, model, self.teacher.tokenizer, "")

    def augmented(self, copies: int) -> TextData:
        """The training data with so many augmented copies of each example."""
        if copies not in self._more:
            embeddings = self.teacher.model.get_input_embeddings().weight
            self._more[copies] = augmented(self.train_data, copies, self.teacher.tokenizer, embeddings)
        return self._more[copies]

    def measured(self) -> list[dict[str, Tensor]]:
        """Batches of the task's training texts, on which width pruning chooses heads and neurons."""
        rows = np.random.default_rng(0).permutation(len(self.train_data))[:FIT_EXAMPLES]
        texts, sizes = [self.train_data.texts[row] for row in rows], {"batch_size": 32, "max_length": MAX_LENGTH}
        return [inputs for _, inputs in read(self.teacher.model, self.teacher.tokenizer, texts, **sizes)]

    def conversion(self, kind: str, experts: int) -> tuple[Convert | None, str]:
        """How a model of the table converts a layer, and a name for that; None for SHRP's own conversion.

        Width pruning prunes to the size of so many `experts`.
        """
        if kind == "dropped":
            return drop_layer, kind
        if kind == "width":
            return width_pruning(experts, self.measured()), f"width-{self.task}-{experts}"
        return None, ""


class Tuning(Trainings):
    """The trainings on the task's training split alone: a tenth of it, at most 1,000 examples, scores them."""

    def __init__(self, base: Base, task: str, seed: int = 0) -> None:
        super().__init__(base, task, seed)
        self.shared, self.folder = (base.work / "tuning" / path.name for path in (self.shared, self.folder))

    @cached_property
    def train_data(self) -> TextData:
        """What trains."""
        return split(self.task)[0]

    @cached_property
    def validation(self) -> TextData:
        """What scores."""
        return split(self.task)[1]
