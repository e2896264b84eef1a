"""Which experts to keep: `python -m studies.selection checkpoints/cola-6of12 checkpoints/mrpc-6of12 ...`.

Prunes routed checkpoints to a few sizes by every selection there is, without any training on, and scores them on GLUE's
validation data. Usage and norms are counted there too, as the paper does; gates are fitted on texts of the training
split, whose labels only mix the classes. Each classifier is scored again with its output bias shifted so that it gives
each class as often as the routed model does on as many texts of the training split, drawn alike (`matched`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from shrp.analysis.importance import ablation
from shrp.analysis.usage import UsageStats, measure_usage
from shrp.checkpoints import checkpoint
from shrp.checkpoints.score_rows import measured
from shrp.cli.output import stderr
from shrp.data.sources import load_data
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.evaluation.answer_shares import matching_shift, shifted
from shrp.evaluation.costs import TOKENS, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import ranking
from shrp.model.convert import router_layers
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan
from shrp.pruning.select import TEXTS, GateFit, plan_from
from shrp.studies.studies import FILES
from studies.checkpoint_rows import base_of, check_alone
from studies.command import numbers, run
from studies.shares import lead, worth_keeping
from studies.table import Table

DRAWS = 3
KEY = ("checkpoint", "per_layer", "selection", "matched")
OUT = FILES / "selection.json"


def study(path: Path, sizes: list[int], table: Table, done: set[str]) -> None:
    """Add a checkpoint's rows.

    Args:
        done: names of checkpoints that this run has measured; its own is added.

    Raises:
        PlanError: it has no router, or not so many experts; or the table has rows of another one of its name.
        TrainingError: as routed it has no score of which there could be shares.
    """
    made = checkpoint.load(path)
    if not router_layers(made.model):
        raise PlanError(
            f"{path} has no routed layer, so there is nothing to select; name routed checkpoints."
        )
    task, cut = made.info.task.name, made.info.max_length
    validation, training = load_data("glue", task), load_data("glue", task, "train")
    live = LiveEvaluator(made.model, made.tokenizer, validation, max_length=cut)
    routed, dense = worth_keeping(live.evaluate(None), f"{path}, routed,"), dense_cost(made.model, TOKENS)
    depth = f"{len(router_layers(made.model))}of{made.model.config.num_hidden_layers}"
    common = {"checkpoint": f"{task}-{depth}", "task": task, "depth": depth, "routed": routed.score}
    common |= {"fingerprint": made.fingerprint}
    check_alone(common | {"n": len(validation)}, path, table, done)
    stats = measure_usage(made.model, made.tokenizer, validation, output_norms=True, max_length=cut)
    gates = GateFit(made.model, made.tokenizer, training, stats.shares(), max_length=cut).finish()
    fit = {"fitted_on": gates.data, "fitted_texts": gates.n}
    knocked_out = ablation(made.model, made.tokenizer, validation, max_length=cut)
    stats = replace(stats, fitted=gates, ablation=knocked_out)
    few = training.subset(training.stratified_order()[:TEXTS])
    texts = None if few.task.is_regression else LiveEvaluator(made.model, made.tokenizer, few, max_length=cut)
    for m in sizes:
        plans = _plans(stats, m)
        found = {name: [live.evaluate(plan) for plan in drawn] for name, drawn in plans.items()}
        moved = {name: _matched(texts, validation, plans[name], e) for name, e in found.items() if texts}
        for name, evaluations, is_matched in (
            *((name, e, False) for name, e in found.items()),
            *((name, e, True) for name, e in moved.items()),
        ):
            row = common | {"per_layer": m, "selection": name} | measured(evaluations)
            row |= plan_cost(made.model, plans[name][0], TOKENS).relative_to(dense)
            usage = (moved if is_matched else found)["usage"]
            row |= _lead(evaluations, usage, routed) | (fit if name == "fitted" else {})
            if is_matched and len(evaluations) == 1:  # over the same plan without the shift
                gain = lead(evaluations[0], found[name][0], routed)
                row |= {"gain": gain["lead"], "gain_interval": gain["lead_interval"]}
            row |= {"matched": True, "matched_on": few.name, "matched_texts": len(few)} if is_matched else {}
            if few.task.num_labels == 2:
                row["ranking"] = float(np.mean([ranking(e.labels, e.logits) for e in evaluations]))
            table.add(row)
            said = f"{name}{', matched' * is_matched}: {row['score']:.4f}"
            stderr.print(f"{row['checkpoint']}, {m} a layer, {said}")


def _plans(stats: UsageStats, per_layer: int) -> dict[str, list[PruningPlan]]:
    """Selection -> its plans, several for random draws."""
    plans = {
        name: [plan_from(stats, per_layer=per_layer, selection=name)]
        for name in ("usage", "gate_norm", "ablation")
    }
    plans["fitted"] = [plan_from(stats, per_layer=per_layer, selection="fitted", combination="fitted")]
    draws = range(DRAWS)
    for name, combination in (("random", "usage"), ("random_mean", "mean")):
        options = {"selection": "random", "combination": combination}
        plans[name] = [plan_from(stats, per_layer=per_layer, **options, seed=draw) for draw in draws]
    if per_layer == 1:
        del plans["random_mean"]  # nothing to weigh
    return plans


def _matched(
    texts: LiveEvaluator, validation: TextData, plans: list[PruningPlan], found: list[Evaluation]
) -> list[Evaluation]:
    """The evaluations with the answer shares that the routed model has on some texts."""
    routed = texts.evaluate(None).logits
    shifts = [matching_shift(texts.evaluate(plan).logits, routed) for plan in plans]
    return [shifted(one, validation, shift) for one, shift in zip(found, shifts, strict=True)]


def _lead(mine: list[Evaluation], usage: list[Evaluation], routed: Evaluation) -> dict[str, Any]:
    """By what share of the routed model's score one plan leads that by usage; nothing for several draws."""
    if mine is usage or len(mine) > 1:
        return {}
    return lead(mine[0], usage[0], routed)


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders of routed checkpoints of GLUE tasks.")],
    per_layer: Annotated[str, typer.Option(help="Experts kept in each layer.")] = "1,2,4",
    out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
) -> None:
    """Fill the file on selections."""
    table = Table(out, "python -m studies.selection", KEY, base=base_of(checkpoints))
    done: set[str] = set()
    for path in checkpoints:
        study(path, numbers(per_layer), table, done)


if __name__ == "__main__":
    run(main)
