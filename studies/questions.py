"""The smaller studies of docs/results.md: `python -m studies.questions QUESTION`.

Trained from `--base`, with the options of a recipe changed:

- `ablation`: what is each part of a recipe worth? All layers but the first are converted on the task, and one expert per
  layer is kept.
- `balance`: what does the balance loss do? The upper half of the layers is converted with several weights of it.
- `extensions`: do the self path and the untied Expander help? Models of about equal size, converted and fine-tuned on
  text and then on the task; scored on a part of the training split that trained none of them, or (`--final`) on the
  validation data.
- `longer`: does it help what is pruned without fine-tuning to train the routed model on the task, or on text and the task,
  for as long as pruned ones are fine-tuned? All layers but the first are converted by `retain`.
- `routing`: does routing pay at equal FLOPs? Routers of inputs and of tokens, also annealed from a mixture of all experts,
  next to one fixed expert and to all experts, trained alike on text and then on the task. All layers but the first.
- `schedule`: is one layer an epoch better than all at once, and the balance loss in stage 1 alone than in both? By `paper`.
- `topk`: does routing with more experts survive pruning? The same with Top-1, Top-3 and Top-5.

On GLUE's validation data, of routed checkpoints, which are not changed:

- `selection`: what should experts be selected by? Prunings without fine-tuning; usage, norms and knock-outs are measured
  on the data that score them, as in the paper, and gates are fitted on texts of the training split. Do usage and knock-outs
  rank the experts that are used alike?
- `routes`: does it matter which route an example takes? Routes are permuted, or replaced by a mixture of all experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from transformers import PreTrainedModel

from shrp.analysis.importance import in_turn
from shrp.analysis.routes import shuffle_routes
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo, usage_in
from shrp.checkpoints.score_rows import share_of
from shrp.cli.output import progress_on, records, stderr
from shrp.cli.subjects import teacher_score
from shrp.data.sources import load_data
from shrp.data.tasks import TASKS, TEXTS
from shrp.errors import PlanError
from shrp.evaluation.costs import Cost, cost, dense_cost, plan_cost
from shrp.evaluation.paired import paired_difference
from shrp.model.config import Routing, ShrpConfig
from shrp.model.convert import expert_layers
from shrp.model.gates import use_gates
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import SELECTIONS, first_experts, make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import GateFit, plan_from
from shrp.training.config import Epoch, TextConfig, TrainConfig
from shrp.training.text import usage_on_text
from studies.controls import annealed, no_router, self_path_alone
from studies.glue import STAGE2_EPOCHS, Depth, Models, depths_of
from studies.rows import DATA, Rows, names, numbers, read_rows, run
from studies.trainings import MAX_LENGTH, Base, Trainings, Tuning, slug

Found = Iterator[dict[str, Any]]
SMALL = {"conversion_size": 1000, "epoch_size": 8000, "stage2_epochs": 2, "freeze_dense": True}
"""The schedule of studies that convert the upper half of the layers."""
DEEP = {"conversion_size": 500, "stage2_epochs": 3}
"""That of the ablation, which converts all layers but the first."""
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
    "retain, double learning rates": ("retain", {"learning_rate": 2e-4, "new_learning_rate": 2e-3}),
}
"""Name of a variant -> its recipe, and the options that differ from it."""
EXTENSIONS: dict[str, tuple[int, int, bool, bool]] = {
    "1 expert": (2, 1, False, False),
    "1 expert, self path": (2, 1, True, False),
    "self path alone": (2, 0, True, False),
    "4 experts": (3, 4, False, False),
    "4 experts, untied": (3, 4, False, True),
    "3 experts, untied, self path": (3, 3, True, True),
}
"""Name of a variant -> parts of the encoder that are converted (2: all layers but the first; 3: all), experts per layer,
self path, untied Expander.
"""
ROUTINGS: dict[str, tuple[Routing, Literal["routed", "annealed", "1 expert", "all experts"]]] = {
    "one fixed expert": ("sequence", "1 expert"),
    "an expert for each input": ("sequence", "routed"),
    "an expert for each token": ("token", "routed"),
    "an expert for each input, annealed": ("sequence", "annealed"),
    "an expert for each token, annealed": ("token", "annealed"),
    "all experts, no router": ("sequence", "all experts"),
}
"""Name of a variant -> what chooses an expert, and how the gates are made of that."""
WEIGHTS = (0.0, 0.01, 0.1, 1.0)
TOP_K, BUDGETS = (1, 3, 5), (12, 24, 48)
SIZES, DRAWS = (1, 2, 4), 3
"""Experts per layer that `selection` keeps, and random draws that it averages."""


def ablation(made: Trainings, variant: str) -> Found:
    """The rows of a variant: routed, pruned to one expert per layer, fine-tuned after pruning."""
    recipe, changes = VARIANTS[variant]
    layers = tuple(range(1, made.base.layers))
    name = f"ablation-{slug(variant)}"
    config = made.config(recipe, part=0, shrp=ShrpConfig(layers), **changes | DEEP)
    routed = made.train(name, config, made.teacher)
    pruned = made.pruned(routed, make_plan(usage_in(routed.info), per_layer=1))
    later = {"balance": 0.0, "stage2_epochs": 2, "expander_init": "random"}
    tuned = made.train(f"{name}-tuned", made.config(recipe, part=0, **changes | later), pruned)
    for model, kind, experts in ((routed, "routed", made.base.experts), (pruned, "static", 1), (tuned, "static", 1)):
        one = made.evaluate(model.model)
        row = {"depth": f"{len(layers)}of{made.base.layers}", "model": kind, "experts_per_layer": experts}
        row |= {"fine_tuned_after_pruning": model is tuned, "metric": one.metric, "n": one.n}
        yield row | {"teacher_score": made.best.score, "score": one.score, "interval": one.ends()}


def extensions(made: Trainings, variant: str) -> Found:
    """The row of a static model, fine-tuned after pruning."""
    base = made.base
    parts, per_layer, self_path, untied = EXTENSIONS[variant]
    middle = base.layers // 2
    parts = (range(middle, base.layers), range(1, middle), range(1))[:parts]
    depth = Depth(f"{sum(map(len, parts))}of{base.layers}", tuple(map(tuple, parts)), (), per_layer, True)
    kind = ("self-path" if self_path else "shrp") if per_layer else "self-path-alone"
    encoder = base.encoder(kind, depth.parts, None if per_layer else self_path_alone, self_path=self_path)
    plan = None
    if per_layer:
        usage = usage_on_text(base.histories[f"{kind}-{len(depth.layers)}"])
        plan = replace(make_plan(usage, per_layer=per_layer), untied=untied)
        encoder = prune(encoder, plan)
    encoder = base.further(name := slug(variant), encoder)
    shrp = ShrpConfig(depth.layers, self_path=self_path)
    if plan is not None:
        base.keep(name, encoder, CheckpointInfo(shrp, TEXTS, base_model=base.name, plan=plan))
    start = made.with_layers_of(encoder, replace(made.teacher.info, config=shrp, plan=plan, usage={}), True)
    name += f"-{base.further_size}" if base.more_texts else ""
    name += f"-{base.task_effort:g}" if base.task_effort != base.effort else ""
    tuned = Models(made).on_the_task("retain", depth, name, start, part=4)
    about = {"experts_per_layer": per_layer, "self_path": self_path, "untied": untied}
    yield about | _on_task_and_text(made, depth, tuned.model, encoder, cost(tuned.model))


def _on_task_and_text(
    made: Trainings, depth: Depth, tuned: PreTrainedModel, encoder: PreTrainedModel, price: Cost
) -> dict[str, Any]:
    """The score of a model, how far its `encoder` was from the dense one before it learnt the task, and its cost."""
    found, shares = made.evaluate(tuned), price.relative_to(made.dense)
    return {
        "depth": depth.name,
        "metric": found.metric,
        "n": found.n,
        "teacher_score": made.best.score,
        "majority_score": made.best.majority_score,
        "score": found.score,
        "interval": found.ends(),
        "hidden_error": made.base.hidden_error(encoder, made.validation.texts),
        "effort": made.base.effort,
        "task_effort": made.base.task_effort,
        "encoder_params_share": shares["encoder_params"],
        "encoder_flops_share": shares["encoder_flops"],
    }


def longer(made: Trainings, more_on: str) -> Found:
    """The rows of `selection`, without knock-outs, of a routed model that trains for longer, `more_on` the task or also text."""
    base, models = made.base, Models(made)
    depth = depths_of(base.layers, base.experts)[f"{base.layers - 1}of{base.layers}"]
    on_text, encoder = "text" in more_on, base.encoder("shrp", depth.parts)
    if on_text:
        encoder = base.further(f"shrp-routed-{depth.name}", encoder)
    info = replace(made.teacher.info, config=ShrpConfig(depth.layers), usage={})
    start = made.with_layers_of(encoder, info, on_text)
    name = "shrp-routed" if on_text else "shrp-routed-task"
    routed = models.on_the_task("retain", depth, name, start, part=3, epochs=STAGE2_EPOCHS)
    about = {"texts": base.further_size if on_text else 0, "teacher_score": made.best.score}
    for row in selection(routed, f"{made.task}-{depth.name}", ("usage", "gate_norm", "fitted", "random")):
        yield row | about


def routing(made: Trainings, variant: str) -> Found:
    """The row of a variant, whose layers keep all experts, used or not: the converted ones alone learn on text."""
    base, (unit, kind) = made.base, ROUTINGS[variant]
    depth = depths_of(base.layers, base.experts)[f"{base.layers - 1}of{base.layers}"]
    steps = max(1, base.further_size // TextConfig().batch_size // 2)
    on_conversion, on_text, on_task = {
        "routed": (nullcontext, nullcontext, nullcontext),
        "annealed": (partial(annealed, math.inf), partial(annealed, steps), nullcontext),
        "1 expert": (nullcontext, lambda: use_gates(fixed), lambda: use_gates(fixed)),
        "all experts": (no_router, no_router, no_router),
    }[kind]
    name = {"annealed": f"annealed-{unit}", "all experts": "no_router"}.get(kind, "shrp" if unit == "sequence" else unit)
    with on_conversion():
        encoder = base.encoder(name, depth.parts, balance=0.0 if kind == "all experts" else 0.1, routing=unit)
    plan = make_plan(usage_on_text(base.histories[f"{name}-{len(depth.layers)}"]), per_layer=1)
    fixed = {layer: torch.eye(base.experts)[one.experts[0]] for layer, one in plan.layers}
    with on_text():
        encoder = base.further(name := f"routing-{slug(variant)}", encoder)
    info = replace(made.teacher.info, config=ShrpConfig(depth.layers, routing=unit), usage={})
    start = made.with_layers_of(encoder, info, False)
    used = {"1 expert": 1, "all experts": base.experts}.get(kind)
    with on_task():
        tuned = Models(made).on_the_task("retain", depth, name, start, part=3).model
        price = plan_cost(tuned, first_experts(dict.fromkeys(depth.layers, used))) if used else cost(tuned)
        row = _on_task_and_text(made, depth, tuned, encoder, price)
    yield row


def _upper_half(made: Trainings, recipe: str = "retain", top_k: int = 1, **values: Any) -> TrainConfig:
    layers = tuple(range(made.base.layers // 2, made.base.layers))
    return made.config(recipe, part=0, shrp=ShrpConfig(layers, top_k=top_k), **SMALL | values)


class _AllAtOnce(TrainConfig):
    def schedule(self) -> Iterator[Epoch]:
        """All layers converted, one a batch; then the usual epochs."""
        usual = [*super().schedule()]
        epochs = [replace(epoch, size=self.batch_size) for epoch in usual if epoch.convert is not None]
        epochs += [replace(epoch, convert=None) for epoch in usual]
        return (replace(epoch, index=index) for index, epoch in enumerate(epochs))


class _AlwaysBalanced(TrainConfig):
    def schedule(self) -> Iterator[Epoch]:
        """The usual epochs, all with stage 1's loss."""
        return (replace(epoch, stage=1) for epoch in super().schedule())


SCHEDULES = {"one layer an epoch": TrainConfig, "all layers at once": _AllAtOnce, "balance loss in both stages": _AlwaysBalanced}


def balance(made: Trainings, weight: float) -> Found:
    """The row of a weight of the balance loss."""
    yield _stages(made, f"balance-{weight:g}", _upper_half(made, balance=weight))


def schedule(made: Trainings, schedule: str) -> Found:
    """The row of a schedule."""
    usual = _upper_half(made, "paper", freeze_dense=False)
    config = SCHEDULES[schedule](**{field.name: getattr(usual, field.name) for field in fields(usual)})
    yield _stages(made, f"schedule-{slug(schedule)}", config)


def _stages(made: Trainings, name: str, config: TrainConfig) -> dict[str, Any]:
    """How evenly experts are used after each stage; scores routed and pruned."""
    routed, per_layer = made.train(name, config, made.teacher), 2
    plan, found = make_plan(usage_in(routed.info), per_layer=per_layer), made.evaluate(routed.model)
    usage = [[*row["usage"].values()] for row in made.histories[name]]
    first, second = usage[: -config.stage2_epochs][-len(config.shrp.layers) :], usage[-1]
    return {
        "metric": found.metric,
        "n": found.n,
        "teacher_score": made.best.score,
        "routed_score": found.score,
        "static_score": made.evaluate(made.pruned(routed, plan).model).score,
        "experts_per_layer": per_layer,
        "largest_share_stage1": max(max(share) for epoch in first for share in epoch),
        "distance_stage1": mean(map(distance_from_uniform, first[-1])),
        "distance_stage2": mean(map(distance_from_uniform, second)),
    }


def distance_from_uniform(share: Sequence[float]) -> float:
    """Total variation between shares `(H,)` and equal ones: 0 if all are equal, `1 - 1/H` if one has everything."""
    found = np.asarray(share, dtype=np.float64)
    return float(0.5 * np.abs(found - 1 / len(found)).sum())


def topk(made: Trainings, top_k: int) -> Found:
    """The rows of one k: routed, then pruned to each budget, with the experts that are kept."""
    routed = made.train(f"topk-{top_k}", _upper_half(made, top_k=top_k), made.teacher)
    live = LiveEvaluator(routed.model, routed.tokenizer, made.validation, max_length=MAX_LENGTH)
    whole, usage = live.evaluate(None), usage_in(routed.info)
    for budget in (None, *BUDGETS):
        plan = None if budget is None else make_plan(usage, budget=budget)
        found = whole if plan is None else live.evaluate(plan)
        row = {"budget": budget, "model": "routed" if plan is None else "static"}
        row |= {"metric": found.metric, "n": found.n, "score": found.score, "interval": found.ends()}
        price = cost(routed.model)
        if plan is not None:
            change, (low, high) = paired_difference(found, whole)
            kept = {str(layer): list(one.experts) for layer, one in plan.layers}
            used = {
                str(layer): [e for e, weight in zip(one.experts, one.weights, strict=True) if weight > 0]
                for layer, one in plan.layers
            }
            ends = [low, high] if low == low else None  # two models with equal predictions have no interval
            row |= {"change": change, "change_interval": ends, "kept": kept, "used": used}
            price = plan_cost(routed.model, plan)
        row |= price.relative_to(made.dense) | {"teacher": made.best.score, "experts": made.base.experts}
        yield row | {"retained": share_of(found.score, made.best.score)}


def selection(made: Checkpoint, name: str, selections: Sequence[str] = SELECTIONS) -> Found:
    """The score of every selection at every size."""
    model, tokenizer, task, length = made.model, made.tokenizer, made.info.task.name, made.info.max_length
    validation, training = load_data("glue", task), load_data("glue", task, "train")
    live = LiveEvaluator(model, tokenizer, validation, max_length=length)
    routed, dense = live.evaluate(None), dense_cost(model)
    stats = measure_usage(model, tokenizer, validation, output_norms=True, max_length=length)
    gates = GateFit(model, tokenizer, training, stats.shares(), max_length=length).finish()
    sizes, shares = None, stats.shares()
    if "ablation" in selections:
        sizes = in_turn(model, tokenizer, validation, max_length=length).sizes()
    stats = replace(stats, fitted=gates, ablation=sizes)
    used = [(share[share > 0], sizes[layer][share > 0]) for layer, share in shares.items()] if sizes else []
    ranked = [float(spearmanr(*one).statistic) for one in used if len(one[0]) > 2 and np.ptp(one[1])]
    about = {"checkpoint": name, "task": task, "depth": name.rpartition("-")[2], "metric": routed.metric}
    about |= {"teacher_score": teacher_score(made, validation, length), "layers": len(shares)}
    about |= {"n": len(validation), "routed": routed.score}
    about |= {"rank_correlation": mean(ranked) if ranked else None}
    about |= {"same_first": sum(int(share.argmax() == size.argmax()) for share, size in used) if sizes else None}
    for m, kind in product(SIZES, selections):
        how = {"selection": kind, "combination": "fitted" if kind == "fitted" else "usage"}
        seeds = range(DRAWS if kind == "random" else 1)
        plans = [plan_from(stats, per_layer=m, seed=seed, **how) for seed in seeds]
        found = [live.evaluate(plan) for plan in plans]
        if kind == "usage":
            usage = found[0]
        led = kind not in ("usage", "random")
        lead, ends = paired_difference(found[0], usage) if led else (None, None)
        row = {"per_layer": m, "selection": kind, "score": mean(one.score for one in found)}
        row |= {"interval": found[0].ends() if len(found) == 1 else None, "lead": lead, "lead_interval": ends}
        row |= {"encoder_params": plan_cost(model, plans[0]).encoder_params / dense.encoder_params}
        yield about | row | {"fitted_on": gates.data if kind == "fitted" else None}


def routes(made: Checkpoint, name: str) -> Found:
    """The scores with all layers' routes permuted, permuted among equal predictions, and mixed."""
    data, options = load_data("glue", made.info.task.name), {"max_length": made.info.max_length}
    stats = measure_usage(made.model, made.tokenizer, data, **options)
    with progress_on(f"permuting routes of {name}") as show:
        found = shuffle_routes(made.model, made.tokenizer, data, stats, progress=show, **options)
    about = {"checkpoint": name, "metric": made.info.task.metric, "n": len(data), "routed": found.before.score}
    fields = ("layer", "draws", "score", "change", "change_interval")
    for row in records(found.frame, "change"):
        if row["layer"] not in stats.layers:
            yield about | {field: row.get(field) for field in (*fields, "moved", "flipped")}


TRAINED: dict[str, tuple[Callable[[Trainings, Any], Found], str, Callable[[], Sequence[Any]], str, str]] = {
    "ablation": (ablation, "variant", lambda: list(VARIANTS), "cola,stsb", "0"),
    "extensions": (extensions, "variant", lambda: list(EXTENSIONS), "cola,rte", "0"),
    "routing": (routing, "routing", lambda: list(ROUTINGS), "cola,stsb", "0"),
    "balance": (balance, "balance", lambda: WEIGHTS, "cola,mrpc", "0,1,2"),
    "schedule": (schedule, "schedule", lambda: list(SCHEDULES), "cola,mrpc", "0,1,2"),
    "topk": (topk, "top_k", lambda: TOP_K, "mrpc", "0,1,2"),
    "longer": (longer, "more_on", lambda: ("text and task", "task"), "cola,mrpc,rte,stsb,sst2,qnli", "0"),
}
"""What measures, the field that it varies, its values, and the tasks and seeds by default."""
OF_CHECKPOINTS: dict[str, Callable[[Checkpoint, str], Found]] = {"selection": selection, "routes": routes}
KEYS = {
    "ablation": ("task", "seed", "variant", "model", "fine_tuned_after_pruning"),
    "extensions": ("task", "seed", "variant", "texts", "task_effort", "scored_on"),
    "routing": ("task", "seed", "routing"),
    "balance": ("task", "seed", "balance"),
    "schedule": ("task", "seed", "schedule"),
    "topk": ("task", "seed", "top_k", "budget"),
    "longer": ("task", "seed", "more_on", "per_layer", "selection"),
    "selection": ("checkpoint", "per_layer", "selection"),
    "routes": ("checkpoint", "layer"),
}


def main(
    question: Annotated[
        Literal["ablation", "extensions", "routing", "balance", "longer", "schedule", "topk", "selection", "routes"],
        typer.Argument(),
    ],
    checkpoints: Annotated[list[Path] | None, typer.Argument(help="Routed checkpoints of GLUE tasks.")] = None,
    base: Annotated[str, typer.Option(help="The dense encoder: a hub id or a folder.")] = "",
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the trainings.")] = Path("glue.run"),
    tasks: Annotated[str, typer.Option(help="GLUE tasks, in order.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "",
    effort: Annotated[float, typer.Option(help="Share of the usual texts of `extensions`.")] = 1.0,
    task_effort: Annotated[float | None, typer.Option(help="Share of the usual steps on the task [--effort].")] = None,
    final: Annotated[bool, typer.Option(help="Score `extensions` on the validation data.")] = False,
    variants: Annotated[str, typer.Option(help="Some variants, such as `1-expert`, instead of all.")] = "",
    texts: Annotated[Path | None, typer.Option(help="Folder of more texts, for `--further`.")] = None,
    further: Annotated[int, typer.Option(help="Distinct texts that pruned encoders of `extensions` train on.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File of rows.")] = None,
) -> None:
    """Measure what the file of rows lacks, and add it."""
    rows = Rows(out or DATA / f"{question}.json", KEYS[question])
    if question in TRAINED:
        if not base:
            raise typer.BadParameter("name the dense encoder.", param_hint="--base")
        measure, field, values, usual, draws = TRAINED[question]
        if bool(texts) != bool(further):
            raise typer.BadParameter("give --texts and --further together.", param_hint="--further")
        more = (texts, further) if texts and further else None
        encoder = Base(base, work, base_name, effort, task_effort=task_effort, more_texts=more)
        trainings = Tuning if question == "extensions" and not final else Trainings
        wanted = names(tasks or usual, tuple(TASKS), "--tasks")
        chosen = list(values())
        if variants:
            by_name = {slug(str(value)): value for value in chosen}
            chosen = [by_name[name] for name in names(variants, tuple(by_name), "--variants")]
        for task, seed, value in product(wanted, numbers(seeds or draws, "--seeds"), chosen):
            about = {"task": task, "seed": seed, field: value}
            if question == "extensions":
                about |= {"texts": encoder.further_size, "task_effort": encoder.task_effort}
                about |= {"scored_on": "validation" if final else "tuning"}
            if not any(about.items() <= row.items() for row in read_rows(rows.path)):
                found = [about | row for row in measure(trainings(encoder, task, seed), value)]
                rows.add(*found)
                stderr.print(f"{task}, seed {seed}, {field} {value}: {len(found)} rows")
        return
    if not checkpoints:
        raise typer.BadParameter("name routed checkpoints.", param_hint="CHECKPOINTS")
    for made in map(checkpoint.load, checkpoints):
        if not (routed := expert_layers(made.model)):
            raise PlanError(f"{made.path} has no routed layer; name routed checkpoints.")
        depth = f"-{len(routed)}of{made.model.config.num_hidden_layers}"
        name = made.path.name if made.path.name.endswith(depth) else made.info.task.name + depth
        for row in OF_CHECKPOINTS[question](made, name):
            rows.add(row)
            stderr.print(f"{name}: {row.get('selection', row.get('layer'))} {row['score']:.4f}")


if __name__ == "__main__":
    run(main)
