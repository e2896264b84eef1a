"""The GLUE table, with controls beside every figure: `python -m studies.glue --base BAAI/bge-small-en-v1.5`.

For each task and seed: the dense teacher (one for all seeds of a task); then for each recipe, 6 and 11 of 12 layers
converted, pruned without and with recovery; and the controls at the same layers, distillation and epochs: layers
dropped, random experts kept, no router (uniform gates), (`unrouted`) this one pruned to random experts after stage 1,
and (`narrow`) heads and neurons of the dense layers pruned to the size of SHRP's.
`studies.pipeline` says how they are trained; with `--no-control-texts` the controls of `retain` don't see its
unlabelled texts, which their rows tell. `--controls-alone` adds controls to a table that has SHRP's rows; as SHRP's
models may be gone by then, no lead is measured.

Every row goes to a JSON file as soon as it is measured; trainings are kept under the work folder, so a killed run goes
on with the epoch that it was in, or, on texts, with the pass over these.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers import PreTrainedModel

from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.checkpoints.saving import refuse_foreign
from shrp.cli.output import stderr
from shrp.data.sources import probe_for
from shrp.data.tasks import TASKS as GLUE
from shrp.errors import TrainingError
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.studies.studies import AS_TRAINED, FILES, NARROW, UNROUTED
from shrp.training.config import RECIPES
from studies import depths
from studies.command import names, run, seeds_of
from studies.depths import DEPTHS, Depth, named
from studies.general import General
from studies.pipeline import Pipeline
from studies.shares import lead, of_teacher, worth_keeping
from studies.shipping import Shipping
from studies.stages import Stages
from studies.table import Table

TASKS = ("cola", "mrpc", "rte", "stsb", "qnli", "sst2")
CONTROLS = ("dropped", "uniform", UNROUTED, NARROW)
RANDOM_DRAWS = 3
KEY = ("task", "seed", "recipe", "depth", "model", "per_layer", "recovered", "texts")
OUT = FILES / "glue.json"


class Study:
    """One task and seed of the table."""

    def __init__(
        self,
        stages: Stages,
        general: General,
        table: Table,
        task: str,
        *,
        control_texts: bool = True,
        chosen: Sequence[Depth],
    ) -> None:
        """Args: as for `Pipeline`."""
        self.stages, self.table, self.task = stages, table, task
        self.pipeline = Pipeline(stages, general, control_texts=control_texts, chosen=chosen)
        self.dense = dense_cost(stages.teacher.model, TOKENS)
        self.sets = (stages.validation, *probe_for(stages.validation.task))
        self.best = {data.fingerprint: stages.evaluate(stages.teacher.model, data) for data in self.sets}
        worth_keeping(self.best[stages.validation.fingerprint])
        self._teachers = [[self.best[data.fingerprint]] for data in self.sets]
        self.shipping = Shipping(stages, self.sets, self.best)
        self.made: dict[tuple[str, str], list[Checkpoint]] = {}
        """Recipe and depth -> what is shipped: the routed model, then what was pruned and learned on from texts."""
        self.recovered: dict[tuple[str, str], tuple[Evaluation, str]] = {}
        """Recipe and depth -> SHRP's recovered static model on the validation data, and its stage."""
        self.shipping.note("teacher", None, None, self._teachers, 0, None, False, 0)

    def _all(self, model: PreTrainedModel) -> list[list[Evaluation]]:
        """One evaluation for each data set."""
        return [[self.stages.evaluate(model, data)] for data in self.sets]

    def teacher(self, recipe: str) -> None:
        """The teacher's row for each depth, all at once, so that another teacher than the table's is refused before
        hours of training.
        """
        teacher = self._teachers[0], self.dense, self.stages.teacher
        self.table.add(
            *(self._row("teacher", recipe, depth.name, *teacher) for depth in self.pipeline.chosen)
        )

    def shrp(self, recipe: str) -> None:
        """For each depth SHRP's own rows, and random experts."""
        for depth, routed in self.pipeline.conversions(recipe, "none"):
            self.made[recipe, depth.name] = [routed]
            found = self._all(routed.model)
            self._add("routed", recipe, depth.name, found, cost(routed.model, TOKENS), routed)
            length = self.stages.max_length
            live = [
                LiveEvaluator(routed.model, routed.tokenizer, data, max_length=length) for data in self.sets
            ]
            usage = usage_in(routed.info)
            for m in depth.keep:
                plan = make_plan(usage, per_layer=m)
                drawn = [
                    make_plan(usage, per_layer=m, selection="random", seed=s) for s in range(RANDOM_DRAWS)
                ]
                price = plan_cost(routed.model, plan, TOKENS)
                found = [[one.evaluate(plan)] for one in live]
                self._add("static", recipe, depth.name, found, price, routed, m)
                if m < routed.model.config.num_attention_heads:
                    found = [[one.evaluate(each) for each in drawn] for one in live]
                    self._add("random", recipe, depth.name, found, price, routed, m)
                if m == depth.recover:
                    draw = self.stages.seed % len(drawn)
                    for kind, kept in (("static", plan), ("random", drawn[draw])):
                        trained = self.pipeline.pruned(kind, recipe, depth, routed, kept, m)
                        found, price = self._all(trained.model), cost(trained.model, TOKENS)
                        self._add(kind, recipe, depth.name, found, price, trained, m, recovered=True)
                        if kind == "static" and depth.texts_first(recipe):
                            self.made[recipe, depth.name].append(trained)

    def control(self, recipe: str, control: str) -> None:
        """A control's rows."""
        if control == UNROUTED:
            for depth, made in self.pipeline.unrouted(recipe, self.stages.seed % RANDOM_DRAWS):
                found, price = self._all(made.model), cost(made.model, TOKENS)
                self._add(control, recipe, depth.name, found, price, made, depth.recover, recovered=True)
            return
        for depth, made in self.pipeline.conversions(recipe, control):
            size = depth.recover if control == NARROW else None
            self._add(
                control, recipe, depth.name, self._all(made.model), cost(made.model, TOKENS), made, size
            )

    def ship(self, recipe: str, depth: str, folder: Path, licence: str) -> None:
        """Save the routed model of a recipe and depth as a checkpoint, and beside it what learned on from texts."""
        for made in self.made[recipe, depth]:
            before = self.pipeline.before[recipe, depth, "static" if made.is_static else "none"]
            target = _recovered(folder) if made.is_static else folder
            self.shipping.ship(recipe, depth, made, before.history, before.converted, target, licence)

    def _add(
        self,
        model: str,
        recipe: str,
        depth: str,
        found: list[list[Evaluation]],
        price: Cost,
        made: Checkpoint,
        per_layer: int | None = None,
        recovered: bool = False,
    ) -> None:
        """Add what was found on each data set (the validation data first) to the table and to the checkpoint's rows."""
        # A model that recovered on texts has a history of its own there.
        own = (recipe, depth, model) if recovered or model in AS_TRAINED else None
        before = self.pipeline.before
        start = before.get(own if own in before else (recipe, depth, "none"))
        texts = sum(row.get("texts", 0) for row in start.history) if start else 0
        evaluations = found[0]
        first = next(one for one in depths.DEPTHS if one.name == depth).texts_first(recipe)
        on_texts = recovered and first and (model != UNROUTED or self.pipeline.control_texts)
        layers = len(made.info.config.layers)
        epochs = made.info.training.get("epochs") if model in CONTROLS else None
        # What is recovered there does not come of the routed checkpoint; controls without a size stand beside both.
        apart = first and (recovered or model == NARROW)
        beside = [True] if apart else [False, True] if first and model in AS_TRAINED else [False]
        self.shipping.note(model, recipe, depth, found, layers, per_layer, recovered, texts, epochs, beside)
        if model == "static" and recovered:
            self.recovered[recipe, depth] = evaluations[0], made.path.name
        self.table.add(
            self._row(
                model,
                recipe,
                depth,
                evaluations,
                price,
                made,
                per_layer,
                recovered,
                texts=texts,
                on_texts=on_texts,
            )
        )

    def _row(
        self,
        model: str,
        recipe: str,
        depth: str,
        evaluations: list[Evaluation],
        price: Cost,
        made: Checkpoint,
        per_layer: int | None = None,
        recovered: bool = False,
        *,
        texts: int = 0,
        on_texts: bool = False,
    ) -> dict[str, Any]:
        """A row of the table, of what was found on the validation data."""
        return {
            "task": self.task,
            "seed": self.stages.seed,
            "recipe": recipe,
            "depth": depth,
            "model": model,
            "per_layer": per_layer,
            "kept": per_layer and per_layer * len(made.info.config.layers) if model != NARROW else None,
            "recovered": recovered,
            "recovered_on_texts": on_texts,
            "train_examples": len(self.stages.train_data),
            "copies": self._copies(model, recipe, depth, recovered),
            **of_teacher(evaluations, self.best[self.stages.validation.fingerprint]),
            **self._lead(model, recipe, depth, evaluations),
            "stage": made.path.name,
            "texts": texts,
            "tokens": TOKENS,
            **price.relative_to(self.dense),
        }

    def _copies(self, model: str, recipe: str, depth: str, recovered: bool) -> int:
        """Changed copies of each training example that a model learned from, beside the example."""
        known = [one for one in depths.DEPTHS if one.name == depth and (recovered or model in AS_TRAINED)]
        return known[0].copies_of(recipe, self.stages.tokens) if known else 0

    def _lead(self, model: str, recipe: str, depth: str, evaluations: list[Evaluation]) -> dict[str, Any]:
        """By how much the recovered static model leads a trained control, and the stage that it is `against`, since a
        later row of another training makes the lead void (`shrp.studies.studies`); nothing for other models.
        """
        mine, stage = self.recovered.get((recipe, depth), (None, ""))
        if mine is None or model not in ("random", *CONTROLS) or len(evaluations) > 1:
            return {}
        found = lead(mine, evaluations[0], self.best[self.stages.validation.fingerprint])
        return found | {"against": stage}


def main(
    base: Annotated[str, typer.Option(help="The dense encoder of 12 layers: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = ",".join(TASKS),
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0",
    recipes: Annotated[str, typer.Option(help="retain, paper, or both.")] = "retain,paper",
    controls: Annotated[str, typer.Option(help=f"{', '.join(CONTROLS)}, or nothing.")] = "dropped,uniform",
    control_texts: Annotated[
        bool, typer.Option(help="Whether the controls of `retain` learn from the unlabelled texts too.")
    ] = True,
    controls_alone: Annotated[
        bool,
        typer.Option(
            "--controls-alone",
            help="Train the controls alone, beside rows of SHRP's that the table has: no leads.",
        ),
    ] = False,
    depths: Annotated[str, typer.Option(help="6of12, 11of12, or both.")] = ",".join(d.name for d in DEPTHS),
    out: Annotated[Path, typer.Option(help="The table.")] = OUT,
    ship: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints of the first recipe at each depth: the routed model, and what learned on "
            "from texts after pruning, if any did."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the base's weights, for the checkpoints' cards.")] = "",
) -> None:
    """Fill the table; trainings that are done are read back, and their scores measured again."""
    chosen = named(depths)
    picked, beside = (
        names(recipes, tuple(RECIPES), "--recipes"),
        names(controls, CONTROLS, "--controls", none=True),
    )
    if controls_alone and (not beside or ship is not None):
        raise TrainingError("--controls-alone needs --controls, and ships nothing.")
    if NARROW in beside and "retain" in picked and not control_texts:
        raise TrainingError(
            f"beside `retain` the control {NARROW} learns from texts: leave --no-control-texts out."
        )
    if ship is not None and "," in seeds:
        raise TrainingError("a checkpoint is of one seed, so --ship takes --seeds with a single one.")
    name, wanted = name_of(base, base_name), names(tasks, tuple(GLUE), "--tasks")
    table = Table(out, "python -m studies.glue", KEY, base=name)
    general = General(base, name, work)
    # What can be refused is refused now, not after hours of training.
    for task, depth in product(wanted, chosen) if ship is not None else ():
        refuse_foreign(_shipped(ship, task, depth.name))
        if depth.texts_first(picked[0]):
            refuse_foreign(_recovered(_shipped(ship, task, depth.name)))
    for seed, task, recipe in product(seeds_of(seeds), wanted, picked) if controls_alone else ():
        _check_alone(table, task, seed, recipe, chosen, beside)
    for seed in seeds_of(seeds):
        for task in wanted:
            stages = Stages(base, name, work, task, seed)
            study = Study(stages, general, table, task, control_texts=control_texts, chosen=chosen)
            for recipe in picked:
                study.teacher(recipe)
                if not controls_alone:
                    study.shrp(recipe)
                for control in beside:
                    study.control(recipe, control)
            if ship is not None:
                for depth in chosen:
                    study.ship(picked[0], depth.name, _shipped(ship, task, depth.name), licence)
            stderr.print(f"{task}, seed {seed}: done")


def _check_alone(
    table: Table, task: str, seed: int, recipe: str, chosen: Sequence[Depth], controls: Sequence[str]
) -> None:
    """Raise `TrainingError` where controls alone would stand beside nothing, or take a lead's place."""
    for depth in chosen:
        here = {"task": task, "seed": seed, "recipe": recipe, "depth": depth.name}
        rows = [row for row in table.rows if here.items() <= row.items()]
        place = f"{task}, seed {seed}, {recipe}, {depth.name}"
        static = [row.get("stage") for row in rows if row["model"] == "static" and row["recovered"]]
        if not static:
            raise TrainingError(
                f"{table.path.name} has no recovered rows of SHRP's for {place}: leave --controls-alone out."
            )
        leads = [row for row in rows if "lead" in row and row.get("against") in (None, *static)]
        if led := [row["model"] for row in leads if row["model"] in controls]:
            raise TrainingError(
                f"{table.path.name} has SHRP's lead over {led[0]} for {place}, which would be lost: leave it out of "
                "--controls."
            )


def _shipped(folder: Path, task: str, depth: str) -> Path:
    return folder / f"{task}-{depth}"


def _recovered(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-recovered")


if __name__ == "__main__":
    run(main)
