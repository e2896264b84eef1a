"""Dense fine-tuning and SHRP's two-stage training (method.md, "Training"), resumable at every epoch.

Each epoch is a function of the weights at its start, the config and the epoch's number alone: the random
generators are seeded and the optimizer starts afresh with every epoch (a conversion changes the function that the
old moments described). So a run that was killed goes on from its last epoch's weights and ends with the same ones.
"""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import top1_counts
from shrp.checkpoints.info import CheckpointInfo, evaluated_length
from shrp.data.batching import longest_input
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluate import evaluate_stream
from shrp.evaluation.evaluation import Evaluation
from shrp.families.families import encoder_layers
from shrp.model.convert import convert_layer, layer_kinds, router_layers
from shrp.model.dropout import without_dropout
from shrp.model.expander_init import fit_expander
from shrp.model.gates import record_routing, use_gates
from shrp.model.layers import ExpertLayer
from shrp.model.partial import run_from
from shrp.training.accelerator import one_accelerator
from shrp.training.config import Epoch, TrainConfig, epoch_seed
from shrp.training.examples import Examples
from shrp.training.losses import TeacherOutput, total_loss
from shrp.training.precision import resolve_precision
from shrp.training.run_state import TEACHER_FILE, RunState, alone_in, identity_of, run_folder, weights_digest
from shrp.training.schedules import Swap, explore
from shrp.training.teacher import CachedTeacher, LiveTeacher, kept_or_live, outputs_folder
from shrp.training.trainable import (
    finite,
    optimizer_and_schedule,
    parameter_groups,
    same_start,
    set_trainable,
)


class Progress(Protocol):
    """What a caller may want to hear of a run; the command line draws bars from it."""

    def step(self, epoch: Epoch, epochs: int, step: int, steps: int, loss: float) -> None:
        """After every optimizer step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """After every epoch, with its row of the history."""


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
    precision: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[PreTrainedModel, CheckpointInfo, list[dict[str, Any]]]:
    """Run the schedule of `config` on a model and return the trained one.

    State is kept in `run_folder(out)`; the caller saves the result to `out` and then deletes that folder (`finish`).

    Args:
        model: a dense model, fine-tuned on the task where layers are to be converted, or a static one to recover.
            It is changed in place, unless the run resumes.
        info: what `model` is.
        teacher: the dense model to distil; by default `model` as it is at the start.
        teacher_outputs: folder to keep what the teacher says in, for several runs with this teacher and data; by
            default it is in `run_folder(out)`.
        precision: what `auto` comes to, where another training that this one is compared with has settled that.
        resume: go on from the last epoch that `run_folder(out)` holds, if it holds any.

    Returns:
        The model in evaluation mode, its info (with usage on `validation`), and the history: a row an epoch.

    Raises:
        TrainingError: another run's state is in the way, or another process at work on it; a resumed run is not the
            same run; the teacher does not fit; or several processes were launched, as only one trains.
    """
    config.shrp.check_fits(model.config.num_hidden_layers, model.config.num_attention_heads)
    if config.distils:
        teacher = (teacher if teacher is not None else copy.deepcopy(model)).eval()
        if config.distill_hidden and layer_kinds(teacher) != ["dense"] * len(layer_kinds(model)):
            raise TrainingError(
                "hidden states are distilled from a dense teacher with as many layers: "
                "name another teacher, or set distill_hidden to 0."
            )
        _check_same_width(config, model, teacher)
    else:
        teacher = None
    longest = longest_input(model, tokenizer, config.max_length)
    if validation.labels is None or not len(validation):  # before all training texts are read
        raise TrainingError("the validation data need labels and at least one example.")
    examples = Examples(config, train_data, tokenizer, longest)
    run = _Run(config, info, tokenizer, examples, validation, run_folder(out), progress)
    with alone_in(run.state.folder), run.state.only_if_begun():
        model, history = run.start(model, teacher, resume, precision)
        remaining = list(config.schedule())[len(history) :]
        ask = run.teacher(teacher, teacher_outputs) if teacher is not None and remaining else None
        for epoch in remaining:
            row = run.epoch(model, ask, epoch)
            history.append(row)
            run.state.keep(model, tokenizer, run.info(history), history)
            if progress:
                progress.epoch(row)
    return model.eval(), run.info(history), history


def _check_same_width(config: TrainConfig, model: PreTrainedModel, teacher: PreTrainedModel) -> None:
    names = {"num_labels": "outputs"}
    if config.distill_hidden or config.freeze_dense:
        names["hidden_size"] = "dimensions"
    for name, what in names.items():
        theirs, ours = getattr(teacher.config, name), getattr(model.config, name)
        if theirs != ours:
            raise TrainingError(
                f"the teacher has {theirs} {what} and the model {ours}: name one that it came from."
            )


class _Run:
    """One run's fixed parts, and what is done with them each epoch."""

    def __init__(
        self,
        config: TrainConfig,
        info: CheckpointInfo,
        tokenizer: PreTrainedTokenizerBase,
        examples: Examples,
        validation: TextData,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self.config, self.start_info, self.tokenizer, self.state = config, info, tokenizer, RunState(folder)
        self.examples, self.train_data = examples, examples.data
        self.validation, self.progress = validation, progress

    def start(
        self, model: PreTrainedModel, teacher: PreTrainedModel | None, resume: bool, auto: str | None
    ) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
        """The model and history to go on from; writes or checks the run's identity.

        Args: auto, what that precision comes to where it is settled.
        """
        wanted = auto if auto and self.config.precision == "auto" else self.config.precision
        identity = identity_of(self.config, model, self.start_info, self.train_data, self.validation, teacher)
        self.accelerator = one_accelerator()
        precision = self.state.open(identity, resume, lambda: resolve_precision(wanted))
        self.bf16 = precision == "bf16"
        model, history = self.state.last() or (model, [])
        # Before anything is taken from it: a dense layer that was replaced is still asked what it adds.
        return model.to(self.accelerator.device), history

    def teacher(self, model: PreTrainedModel, folder: Path | None) -> LiveTeacher | CachedTeacher:
        """The teacher, asked once about each example where its answers fit on the disk."""
        model.to(self.accelerator.device)
        # In a folder of several runs: others may visit other examples.
        rows = self.examples.visited() if folder is None else np.arange(len(self.examples))
        hidden = self.config.needs_hidden
        folder = outputs_folder(folder or self.state.folder / "teacher", hidden)
        identity = {
            "teacher": weights_digest(model),
            "data": self.train_data.fingerprint,
            "max_length": str(self.config.max_length),
        }
        return kept_or_live(
            folder,
            model,
            self.tokenizer,
            self.examples.encoded,
            rows,
            hidden=hidden,
            identity=identity,
            bf16=self.bf16,
            settled=self.state.folder / TEACHER_FILE,
        )

    def info(self, history: list[dict[str, Any]]) -> CheckpointInfo:
        """What a checkpoint of the present state says of itself."""
        converted = [row["converted_layer"] for row in history if row["converted_layer"] is not None]
        layers = (*self.start_info.config.layers, *converted)
        shrp = replace(self.config.shrp if converted else self.start_info.config, layers=layers)
        return replace(
            self.start_info,
            config=shrp,
            training={
                "config": self.config.to_dict(),
                "precision": "bf16" if self.bf16 else "fp32",  # what `auto` came to
                "train_data": self.train_data.name,
                "train_examples": len(self.train_data),
                "validation_data": self.validation.name,
                "epochs": len(history),
                "seconds": round(sum(row["seconds"] for row in history), 1),
            },
            usage=history[-1]["usage"] if history else {},
        )

    def epoch(
        self, model: PreTrainedModel, teacher: LiveTeacher | CachedTeacher | None, epoch: Epoch
    ) -> dict[str, Any]:
        """Convert, train over one epoch's examples, validate; returns the epoch's row of the history."""
        started = time.perf_counter()
        set_seed(epoch_seed(self.config.seed, epoch.index))
        swap = None
        if epoch.convert is not None:
            dense = encoder_layers(model)[epoch.convert]
            new = convert_layer(model, epoch.convert, self.config.shrp, self.examples.first_inputs(epoch))
            if self.config.expander_init == "least_squares" and isinstance(new, ExpertLayer):
                fit_expander(model, epoch.convert, dense, self.examples.first_inputs(epoch))
            if self.config.swap:
                swap = Swap(dense, new, self.config.swap)
                encoder_layers(model)[epoch.convert] = swap
        with nullcontext() if self.config.dropout else without_dropout(model):
            losses = self._optimise(model, teacher, epoch, swap)
        if swap is not None:
            encoder_layers(model)[epoch.convert] = swap.new
        cut = evaluated_length(self.config.max_length)
        evaluation, usage = evaluate_with_usage(model.eval(), self.tokenizer, self.validation, cut)
        return {
            "epoch": epoch.index,
            "stage": epoch.stage,
            "converted_layer": epoch.convert,
            **losses,
            "metric": evaluation.metric,
            "validation_score": evaluation.score,
            "validation_interval": evaluation.ends(),
            "validation_n": evaluation.n,
            "usage": usage,
            "seconds": round(time.perf_counter() - started, 2),
        }

    def _optimise(
        self,
        model: PreTrainedModel,
        teacher: LiveTeacher | CachedTeacher | None,
        epoch: Epoch,
        swap: Swap | None,
    ) -> dict[str, float]:
        config, accelerator = self.config, self.accelerator
        batches = self.examples.batches(epoch)
        loader = DataLoader(self.examples, batch_sampler=batches, collate_fn=self.examples.collate)
        set_trainable(model, config)
        start = same_start(model, teacher.model) if teacher is not None and config.freeze_dense else 0
        rates = config.learning_rate, config.new_learning_rate, config.weight_decay
        optimizer, schedule = optimizer_and_schedule(
            parameter_groups(model, *rates),
            len(batches),
            max(1, round(config.warmup * len(batches))),
            start=epoch.start_factor,
            end=epoch.end_factor,
        )
        wrapped, optimizer, loader, schedule = accelerator.prepare(model.train(), optimizer, loader, schedule)
        sums: dict[str, float] = {}
        steps = len(loader)
        for step, batch in enumerate(loader):
            labels, rows = batch.pop("labels"), batch.pop("rows").tolist()
            if swap is not None:
                swap.probability = config.swap * (1 - step / steps)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=self.bf16):
                target = teacher(rows, batch) if teacher is not None else None
                with use_gates(explore(self._noise(epoch, step / steps), config.shrp.top_k)):
                    parts = self._loss(wrapped, target, batch, labels, epoch.stage, start)
            accelerator.backward(parts.total)
            accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            loss = finite(parts.total, epoch.index, step)
            for name in ("total", "task", "logits", "hidden", "balance"):
                sums[name] = sums.get(name, 0.0) + float(getattr(parts, name).detach())
            if self.progress:
                self.progress.step(epoch, sum(1 for _ in config.schedule()), step + 1, steps, loss)
        accelerator.free_memory()
        means = {name: value / steps for name, value in sums.items()}
        names = {"total": "loss", "task": "task_loss", "logits": "distill_logits_loss"}
        names |= {"hidden": "distill_hidden_loss", "balance": "balance_loss"}
        return {names[key]: round(value, 6) for key, value in means.items()}

    def _loss(
        self,
        model: torch.nn.Module,
        target: TeacherOutput | None,
        batch: dict[str, torch.Tensor],
        labels: torch.Tensor,
        stage: int,
        start: int,
    ):
        """Args: start, the layer to start at, below which the model is the teacher, where this gave hidden states."""
        with record_routing(hidden_states=self.config.distill_hidden > 0) as record:
            if start and target.hidden_states:
                logits, _ = run_from(model, batch, start, target.hidden_states[start].float())
            else:
                logits = model(**batch).logits
        # Layers that were skipped hand on what they get.
        outputs = {layer: output for layer, output in record.hidden_states.items() if layer >= start}
        if self.config.shrp.control == "dropped" and outputs:
            # With its layers gone, what is left can only be asked for the topmost one's output.
            outputs = {max(outputs): outputs[max(outputs)]}
        return total_loss(
            self.config,
            stage=stage,
            logits=logits,
            labels=labels,
            regression=self.train_data.task.is_regression,
            token_mask=batch["attention_mask"],
            record=record,
            outputs=outputs,
            teacher=target,
        )

    def _noise(self, epoch: Epoch, done: float) -> float:
        """Scale of the exploration noise at a share `done` of an epoch: falls linearly over stage 1."""
        if epoch.stage != 1:
            return 0.0
        conversions = sum(1 for each in self.config.schedule() if each.stage == 1)
        return self.config.exploration * (1 - (epoch.index + done) / conversions)


def evaluate_with_usage(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: TextData, max_length: int
) -> tuple[Evaluation, dict[str, list[float]]]:
    """Evaluate and count Top-1 shares in the same passes; usage is empty for a model without routers."""
    counts: dict[int, np.ndarray] = {}
    with record_routing() as record:
        for evaluation in evaluate_stream(model, tokenizer, data, max_length=max_length):
            known = evaluation
            for layer in record.layers:
                counts[layer] = counts.get(layer, 0) + top1_counts(record.probs(layer))
            record.traces.clear()  # all tokens of a large data set would be gigabytes
    usage = {layer: count / count.sum() for layer, count in counts.items()} if router_layers(model) else {}
    shares = {str(layer): [round(float(x), 6) for x in share] for layer, share in sorted(usage.items())}
    return known, shares
