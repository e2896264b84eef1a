"""The one training loop, and training on a task with it: dense fine-tuning, the two stages, fine-tuning after pruning.

`Training` runs a schedule of epochs (`shrp.training.config`) with an objective (`shrp.training.losses`); `train` and
`shrp.training.text.train_on_text` put it together. Its state is a `shrp.training.runs.Run`, from which it resumes.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import top1_counts
from shrp.checkpoints.info import CheckpointInfo, evaluated_length
from shrp.data.batching import longest_input
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluate import evaluate_stream
from shrp.evaluation.evaluation import Evaluation
from shrp.families.families import encoder_layers
from shrp.model.convert import convert_layer, expert_layers, fit_expander, layer_kinds
from shrp.model.gates import record_routing
from shrp.model.layers import ExpertLayer
from shrp.model.modules import without_dropout
from shrp.training import processes
from shrp.training.config import Epoch, TextConfig, TrainConfig, epoch_seed
from shrp.training.device import resolve_precision, training_device
from shrp.training.examples import Examples
from shrp.training.losses import Batch, Objective, TaskLoss, parameter_groups
from shrp.training.progress import STORING, Progress, Status
from shrp.training.runs import Convert, Run, identity_of, open_run, run_folder
from shrp.training.teacher import CachedTeacher


class Trained(NamedTuple):
    """A model in evaluation mode, its info with usage on the validation data, and the history, a row an epoch."""

    model: PreTrainedModel
    info: CheckpointInfo
    history: list[dict[str, Any]]


@dataclass(kw_only=True, eq=False)
class Training:
    """A training: a config's schedule, run with an objective."""

    config: TrainConfig | TextConfig
    examples: Examples
    objective: Objective
    teacher: PreTrainedModel | None
    """The dense model to distil, which is moved to the device that trains; None for none."""
    outputs: Path | None
    """Folder for the teacher's outputs on all examples, which several trainings share; None for one of its own."""
    convert: Convert
    """Replaces a dense layer of the model."""
    facts: Callable[[PreTrainedModel, Epoch], dict[str, Any]]
    """What the history records of an epoch's end, such as the validation score."""
    progress: Progress
    precision: str
    """`auto`, `fp32` or `bf16`; what `auto` came to once the training has begun."""
    phase: str = ""
    """What to call the epochs without a conversion, if not as the schedule does."""

    def __call__(self, model: PreTrainedModel, folder: Path, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Train a model in place, or continue what `folder` holds; returns the history, a row an epoch.

        Raises:
            TrainingError: the loss is not finite; or as `open_run` and `CachedTeacher.fill`.
        """
        self.device = training_device()
        with open_run(folder, identity, lambda: resolve_precision(self.precision)) as run:
            self.precision = run.precision
            history = run.restore(model, self.convert)
            # Before anything is taken from it: a dense layer that is replaced still runs, to fit an Expander to it.
            processes.same_weights(model.to(self.device))
            if left := list(self.config.schedule())[len(history) :]:
                self._run(model, run, left, history)
            if self.outputs is None:
                for own in ("teacher", "teacher-logits"):
                    shutil.rmtree(folder / own, ignore_errors=True)
        return history

    def _run(self, model: PreTrainedModel, run: Run, left: list[Epoch], history: list[dict[str, Any]]) -> None:
        """Run the epochs that are left and add their rows to `history`; the first has the teacher's pass in its time."""
        self.progress.begin(processes.count())
        started = time.perf_counter()
        self._targets = self.teacher and CachedTeacher(
            self.outputs or run.folder / "teacher",
            self.teacher.to(self.device),
            self.examples,
            # Those that this training visits, or all that several may visit.
            self.examples.visited() if self.outputs is None else np.arange(len(self.examples.encoded)),
            self.config.needs_hidden,
            run.precision,
        ).or_live(lambda done, of: self.progress.step(Status(STORING, done, of)))
        steps = sum(math.ceil(self.examples.size(one) / self.config.batch_size) for one in left)
        self._left, self._taken, self._done, self._epochs = steps, 0.0, 0, len(history) + len(left)
        for epoch in left:
            set_seed(epoch_seed(self.config.seed, epoch.index))
            if epoch.convert is not None:
                self._convert(model, epoch)
                processes.same_weights(model)
            processes.differ_in_dropout()
            with nullcontext() if self.config.dropout else without_dropout(model):
                row = self._epoch(model, epoch)
            row |= self.objective.end() | processes.from_main(lambda epoch=epoch: self.facts(model, epoch))
            row["seconds"] = round(time.perf_counter() - started, 2)
            about = {"epoch": epoch.index, "stage": epoch.stage, "converted_layer": epoch.convert}
            history.append(about | row)
            run.keep(model, history)
            self.progress.epoch(history[-1])
            started = time.perf_counter()

    def _convert(self, model: PreTrainedModel, epoch: Epoch) -> None:
        """Convert the epoch's layer, and fit its Expander where that is asked for."""
        before, index = list(encoder_layers(model)), epoch.convert
        self.convert(model, index)
        layers = encoder_layers(model)
        if len(layers) < len(before):  # the layer was removed
            return
        if self.config.expander_init == "least_squares" and isinstance(layers[index], ExpertLayer):
            fit_expander(model, index, before[index], self._first(epoch))

    def _first(self, epoch: Epoch) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Inputs of an epoch's first examples; on text also what enters its layer, since below it all is the teacher's."""
        for rows in self.examples.first(epoch):
            inputs, _ = self.examples.batch(rows, self.device)
            known = isinstance(self.config, TextConfig) and self._targets(rows, inputs).hidden_states
            yield inputs, known[epoch.convert].float() if known else None

    def _epoch(self, model: PreTrainedModel, epoch: Epoch) -> dict[str, Any]:
        """Train over an epoch's examples; returns its mean losses."""
        config, batches = self.config, self.examples.batches(epoch)
        self.objective.begin(model.train(), epoch)
        groups = parameter_groups(model, config.learning_rate, config.new_learning_rate, config.weight_decay)
        learning = [parameter for group in groups for parameter in group["params"]]
        optimizer = torch.optim.AdamW(groups, fused=True)
        steps = len(batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: epoch.rate(step, steps, config.warmup)
        )
        sums = dict.fromkeys(self.objective.reported, 0.0)
        for step, rows in enumerate(batches):
            started = time.perf_counter()
            mine = processes.share(rows)
            # A batch too small to share is the same on all processes: it counts once.
            counted = step >= steps * 3 // 4 and (len(mine) < len(rows) or processes.rank() == 0)
            inputs, labels = self.examples.batch(mine, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                known = None if self._targets is None else self._targets(mine.tolist(), inputs)
                parts = self.objective(model, Batch(inputs, labels, known, counted))
            parts["loss"].backward()
            processes.sum_gradients(learning)
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            loss = finite(parts["loss"], epoch.index, step)
            for name in sums:
                sums[name] += float(parts[name].detach())
            self._taken += time.perf_counter() - started
            self._report(epoch, step + 1, steps, loss)
        return {name: round(value / steps, 6) for name, value in sums.items()}

    def _report(self, epoch: Epoch, step: int, steps: int, loss: float) -> None:
        self._done += 1
        left = self._taken / self._done * (self._left - self._done)
        phase = epoch.phase if epoch.convert is not None else self.phase or epoch.phase
        counts = {"epoch": epoch.index + 1, "epochs": self._epochs, "stage": epoch.stage}
        self.progress.step(Status(phase, step, steps, **counts, loss=loss, seconds_left=left))


def train(
    config: TrainConfig,
    model: PreTrainedModel,
    info: CheckpointInfo,
    tokenizer: PreTrainedTokenizerBase,
    train_data: TextData,
    validation: TextData,
    out: str | Path,
    *,
    teacher: PreTrainedModel | None = None,
    teacher_outputs: Path | None = None,
    convert: Convert | None = None,
    converts_by: str = "",
    phase: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a model on a task by the schedule of `config`, or continue a training that was killed.

    State is kept in `run_folder(out)`; the caller saves the result to `out` and then deletes that folder (`finish`).

    Args:
        model: a dense model, fine-tuned on the task where layers are to be converted, or a static one to fine-tune.
            It is changed in place.
        teacher: the dense model to distil; by default `model` as it is at the start.
        teacher_outputs: folder for the teacher's outputs, which several trainings with this teacher and data share; by
            default it is in `run_folder(out)`.
        convert: of a control; by default `shrp.model.convert.convert_layer`. `info.config` records the schedule's layers.
        converts_by: a name for `convert`, by which a resumed training knows whether it is the same.

    Raises:
        TrainingError: `run_folder(out)` holds another training, or another process is at work there; the teacher does
            not fit; or several processes were launched that have not joined (`shrp.training.processes.start`).
    """
    progress = progress or Progress()
    config.shrp.check_fits(model.config.num_hidden_layers, model.config.num_attention_heads)
    for data, what in ((validation, "validation"), (train_data, "training")):
        if data.labels is None or not len(data):
            raise TrainingError(f"the {what} data need labels and at least one example.")
    if config.distils:
        teacher = (teacher if teacher is not None else copy.deepcopy(model)).eval()
        _check_teacher(config, model, teacher)
    else:
        teacher = None
    longest, digest = longest_input(model, tokenizer, config.max_length), train_data.fingerprint

    def facts(model: PreTrainedModel, epoch: Epoch) -> dict[str, Any]:
        progress.step(Status("scoring on the validation data", 0, 0))
        cut = evaluated_length(config.max_length)
        found, usage = evaluate_with_usage(model.eval(), tokenizer, validation, cut)
        return {
            "metric": found.metric,
            "validation_score": found.score,
            "validation_interval": found.ends(),
            "validation_n": found.n,
            "usage": usage,
        }

    training = Training(
        config=config,
        examples=Examples(config, train_data.texts, train_data.labels, digest, tokenizer, longest),
        objective=TaskLoss(config, train_data.task, teacher),
        teacher=teacher,
        outputs=teacher_outputs,
        convert=convert or (lambda model, layer: convert_layer(model, layer, config.shrp)),
        facts=facts,
        progress=progress,
        precision=config.precision,
        phase=phase,
    )
    digests = digest, validation.fingerprint
    identity = identity_of(config, model, info, *digests, teacher=teacher, converts_by=converts_by)
    history = training(model, run_folder(out), identity)
    about = {
        "config": config.to_dict(),
        "precision": training.precision,
        "train_data": train_data.name,
        "train_examples": len(train_data),
        "validation_data": validation.name,
        "epochs": len(history),
        "seconds": round(sum(row["seconds"] for row in history), 1),
    }
    shrp = replace(config.shrp, layers=(*info.config.layers, *config.shrp.layers))
    made = shrp if config.shrp.layers else info.config
    return Trained(
        model.eval(), replace(info, config=made, training=about, usage=history[-1]["usage"]), history
    )


def _check_teacher(config: TrainConfig, model: PreTrainedModel, teacher: PreTrainedModel) -> None:
    kinds = layer_kinds(teacher)
    if config.distill_hidden and ({*kinds} != {"dense"} or len(kinds) < len(layer_kinds(model))):
        raise TrainingError(
            "hidden states are distilled from a dense teacher with as many layers: "
            "name another teacher, or set distill_hidden to 0."
        )
    names = {"num_labels": "outputs"}
    if config.needs_hidden:
        names["hidden_size"] = "dimensions"
    for name, what in names.items():
        theirs, ours = getattr(teacher.config, name), getattr(model.config, name)
        if theirs != ours:
            raise TrainingError(f"the teacher has {theirs} {what}, and the model {ours}: name its own teacher.")


def finite(loss: Tensor, epoch: int, step: int) -> float:
    """A step's loss, `()`, as a number; a `TrainingError` if it is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} in epoch {epoch}, step {step}: lower the learning rates, or train in fp32."
        )
    return value


def evaluate_with_usage(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: TextData, max_length: int
) -> tuple[Evaluation, Mapping[str, list[float]]]:
    """Evaluate and count Top-1 shares in the same passes; usage is empty for a model without routers."""
    counts: dict[int, np.ndarray] = {}
    with record_routing() as record:
        for evaluation in evaluate_stream(model, tokenizer, data, max_length=max_length):
            known = evaluation
            for layer in record.layers:
                counts[layer] = counts.get(layer, 0) + top1_counts(record.probs(layer))
            record.traces.clear()  # all tokens of a large data set would be gigabytes
    usage = {layer: count / count.sum() for layer, count in counts.items()} if expert_layers(model) else {}
    return known, {str(layer): [round(float(x), 6) for x in share] for layer, share in sorted(usage.items())}
