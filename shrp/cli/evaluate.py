"""`evaluate`: score, calibration, costs and latency of one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.options import (
    AsJson,
    DataSource,
    Device,
    LabelColumn,
    LabelMeanings,
    MaxLength,
    OnlySlices,
    OwnFile,
    Scored,
    SliceColumn,
    TextColumns,
    check_free,
    check_has_task,
    evaluation_data,
)
from shrp.cli.output import (
    interval_text,
    print_json,
    print_table,
    progress_on,
    records,
    share_text,
    stderr,
    stdout,
    write_csv,
)
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from shrp.cli.subjects import Subject
    from shrp.evaluation.evaluation import Evaluation


def evaluate(
    checkpoint: Scored,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    slice_column: SliceColumn = None,
    only: OnlySlices = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every prediction to this CSV file.")] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Also parameters and FLOPs compared with the dense model.")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also time batches of 8 against the dense architecture.")
    ] = False,
    max_length: MaxLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Score a checkpoint, or an ONNX export as it is served, with a 95% interval, by slice too."""
    from shrp.checkpoints.score_rows import share_ends, share_of
    from shrp.cli.subjects import subject

    check_free(predictions, "--predictions")
    scored = subject(checkpoint, max_length, device)
    check_has_task(scored.task)
    source = evaluation_data(
        data, scored.task, OwnFile(text_column, label_column, label_means, slice_column, only)
    )
    if source.labels is None and predictions is None:
        raise DataError(
            f"{source.name} has no label column '{label_column}': name it with --label-column, or give --predictions."
        )
    with progress_on("evaluating", len(source)) as show:
        for result in scored.stream(source):
            show(result.n, description=f"evaluating, {result.metric} {result.score:.4f}")
    scored.report_cut(source)
    if predictions is not None:
        frame = result.to_frame(source.texts)
        write_csv(frame.assign(index=source.number_of(frame["index"].to_numpy())), predictions)
        if not json:
            stderr.print(f"wrote {predictions}")
    teacher = scored.teacher(source)
    summary = result.to_dict() | {
        "teacher": teacher,
        "retained": share_of(result.score, teacher),
        "retained_interval": share_ends(result.interval, teacher),
        "constant": result.constant,
        "interval_is": "95%, Wilson" if result.metric == "accuracy" else "95%, bootstrap",
        "slices": records(result.by_slice()),
        "calibration": _calibration(result),
        "costs": _costs(scored) if costs else None,
        "latency": _latency(scored) if latency else None,
        "provenance": scored.provenance(source),
    }
    if json:
        print_json(summary)
    else:
        _print(summary, result, source.labels is not None, str(checkpoint))


def _print(summary: dict[str, Any], result: Evaluation, labelled: bool, name: str) -> None:
    if labelled:
        line = {
            "data": result.data,
            "metric": result.metric,
            "score": result.score,
            "95% CI": interval_text({"interval": result.ends()}) or None,
            "n": result.n,
            "majority class": result.constant,
            "teacher": summary["teacher"],
            "of teacher": share_text(summary),
        }
        print_table(name, [line])
        if result.score <= result.constant:
            stdout.print(f"not above the majority-class baseline ({result.constant:.4f})")
        if (found := summary["calibration"]) is not None:
            ends = interval_text({"interval": found["ece_interval"]}) or None
            print_table("calibration", [{"ECE": found["ece"], "95% CI": ends, "Brier": found["brier"]}])
        print_table("by slice", [row | {"interval": interval_text(row) or None} for row in summary["slices"]])
    else:
        stderr.print(f"{result.data} has no labels, so there is no score")
    if summary["costs"]:
        print_table(
            "compared with the dense architecture",
            [{"quantity": quantity} | row for quantity, row in summary["costs"].items()],
        )
    if summary["latency"]:
        told = summary["latency"]
        print_table(
            f"latency of a batch of {told['batch']} x {told['tokens']} tokens in ms, {told['threads']} threads",
            told["rows"],
        )


def _calibration(result: Evaluation) -> dict[str, Any] | None:
    """Calibration errors of a classifier's probabilities; None for regression or without labels."""
    from shrp.evaluation.calibration import brier, ece

    if result.labels is None or result.task.is_regression:
        return None
    found = ece(result)
    return {"ece": found.value, "ece_interval": found.interval, "brier": brier(result)}


def _costs(scored: Subject) -> dict[str, dict[str, Any]]:
    """Parameters and FLOPs of the model and of its dense architecture."""
    from shrp.cli.subjects import OfCheckpoint
    from shrp.evaluation.costs import cost, dense_cost

    if not isinstance(scored, OfCheckpoint):
        raise DataError("--costs needs a checkpoint; give the one that the export was made from.")
    model = scored.checkpoint.model
    ours, dense = cost(model), dense_cost(model)
    kept = ours.relative_to(dense)
    names = ("encoder_params", "model_params", "encoder_flops", "model_flops")
    return {
        name: {"model": getattr(ours, name), "dense": getattr(dense, name), "share": kept[name]}
        for name in names
    }


def _latency(scored: Subject) -> dict[str, Any]:
    """Median latency of the model and of its dense architecture, timed in turns."""
    import torch

    from shrp.cli.subjects import OfCheckpoint
    from shrp.evaluation.timing import dense_like, latency, model_inputs
    from shrp.families.families import positions

    if not isinstance(scored, OfCheckpoint):
        raise DataError("--latency needs a checkpoint; give the one that the export was made from.")
    model = scored.checkpoint.model
    batch, tokens = 8, min(128, positions(model.config))
    inputs, dense = model_inputs(model, batch, tokens), dense_like(model)
    # Copied to the CPU: a GPU's calls return before their work is done.
    runs = {
        "dense": lambda: dense(**inputs).logits.cpu(),
        "checkpoint": lambda: model(**inputs).logits.cpu(),
    }
    frame = latency(runs)
    frame["speedup"] = frame["median_ms"].iloc[0] / frame["median_ms"]
    how = {"batch": batch, "tokens": tokens, "threads": torch.get_num_threads()}
    return how | {"rows": frame.to_dict("records")}
