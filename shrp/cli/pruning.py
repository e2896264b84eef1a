"""`prune`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.counting import plan_chosen, plan_within
from shrp.cli.data_options import (
    LabelColumn,
    LabelMeanings,
    OnlySlices,
    OwnFile,
    SkipIncomplete,
    SliceColumn,
    SliceWords,
    TextColumns,
    evaluation_data,
    say_data,
    training_data,
)
from shrp.cli.options import (
    PLAN_HELP,
    AsJson,
    EvaluatedLength,
    FullPrecision,
    plan_file,
    say_resume,
    share_of_dense,
)
from shrp.cli.output import example, print_json, print_table, score_line, stderr, training_progress
from shrp.cli.pruned_scores import scores_of, what_to_know
from shrp.cli.recovery import recovery_of
from shrp.data.tasks import TASKS
from shrp.errors import PlanError
from shrp.phrases import signed

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from shrp.checkpoints.checkpoint import Checkpoint

_RECORDED = "recorded"

Folder = Annotated[Path, typer.Argument(help="A routed SHRP checkpoint.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command(
        short_help="A static checkpoint of the experts that are kept",
        epilog=example(
            "prune checkpoints/sst2-6of12 --budget 12 --out pruned",
            "Writes a static checkpoint, weights in float16, and prints its score on the data that it was "
            "made with, or else the probe set.",
        ),
    )(prune)


def _refuse(why: str, idle: bool, options: dict[str, Any]) -> None:
    """Raise `PlanError` for the first of these options that is given, though it would do nothing."""
    for name, given in options.items():
        if idle and given is not None:
            raise PlanError(f"{name} {why}")


def prune(
    checkpoint: Folder,
    out: Annotated[Path, typer.Option("--out", help="Folder of the resulting static checkpoint.")],
    budget: Annotated[
        int | None, typer.Option(help="Experts kept in all converted layers together (M).")
    ] = None,
    per_layer: Annotated[int | None, typer.Option(help="Experts kept in every converted layer (m).")] = None,
    encoder_params: Annotated[
        str | None,
        typer.Option(
            help="As many experts in all as fit in a share of the dense encoder's parameters, such as 52.5%."
        ),
    ] = None,
    encoder_flops: Annotated[
        str | None, typer.Option(help="The same of its FLOPs, for one input of 128 tokens.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help=PLAN_HELP)] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="The fewest experts in all with which the score is at most so much below the routed model's on --data "
            "(by default the probe set), on which usage is counted too; 0.01 is a point of accuracy."
        ),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="usage (the default), gate_norm, ablation, fitted, random (a control), or recorded: the checkpoint's "
            "own usage, which without --data is what usage means here."
        ),
    ] = None,
    combination: Annotated[
        str | None, typer.Option(help="usage weights, their plain mean, or fitted; by default as selected.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="For random selection, fitted gates and recovery (there another one than the training's, so that "
            "with --epoch-size it visits other examples)."
        ),
    ] = 0,
    data: Annotated[
        str | None,
        typer.Option(
            help="Measure usage (and fit gates, or knock experts out) on `probe`, `glue` or a file; by default the "
            "checkpoint's own usage, or for gate_norm, ablation and fitted the probe set."
        ),
    ] = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    match_shares: Annotated[
        bool,
        typer.Option(
            "--match-shares",
            help="Shift the output bias so that each class is given as often as by the routed model on --data (or the "
            "probe set); uses no labels.",
        ),
    ] = False,
    recover: Annotated[int, typer.Option(min=0, help="Epochs of training on after pruning.")] = 0,
    teacher: Annotated[Path | None, typer.Option(help="Dense checkpoint to distil in them.")] = None,
    task: Annotated[
        str | None, typer.Option(help="GLUE task to recover on; by default the checkpoint's.")
    ] = None,
    train_file: Annotated[Path | None, typer.Option(help="Your own training data for recovery.")] = None,
    validation_file: Annotated[
        Path | None, typer.Option(help="Your own validation data for recovery.")
    ] = None,
    epoch_size: Annotated[int | None, typer.Option(help="At most so many examples an epoch.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="For pretrained weights, in recovery; 1e-4 by default.")
    ] = None,
    new_learning_rate: Annotated[
        float | None, typer.Option(help="For the Expander, in recovery; 1e-3 by default.")
    ] = None,
    max_length: EvaluatedLength = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where PyTorch measures and scores, cpu by default; cuda, cuda:1, mps, ... Not for --recover, which "
            "trains on a GPU where there is one, whatever is named here.",
            metavar="NAME",
        ),
    ] = None,
    full_precision: FullPrecision = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed recovery.")] = False,
    json: AsJson = False,
) -> None:
    """Prune a routed checkpoint to a static one: no router, only the experts that a plan keeps."""
    import torch

    import shrp.checkpoints.checkpoint as store
    from shrp.checkpoints.info import history_text, joined, pruned_training, shares_of
    from shrp.checkpoints.saving import refuse_existing, round_as_stored
    from shrp.evaluation.calibration import matched
    from shrp.evaluation.costs import largest_budget
    from shrp.pruning.plan import SELECTIONS
    from shrp.pruning.prune import prune as cut
    from shrp.training.config import check_seed
    from shrp.training.loop import train
    from shrp.training.runs import finish

    sizes = {"encoder_params": encoder_params, "encoder_flops": encoder_flops}
    if sum(option is not None for option in (budget, per_layer, plan, max_loss, *sizes.values())) != 1:
        raise PlanError(
            "give exactly one of --budget, --per-layer, --encoder-params, --encoder-flops, --max-loss and --plan."
        )
    if max_loss is not None and selection in ("random", _RECORDED):
        raise PlanError(
            "--max-loss counts what experts are chosen by on the data that it scores: leave --selection out, or name "
            "usage, gate_norm, ablation or fitted."
        )
    if max_loss is not None and not 0 <= max_loss < float("inf"):
        raise PlanError(f"--max-loss is 0 or more, in units of the score, not {max_loss:g}.")
    share = {of: share_of_dense(text) for of, text in sizes.items() if text is not None}
    if out.resolve() == checkpoint.resolve():
        raise PlanError(
            f"--out {out} is the routed checkpoint itself; choose another folder for the static one."
        )
    from_file = data not in (None, "probe", "glue")  # else columns and meanings are of the training files
    own = OwnFile(
        text_column, label_column, slice_column, label_means=label_means, skip_incomplete=skip_incomplete
    )
    if (slice_words or slice_column) and not only:
        raise PlanError(
            "--slice and --slice-column say what slices there are: --only says which of them to choose by."
        )
    for name, given in (("--slice", slice_words), ("--only", only)):
        if given and data is None:
            raise PlanError(
                f"{name} is for what usage is measured on: name that with --data, or leave it out."
            )
    if not from_file and train_file is None:
        own.refuse("is for a file of your own; give one with --data or --train-file.")
    of_data = replace(own if from_file else OwnFile(), slices=slice_words, only=only)
    if match_shares and recover:
        raise PlanError(
            "--match-shares is for what is not trained on: with --recover the training finds the bias."
        )
    _refuse(
        "is for training on after pruning: give --recover with it, or leave it out.",
        not recover,
        {
            "--teacher": teacher,
            "--task": task,
            "--train-file": train_file,
            "--validation-file": validation_file,
            "--epoch-size": epoch_size,
            "--learning-rate": learning_rate,
            "--new-learning-rate": new_learning_rate,
            "--resume": resume or None,
        },
    )
    _refuse(
        "does not say where --recover trains, which is on a GPU where there is one: leave one of them out.",
        bool(recover),
        {"--device": device},
    )
    _refuse(
        "does nothing beside --plan, which says what is kept: leave one of them out.",
        plan is not None,
        {"--selection": selection, "--combination": combination, "--data": None if match_shares else data},
    )
    if selection not in (None, *SELECTIONS, _RECORDED):
        raise PlanError(f"--selection is one of {', '.join((*SELECTIONS, _RECORDED))}, not {selection!r}.")
    recorded = selection == _RECORDED
    if recorded and data is not None and not match_shares:
        raise PlanError(
            "--selection recorded goes by the usage that the checkpoint carries, not by --data: leave one out."
        )
    selection = "usage" if recorded else selection or "usage"
    check_seed(seed)
    refuse_existing(out)  # now, not after the epochs
    say_resume(out, resume)
    source = store.load(checkpoint, device=device or "cpu")
    max_length = max_length or source.info.max_length
    combination = combination or ("fitted" if selection == "fitted" else "usage")
    _refuse_dense_and_static(source, checkpoint)
    for of, most in share.items():
        budget = largest_budget(source.model, most, of)
    options = {"budget": budget, "per_layer": per_layer, "combination": combination, "seed": seed}
    if match_shares and source.info.task.is_regression:
        raise PlanError("--match-shares is for classes; a shift changes no correlation of numbers.")
    recovery = None
    if recover:  # before anything is measured, since it may not fit
        recovery = recovery_of(
            source,
            training_data(
                # The checkpoint's own task, so that labels mean what its head takes them for.
                task or source.info.task,
                train_file,
                validation_file,
                own if train_file is not None else OwnFile(),
            ),
            None if teacher is None else store.load(teacher),
            stage2_epochs=recover,
            learning_rate=1e-4 if learning_rate is None else learning_rate,
            new_learning_rate=1e-3 if new_learning_rate is None else new_learning_rate,
            epoch_size=epoch_size,
            max_length=max_length,
            seed=seed,
        )
    measured_on = None
    if (
        plan is None
        and not recorded
        and (data is not None or max_loss is not None or selection in ("gate_norm", "ablation", "fitted"))
    ):
        measured_on = evaluation_data(data or "probe", source.info.task, of_data)
    if max_loss is not None:
        chosen = plan_within(source, measured_on, max_loss, selection, max_length, options, match_shares)
        options["budget"] = chosen.budget
    else:
        chosen = plan_file(plan) if plan else plan_chosen(source, measured_on, selection, max_length, options)
    asked = {name: options[name] for name in ("budget", "per_layer", "seed")}
    training = pruned_training(
        source.info.training, source.fingerprint, chosen, counted_on=measured_on, file=plan, **asked
    )
    model, like, shift = cut(source.model, chosen), None, None
    dtype = None if full_precision else torch.float16
    if match_shares:
        round_as_stored(model, dtype)  # a threshold may lie nearer to an input than rounding moves that
        like = measured_on or evaluation_data(data or "probe", source.info.task, of_data)
        model, shift = matched(model, source.model, source.tokenizer, like, max_length)
        training |= shares_of(like, shift)
    info = store.CheckpointInfo(
        config=source.info.config,
        task=source.info.task,
        plan=chosen,
        base_model=source.info.base_model,
        training=training,
        scores=tuple(row for row in source.info.scores if row["kind"] == "teacher"),
    )
    history = store.read_history(checkpoint)
    if recovery is not None:
        say_data(recovery.training, recovery.validation)
        model, recovered, more = train(
            recovery.config,
            model,
            info,
            source.tokenizer,
            recovery.training,
            recovery.validation,
            out,
            teacher=recovery.teacher,
            resume=resume,
            phase="fine-tuning after pruning",
            progress=training_progress(),
        )
        info = store.CheckpointInfo(
            **{**vars(recovered), "training": dict(info.training) | {"recovery": dict(recovered.training)}}
        )
        history = joined(history, more)
    round_as_stored(model, dtype)
    known = (measured_on, like, None if recovery is None else recovery.validation)
    how = {"matched": match_shares, "recovered": recovery is not None}
    scores = scores_of(model, source, chosen, known, max_length, **how)
    info = replace(info, scores=(*info.scores, *scores))
    extra = {store.HISTORY: history_text(history)} if history else {}
    told = {"extra_files": extra, "teacher": source.teacher}
    store.save(model, source.tokenizer, info, out, dtype=dtype, new=True, **told)
    if recover:
        finish(out)
    if json:
        told = {"out": str(out), "pruned_from": source.fingerprint, "experts_kept": chosen.budget}
        told |= {"plan": chosen.to_dict(), "scores": scores} | shares_of(like, shift)
        print_json(told | {"provenance": {"device": str(model.device)}})
        return
    counts = ", ".join(f"{layer}: {count}" for layer, count in chosen.keep_counts().items())
    stderr.print(f"kept {chosen.budget} experts (layer: count) {counts}")
    print_table(f"{out}", [score_line(row) for row in scores])
    for line in what_to_know(source, chosen, measured_on, scores, by_file=plan is not None, **how):
        stderr.print(line)
    if shift is not None:
        parts = zip(source.info.task.label_names, shift, strict=True)
        by = ", ".join(f"{name} {signed(part, 3)}" for name, part in parts)
        stderr.print(
            f"output bias shifted ({by}) to give each class as often as the routed model does on {like.name}, so a "
            "score there is of the inputs that it was fitted to"
        )
    of_own = "" if source.info.task.name in TASKS else " --data FILE"
    named = (("--slice", slice_words), ("--only", only))
    alone = [part for name, each in named for one in each or () for part in (name, one)]
    stderr.print(
        f"wrote {out}; `python -m shrp compare {shlex.join([str(checkpoint), str(out), *alone])}{of_own}` says "
        "what pruning lost, paired"
    )


def _refuse_dense_and_static(source: Checkpoint, checkpoint: Path) -> None:
    if not source.info.config.layers:
        raise PlanError(f"{checkpoint} is dense: it has no converted layer to prune. `train` converts it.")
    if source.is_static:
        raise PlanError(f"{checkpoint} is pruned already; prune the routed checkpoint it came from.")
