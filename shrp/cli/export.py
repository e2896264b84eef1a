"""`export`: ONNX, to serve a model without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option

from shrp.cli.options import AsJson, Budget, PerLayer, PlanFile, Scored, check_has_task, read_plan
from shrp.cli.output import print_json, stderr
from shrp.errors import ExportError, PlanError


def export(
    checkpoint: Scored,
    out: Annotated[Path, Option(help="Folder of the export.")],
    per_layer: PerLayer = None,
    budget: Budget = None,
    plan: PlanFile = None,
    int8: Annotated[bool, Option("--int8", help="int8 weights: smaller, often faster.")] = False,
    check: Annotated[bool, Option(help="Compare the graph's logits with PyTorch's.")] = True,
    json: AsJson = False,
) -> None:
    """Export a static or dense checkpoint to ONNX; a routed one with the experts to keep.

    The folder (model.onnx, tokenizer, config.json) is served by onnxruntime and tokenizers alone.
    """
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.info import usage_in
    from shrp.export.onnx import check_free, export_folder
    from shrp.model.convert import expert_layers
    from shrp.pruning.plan import make_plan
    from shrp.pruning.prune import prune

    given = sum(option is not None for option in (budget, per_layer, plan))
    if given > 1:
        raise PlanError("give one of --per-layer, --budget and --plan.")
    check_free(out)  # refuse before the work
    source = load(checkpoint)
    check_has_task(source.info.task)
    model, info, size = source.model, source.info, {"per_layer": per_layer, "budget": budget}
    if expert_layers(model):
        if not given:
            raise ExportError(
                "live routing has no ONNX form: say what to keep (--per-layer, --budget or --plan)."
            )
        chosen = make_plan(usage_in(info), **size) if plan is None else read_plan(plan)
        model, info = prune(model, chosen, share_weights=True), replace(info, plan=chosen)
    elif given:
        raise PlanError(f"{checkpoint} has no routers left to prune; export it without a plan.")
    stderr.print("exporting and checking ..." if check else "exporting ...")
    report = export_folder(
        model, source.tokenizer, info, out, int8=int8, check=check, made_from=source.fingerprint
    )
    if json:
        print_json(report.to_dict() | {"out": str(out), "made_from": source.fingerprint})
        return
    stderr.print(f"wrote {out}: {report.path.name} of {report.bytes / 1e6:.1f} MB")
    if not report.checked:
        return
    stderr.print(
        f"logits differ from PyTorch's float32 by at most {report.max_difference:.2g} on {report.checked} examples"
    )
    if report.int8 and report.label_agreement is not None:
        stderr.print(
            f"same label on {report.label_agreement:.1%} of {report.sentences} examples of {report.compared_on}"
        )
    if report.speedup is not None:
        stderr.print(f"{report.speedup:.2f} times as fast as the float32 graph")
