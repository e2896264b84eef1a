"""`evaluate`: score, calibration and costs of one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from shrp.cli.options import AsJson, Data, check_free
from shrp.cli.output import print_json, print_table, records, stderr, stdout, write_csv
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from transformers import PreTrainedModel

    from shrp.evaluation.evaluation import Evaluation


def evaluate(
    checkpoint: Annotated[Path, Argument(help="A checkpoint or an ONNX export.", show_default=False)],
    *,
    data: Data,
    predictions: Annotated[Path | None, Option(help="Write every prediction to this CSV file.")] = None,
    costs: Annotated[
        bool, Option("--costs", help="Also parameters and FLOPs, and the dense model's.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Score a checkpoint, or an ONNX export as it is served, with a 95% interval, by slice too."""
    from shrp.checkpoints.score_rows import share_of
    from shrp.cli.subjects import subject

    check_free(predictions, "--predictions")
    scored = subject(checkpoint, data)
    if scored.export and costs:
        raise DataError("--costs needs a checkpoint; give the one that the export was made from.")
    source = data.load(scored.info.task)
    if source.labels is None and predictions is None:
        raise DataError(
            f"{source.name} has no label column '{data.label_column}': name it with --label-column, or give --predictions."
        )
    result = scored.evaluate(source)
    scored.report_cut(source)
    write_csv(result.to_frame(source.texts), predictions)
    teacher = scored.teacher(source)
    summary = result.to_dict() | {
        "teacher": teacher,
        "retained": share_of(result.score, teacher),
        "retained_interval": [share_of(end, teacher) for end in result.interval],
        "constant": result.majority_score,
        "interval_is": "95%, Wilson" if result.task.counts_examples else "95%, bootstrap",
        "slices": records(result.by_slice()),
        "calibration": _calibration(result),
        "costs": _costs(scored.checkpoint.model) if costs else None,
        "provenance": scored.provenance(source),
    }
    if json:
        print_json(summary)
        return
    if source.labels is None:
        stderr.print(f"{source.name} has no labels, so there is no score")
    else:
        others = {name: value for name, value in result.metrics.items() if name != result.metric and result.task.on_tokens}
        shown = ("data", "metric", "score", *others, "n", "constant", "teacher", "retained")
        print_table(f"{checkpoint} (constant: majority-class baseline)", [summary | others], shown)
        if result.score <= result.majority_score:
            stdout.print(f"not above the majority-class baseline ({result.majority_score:.4f})")
        print_table("calibration", [summary["calibration"]] if summary["calibration"] else [])
        print_table("by slice", summary["slices"])
    found = [{"quantity": quantity} | row for quantity, row in (summary["costs"] or {}).items()]
    print_table("compared with the dense architecture", found)


def _calibration(result: Evaluation) -> dict[str, Any] | None:
    """Calibration errors of a classifier's probabilities; None for regression, words, spans, or without labels."""
    from shrp.evaluation.calibration import brier, ece

    if result.labels is None or not result.task.classifies_texts:
        return None
    found = ece(result)
    return {"ece": found.value, "ece_interval": found.interval, "brier": brier(result)}


def _costs(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """Parameters and FLOPs of the model and of its dense architecture."""
    from shrp.evaluation.costs import cost, dense_cost

    ours, dense = cost(model), dense_cost(model)
    return {
        name: {"model": getattr(ours, name), "dense": getattr(dense, name), "share": share}
        for name, share in ours.relative_to(dense).items()
    }
