"""One middle layer converted: how its usage moves through stage 1, and where stage 2 leaves it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers import PreTrainedModel

from shrp.analysis.usage import distance_from_uniform, effective_experts, even_distance, usage_of
from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.cli.output import TrainingBar, stderr
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.model.gates import record_routing
from shrp.training.config import Epoch, TrainConfig
from studies import rows_file
from studies.experiments.study import Options, Study, command, results_file, scored, studies


class Watch(TrainingBar):
    """Measures something several times within stage 1; keeps what it found in a file beside the training.

    What it measures must draw no global random number and leave the model as it was; then the run ends with the
    same weights as without it.
    """

    def __init__(self, measure: Callable[[], dict[str, Any]], times: int, path: Path) -> None:
        super().__init__()
        self.measure, self.times, self.path = measure, times, path

    def step(self, epoch: Epoch, epochs: int, step: int, steps: int, loss: float) -> None:
        """Advance the bar, and measure if it is time."""
        super().step(epoch, epochs, step, steps, loss)
        if epoch.stage != 1 or step not in moments(steps, self.times):
            return
        found = read(self.path) if step > 1 else []
        found.append({"step": step, "steps": steps} | self.measure())
        rows_file.write(self.path, found)


def moments(steps: int, times: int) -> set[int]:
    """Steps after which to measure: the first, the last, and between them the denser the earlier."""
    last = max(times - 1, 1)
    return {1 + round((steps - 1) * (i / last) ** 2) for i in range(last + 1)}


def read(path: Path) -> list[dict[str, Any]]:
    """What a watch found; nothing where the training was done without one."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def usage_now(
    model: PreTrainedModel, study: Study, data: TextData, layer: int
) -> tuple[dict[str, Any], list[float]]:
    """The layer's usage and the model's score on `data`, and the mean router probabilities `(H,)`."""
    with record_routing() as record:
        tokenizer = study.stages.teacher.tokenizer
        evaluation = evaluate(model, tokenizer, data, max_length=study.stages.max_length)
    share = [round(float(x), 6) for x in usage_of(record)[layer]]
    return {"share": share, **scored(evaluation)}, record.probs(layer).float().mean(0).tolist()


def described(share: list[float], n: int) -> dict[str, Any]:
    """What the shares `(H,)` of `n` inputs say, in numbers."""
    return {
        "distance": distance_from_uniform(share),
        "even_distance": even_distance(n, len(share)),
        "effective": effective_experts(share),
        "top_share": max(share),
    }


def trajectory(
    study: Study, config: TrainConfig, layer: int, times: int, data: TextData
) -> list[dict[str, Any]]:
    """Train or read back one conversion; its usage through stage 1, after each epoch of stage 2, and at the end."""
    digest = hashlib.sha256(json.dumps([config.to_dict(), times, data.fingerprint]).encode()).hexdigest()[:8]
    path = study.stages.folder / f"experiment-usage-{digest}.json"
    held: list[PreTrainedModel] = []

    def start() -> PreTrainedModel:
        held[:] = [checkpoint.load(study.stages.teacher.path).model]
        return held[0]

    def measure() -> dict[str, Any]:
        row, mean = usage_now(held[0], study, data, layer)
        return row | {"mean_distance": distance_from_uniform(mean)}

    made = study.convert(config, start, Watch(measure, times, path))
    rows = _through_stage_1(study, config, made, read(path), layer)
    rows += _through_stage_2(study, config, made, layer)
    last, mean = usage_now(made.model, study, data, layer)
    rows[-1] |= last | {"mean_distance": distance_from_uniform(mean)}
    return [{**row, **described(row["share"], row["n"])} for row in rows]


def _through_stage_1(
    study: Study, config: TrainConfig, made: Checkpoint, found: list[dict[str, Any]], layer: int
) -> list[dict[str, Any]]:
    size = _sizes(study, config)[0]
    if not found:
        stderr.print("this training was not watched: stage 1 has its last epoch only")
        return [_of_history(checkpoint.read_history(made.path)[0], layer, size)]
    rows = []
    for row in found:
        step, steps = row.pop("step"), row.pop("steps")
        rows.append({"stage": 1, "step": step, "examples": round(size * step / steps), **row})
    return rows


def _through_stage_2(study: Study, config: TrainConfig, made: Checkpoint, layer: int) -> list[dict[str, Any]]:
    sizes = _sizes(study, config)
    history = checkpoint.read_history(made.path)
    return [_of_history(row, layer, sum(sizes[: row["epoch"] + 1])) for row in history if row["stage"] == 2]


def _sizes(study: Study, config: TrainConfig) -> list[int]:
    """Examples of each epoch."""
    total = len(study.stages.train_data)
    return [min(epoch.size or total, total) for epoch in config.schedule()]


def _of_history(row: dict[str, Any], layer: int, examples: int) -> dict[str, Any]:
    """A row of a training's history, which knows shares but no mean probabilities."""
    return {
        "stage": row["stage"],
        "step": None,
        "examples": examples,
        "share": row["usage"][str(layer)],
        "metric": row["metric"],
        "score": row["validation_score"],
        "interval": row.get("validation_interval"),
        "n": row["validation_n"],
        "mean_distance": None,
    }


@command
def main(
    options: Options,
    layer: Annotated[int, typer.Option(min=0, help="The layer that is converted, from 0.")] = 6,
    times: Annotated[int, typer.Option(min=2, help="Measurements within stage 1.")] = 9,
    usage_size: Annotated[int, typer.Option(min=1, help="Validation inputs to measure on, at most.")] = 2000,
) -> None:
    """Usage of one converted layer through stage 1 and after stage 2, as a distance from uniform."""
    file = results_file(options, "layer")
    layers = options.converted(str(layer))
    for study in studies(options):
        validation = study.stages.validation
        data = validation.subset(validation.stratified_order()[:usage_size])
        study.describe(file, layers, times=times, usage_n=len(data))
        for seed in study.seeds:
            rows = trajectory(study, study.config(seed, layers), layer, times, data)
            file.put(rows, task=study.task, seed=seed, layer=layer)
            stderr.print(
                f"{study.task}, seed {seed}: distance {rows[0]['distance']:.3f} to {rows[-1]['distance']:.3f}"
            )
