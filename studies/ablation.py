"""What is each part of a recipe worth? `python -m studies.ablation --base BAAI/bge-small-en-v1.5`.

All layers but the first are converted on the task: `paper` with parts of `retain` added, and `retain` with parts changed.
Each variant is scored routed, pruned to one expert per layer, and fine-tuned after pruning.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import make_plan
from studies.rows import DATA, Rows, names, numbers, run
from studies.trainings import Base, Trainings, slug

KEY = ("task", "seed", "variant", "model", "fine_tuned_after_pruning")
TUNED_EPOCHS = 2
_RATES = {"learning_rate": 1e-4, "new_learning_rate": 1e-3}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("paper", {}),
    "paper + higher learning rates": ("paper", _RATES),
    "paper + higher rates, teacher's logits": ("paper", _RATES | {"distill_logits": 0.5}),
    "paper + higher rates, teacher's hidden states": ("paper", _RATES | {"distill_hidden": 1.0}),
    "retain": ("retain", {}),
    "retain, Expander near the identity": ("retain", {"expander_init": "random"}),
    "retain without the teacher's logits": ("retain", {"distill_logits": 0.0}),
    "retain without its hidden states": ("retain", {"distill_hidden": 0.0}),
    "retain with dropout": ("retain", {"dropout": True}),
    "retain, dense layers frozen": ("retain", {"freeze_dense": True}),
    "retain, bottom-up": ("retain", {"order": "bottom-up"}),
    "retain, middle first": ("retain", {"order": "middle first"}),
    "retain, Expander at random with gain 1": ("retain", {"expander_init": "random", "expander_gain": 1.0}),
    "retain, double learning rates": ("retain", {"learning_rate": 2e-4, "new_learning_rate": 2e-3}),
}
"""Name of a variant -> its recipe, and the options that differ from it."""


def order_of(how: str, layers: tuple[int, ...]) -> tuple[int, ...]:
    """The order of conversion: empty for from the top down, `bottom-up`, or `middle first`."""
    middle = layers[len(layers) // 2]
    if how == "middle first":
        return tuple(sorted(layers, key=lambda layer: (abs(layer - middle), layer)))
    return layers if how == "bottom-up" else ()


def measure(made: Trainings, variant: str, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """The rows of a variant: routed, pruned to one expert per layer, fine-tuned after pruning."""
    recipe, changes = VARIANTS[variant]
    values, layers = dict(changes), tuple(range(1, made.base.layers))
    order = order_of(values.pop("order", ""), layers)
    shrp = ShrpConfig(layers, expander_gain=values.pop("expander_gain", ShrpConfig(()).expander_gain))
    name = f"ablation-{slug(variant)}"
    config = made.config(recipe, part=0, shrp=shrp, order=order, **values | sizes)
    routed = made.train(name, config, made.teacher)
    pruned = made.pruned(routed, make_plan(usage_in(routed.info), per_layer=1))
    later = {"balance": 0.0, "stage2_epochs": TUNED_EPOCHS, "expander_init": "random"}
    tuned = made.train(f"{name}-tuned", made.config(recipe, part=0, **values | later), pruned)
    found = []
    for model, kind, experts in (
        (routed, "routed", made.base.experts),
        (pruned, "static", 1),
        (tuned, "static", 1),
    ):
        one = made.evaluate(model.model)
        row = {"task": made.task, "seed": made.seed, "variant": variant}
        row |= {"depth": f"{len(layers)}of{made.base.layers}", "model": kind, "experts_per_layer": experts}
        row |= {"fine_tuned_after_pruning": model is tuned, "metric": one.metric, "n": one.n}
        found.append(row | {"teacher_score": made.best.score, "score": one.score, "interval": one.ends()})
    return found


def main(
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = "cola,stsb",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0",
    variants: Annotated[str, typer.Option(help="Names, separated by semicolons; all by default.")] = "",
    conversion_size: Annotated[int, typer.Option(min=1, help="Examples per converted layer.")] = 500,
    stage2_epochs: Annotated[int, typer.Option(min=1, help="Epochs after the last conversion.")] = 3,
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "ablation.json",
) -> None:
    """Train the variants that the file lacks, and add their rows."""
    wanted, chosen = names(tasks, tuple(TASKS), "--tasks"), numbers(seeds, "--seeds")
    picked = [name.strip() for name in variants.split(";") if name.strip()] or list(VARIANTS)
    if unknown := [name for name in picked if name not in VARIANTS]:
        raise DataError(f"there is no variant {unknown[0]!r}; there are: {'; '.join(VARIANTS)}.")
    encoder, rows = Base(base, work, base_name), Rows(out, KEY)
    sizes = {"conversion_size": conversion_size, "stage2_epochs": stage2_epochs}
    for task, seed in product(wanted, chosen):
        made = Trainings(encoder, task, seed)
        for variant in picked:
            last = (task, seed, variant, "static", True)
            if dict(zip(KEY, last, strict=True)) in rows:
                continue
            found = measure(made, variant, sizes)
            rows.add(*found)
            stderr.print(f"{task}, seed {seed}, {variant}: {[round(row['score'], 4) for row in found]}")


if __name__ == "__main__":
    run(main)
