"""The GLUE table, with controls beside every figure: `python -m benchmarks.glue --base BAAI/bge-small-en-v1.5`.

For each task and seed: the dense teacher (one for all seeds of a task); then for each recipe, 6 and 11 of 12 layers
converted, pruned without and with recovery; and the controls at the same layers, distillation and epochs: layers
dropped, no router (uniform gates), random experts kept. `paper` converts on the task, an epoch a layer, the deeper
model going on from the conversion of the upper six; `retain` starts from one conversion on unlabelled texts
(`benchmarks.general`), and so do its controls, unless `--no-control-texts` says otherwise, which their rows tell. At 11
of 12 layers what `retain` recovers takes from the task's routed model only which experts to keep: the encoder that was
converted on texts is pruned to them, learns on from texts, each pruned layer asked for what the dense one says, and
then from the task; a task with few tokens lends it, and the controls, changed copies of its examples (`shrp.augment`).

Every row goes to a JSON file as soon as it is measured; trainings are kept under the work folder, so a killed run goes
on where it was.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers import PreTrainedModel

from benchmarks.command import run
from benchmarks.depths import DEPTHS, EPOCH_SIZE, Depth, named
from benchmarks.general import General
from benchmarks.shares import lead, of_teacher
from benchmarks.shipping import Shipping
from benchmarks.stages import Stages
from benchmarks.table import Table
from shrp import checkpoint
from shrp.checkpoint import Checkpoint
from shrp.checkpoint_info import CheckpointInfo, usage_in
from shrp.cli.output import stderr
from shrp.cli.training import probe_of
from shrp.config import ShrpConfig
from shrp.convert import convert
from shrp.data import TextData
from shrp.errors import TrainingError
from shrp.evaluation import Evaluation
from shrp.general import graft
from shrp.history import joined
from shrp.live import LiveEvaluator
from shrp.measure import TOKENS, Cost, cost, dense_cost, plan_cost
from shrp.plan import PruningPlan, make_plan
from shrp.prune import prune
from shrp.training_config import TrainConfig

TASKS = ("cola", "mrpc", "rte", "stsb", "qnli", "sst2")
RANDOM_DRAWS = 3
KEY = ("task", "seed", "recipe", "depth", "model", "per_layer", "recovered", "texts")
OUT = Path(__file__).parent.parent / "docs" / "data" / "glue.json"


@dataclass(frozen=True, eq=False)
class _Start:
    """Where a stage begins that follows others: the arguments of `Stages.stage`, and the history until there."""

    checkpoint: Checkpoint
    history: list[dict[str, Any]]
    model: Callable[[], PreTrainedModel] | None = None
    info: CheckpointInfo | None = None
    made_of: str = ""
    converted: Mapping[str, Any] | None = None
    """How its layers were made, where that was on texts."""


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
        depths: Sequence[Depth] = DEPTHS,
    ) -> None:
        """Args: depths, those of `DEPTHS` to make rows of; conversions that these go on from are made too."""
        self.stages, self.general, self.table, self.task = stages, general, table, task
        self.control_texts, self.depths = control_texts, depths
        self.common = {"freeze_embeddings": True, "max_length": stages.max_length}
        self.dense = dense_cost(stages.teacher.model, TOKENS)
        self.sets = (stages.validation, *probe_of(stages.validation.task))
        self.best = {data.fingerprint: stages.evaluate(stages.teacher.model, data) for data in self.sets}
        if not self.best[stages.validation.fingerprint].score > 0:
            raise TrainingError(
                f"the teacher of {task} has a score of 0 or less, so there is nothing to retain."
            )
        self.shipping = Shipping(stages, self.sets, self.best)
        self.made: dict[tuple[str, str], Checkpoint] = {}
        self.recovered: dict[tuple[str, str], Evaluation] = {}
        """Recipe and depth -> SHRP's recovered static model on the validation data."""
        self.before: dict[tuple[str | None, str | None, str], _Start] = {}
        """Recipe, depth and kind -> where the task's own training of both stages, or of recovery, began."""
        self._add("teacher", None, None, self._all(stages.teacher.model), self.dense, stages.teacher)

    def _all(self, model: PreTrainedModel) -> list[list[Evaluation]]:
        """One evaluation for each data set."""
        return [[self.stages.evaluate(model, data)] for data in self.sets]

    def config(
        self,
        recipe: str,
        control: str,
        layers: tuple[int, ...],
        part: int,
        depth: Depth | None = None,
        **values: Any,
    ) -> TrainConfig:
        """A config of a part of a recipe; each part has a seed of its own, so it visits other examples.

        Args:
            depth: of a part after stage 1, whose own settings it takes.
        """
        shrp = ShrpConfig(layers, control=control)
        seed = 10 * self.stages.seed + part
        if depth is not None:
            values["epoch_size"] = EPOCH_SIZE
            if recipe == "retain":
                values |= depth.rates | {"freeze_dense": depth.freeze_dense}
        return TrainConfig.named(recipe, shrp=shrp, seed=seed, **self.common | values)

    def conversions(self, recipe: str, control: str) -> Iterator[tuple[Depth, Checkpoint]]:
        """Each depth's routed model (or control), after stage 2."""
        converted = self._on_texts(control) if recipe == "retain" else self._on_task(recipe, control)
        last = max(map(DEPTHS.index, self.depths))
        for part, (depth, start) in enumerate(zip(DEPTHS[: last + 1], converted, strict=False)):
            if depth not in self.depths:
                continue
            self.before[recipe, depth.name, control] = start
            name, values, data = f"{recipe}-{control}-{depth.name}", {}, None
            epochs = depth.stage2_epochs
            if control != "none":  # it is trained on for as long as a pruned model is
                recovery, values, data = self._recovery(recipe, depth)
                epochs = recovery if depth.texts_first(recipe) else epochs + recovery
            config = self.config(recipe, control, (), part + 2, stage2_epochs=epochs, depth=depth, **values)
            yield depth, self._stage(name, config, start, data)

    def _recovery(self, recipe: str, depth: Depth) -> tuple[int, dict[str, float], TextData | None]:
        """How what was pruned, and a control, train on: epochs, settings, and the data if not the task's own."""
        data = self.stages.more_data(depth.copies_of(recipe, self.stages.tokens))
        if data is None:
            return depth.recovery_epochs(recipe, len(self.stages.train_data), self.stages.tokens), {}, None
        grown = round(self.stages.tokens * len(data) / len(self.stages.train_data))
        epochs = depth.recovery_epochs(recipe, len(data), grown)
        return epochs, {"distill_logits": 1.0}, data  # a copy's label is not known

    def _stage(
        self, name: str, config: TrainConfig, start: _Start, data: TextData | None = None
    ) -> Checkpoint:
        return self.stages.stage(name, config, start.checkpoint, start.model, start.info, start.made_of, data)

    def _on_task(self, recipe: str, control: str) -> Iterator[_Start]:
        """Stage 1 on the task itself, one layer an epoch, to each depth."""
        done, history = self.stages.teacher, []
        for part, depth in enumerate(DEPTHS):
            config = self.config(
                recipe, control, depth.parts[-1], part, stage2_epochs=0, epoch_size=EPOCH_SIZE
            )
            done = self.stages.stage(f"{recipe}-{control}-{depth.name}-stage1", config, done)
            history = joined(history, checkpoint.read_history(done.path))
            yield _Start(done, history)

    def _on_texts(self, control: str) -> Iterator[_Start]:
        """The teacher with the layers that one conversion on unlabelled texts made, to each depth."""
        teacher = self.stages.teacher
        for depth in DEPTHS:
            if control == "none":
                yield self._grafted(self.general(control, depth.parts))
            elif self.control_texts:
                make = self.general.further if depth.recover_on_texts else self.general
                yield self._grafted(make(control, depth.parts))
            else:
                shrp = ShrpConfig(sum(depth.parts, ()), control=control)
                yield _Start(
                    teacher,
                    [],
                    lambda shrp=shrp: convert(copy.deepcopy(teacher.model), shrp),
                    replace(teacher.info, config=shrp),
                    json.dumps(shrp.to_dict()),
                )

    def _grafted(self, encoder: Checkpoint) -> _Start:
        """The task's teacher with the layers of an encoder that learnt on texts."""
        teacher = self.stages.teacher
        return _Start(
            teacher,
            checkpoint.read_history(encoder.path),
            lambda: graft(teacher.model, encoder.model),
            replace(teacher.info, config=encoder.info.config, plan=encoder.info.plan),
            encoder.path.name,
            encoder.info.training,
        )

    def shrp(self, recipe: str) -> None:
        """SHRP's own rows, and random experts."""
        for depth, routed in self.conversions(recipe, "none"):
            self.made[recipe, depth.name] = routed
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
                        if depth.texts_first(recipe):
                            start = self._grafted(self.general.further(kind, depth.parts, kept, self.task))
                        else:
                            start = self._pruned(routed, kept)
                        self._recover(kind, recipe, depth, start, m)

    def _pruned(self, routed: Checkpoint, plan: PruningPlan) -> _Start:
        """The task's routed model, pruned."""
        return _Start(routed, [], lambda: prune(routed.model, plan), replace(routed.info, plan=plan))

    def _recover(self, kind: str, recipe: str, depth: Depth, start: _Start, m: int) -> None:
        """The row of a pruned model that is trained on."""
        epochs, values, data = self._recovery(recipe, depth)
        config = self.config(recipe, "none", (), 4, balance=0.0, stage2_epochs=epochs, depth=depth, **values)
        if start.history:
            self.before[recipe, depth.name, kind] = start
        trained = self._stage(f"{recipe}-{kind}-{depth.name}-{m}", config, start, data)
        found = self._all(trained.model)
        self._add(kind, recipe, depth.name, found, cost(trained.model, TOKENS), trained, m, True)

    def control(self, recipe: str, control: str) -> None:
        """A control's rows."""
        for depth, made in self.conversions(recipe, control):
            self._add(control, recipe, depth.name, self._all(made.model), cost(made.model, TOKENS), made)

    def ship(self, recipe: str, depth: str, folder: Path, licence: str) -> None:
        """Save the routed model of a recipe and depth as a checkpoint."""
        before = self.before[recipe, depth, "none"]
        made = self.made[recipe, depth]
        self.shipping.ship(recipe, depth, made, before.history, before.converted, folder, licence)

    def _add(
        self,
        model: str,
        recipe: str | None,
        depth: str | None,
        found: list[list[Evaluation]],
        price: Cost,
        made: Checkpoint,
        per_layer: int | None = None,
        recovered: bool = False,
    ) -> None:
        """Add what was found on each data set (the validation data first) to the table and to the checkpoint's rows."""
        # A model that recovered on texts has a history of its own there.
        own = (recipe, depth, model) if recovered or model in ("dropped", "uniform") else None
        start = self.before.get(own if own in self.before else (recipe, depth, "none"))
        texts = sum(row.get("texts", 0) for row in start.history) if start else 0
        evaluations = found[0]
        on_texts = recovered and own in self.before
        if not on_texts:  # else it does not come of the routed checkpoint
            layers = len(made.info.config.layers)
            epochs = made.info.training.get("epochs") if model in ("dropped", "uniform") else None
            self.shipping.note(model, recipe, depth, found, layers, per_layer, recovered, texts, epochs)
        if model == "static" and recovered:
            self.recovered[str(recipe), str(depth)] = evaluations[0]
        self.table.add(
            {
                "task": self.task,
                "seed": self.stages.seed,
                "recipe": recipe,
                "depth": depth,
                "model": model,
                "per_layer": per_layer,
                "kept": per_layer and per_layer * len(made.info.config.layers),
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
        )

    def _copies(self, model: str, recipe: str | None, depth: str | None, recovered: bool) -> int:
        """Changed copies of each training example that a model learned from, beside the example."""
        known = [
            one for one in DEPTHS if one.name == depth and (recovered or model in ("dropped", "uniform"))
        ]
        return known[0].copies_of(str(recipe), self.stages.tokens) if known else 0

    def _lead(
        self, model: str, recipe: str | None, depth: str | None, evaluations: list[Evaluation]
    ) -> dict[str, Any]:
        """By how much the recovered static model leads a trained control; nothing for other models."""
        mine = self.recovered.get((str(recipe), str(depth)))
        if mine is None or model not in ("random", "dropped", "uniform") or len(evaluations) > 1:
            return {}
        return lead(mine, evaluations[0], self.best[self.stages.validation.fingerprint])


def main(
    base: Annotated[str, typer.Option(help="The dense encoder of 12 layers: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = ",".join(TASKS),
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0",
    recipes: Annotated[str, typer.Option(help="retain, paper, or both.")] = "retain,paper",
    controls: Annotated[str, typer.Option(help="dropped, uniform, both, or nothing.")] = "dropped,uniform",
    control_texts: Annotated[
        bool, typer.Option(help="Whether the controls of `retain` learn from the unlabelled texts too.")
    ] = True,
    depths: Annotated[str, typer.Option(help="6of12, 11of12, or both.")] = ",".join(d.name for d in DEPTHS),
    out: Annotated[Path, typer.Option(help="The table.")] = OUT,
    ship: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints of the first recipe at each depth.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the base's weights, for the checkpoints' cards.")] = "",
) -> None:
    """Fill the table; trainings that are done are read back, and their scores measured again."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    chosen = named(depths)
    if ship is not None and "," in seeds:
        raise TrainingError("a checkpoint is of one seed, so --ship takes --seeds with a single one.")
    table = Table(out, "python -m benchmarks.glue", KEY, base=base_name or base)
    for seed in (int(text) for text in seeds.split(",")):
        for task in tasks.split(","):
            stages = Stages(base, base_name or base, work, task, seed)
            general = General(base, base_name or base, work)
            study = Study(stages, general, table, task, control_texts=control_texts, depths=chosen)
            for recipe in recipes.split(","):
                study.shrp(recipe)
                for control in filter(None, controls.split(",")):
                    study.control(recipe, control)
            if ship is not None:
                recipe = recipes.split(",")[0]
                for depth in chosen:
                    study.ship(recipe, depth.name, ship / f"{task}-{depth.name}", licence)
            stderr.print(f"{task}, seed {seed}: done", highlight=False)


if __name__ == "__main__":
    run(main)
