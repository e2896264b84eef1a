"""What the experiments with trainings share: their options, one dense teacher a task, conversions of it by seed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from transformers import PreTrainedModel

from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.cli.options import layer_list
from shrp.cli.training import base_geometry
from shrp.data.tasks import TASKS
from shrp.evaluation.costs import TOKENS, Cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import ShrpConfig
from shrp.studies.studies import FILES
from shrp.training.config import RECIPES, TrainConfig
from shrp.training.train import Progress
from studies.command import names, seeds_of
from studies.experiments.results_file import ResultsFile
from studies.stages import Stages

Layers = Annotated[str, typer.Option(help='Converted layers: "6-11", "1,3,5" or "upper:6".')]


@dataclass(frozen=True)
class Options:
    """The options that all experiments with trainings have."""

    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")]
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None
    task: Annotated[str, typer.Option(help="GLUE tasks, separated by commas.")] = "cola"
    seeds: Annotated[str, typer.Option(help="Seeds of the conversions; all start from one teacher.")] = (
        "0,1,2"
    )
    work: Annotated[Path, typer.Option(help="Folder for the trainings, which experiments share.")] = Path(
        "glue.run"
    )
    recipe: Annotated[str, typer.Option(help="retain or paper; both convert on the task itself here.")] = (
        "retain"
    )
    conversion_size: Annotated[
        int, typer.Option(min=1, help="Training examples for each converted layer.")
    ] = 1000
    epoch_size: Annotated[
        int, typer.Option(min=1, help="Training examples an epoch of stage 2, at most.")
    ] = 8000
    stage2_epochs: Annotated[int, typer.Option(min=0, help="Epochs of stage 2.")] = 2
    freeze_dense: Annotated[
        bool | None,
        typer.Option(
            "--freeze-dense/--train-dense",
            help="Whether layers that are still dense stay as the teacher has them, which is several times as fast; "
            "by default with retain, not with paper.",
        ),
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="The file of results; docs/data/<experiment>.json by default.")
    ] = None

    def __post_init__(self) -> None:
        """What can be told from the options alone is told before anything is trained.

        Raises:
            BadParameter: a task or recipe is not known, or seeds are no numbers.
            TrainingError: a seed is out of range.
        """
        if self.recipe not in RECIPES:
            raise typer.BadParameter(
                f"{self.recipe!r} is none of {', '.join(RECIPES)}.", param_hint="--recipe"
            )
        names(self.task, tuple(TASKS), "--task")
        seeds_of(self.seeds)
        if self.freeze_dense is None:
            object.__setattr__(self, "freeze_dense", self.recipe == "retain")

    @property
    def tasks(self) -> list[str]:
        """The tasks that `task` names."""
        return names(self.task, tuple(TASKS), "--task")

    @property
    def seed_numbers(self) -> list[int]:
        """The numbers in `seeds`."""
        return seeds_of(self.seeds)

    def converted(self, text: str, top_k: Sequence[int] = (1,)) -> tuple[int, ...]:
        """Layers from the text of an option, checked against the base, without its weights.

        Args:
            top_k: how many experts a gate is to let through, checked too.

        Raises:
            PlanError: the base has no such layer, or not so many experts.
            TrainingError: as `shrp.checkpoints.base.base_config`.
        """
        layers, heads = base_geometry(self.base)
        found = layer_list(text, layers)
        for k in top_k:
            ShrpConfig(found, top_k=k).check_fits(layers, heads)
        return found

    @property
    def name(self) -> str:
        """What the base is called; of a folder its own name, never where it lies."""
        return name_of(self.base, self.base_name)


def data_of(stages: Stages, teacher: Evaluation) -> dict[str, Any]:
    """What a task's rows are of, for an experiment's file."""
    return {
        "validation": stages.validation.name,
        "n": len(stages.validation),
        "train": stages.train_data.name,
        "train_examples": len(stages.train_data),
        "teacher": scored(teacher),
        # What needs no model, to hold every score against; of numbers there is none.
        "constant": None if math.isnan(teacher.constant) else teacher.constant,
    }


def command(run: Callable[..., None]) -> Callable[..., None]:
    """`run(options, **own)` as a function for typer that has all of `Options` and `run`'s own options."""
    hints = get_type_hints(run, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(run).parameters.values()][1:]
    common = list(inspect.signature(Options, eval_str=True).parameters.values())
    shared = {one.name for one in fields(Options)}

    @wraps(run)
    def main(**values: Any) -> None:
        options = Options(**{name: values.pop(name) for name in shared})
        run(options, **values)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*common, *own]]
    main.__signature__ = inspect.Signature(parameters)
    main.__annotations__ = {p.name: p.annotation for p in parameters}
    del main.__wrapped__  # or typer would read the options of `run`
    return main


class Study:
    """One task of an experiment."""

    def __init__(self, options: Options, task: str) -> None:
        self.options, self.task = options, task
        self.stages = Stages(options.base, options.name, options.work, task, seed=0)
        self.teacher = self.stages.evaluate(self.stages.teacher.model)
        self.dense: Cost = dense_cost(self.stages.teacher.model, TOKENS)
        self.num_experts: int = self.stages.teacher.model.config.num_attention_heads
        self.seeds = options.seed_numbers

    def describe(self, file: ResultsFile, layers: tuple[int, ...], **own: Any) -> None:
        """Put the data, the teacher and the settings of this task into the file."""
        options = asdict(self.options)
        kept = ("recipe", "conversion_size", "epoch_size", "stage2_epochs", "freeze_dense")
        file.describe(
            self.task,
            data_of(self.stages, self.teacher),
            {name: options[name] for name in kept}
            | {"base": self.options.name, "layers": list(layers), "experts": self.num_experts, **own},
        )

    def config(self, seed: int, layers: tuple[int, ...], *, top_k: int = 1, **changes: Any) -> TrainConfig:
        """Both stages of one conversion."""
        options = self.options
        sizes = {name: getattr(options, name) for name in ("conversion_size", "epoch_size", "stage2_epochs")}
        return TrainConfig.named(
            options.recipe,
            shrp=ShrpConfig(layers, top_k=top_k),
            freeze_embeddings=True,
            freeze_dense=options.freeze_dense,
            max_length=self.stages.max_length,
            seed=seed,
            **sizes | changes,
        )

    def convert(
        self,
        config: TrainConfig,
        model: Callable[[], PreTrainedModel] | None = None,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """A conversion of the teacher, trained or read back; the same one for every experiment that asks for it."""
        return self.stages.stage("experiment", config, self.stages.teacher, model, progress=progress)


def studies(options: Options) -> Iterator[Study]:
    """A study for each task that the options name."""
    for task in options.tasks:
        yield Study(options, task)


def results_file(options: Options, experiment: str) -> ResultsFile:
    """The file that an experiment fills; raises `DataError` where it is of another base or experiment."""
    path = options.out or FILES / f"{experiment}.json"
    file = ResultsFile(path, f"python -m studies.experiments {experiment} --base {options.name}")
    file.refuse_another(options.name)
    return file


def scored(evaluation: Evaluation) -> dict[str, Any]:
    """A score with what belongs to it, for a row."""
    return {
        "metric": evaluation.metric,
        "score": evaluation.score,
        "interval": evaluation.ends(),
        "n": evaluation.n,
    }
