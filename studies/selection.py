"""What should experts be selected by? `python -m studies.selection checkpoints/sst2-6of12 ...`.

Prunes routed checkpoints by every selection, without fine-tuning, and scores them on GLUE's validation data. Usage, norms
and knock-outs are measured there too, as in the paper; gates are fitted on texts of the training split.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from shrp.analysis.importance import ablation
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.cli.output import stderr
from shrp.data.sources import load_data
from shrp.errors import PlanError
from shrp.evaluation.costs import cost, dense_cost, plan_cost
from shrp.evaluation.paired import paired_difference
from shrp.model.convert import expert_layers
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.select import GateFit, plan_from
from studies.rows import DATA, Rows, numbers, run

SELECTIONS = ("usage", "gate_norm", "ablation", "fitted", "random")
DRAWS = 3


def study(path: Path, sizes: list[int], rows: Rows) -> None:
    """Add the rows of one checkpoint; raise `PlanError` if it has no routed layer."""
    made = checkpoint.load(path)
    if not expert_layers(made.model):
        raise PlanError(f"{path} has no routed layer; name routed checkpoints.")
    model, tokenizer, task, length = made.model, made.tokenizer, made.info.task.name, made.info.max_length
    validation, training = load_data("glue", task), load_data("glue", task, "train")
    live = LiveEvaluator(model, tokenizer, validation, max_length=length)
    routed, dense = live.evaluate(None), dense_cost(model)
    stats = measure_usage(model, tokenizer, validation, output_norms=True, max_length=length)
    gates = GateFit(model, tokenizer, training, stats.shares(), max_length=length).finish()
    stats = replace(stats, fitted=gates, ablation=ablation(model, tokenizer, validation, max_length=length))
    depth = f"{len(stats.layers)}of{model.config.num_hidden_layers}"
    about = {"checkpoint": f"{task}-{depth}", "task": task, "depth": depth, "metric": routed.metric}
    about |= {"n": len(validation), "routed": routed.score, "calibrated": False}
    about |= {"encoder_params": cost(model).encoder_params / dense.encoder_params}
    for m in sizes:
        usage = None
        for kind in SELECTIONS:
            draws = range(DRAWS) if kind == "random" else (0,)
            how = {"selection": kind, "combination": "fitted" if kind == "fitted" else "usage"}
            plans = [plan_from(stats, per_layer=m, seed=seed, **how) for seed in draws]
            found = [live.evaluate(plan) for plan in plans]
            usage = usage or found[0]
            lead, ends = (
                paired_difference(found[0], usage) if kind not in ("usage", "random") else (None, None)
            )
            row = {"per_layer": m, "selection": kind, "score": mean(one.score for one in found)}
            row |= {"interval": found[0].ends() if len(found) == 1 else None}
            row |= {"lead": lead, "lead_interval": ends}
            row |= {"encoder_params": plan_cost(model, plans[0]).encoder_params / dense.encoder_params}
            rows.add(about | row | {"fitted_on": gates.data if kind == "fitted" else None})
            stderr.print(f"{about['checkpoint']}, {m} a layer, {kind}: {row['score']:.4f}")


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders of routed checkpoints of GLUE tasks.")],
    per_layer: Annotated[str, typer.Option(help="Experts kept in each layer.")] = "1,2,4",
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "selection.json",
) -> None:
    """Score prunings of checkpoints by every selection."""
    rows = Rows(out, ("checkpoint", "per_layer", "selection", "calibrated"))
    for path in checkpoints:
        study(path, numbers(per_layer, "--per-layer"), rows)


if __name__ == "__main__":
    run(main)
