"""`prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.options import (
    AsJson,
    EvaluatedLength,
    LabelColumn,
    LabelMeanings,
    TextColumns,
    evaluation_data,
    plan_file,
    training_data,
)
from shrp.cli.output import TrainingBar, bar, print_json, stderr

Folder = Annotated[Path, typer.Argument(help="A routed SHRP checkpoint.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command()(prune)


def prune(
    checkpoint: Folder,
    out: Annotated[Path, typer.Option("--out", help="Folder of the resulting static checkpoint.")],
    budget: Annotated[
        int | None, typer.Option(help="Experts kept in all converted layers together (M).")
    ] = None,
    per_layer: Annotated[int | None, typer.Option(help="Experts kept in every converted layer (m).")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan as JSON, instead of a number.")] = None,
    selection: Annotated[
        str, typer.Option(help="usage, gate_norm, fitted, or random (a control).")
    ] = "usage",
    combination: Annotated[
        str | None, typer.Option(help="usage weights, their plain mean, or fitted; by default as selected.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For random selection, fitted gates and recovery.")] = 0,
    data: Annotated[
        str | None,
        typer.Option(
            help="Measure usage (and fit gates) on `probe`, `glue` or a file, instead of taking the checkpoint's own."
        ),
    ] = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    match_shares: Annotated[
        bool,
        typer.Option(
            "--match-shares",
            help="Shift the output bias so that each class is given as often as by the routed model on --data (or the "
            "probe set); uses no labels.",
        ),
    ] = False,
    recover: Annotated[int, typer.Option(help="Epochs of training on after pruning.")] = 0,
    teacher: Annotated[Path | None, typer.Option(help="Dense checkpoint to distil in them.")] = None,
    task: Annotated[
        str | None, typer.Option(help="GLUE task to recover on; by default the checkpoint's.")
    ] = None,
    train_file: Annotated[Path | None, typer.Option(help="Your own training data for recovery.")] = None,
    validation_file: Annotated[
        Path | None, typer.Option(help="Your own validation data for recovery.")
    ] = None,
    epoch_size: Annotated[int | None, typer.Option(help="At most so many examples an epoch.")] = None,
    learning_rate: Annotated[float, typer.Option(help="For pretrained weights, in recovery.")] = 1e-4,
    new_learning_rate: Annotated[float, typer.Option(help="For the Expander, in recovery.")] = 1e-3,
    max_length: EvaluatedLength = None,
    full_precision: Annotated[bool, typer.Option(help="Store float32 weights instead of float16.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed recovery.")] = False,
    json: AsJson = False,
) -> None:
    """Prune a routed checkpoint to a static one: no router, only the experts that a plan keeps."""
    from dataclasses import replace

    import torch

    import shrp.checkpoint as store
    from shrp.answer_shares import matched
    from shrp.checkpoint_info import chosen_on, shares_matched, usage_in
    from shrp.config import ShrpConfig
    from shrp.errors import DataError, PlanError, TrainingError
    from shrp.fitting import GateFit
    from shrp.history import history_text, joined
    from shrp.plan import make_plan
    from shrp.prune import prune as cut
    from shrp.run_state import finish
    from shrp.train import train
    from shrp.training_config import TrainConfig, check_seed
    from shrp.usage import measure_usage, plan_from

    if sum(option is not None for option in (budget, per_layer, plan)) != 1:
        raise PlanError("give exactly one of --budget, --per-layer and --plan.")
    if out.resolve() == checkpoint.resolve():
        raise PlanError(
            f"--out {out} is the routed checkpoint itself; choose another folder for the static one."
        )
    own = label_means if data not in (None, "probe", "glue") else None  # else they are of the training files
    if label_means and own is None and train_file is None:
        raise DataError("--label-means is for a file of your own; give one with --data or --train-file.")
    if match_shares and recover:
        raise PlanError(
            "--match-shares is for what is not trained on: with --recover the training finds the bias."
        )
    for name, given in (
        ("--teacher", teacher),
        ("--train-file", train_file),
        ("--validation-file", validation_file),
    ):
        if given is not None and not recover:
            raise PlanError(
                f"{name} is for training on after pruning: give --recover with it, or leave it out."
            )
    check_seed(seed)
    store.refuse_existing(out)  # now, not after the epochs
    source = store.load(checkpoint)
    max_length = max_length or source.info.max_length
    combination = combination or ("fitted" if selection == "fitted" else "usage")
    options = {"budget": budget, "per_layer": per_layer, "combination": combination, "seed": seed}
    if match_shares and source.info.task.is_regression:
        raise PlanError("--match-shares is for classes; a shift changes no correlation of numbers.")
    if not source.info.config.layers:
        raise PlanError(f"{checkpoint} is dense: it has no converted layer to prune. `train` converts it.")
    if source.is_static:
        raise PlanError(f"{checkpoint} is pruned already; prune the routed checkpoint it came from.")
    measured_on = None
    if plan is not None:
        chosen = plan_file(plan)
    elif data is not None or selection in ("gate_norm", "fitted"):
        measured_on = evaluation_data(data or "probe", source.info.task, text_column, label_column, None, own)
        stats = measure_usage(
            source.model,
            source.tokenizer,
            measured_on,
            max_length=max_length,
            output_norms=selection == "gate_norm",
        )
        if selection == "fitted":
            stderr.print(f"fitting gates on texts of {measured_on.name}, some minutes …", highlight=False)
            with bar("fitting gates") as shown:
                task_id = shown.add_task("fitting gates", total=None)
                fit = GateFit(
                    source.model,
                    source.tokenizer,
                    measured_on,
                    stats.shares(),
                    max_length=max_length,
                    seed=seed,
                )
                fitted = fit.finish(lambda done, steps: shown.update(task_id, completed=done, total=steps))
            stats = replace(stats, fitted=fitted)
        chosen = plan_from(stats, selection=selection, **options)
    else:
        chosen = make_plan(usage_in(source.info), selection=selection, **options)
    by_data = {} if measured_on is None or selection == "random" else chosen_on(measured_on)
    model = cut(source.model, chosen)
    if match_shares:
        like = measured_on or evaluation_data(
            data or "probe", source.info.task, text_column, label_column, None, own
        )
        model, shift = matched(model, source.model, source.tokenizer, like, max_length)
        by_data |= shares_matched(like, shift)
    info = store.CheckpointInfo(
        config=source.info.config,
        task=source.info.task,
        plan=chosen,
        base_model=source.info.base_model,
        training=dict(source.info.training) | {"pruned_from": source.fingerprint} | by_data,
        scores=tuple(row for row in source.info.scores if row["kind"] == "teacher"),
    )
    history = store.read_history(checkpoint)
    if recover:
        # The checkpoint's own task, so that labels mean what its head takes them for.
        training, validation = training_data(
            task or source.info.task, train_file, validation_file, text_column, label_column, label_means
        )
        if training.task.num_labels != source.info.task.num_labels:
            raise TrainingError(
                f"the recovery data have {training.task.num_labels} classes, the model does not."
            )
        config = TrainConfig.named(
            "retain" if teacher else "paper",
            shrp=ShrpConfig(()),
            stage2_epochs=recover,
            balance=0.0,
            learning_rate=learning_rate,
            new_learning_rate=new_learning_rate,
            epoch_size=epoch_size,
            max_length=max_length,
            freeze_embeddings=True,
            seed=seed,
        )
        model, recovered, more = train(
            config,
            model,
            info,
            source.tokenizer,
            training,
            validation,
            out,
            teacher=store.load(teacher).model if teacher else None,
            resume=resume,
            progress=TrainingBar(),
        )
        info = store.CheckpointInfo(
            **{**vars(recovered), "training": dict(info.training) | {"recovery": dict(recovered.training)}}
        )
        history = joined(history, more)
    extra = {store.HISTORY: history_text(history)} if history else {}
    dtype = None if full_precision else torch.float16
    store.save(model, source.tokenizer, info, out, dtype=dtype, extra_files=extra, teacher=source.teacher)
    if recover:
        finish(out)
    if json:
        print_json({"out": str(out), "experts_kept": chosen.budget, "plan": chosen.to_dict()})
    else:
        counts = ", ".join(f"{layer}: {count}" for layer, count in chosen.keep_counts().items())
        stderr.print(f"kept {chosen.budget} experts (layer: count) {counts}", highlight=False)
        stderr.print(f"wrote {out}", highlight=False)
