"""What each part of a recipe is worth: `python -m studies.ablation --base BAAI/bge-small-en-v1.5`.

At 11 of 12 layers, where recipes differ most: candidates on top of `paper`, each part of `retain` taken
away, all under the same schedule. Where `retain` is among the variants of a run, each other one is compared with it on
the same inputs. Trainings are kept under the work folder and shared with `studies.glue`'s teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints.base import name_of
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.studies.studies import FILES
from shrp.training.config import TrainConfig
from studies.command import names, run
from studies.shares import lead, worth_keeping
from studies.stages import Stages
from studies.table import Table

LAYERS = tuple(range(1, 12))
RECOVERY_EPOCHS = 2
AGAINST = "retain"
"""The variant that the others are compared with, input by input."""
OUT = FILES / "ablation.json"


@dataclass(frozen=True)
class Variant:
    """A recipe with something switched."""

    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    shrp: dict[str, Any] = field(default_factory=dict)


RATES = {"learning_rate": 1e-4, "new_learning_rate": 1e-3}
VARIANTS = {
    "paper": Variant("paper"),
    "paper + higher learning rates": Variant("paper", RATES),
    "paper + higher rates, teacher's logits": Variant("paper", RATES | {"distill_logits": 0.5}),
    "paper + higher rates, teacher's hidden states": Variant("paper", RATES | {"distill_hidden": 1.0}),
    "retain": Variant("retain"),
    "retain, Expander near the identity": Variant("retain", {"expander_init": "random"}),
    "retain without the teacher's logits": Variant("retain", {"distill_logits": 0.0}),
    "retain without its hidden states": Variant("retain", {"distill_hidden": 0.0}),
    "retain with dropout": Variant("retain", {"dropout": True}),
    "retain, dense layers frozen": Variant("retain", {"freeze_dense": True}),
    "retain, swapping layers": Variant("retain", {"swap": 0.5}),
    "retain, exploring routers": Variant("retain", {"exploration": 1.0}),
    "retain, bottom-up": Variant("retain", {"order": LAYERS}),
    "retain, middle first": Variant("retain", {"order": (6, 5, 7, 4, 8, 3, 9, 2, 10, 1, 11)}),
    # A least-squares start sets the gain by itself.
    "retain, Expander at random with gain 1": Variant(
        "retain", {"expander_init": "random"}, {"expander_gain": 1.0}
    ),
    "retain, double learning rates": Variant("retain", {"learning_rate": 2e-4, "new_learning_rate": 2e-3}),
}


def measure(
    stages: Stages, variant: Variant, conversion_size: int, stage2_epochs: int
) -> tuple[dict[str, Any], Evaluation]:
    """Scores of the routed model and of one expert a layer, without and with recovery; and what the last one says."""
    common = {"freeze_embeddings": True, "max_length": stages.max_length, "seed": 10 * stages.seed}
    config = TrainConfig.named(
        variant.recipe,
        shrp=ShrpConfig(LAYERS, **variant.shrp),
        stage2_epochs=stage2_epochs,
        conversion_size=conversion_size,
        epoch_size=20_000,
        **common | variant.changes,
    )
    routed = stages.stage("ablation", config, stages.teacher)
    plan = make_plan(usage_in(routed.info), per_layer=1)
    recovery = replace(
        config,
        shrp=ShrpConfig(()),
        order=(),
        balance=0.0,
        stage2_epochs=RECOVERY_EPOCHS,
        expander_init="random",
        swap=0.0,
        exploration=0.0,
    )
    recovered = stages.stage(
        "ablation-recovered",
        recovery,
        routed,
        lambda: prune(routed.model, plan),
        replace(routed.info, plan=plan),
    )
    last = stages.evaluate(recovered.model)
    return {
        "routed": _score(stages.evaluate(routed.model)),
        "static": _score(stages.evaluate(prune(routed.model, plan))),
        "recovered": _score(last),
        "stage": routed.path.name,
    }, last


def _score(evaluation: Evaluation) -> dict[str, Any]:
    return {"score": evaluation.score, "interval": evaluation.ends()}


def _change(
    variant: Evaluation, against: Evaluation, teacher: Evaluation, row: Mapping[str, Any]
) -> dict[str, Any]:
    """By what share of the teacher's score a variant is ahead of `AGAINST`, both recovered, on the same inputs.

    Args:
        row: of `AGAINST`; a later one of another training makes the change void (`shrp.studies.ablations`).
    """
    found = lead(variant, against, teacher)
    return {
        "against": row["stage"],
        "change": found["lead"],
        "change_interval": found["lead_interval"],
    }


def _kept(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run of the same training was compared with, where this run does not make that."""
    same = ("task", "seed", "variant", "stage")
    old = [one for one in rows if all(one.get(name) == row[name] for name in same)]
    return {
        name: one[name] for one in old for name in ("against", "change", "change_interval") if name in one
    }


def main(
    base: Annotated[str, typer.Option(help="The dense encoder of 12 layers: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = "cola,mrpc",
    variants: Annotated[str, typer.Option(help="Names, separated by semicolons; all by default.")] = "",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    conversion_size: Annotated[int, typer.Option(min=1, help="Examples for each converted layer.")] = 1000,
    stage2_epochs: Annotated[int, typer.Option(min=1, help="Epochs after the last conversion.")] = 6,
    out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
) -> None:
    """Fill the ablation's file."""
    table = Table(
        out,
        "python -m studies.ablation",
        ("task", "seed", "variant"),
        base=name_of(base, base_name),
        layers=list(LAYERS),
        per_layer=1,
    )
    schedule = {"conversion_size": conversion_size, "stage2_epochs": stage2_epochs}
    if any(row.get(name) != value for row in table.rows for name, value in schedule.items()):
        raise DataError(f"{out.name} has rows of another schedule: take them out, or name another file.")
    wanted = names(tasks, tuple(TASKS), "--tasks")
    chosen = [v.strip() for v in variants.split(";") if v.strip()] or list(VARIANTS)
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise DataError(f"there is no variant {unknown[0]!r}; there are: {'; '.join(VARIANTS)}.")
    for task in wanted:
        stages = Stages(base, name_of(base, base_name), work, task, seed)
        best = worth_keeping(stages.evaluate(stages.teacher.model))
        depth = f"{len(LAYERS)}of{stages.teacher.model.config.num_hidden_layers}"
        rows, said = {}, {}
        for name in chosen:
            found, said[name] = measure(stages, VARIANTS[name], conversion_size, stage2_epochs)
            row = {"task": task, "seed": seed, "variant": name, "metric": best.metric, "n": best.n}
            row |= {
                "teacher": best.score,
                "depth": depth,
                **schedule,
                "recovery_epochs": RECOVERY_EPOCHS,
                **found,
            }
            rows[name] = row | _kept(table.rows, row)
            # `retain` may come after others, so these are written again.
            for other in rows if name == AGAINST else [name]:
                if AGAINST in said and other != AGAINST:
                    rows[other] |= _change(said[other], said[AGAINST], best, rows[AGAINST])
                table.add(rows[other])
            stderr.print(f"{task}, {name}: {found}")


if __name__ == "__main__":
    run(main)
