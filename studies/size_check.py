"""Does the method hold for a base-size encoder? `python -m studies.size_check --base FOLDER`.

One task and seed: the dense teacher; the upper half of its layers converted by the `retain` recipe; static models of
2 and 1 experts a layer, without and with recovery; random experts, likewise; and the same layers dropped, with the same
distillation and as many epochs. Trainings are kept under the work folder, so a killed run goes on where it was. Every
row goes to a JSON file as soon as it is measured, in the form of `studies.glue`'s, with what it costs in numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.cli.output import interval_text, stderr
from shrp.errors import DataError
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import Control, ShrpConfig
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.prune import prune
from shrp.studies.studies import FILES
from shrp.training.config import TrainConfig
from studies.command import run
from studies.shares import lead, of_teacher
from studies.stages import Stages
from studies.table import Table

TASKS = ("rte", "mrpc")
RECIPE = "retain"
PER_LAYER = (2, 1)
RANDOM_DRAWS = 3
TEACHER_EPOCHS = 3
OUT = FILES / "size.json"
KEY = ("base", "task", "seed", "model", "per_layer", "recovered")


@dataclass(frozen=True)
class Protocol:
    """How long everything trains; the same for SHRP and its controls."""

    stage2_epochs: int
    recovery_epochs: int
    epoch_size: int | None
    """At most so many examples an epoch; the teacher always sees all of them."""
    conversion_size: int
    """At most so many in the epochs of stage 1."""
    max_length: int
    freeze_dense: bool = True
    """Whether SHRP leaves the dense layers as the teacher has them, as in the GLUE table; `dropped` trains them."""


class SizeCheck:
    """The rows of one task and seed."""

    def __init__(self, stages: Stages, protocol: Protocol) -> None:
        self.stages, self.protocol = stages, protocol
        model = stages.teacher.model
        depth = model.config.num_hidden_layers
        self.layers = tuple(range(depth - depth // 2, depth))
        self.dense = dense_cost(model, TOKENS)
        self.best = stages.evaluate(model)
        self.recovered: dict[int | None, Evaluation] = {}
        """Experts a layer -> SHRP's recovered static model on the validation data."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Train what is missing, and yield each row once it is measured."""
        yield self._row("teacher", [self.best], self.dense, (self.stages.teacher,))
        routed = self._converted("none")
        model = routed.model
        yield self._row("routed", [self.stages.evaluate(model)], cost(model, TOKENS), (routed,))
        live = LiveEvaluator(
            model, routed.tokenizer, self.stages.validation, max_length=self.protocol.max_length
        )
        usage = usage_in(routed.info)
        for m in PER_LAYER:
            plan = make_plan(usage, per_layer=m)
            drawn = [make_plan(usage, per_layer=m, selection="random", seed=s) for s in range(RANDOM_DRAWS)]
            price = plan_cost(model, plan, TOKENS)
            yield self._row("static", [live.evaluate(plan)], price, (routed,), m)
            yield self._row("random", [live.evaluate(each) for each in drawn], price, (routed,), m)
            for kind, each in (("static", plan), ("random", drawn[self.stages.seed % RANDOM_DRAWS])):
                made = self._recovered(f"{kind}-{m}", routed, each)
                yield self._row(kind, [self.stages.evaluate(made.model)], price, (routed, made), m)
        dropped = self._converted("dropped")
        yield self._row(
            "dropped", [self.stages.evaluate(dropped.model)], cost(dropped.model, TOKENS), (dropped,)
        )

    def _config(self, layers: tuple[int, ...], control: Control, epochs: int, **values: Any) -> TrainConfig:
        protocol = self.protocol
        return TrainConfig.named(
            RECIPE,
            shrp=ShrpConfig(layers, control=control),
            stage2_epochs=epochs,
            epoch_size=protocol.epoch_size,
            conversion_size=min(protocol.conversion_size, protocol.epoch_size or protocol.conversion_size),
            max_length=protocol.max_length,
            freeze_embeddings=True,
            freeze_dense=protocol.freeze_dense,
            **values,
        )

    def _converted(self, control: Control) -> Checkpoint:
        """Both stages from the teacher; a control also gets the epochs that pruned models recover in."""
        extra = self.protocol.recovery_epochs if control != "none" else 0
        config = self._config(
            self.layers, control, self.protocol.stage2_epochs + extra, seed=10 * self.stages.seed
        )
        return self.stages.stage(f"size-{control}", config, self.stages.teacher)

    def _recovered(self, name: str, routed: Checkpoint, plan: PruningPlan) -> Checkpoint:
        # With a seed of its own it visits the examples in another order.
        seed = 10 * self.stages.seed + 1
        config = self._config((), "none", self.protocol.recovery_epochs, balance=0.0, seed=seed)
        info = replace(routed.info, plan=plan)
        return self.stages.stage(f"size-{name}", config, routed, lambda: prune(routed.model, plan), info)

    def _row(
        self,
        model: str,
        found: list[Evaluation],
        price: Cost,
        trained: tuple[Checkpoint, ...],
        per_layer: int | None = None,
    ) -> dict[str, Any]:
        """One row.

        Args:
            found: several are draws of one control, which are averaged.
            trained: the trainings that led to the model, after the teacher's.
        """
        depth, recovered = self.stages.teacher.model.config.num_hidden_layers, len(trained) > 1
        if model == "static" and recovered:
            self.recovered[per_layer] = found[0]
        return {
            "base": self.stages.base_name,
            "task": self.stages.validation.task.name,
            "seed": self.stages.seed,
            "recipe": None if model == "teacher" else RECIPE,
            "depth": None if model == "teacher" else f"{len(self.layers)}of{depth}",
            "model": model,
            "per_layer": per_layer,
            "kept": per_layer and per_layer * len(self.layers),
            "recovered": recovered,
            "train_examples": len(self.stages.train_data),
            **of_teacher(found, self.best),
            **self._lead(model, found, per_layer),
            "stage": trained[-1].path.name,
            "epochs": sum(each.info.training["epochs"] for each in trained),
            "seconds": sum(each.info.training["seconds"] for each in trained),
            "protocol": asdict(self.protocol),
            "tokens": TOKENS,
            **price.relative_to(self.dense),
            "counts": asdict(price),
            "dense_counts": asdict(self.dense),
        }

    def _lead(self, model: str, found: list[Evaluation], per_layer: int | None) -> dict[str, Any]:
        """By how much SHRP's recovered static model leads a trained control: of as many experts where it keeps some,
        else of the most.
        """
        if model not in ("random", "dropped") or len(found) > 1:
            return {}
        return lead(self.recovered[per_layer or max(PER_LAYER)], found[0], self.best)


def main(
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("size.run"),
    task: Annotated[str, typer.Option(help="rte or mrpc.")] = "mrpc",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    epoch_size: Annotated[
        int | None, typer.Option(min=1, help="At most so many examples an epoch (the teacher sees all).")
    ] = None,
    conversion_size: Annotated[
        int, typer.Option(min=1, help="At most so many in the epochs of stage 1.")
    ] = 1000,
    stage2_epochs: Annotated[int, typer.Option(min=1, help="Epochs after the last conversion.")] = 2,
    recovery_epochs: Annotated[int, typer.Option(min=1, help="Epochs of a pruned model.")] = 1,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens at which an input is cut.")] = 128,
    freeze_dense: Annotated[
        bool,
        typer.Option(
            "--freeze-dense/--train-dense", help="Whether SHRP leaves the dense layers as they are."
        ),
    ] = True,
    json_out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
) -> None:
    """Train, prune and score one base-size encoder; trainings that are done are read back and scored again."""
    if task not in TASKS:
        raise typer.BadParameter(f"the size check knows {' and '.join(TASKS)}, not {task!r}.")
    protocol = Protocol(stage2_epochs, recovery_epochs, epoch_size, conversion_size, max_length, freeze_dense)
    table = Table(json_out, "python -m studies.size_check", KEY)
    name = name_of(base, base_name)
    others = [row for row in table.rows if (row["base"], row["task"]) == (name, task)]
    if any(row["protocol"] != asdict(protocol) for row in others):
        raise DataError(f"{json_out.name} has rows of {task} by another protocol: name another file.")
    stages = Stages(base, name, work, task, seed, max_length, TEACHER_EPOCHS)
    for row in SizeCheck(stages, protocol).rows():
        table.add(row)
        label = " ".join(str(row[k]) for k in ("model", "per_layer") if row[k])
        stderr.print(
            f"{label}{', recovered' if row['recovered'] else ''}: {row['score']:.4f} "
            f"({interval_text(row) or 'no interval'}, n = {row['n']})"
        )


if __name__ == "__main__":
    run(main)
