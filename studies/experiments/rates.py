"""Whether controls do better at learning rates of their own, or from another start.

The rates of `retain` were found with SHRP, and its controls took them over. Here what is trained last in the GLUE
table, on the task, is trained again at multiples of them, all else as it was: encoders with the layers dropped, or
pruned of heads and neurons, and pruned ones, of the experts that usage keeps (SHRP) or of random ones. The text that
some of them see before stays at the table's rates.

Two more are not in the table. In it a model whose layers are dropped comes from the texts with all of its layers,
where at 6 of 12 SHRP's dense ones are the task's teacher's: `taught` drops the layers of that teacher and sees no
texts. And `dense` is the teacher itself, no layer converted, all of them learning from labels and its own outputs for
as many epochs (without changed copies, of which it would learn nothing): what of a share above 100% is the training's
doing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS
from shrp.errors import TrainingError
from shrp.pruning.plan import make_plan
from shrp.studies.studies import AS_TRAINED, FILES, NARROW
from studies.command import names, numbers, seeds_of
from studies.depths import Depth, named
from studies.experiments.results_file import ResultsFile
from studies.experiments.study import data_of, scored
from studies.general import General
from studies.glue import RANDOM_DRAWS
from studies.pipeline import Pipeline
from studies.shares import worth_keeping
from studies.stages import Stages

MODELS = ("dropped", "taught", "uniform", NARROW, "random", "static", "dense")


class Search:
    """One task and seed at a depth of the table."""

    def __init__(self, stages: Stages, general: General, depth: Depth) -> None:
        self.stages, self.general, self.depth = stages, general, depth
        self.teacher = worth_keeping(stages.evaluate(stages.teacher.model))

    def row(self, model: str, times: float) -> dict[str, Any]:
        """A row of what a model keeps, trained at `times` the table's rates."""
        made = self._trained(model, times)
        found = self.stages.evaluate(made.model)
        config = made.info.training["config"]
        return {
            **{name: config[name] for name in ("learning_rate", "new_learning_rate")},
            "teacher": self.teacher.score,
            "retained": found.score / self.teacher.score,
            **scored(found),
        }

    def _trained(self, model: str, times: float) -> Checkpoint:
        texts = model != "taught"
        pipeline = Pipeline(self.stages, self.general, control_texts=texts, chosen=(self.depth,), times=times)
        if model == "dense":
            return pipeline.dense("retain", self.depth)
        if model in ("taught", *AS_TRAINED):
            ((_, made),) = pipeline.conversions("retain", "dropped" if model == "taught" else model)
            return made
        ((_, routed),) = pipeline.conversions("retain", "none")
        options: dict[str, Any] = {"per_layer": self.depth.recover}
        if model == "random":
            options |= {"selection": "random", "seed": self.stages.seed % RANDOM_DRAWS}
        plan = make_plan(usage_in(routed.info), **options)
        return pipeline.pruned(model, "retain", self.depth, routed, plan, self.depth.recover)


def main(
    base: Annotated[str, typer.Option(help="The dense encoder of 12 layers: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    task: Annotated[str, typer.Option(help="GLUE tasks, separated by commas.")] = "cola,rte",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0",
    depth: Annotated[str, typer.Option(help="6of12 or 11of12.")] = "11of12",
    models: Annotated[str, typer.Option(help=f"What to train: {', '.join(MODELS)}.")] = "dropped,static",
    times: Annotated[str, typer.Option(help="Multiples of the table's learning rates.")] = "0.25,0.5,1,2,4",
    work: Annotated[Path, typer.Option(help="Folder for the trainings, shared with the GLUE table.")] = Path(
        "glue.run"
    ),
    out: Annotated[Path, typer.Option(help="The file of results.")] = FILES / "rates.json",
) -> None:
    """What the last training keeps at multiples of the GLUE table's learning rates, or from another start."""
    name = name_of(base, base_name)
    file = ResultsFile(out, f"python -m studies.experiments rates --base {name}")
    file.refuse_another(name)
    (chosen, *more), picked = named(depth), names(models, MODELS, "--models")
    multiples = numbers(times, float)
    if more:
        raise TrainingError("one depth at a time: --depth takes 6of12 or 11of12.")
    if not all(0 < each < float("inf") for each in multiples):
        raise TrainingError(f"--times takes numbers above 0, not {times}.")
    general = General(base, name, work)
    for seed in seeds_of(seeds):
        for one in names(task, tuple(TASKS), "--task"):
            search = Search(Stages(base, name, work, one, seed), general, chosen)
            # Another kind of processor trains another teacher: depths may have been measured on different ones.
            file.refuse_another_teacher(search.teacher.score, task=one, depth=chosen.name)
            _describe(file, search, name)
            for model in picked:
                for each in multiples:
                    row = search.row(model, each)
                    file.put([row], task=one, seed=seed, depth=chosen.name, model=model, times=each)
                    stderr.print(
                        f"{one}, seed {seed}, {model}, {each:g} times the rates: {row['retained']:.1%} of the teacher"
                    )


def _describe(file: ResultsFile, search: Search, base: str) -> None:
    stages = search.stages
    data = data_of(stages, search.teacher)
    del data["teacher"]  # each row has its own
    file.describe(
        stages.validation.task.name,
        data,
        {"base": base, "recipe": "retain", "of_table": True},
    )
