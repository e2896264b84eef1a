"""`prune`: from a routed to a static checkpoint, fine-tuned if asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from shrp.cli import options as opt
from shrp.cli.output import print_json, print_scores, stderr, training_progress
from shrp.cli.sweep import check_can_prune, measured_usage
from shrp.data.tasks import TASKS, Task, may_be_one
from shrp.data.text_data import TextData
from shrp.errors import DataError, PlanError, ShrpError, TrainingError, first_line
from shrp.training.config import RECIPES, TextConfig, TrainConfig, read_config

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from transformers import PreTrainedModel

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.pruning.plan import PruningPlan

_MEASURED = ("gate_norm", "ablation", "fitted")
"""Selections that need data: the probe sentences, unless --data names others."""


@dataclass(frozen=True)
class PruneOptions:
    """What the `--config` file of `prune` may set."""

    training: TrainConfig
    """Fine-tuning after pruning: rates, sizes, seed, and `max_length`, by which texts are cut for usage and scores, too."""
    combination: str | None = None
    """Weights of the kept experts: usage, mean or fitted; by default as selected."""
    seed: int = 0
    """Seed of a random selection and of fitted gates."""
    untied: bool = False
    """Whether each kept expert gets columns of its own in the Expander: the same model, with more to fine-tune."""
    device: str = "cpu"
    """Where usage is measured and scores are computed."""
    full_precision: bool = False
    """Store float32 weights instead of float16."""
    text_columns: tuple[str, ...] = ()
    """Text columns of your files."""
    label_column: str = "label"
    """Label column of your files."""
    label_means: tuple[str, ...] = ()
    """Label mappings, such as good=positive."""


@dataclass(frozen=True)
class TextPruneOptions(PruneOptions):
    """What it may set with `--texts`."""

    training: TextConfig
    """Fine-tuning on texts: rates, distillation, seed; `final_size` is replaced by the epochs of `--fine-tune`."""


def prune(
    checkpoint: opt.Routed,
    out: opt.Out,
    *,
    per_layer: opt.PerLayer = None,
    budget: opt.Budget = None,
    plan: opt.PlanFile = None,
    selection: Annotated[
        Literal["usage", "gate_norm", "ablation", "fitted", "random"] | None,
        Option(help="What experts are chosen by [default: usage]"),
    ] = None,
    data: Annotated[str | None, Option(help="Measure on probe, glue or a file [default: stored]")] = None,
    calibrate: Annotated[bool, Option("--calibrate", help="Match class frequencies to the routed model's.")] = False,
    fine_tune: Annotated[int, Option(min=0, help="Epochs of fine-tuning after pruning.")] = 0,
    teacher: Annotated[Path | None, Option(help="Dense checkpoint to distil while fine-tuning.")] = None,
    train_file: opt.TrainFile = None,
    texts: Annotated[Path | None, Option(help="Fine-tune on unlabelled texts, by distillation.")] = None,
    validation_file: opt.ValidationFile = None,
    config: opt.Config = None,
    json: opt.AsJson = False,
) -> None:
    """Prune a routed checkpoint to a static one: no router, only the kept experts. Optionally fine-tune it.

    With --texts it needs no labels: the model learns the hidden states of the routed model, or of --teacher. The same
    command continues a killed fine-tuning.
    """
    import torch

    import shrp.checkpoints.checkpoint as store
    from shrp.checkpoints.info import evaluated_length, joined, pruned_training, usage_in
    from shrp.checkpoints.info import read_config as read_info
    from shrp.checkpoints.saving import refuse_existing, round_as_stored
    from shrp.evaluation.calibration import matched
    from shrp.pruning.plan import make_plan
    from shrp.pruning.prune import prune as cut
    from shrp.pruning.select import plan_from
    from shrp.training.loop import train
    from shrp.training.runs import alone_in, finish, run_folder
    from shrp.training.text import train_on_text

    sizes = {"--per-layer": per_layer, "--budget": budget, "--plan": plan}
    if sum(option is not None for option in sizes.values()) != 1:
        raise PlanError(f"give exactly one of {', '.join(sizes)}.")
    if plan is not None and (selection or (data and not calibrate)):
        raise PlanError("--plan says what is kept: leave --selection and --data out.")
    tuning_with = {"--teacher": teacher, "--train-file": train_file, "--texts": texts}
    tuning_with["--validation-file"] = validation_file
    for name, given in tuning_with.items():
        if given is not None and not fine_tune:
            raise PlanError(f"{name} is for fine-tuning after pruning: give --fine-tune EPOCHS.")
    if texts is not None and train_file is not None:
        raise PlanError("give --train-file or --texts: a fine-tuning has labels or has none.")
    if calibrate and fine_tune:
        raise PlanError("give --calibrate or --fine-tune: fine-tuning finds the threshold itself.")
    defaults, overrides = {"learning_rate": 1e-4, "new_learning_rate": 1e-3, "balance": 0.0}, {"shrp": {"layers": []}}
    defaults["max_length"] = read_info(checkpoint)[1].max_length
    if texts is not None:
        defaults |= {"distill_logits": 1.0}
    else:
        recipe = RECIPES["retain" if teacher is not None else "paper"]
        defaults = {**recipe, **defaults, "freeze_embeddings": True}
        overrides |= {"stage2_epochs": max(fine_tune, 1)}
    options = read_config(
        config,
        PruneOptions if texts is None else TextPruneOptions,
        defaults={"training": defaults},
        overrides={"training": overrides},
    )
    refuse_existing(out)  # refuse now, not after the epochs
    source = store.load(checkpoint, device=options.device)
    check_can_prune(source)
    task, length = source.info.task, evaluated_length(options.training.max_length)
    if calibrate and task.is_regression:
        raise PlanError("--calibrate is for classification; leave it out for a regression.")
    files = opt.Data(
        text_column=list(options.text_columns),
        label_column=options.label_column,
        label_means=list(options.label_means),
    )
    from_file = data not in (None, "probe", "glue")
    if not from_file and train_file is None and texts is None:
        files.refuse("in --config describes files of your own: give --data, --train-file or --texts.")
    where = replace(files if from_file else opt.Data(), data=data or "probe")
    tuning, scored_on, dense, rows, added = None, None, None, (), ()
    if fine_tune and teacher is not None:
        dense = _teacher(store.load(teacher), source)
    if texts is not None:
        rows = opt.sample_texts([texts], list(options.text_columns or task.text_columns))
        scored_on = None if validation_file is None else files.read(validation_file, task)
        rows, added = opt.enough_texts(rows, scored_on)
    elif fine_tune:  # before anything is measured, since the data may not fit
        own = (files.text_column, files.label_column, files.label_means) if train_file else ()
        tuning = opt.TrainingData(task, train_file, validation_file, *own).load()
        for found in tuning:
            _check_same_labels(task, found.task, found.name)
        scored_on = tuning[1]
    measured_on = None
    how = selection or "usage"
    if plan is None and (data or how in _MEASURED):
        measured_on = where.load(task)
        stats = measured_usage(source, measured_on, how, length, options.seed)
    weights = {"combination": options.combination or ("fitted" if how == "fitted" else "usage")}
    weights |= {"selection": how}
    size = {"per_layer": per_layer, "budget": budget}
    if plan is not None:
        chosen = opt.read_plan(plan)
    elif measured_on is not None:
        chosen = plan_from(stats, seed=options.seed, **weights, **size)
    else:
        chosen = make_plan(usage_in(source.info), seed=options.seed, **weights, **size)
    chosen = replace(chosen, untied=options.untied or chosen.untied)
    asked = {"counted_on": measured_on, "file": plan, "seed": options.seed} | size
    training = pruned_training(source.info.training, source.fingerprint, chosen, **asked)
    model, like, calibrated = cut(source.model, chosen), None, {}
    dtype = None if options.full_precision else torch.float16
    if calibrate:
        round_as_stored(model, dtype)  # a threshold may be nearer to an example than rounding moves that
        like = measured_on or where.load(task)
        model, shift = matched(model, source.model, source.tokenizer, like, length)
        calibrated = {"shares_matched": {"data": like.name, "n": len(like), "shift": shift.tolist()}}
        training |= calibrated
    teachers = tuple(row for row in source.info.scores if row["kind"] == "teacher")
    info = replace(source.info, plan=chosen, usage={}, training=training, scores=teachers)
    history = store.read_history(checkpoint)
    # A training on labels holds its folder itself.
    with alone_in(run_folder(out), "prune") if texts is not None else nullcontext():
        refuse_existing(out)  # another command may have made it since
        if tuning is not None:
            opt.report_data(*tuning)
            model, tuned, more = train(
                options.training,
                model,
                info,
                source.tokenizer,
                *tuning,
                out,
                teacher=dense,
                phase="fine-tuning after pruning",
                progress=training_progress(),
            )
            info = replace(tuned, training=dict(info.training) | {"recovery": dict(tuned.training)})
            history = joined(history, more)
        elif texts is not None:
            how = replace(options.training, final_size=fine_tune * len(rows))
            of = (dense or source.model, source.tokenizer, rows, run_folder(out) / "pruned")
            model, more = train_on_text(how, *of, model=model, progress=training_progress())
            model = model.cpu()
            training |= {"recovery": how.to_dict(), "recovery_sources": [texts.name, *added]}
            info, history = replace(info, training=training), joined(history, more)
        round_as_stored(model, dtype)
        known = [one for one in (measured_on, like, scored_on) if one is not None]
        seen = [*training.get("sources", ()), *training.get("recovery_sources", ())]
        scores = _scores(model, source, chosen, known, length, seen, matched=calibrate, recovered=fine_tune > 0)
        info = replace(info, scores=(*info.scores, *scores))
        kept = {"dtype": dtype, "history": history, "teacher": source.teacher}
        store.save(model, source.tokenizer, info, out, new=True, **kept)
        if fine_tune:
            finish(out)
    if json:
        made = {"out": str(out), "pruned_from": source.fingerprint, "experts_kept": chosen.budget}
        print_json(made | {"plan": chosen.to_dict(), "scores": scores} | calibrated)
        return
    print_scores(str(out), scores)
    if measured_on is not None and scores and chosen.selection != "random":
        stderr.print(f"experts were chosen on {measured_on.name}, which flatters its score a little")
    idle = sum(weight == 0 for _, kept in chosen.layers for weight in kept.weights)
    if idle and not fine_tune:
        stderr.print(f"{idle} of the kept experts have weight 0 and add nothing")
    for row in scores:
        if row["score"] <= row.get("constant", -math.inf):
            stderr.print(f"not above the majority-class baseline ({row['constant']:.4f}) on {row['data']}")
    stderr.print(
        f"wrote {out}: {chosen.budget} experts; `python -m shrp compare {checkpoint} {out}` compares the two"
    )


def _scores(
    model: PreTrainedModel,
    source: Checkpoint,
    plan: PruningPlan,
    known: Sequence[TextData],
    length: int,
    seen: Sequence[str],
    **made: bool,
) -> list[dict[str, Any]]:
    """A row of scores for each of the data at hand, else for the probe sentences; none where they cannot be scored.

    Args:
        seen: names of what the model was trained on without labels; it is not scored on probe sets among them.
    """
    from shrp.checkpoints.score_rows import pruned_row
    from shrp.cli.subjects import teacher_score
    from shrp.evaluation.evaluate import evaluate

    rows, probes = [], tuple(name for name in seen if name.startswith("probe/"))
    sets = list({data.fingerprint: data for data in known}.values())
    if not sets and source.info.task.name in TASKS:
        try:
            sets = [opt.Data().load(source.info.task)]
        except ShrpError as error:
            stderr.print(f"not scored: {first_line(error).rstrip('.')}; `evaluate` scores it on data of yours")
    for data in sets:
        try:
            if data.name.startswith(probes):
                raise DataError("the model was trained on these sentences")
            if data.labels is None:
                raise DataError("they have no labels")
            found = evaluate(model, source.tokenizer, data, max_length=length)
            if not math.isfinite(found.score):
                raise DataError(f"{found.metric} is undefined")
            best = teacher_score(source, data, length)
            rows.append(pruned_row(plan, found, best, data, length, **made))
        except (ShrpError, ValueError, RuntimeError) as error:  # out of memory, for one
            stderr.print(f"not scored on {data.name}: {first_line(error)}")
    return rows


def _teacher(teacher: Checkpoint, source: Checkpoint) -> PreTrainedModel:
    """The dense model to distil; raise `TrainingError` if it does not fit the checkpoint."""
    if teacher.info.config.layers:
        raise TrainingError(
            f"{teacher.path} is converted: give the dense model that {source.path} was made from."
        )
    _check_same_labels(source.info.task, teacher.info.task, str(teacher.path))
    if teacher.tokenizer.get_vocab() != source.tokenizer.get_vocab():
        raise TrainingError(
            f"{teacher.path} has another vocabulary than {source.path}, so it cannot be distilled."
        )
    return teacher.model


def _check_same_labels(ours: Task, theirs: Task, whose: str) -> None:
    """Raise `TrainingError` if the labels of `whose` are not the checkpoint's.

    Outputs are matched by position, so the same names in another order would be learnt the wrong way round. Ids stand
    for any names of as many classes.
    """
    known, others = ([name.casefold() for name in task.label_names] for task in (ours, theirs))
    ids = [str(number) for number in range(ours.num_labels)]
    same = known == others and may_be_one(ours, theirs)
    ids_of_them = known != others and len(known) == len(others) and ids in (known, others)
    if ours.is_regression == theirs.is_regression and (same or ids_of_them):
        return
    first, second = (", ".join(task.label_names) or "numbers" for task in (ours, theirs))
    raise TrainingError(
        f"the labels of {whose} ({theirs.name}: {second}) are not the checkpoint's ({ours.name}: {first}, in this order)."
    )
