"""`export`: ONNX, to serve a model without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from typer import Option

from shrp.cli import options as opt
from shrp.cli.output import print_json, print_table, stderr
from shrp.errors import DataError, ExportError, PlanError


@dataclass(frozen=True)
class Measured(opt.Examples):
    """The data that an export is scored and timed on, if any."""

    data: Annotated[
        str | None, Option(help="Score and time the export on `probe`, `glue`, or a file of your own.")
    ] = None


def export(
    checkpoint: opt.Loaded,
    out: Annotated[Path, Option(help="Folder of the export.")],
    *,
    per_layer: opt.PerLayer = None,
    budget: opt.Budget = None,
    plan: opt.PlanFile = None,
    int8: Annotated[bool, Option("--int8", help="int8 weights: smaller, often faster.")] = False,
    on: Measured,
    beside: Annotated[
        list[Path] | None, Option(help="A model to measure next to it, such as the dense one; repeat.")
    ] = None,
    json: opt.AsJson = False,
) -> None:
    """Export a static or dense checkpoint to ONNX; a routed one with the experts to keep.

    The folder (model.onnx, tokenizer, config.json, predict.py) is served by onnxruntime and tokenizers alone. With --data
    it is scored and timed: single texts (p50 and p95), and batches of 32.
    """
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.info import usage_in
    from shrp.checkpoints.saving import put_in_place
    from shrp.cli.subjects import served, subject
    from shrp.export.onnx import MODEL, check_free, export_folder
    from shrp.model.convert import expert_layers
    from shrp.pruning.plan import make_plan
    from shrp.pruning.prune import prune

    given = sum(option is not None for option in (budget, per_layer, plan))
    if given > 1:
        raise PlanError("give one of --per-layer, --budget and --plan.")
    if on.data is None:
        on.refuse("describes the examples to measure on; give --data.")
        if beside:
            raise DataError("--beside needs examples to measure on; give --data.")
    check_free(out)  # refuse before the work
    source = load(checkpoint)
    opt.check_has_task(source.info.task)
    model, info, size = source.model, source.info, {"per_layer": per_layer, "budget": budget}
    if expert_layers(model):
        if not given:
            raise ExportError(
                "live routing has no ONNX form: say what to keep (--per-layer, --budget or --plan)."
            )
        chosen = make_plan(usage_in(info), **size) if plan is None else opt.read_plan(plan)
        model, info = prune(model, chosen, share_weights=True), replace(info, plan=chosen)
    elif given:
        raise PlanError(f"{checkpoint} has no routers left to prune; export it without a plan.")
    data = None if on.data is None else on.load(info.task)
    others = {str(folder): subject(folder, opt.Data()) for folder in beside or ()}
    for name, other in others.items():
        data.check_is_for(other.info.task, name)
    stderr.print("exporting and checking ...")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        how = {"int8": int8, "made_from": source.fingerprint, "data": data}
        report = export_folder(model, source.tokenizer, info, made, **how) | {"path": str(out / MODEL)}
        measured = {} if data is None else served({str(out): subject(made, opt.Data()), **others}, data)
        check_free(out)  # something may have been put there since
        put_in_place(made, out)  # last, so that an interrupted export leaves nothing
    if json:
        own = measured.pop(str(out), {"mb": report["bytes"] / 1e6})
        rows = [{"model": name} | row for name, row in measured.items()]
        about = {"out": str(out), "made_from": source.fingerprint, "beside": rows}
        print_json(report | about | own)
        return
    stderr.print(f"wrote {out}: {MODEL} of {report['bytes'] / 1e6:.1f} MB")
    difference, checked = report["max_difference"], report["checked"]
    stderr.print(f"logits differ from PyTorch's float32 by at most {difference:.2g} on {checked} examples")
    if (agreement := report["label_agreement"]) is not None:
        stderr.print(f"same label on {agreement:.1%} of {report['sentences']} of {report['compared_on']}")
    rows = [{"model": name} | row for name, row in measured.items()]
    print_table("as served (p50 and p95: single texts; texts/s: batches of 32)", rows)
