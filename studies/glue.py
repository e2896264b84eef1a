"""The GLUE table, with controls next to every figure: `python -m studies.glue --base BAAI/bge-small-en-v1.5`.

For each task, seed, recipe and depth: SHRP routed, pruned, and fine-tuned after pruning; and the controls at the same
layers, trained by the same loop on the same data with the same distillation: random experts, no router (all experts
kept, or random ones), layer dropping, and width pruning to SHRP's size.

- `paper` converts on the task, one epoch a layer.
- `retain` converts on unlabelled text, once for all tasks and seeds. With all but one layer converted, what is pruned, and
  controls, are fine-tuned on text before the task; a task with few tokens lends augmented copies of its examples.

Tasks of one's own, such as token classification, are read from `--data FOLDER`.

A control trains for as many epochs as SHRP does before and after pruning. Rows are written as soon as they are measured;
rows that exist are skipped, and a killed run goes on with the epoch that it was in (`studies.trainings`).

The table is made of `Piece`s, one after the other, or with `--ray` on a cluster (`studies.cluster`). Only the command itself
writes rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import typer
from transformers import PreTrainedModel

from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS as GLUE
from shrp.errors import DataError
from shrp.evaluation.costs import cost, plan_cost
from shrp.model.config import ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan, first_experts, make_plan
from shrp.pruning.prune import prune
from shrp.training.config import RECIPES
from shrp.training.runs import Convert
from studies import trainings
from studies.cluster import run_pieces
from studies.controls import narrow_cost, no_router
from studies.rows import DATA, Rows, as_json, names, numbers, read_rows, run
from studies.summary import TASKS, describe, summary
from studies.trainings import MAX_LENGTH, Base, Trainings

MODELS = ("shrp", "random", "no_router", "dropped", "width")
KEY = ("task", "recipe", "depth", "model", "seed", "experts_per_layer", "routed", "fine_tuned_after_pruning")
DRAWS = 3
"""Random selections of experts that are averaged where nothing is fine-tuned."""
STAGE2_EPOCHS = 2
TUNED_EXAMPLES, TUNED_TOKENS = 60_000, 1_500_000
"""Fine-tuning at the deepest conversion: examples of the task, and tokens with `retain` if those are more."""
FEW = 100_000
"""A task with fewer tokens lends augmented copies."""
COPIES = 15


@dataclass(frozen=True)
class Depth:
    """How many layers are converted."""

    name: str
    parts: tuple[tuple[int, ...], ...]
    """Converted layers; each part goes on from the one before."""
    keep: tuple[int, ...]
    """Experts per layer at which the model is pruned."""
    tuned: int
    """The one of these at which it is fine-tuned, and the size of the controls."""
    deep: bool
    """Whether all layers but the first are converted."""

    @property
    def layers(self) -> tuple[int, ...]:
        """All converted layers."""
        return tuple(sorted(sum(self.parts, ())))

    def texts_first(self, recipe: str) -> bool:
        """Whether pruned models and controls are fine-tuned on text before the task."""
        return recipe == "retain" and self.deep


def depths_of(layers: int, experts: int) -> dict[str, Depth]:
    """By name: the upper half of the layers converted, and all but the first."""
    upper, lower = tuple(range(layers // 2, layers)), tuple(range(1, layers // 2))
    half, deep = f"{len(upper)}of{layers}", f"{layers - 1}of{layers}"
    keep = tuple(sorted({m for m in (2, 4, 8, 12) if m < experts} | {experts}))
    return {half: Depth(half, (upper,), keep, 2, False), deep: Depth(deep, (upper, lower), (1, 2), 1, True)}


class Models:
    """The models of one task and seed, trained by a recipe at a depth."""

    def __init__(self, made: Trainings) -> None:
        self.made = made

    def routed(self, recipe: str, depth: Depth) -> Checkpoint:
        """SHRP before pruning."""
        config = {"stage2_epochs": STAGE2_EPOCHS} | self._rates(recipe, depth)
        config = self.made.config(recipe, part=3 if depth.deep else 2, **config)
        return self.made.train(f"{recipe}-shrp-{depth.name}", config, self._start(recipe, depth, "shrp"))

    def fine_tuned(self, recipe: str, depth: Depth, routed: Checkpoint, model: str = "shrp") -> Checkpoint:
        """SHRP pruned to `depth.tuned` experts a layer (or to random ones) and fine-tuned."""
        made = self.made
        plan = self._plan(routed, depth.tuned, model, made.seed % DRAWS)
        if depth.texts_first(recipe):
            start = self._start(recipe, depth, model, plan, f"{model}-{made.task}-s{made.seed}")
        else:
            start = made.pruned(routed, plan)
        return self.on_the_task(recipe, depth, f"{model}-{depth.tuned}", start, part=4)

    def control(self, recipe: str, depth: Depth, model: str, m: int | None = None) -> Checkpoint:
        """A control, which is trained as it is from the conversion on; without a router, with `m` experts a layer."""
        plan, name, part = self._fixed(depth, model, m)
        start = self._start(recipe, depth, model, plan, name)
        epochs = 0 if depth.texts_first(recipe) else STAGE2_EPOCHS
        return self.on_the_task(recipe, depth, name, start, part, epochs)

    def train_encoders(self, depth: Depth, model: str) -> None:
        """Train what a model of any task starts from with `retain`, unless it depends on the task."""
        if model in ("shrp", "random"):  # which are pruned by the task
            self._encoder(depth, "shrp")
        elif model != "width":
            for m in self._sizes(depth, model):
                plan, name, _ = self._fixed(depth, model, m)
                self._encoder(depth, model, plan, name)

    def _sizes(self, depth: Depth, model: str) -> tuple[int | None, ...]:
        """Experts per layer of a control's models."""
        return (self.made.base.experts, depth.tuned) if model == "no_router" else (None,)

    def _fixed(self, depth: Depth, model: str, m: int | None) -> tuple[PruningPlan | None, str, int]:
        """A control's plan, which it has from the conversion on, its trainings' name, and their number among the parts."""
        every, part = self.made.base.experts, 3 if depth.deep else 2
        if model != "no_router":
            return None, model, part
        if m == every:
            return first_experts(dict.fromkeys(depth.layers, every)), f"{model}-{m}", part
        even, draw = {layer: np.full(every, 1 / every) for layer in depth.layers}, self.made.seed % DRAWS
        return make_plan(even, per_layer=m, selection="random", seed=draw), f"{model}-{m}-draw{draw}", 4

    def _plan(self, routed: Checkpoint, m: int, model: str, draw: int) -> PruningPlan:
        selection = "random" if model == "random" else "usage"
        return make_plan(usage_in(routed.info), per_layer=m, selection=selection, seed=draw)

    def _start(
        self, recipe: str, depth: Depth, model: str, plan: PruningPlan | None = None, name: str = ""
    ) -> Checkpoint:
        """The model that a training on the task starts from.

        It is converted, pruned if there is a plan, and then, if the recipe does so at the depth, fine-tuned on text as
        `name`.
        """
        made = self.made
        if recipe == "retain":
            encoder = self._encoder(depth, model, plan, name)
            info = replace(made.teacher.info, config=ShrpConfig(depth.layers), plan=plan, usage={})
            return made.with_layers_of(encoder, info, _whole(depth, model, plan))
        found, (kind, convert, by, balance, routing) = made.teacher, self._conversion(recipe, depth, model)
        with routing:
            for part, layers in enumerate(depth.parts):
                config = made.config(recipe, layers, part, stage2_epochs=0, balance=balance)
                done = f"{recipe}-{kind}-{sum(map(len, depth.parts[: part + 1]))}"
                found = made.train(done, config, found, convert=convert, converts_by=by)
                if convert is not None:  # its layers are none of SHRP's
                    found = replace(found, info=made.teacher.info)
        return found if plan is None else made.pruned(found, plan)

    def _encoder(
        self, depth: Depth, model: str, plan: PruningPlan | None = None, name: str = ""
    ) -> PreTrainedModel:
        """The encoder that `_start` takes with `retain`, trained on text alone."""
        base, (kind, convert, by, balance, routing) = self.made.base, self._conversion("retain", depth, model)
        with routing:
            encoder = base.encoder(kind, depth.parts, convert, balance)
        if plan is not None:
            encoder = prune(encoder, plan)
        return base.further(f"{by or name}-{depth.name}", encoder) if _whole(depth, model, plan) else encoder

    def _conversion(self, recipe: str, depth: Depth, model: str) -> tuple[str, Convert | None, str, float, Any]:
        """How a model is converted: its trainings' name, the function and its name, the balance loss, and the gates."""
        kind = "shrp" if model == "random" else model
        convert, by = self.made.conversion(kind, depth.tuned)
        if kind == "no_router":
            return kind, convert, by, 0.0, no_router()
        return by or kind, convert, by, RECIPES[recipe]["balance"], nullcontext()

    def _rates(self, recipe: str, depth: Depth) -> dict[str, Any]:
        """What `retain` changes after the conversion."""
        if recipe != "retain":
            return {}
        if depth.deep:
            return {"learning_rate": 4e-4, "new_learning_rate": 3e-3, "freeze_dense": False}
        return {"freeze_dense": True}

    def on_the_task(
        self, recipe: str, depth: Depth, name: str, start: Checkpoint, part: int, epochs: int = 0
    ) -> Checkpoint:
        """Fine-tune a pruned model, or a control, on the task. A control also gets the epochs that SHRP had before."""
        made, values, data = self.made, self._rates(recipe, depth) | {"balance": 0.0}, None
        if name == "dropped":  # there are no other layers to train
            values["freeze_dense"] = False
        size, tokens = len(made.train_data), made.tokens
        few = tokens < FEW and not made.train_data.task.on_tokens  # a copy has other words
        if depth.texts_first(recipe) and few:
            data = made.augmented(max(1, round(made.base.task_effort * COPIES)))
            tokens = round(tokens * len(data) / size)
            size, values["distill_logits"] = len(data), 1.0  # a copy has no known label
        examples = TUNED_EXAMPLES if depth.deep else 0
        if depth.texts_first(recipe):
            examples = max(examples, TUNED_TOKENS * size / tokens)
        epochs += max(1, round(made.base.task_effort * examples / min(size, trainings.EPOCH_SIZE)))
        config = made.config(recipe, part=part, stage2_epochs=epochs, **values)
        return made.train(f"{recipe}-{name}-{depth.name}-tuned", config, start, data=data)


def _whole(depth: Depth, model: str, plan: PruningPlan | None) -> bool:
    """Whether all of an encoder is trained on text before the task, not only the converted layers."""
    return depth.deep and (model != "shrp" or plan is not None)


@dataclass(frozen=True)
class Piece:
    """What is done by itself: rows of a task, seed, recipe and depth; a task's teacher; or encoders for all tasks."""

    task: str = ""
    """Empty for encoders."""
    seed: int = 0
    recipe: str = ""
    """Empty for the teacher."""
    depth: str = ""
    models: tuple[str, ...] = ()


class Study(Models):
    """The rows of one task and seed."""

    def rows(self, recipe: str, depth: Depth, model: str) -> Iterator[dict[str, Any]]:
        """Train what is not trained yet, and measure the model's rows."""
        best = self.made.best
        measure = self._shrp_rows if model in ("shrp", "random") else self._control_rows
        for experts, routed, tuned, found, price in measure(recipe, depth, model):
            shares = price.relative_to(self.made.dense)
            row = self._key(recipe, depth, model, experts, routed, tuned) | {
                "metric": best.metric,
                "score": mean(one.score for one in found),
                "interval": found[0].ends() if len(found) == 1 else None,
                "n": best.n,
                "teacher_score": best.score,
                "majority_score": best.majority_score,
            }
            kept = ("encoder_params", "encoder_flops", "model_params")
            row |= {f"{name}_share": shares[name] for name in kept}
            stderr.print(
                f"{self.made.task}, seed {self.made.seed}, {recipe}, {depth.name}, {describe(row)}: "
                f"{100 * row['score'] / best.score:.1f}% of the teacher"
            )
            yield row

    def keys(self, recipe: str, depth: Depth, model: str) -> list[dict[str, Any]]:
        """What identifies each row of a model."""
        return [self._key(recipe, depth, model, *one) for one in self._expected(depth, model)]

    def _key(
        self, recipe: str, depth: Depth, model: str, experts: int | None, routed: bool, tuned: bool
    ) -> dict[str, Any]:
        values = (self.made.task, recipe, depth.name, model, self.made.seed, experts, routed, tuned)
        return dict(zip(KEY, values, strict=True))

    def _expected(self, depth: Depth, model: str) -> list[tuple[int | None, bool, bool]]:
        """Experts per layer, routed, and fine-tuned after pruning, of each row of a model."""
        every = self.made.base.experts
        if model == "shrp":
            pruned = [(m, False, False) for m in depth.keep]
            return [(every, True, False), *pruned, (depth.tuned, False, True)]
        if model == "random":
            return [*((m, False, False) for m in depth.keep if m < every), (depth.tuned, False, True)]
        return [(m, False, True) for m in self._sizes(depth, model)]

    def _shrp_rows(self, recipe: str, depth: Depth, model: str) -> Iterator[tuple[Any, ...]]:
        """The routed model, its prunings (to random experts), and the fine-tuned one."""
        made, every, routed = self.made, self.made.base.experts, self.routed(recipe, depth)
        if model == "shrp":
            yield every, True, False, [made.evaluate(routed.model)], cost(routed.model)
        live = LiveEvaluator(routed.model, routed.tokenizer, made.validation, max_length=MAX_LENGTH)
        for m in depth.keep:
            if model == "random" and m == every:
                continue
            plans = [self._plan(routed, m, model, draw) for draw in range(DRAWS if model == "random" else 1)]
            yield m, False, False, [live.evaluate(p) for p in plans], plan_cost(routed.model, plans[0])
        tuned = self.fine_tuned(recipe, depth, routed, model)
        yield depth.tuned, False, True, [made.evaluate(tuned.model)], cost(tuned.model)

    def _control_rows(self, recipe: str, depth: Depth, model: str) -> Iterator[tuple[Any, ...]]:
        """Controls, which are trained from the conversion on."""
        for m, routed, tuned in self._expected(depth, model):
            found = self.control(recipe, depth, model, m)
            narrow = narrow_cost(self.made.teacher.model, len(depth.layers), depth.tuned)
            price = narrow if model == "width" else cost(found.model)
            yield m, routed, tuned, [self.made.evaluate(found.model)], price


class Work:
    """Does a piece, in whichever process this is; data and teacher stay for the next piece of the same task and seed."""

    def __init__(self, base: Base, out: Path, teachers: Mapping[str, float]) -> None:
        self.base, self.out, self.teachers = base, out, dict(teachers)
        self.made: Trainings | None = None

    def __call__(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """Yield the piece's rows; a `DataError` if the file has rows of the task with another teacher."""
        if self.made is None or (self.made.task, self.made.seed) != (piece.task, piece.seed):
            self.made = Trainings(self.base, piece.task, piece.seed)
        study = Study(self.made)
        if not piece.task:
            study.train_encoders(self._depth(piece), *piece.models)
        elif not piece.recipe:
            _ = self.made.teacher
        else:
            score = self.made.best.score
            if abs(self.teachers.get(piece.task, score) - score) > 1e-5:
                raise DataError(
                    f"{self.out} has rows of {piece.task} with another teacher: name another --out."
                )
            for model in piece.models:
                yield from study.rows(piece.recipe, self._depth(piece), model)

    def _depth(self, piece: Piece) -> Depth:
        return depths_of(self.base.layers, self.base.experts)[piece.depth]


def pieces_of(
    base: Base,
    rows: Rows,
    tasks: Sequence[str],
    seeds: Sequence[int],
    recipes: Sequence[str],
    depths: Sequence[str],
    models: Sequence[str],
) -> dict[Piece, list[Piece]]:
    """The pieces that rows are lacking of, each with those before it: its teacher, and encoders for `retain`."""
    known, pieces, last = depths_of(base.layers, base.experts), {}, {}
    for seed, task, recipe, depth in product(seeds, tasks, recipes, depths):
        study = Study(Trainings(base, task, seed))
        lacking = [m for m in models if not all(key in rows for key in study.keys(recipe, known[depth], m))]
        if not lacking:
            continue
        before = [Piece(task)]
        pieces.setdefault(before[0], [])
        for model in dict.fromkeys("shrp" if m == "random" else m for m in lacking if m != "width"):
            if recipe == "retain":
                draw = seed % DRAWS if model == "no_router" else 0
                before.append(one := Piece("", draw, recipe, depth, (model,)))
                # A model's encoders go on from one another.
                pieces.setdefault(one, [last[model]] if model in last else [])
                last[model] = one
        pieces[Piece(task, seed, recipe, depth, tuple(lacking))] = before
    return pieces


def main(
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")] = "",
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = ",".join(TASKS),
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0",
    recipes: Annotated[str, typer.Option(help="retain, paper, or both.")] = "retain,paper",
    depths: Annotated[str, typer.Option(help="Such as 6of12,11of12; both by default.")] = "",
    models: Annotated[str, typer.Option(help="Models of the table.")] = ",".join(MODELS),
    data: Annotated[Path | None, typer.Option(help="Folder of TASK_train.parquet and TASK_validation.parquet.")] = None,
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "glue.json",
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster, whose nodes share --work's file system.")] = "",
    cpus: Annotated[float, typer.Option(help="Cores that a piece of the work takes there.")] = 1,
    gpus: Annotated[float | None, typer.Option(help="GPUs that it takes; 1 by default if there are any.")] = None,
    means: Annotated[bool, typer.Option("--summary", help="Print the table's means; train nothing.")] = False,
    json: Annotated[bool, typer.Option(help="With --summary, whose output is JSON in any case.")] = False,
) -> None:
    """Train what the table lacks and add its rows."""
    if means:
        print(as_json(summary(read_rows(out))), end="")
        return
    if not base:
        raise typer.BadParameter("name the dense encoder.", param_hint="--base")
    if data is not None and out == DATA / "glue.json":
        raise typer.BadParameter("rows of other tasks need a file of their own.", param_hint="--out")
    own = tuple(map(str.strip, tasks.split(",")))
    picked = names(tasks, own if data else tuple(GLUE), "--tasks"), names(recipes, tuple(RECIPES), "--recipes")
    wanted, chosen = names(models, MODELS, "--models"), numbers(seeds, "--seeds")
    rows = Rows(out, KEY)
    if ray:  # its workers have other folders of their own
        base_name = name_of(base, base_name)
        base, work = str(Path(base).resolve()) if Path(base).is_dir() else base, work.resolve()
        data = None if data is None else data.resolve()
    encoder = Base(base, work, base_name, shared=bool(ray), data=data)
    known = depths_of(encoder.layers, encoder.experts)
    converted = names(depths or ",".join(known), tuple(known), "--depths")
    teachers = {row["task"]: row["teacher_score"] for row in read_rows(out)}
    pieces = pieces_of(encoder, rows, picked[0], chosen, picked[1], converted, wanted)
    for row in run_pieces(Work(encoder, out, teachers), pieces, ray, cpus, gpus):
        rows.add(row)


if __name__ == "__main__":
    from studies import glue  # what the main module defines cannot be sent to a cluster's workers

    run(glue.main)
