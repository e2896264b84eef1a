"""`export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.options import PLAN_HELP, AsJson, check_has_task, numbers_of, plan_file
from shrp.cli.output import example, print_json, stderr
from shrp.errors import PlanError


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="ONNX, to serve without torch; int8 too",
        epilog=example(
            "export checkpoints/sst2-6of12 --per-layer 2 --out exported",
            "Writes model.onnx, the tokenizer and config.json, and prints how far its logits are from PyTorch's; "
            "`evaluate exported` scores it.",
        ),
    )(export)


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A static or dense checkpoint, or a routed one with a plan.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the export: new, empty, or an earlier export.")],
    per_layer: Annotated[int | None, typer.Option(help="Experts kept in every converted layer (m).")] = None,
    budget: Annotated[
        int | None, typer.Option(help="Experts kept in all converted layers together (M).")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help=PLAN_HELP)] = None,
    shift: Annotated[
        str | None,
        typer.Option(
            help='Numbers to add to the output bias, one a class: "0.3,-0.3", say (`prune --match-shares` finds some).'
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and their products in int8: smaller and faster.")
    ] = False,
    check: Annotated[bool, typer.Option(help="Compare the graph with PyTorch, on many batches.")] = True,
    json: AsJson = False,
) -> None:
    """Export a model to ONNX: a folder that onnxruntime and tokenizers serve without torch."""
    from shrp.export.onnx import check_free, export_folder

    check_free(out)  # before the work, not after it
    numbers = None if shift is None else numbers_of(shift)
    model, tokenizer, info, fingerprint = _model(checkpoint, per_layer, budget, plan)
    check_has_task(info.task)
    if numbers is not None and len(numbers) != info.task.num_labels:
        names = ", ".join(info.task.label_names) or "the number"
        raise PlanError(f"--shift takes {info.task.num_labels} numbers ({names}), not {len(numbers)}.")
    if not json:
        stderr.print("tracing the model, which takes up to a minute …")
    report = export_folder(
        model, tokenizer, info, out, made_from=fingerprint, shift=numbers, int8=int8, check=check
    )
    if json:
        print_json(report.to_dict() | {"out": str(out), "made_from": fingerprint})
        return
    stderr.print(f"wrote {out}: {report.path.name} of {report.bytes / 1e6:.1f} MB")
    if report.int8:
        total = report.int8_products + report.products
        stderr.print(f"{report.int8_products} of {total} products with weights run in int8")
    if not report.checked:
        return
    stderr.print(
        f"logits differ from PyTorch's float32 by at most {report.max_difference:.2g} on {report.checked} inputs"
    )
    if report.int8 and report.label_agreement is not None:
        same = round(report.label_agreement * report.sentences)
        stderr.print(
            f"same label on {same} of {report.sentences} inputs of {report.compared_on}; `python -m shrp compare` of a "
            "checkpoint and its export says what the score loses, paired"
        )
    if report.speedup is not None:
        word = "" if report.speedup > 1.05 else ", so int8 is no gain on this machine"
        stderr.print(f"{report.speedup:.2f} times as fast as the float32 graph{word}")


def _model(folder: Path, per_layer: int | None, budget: int | None, plan: Path | None):
    """Model, tokenizer, info and the source's fingerprint, pruned where a plan is given."""
    from dataclasses import replace

    import shrp.checkpoints.checkpoint as store
    from shrp.checkpoints.info import usage_in
    from shrp.errors import ExportError
    from shrp.model.convert import expert_layers, router_layers
    from shrp.pruning.plan import make_plan
    from shrp.pruning.prune import prune

    given = sum(option is not None for option in (budget, per_layer, plan))
    if given > 1:
        raise PlanError("give one of --per-layer, --budget and --plan, not several.")
    source = store.load(folder)
    routed = bool(router_layers(source.model)) or (plan is not None and bool(expert_layers(source.model)))
    if routed and not given:
        raise ExportError(
            f"{folder} still routes, and live routing has no ONNX form; say which experts to keep with --per-layer, "
            "--budget or --plan."
        )
    if not routed and given:
        raise PlanError(f"{folder} has no routers left to prune by; export it without a plan.")
    if not routed:
        return source.model, source.tokenizer, source.info, source.fingerprint
    if plan is not None:
        chosen = plan_file(plan)
    elif not source.info.usage:
        raise PlanError(
            f"{folder} carries no usage to choose experts by; give a plan of your own with --plan."
        )
    else:
        chosen = make_plan(usage_in(source.info), per_layer=per_layer, budget=budget)
    info = replace(source.info, plan=chosen)
    return prune(source.model, chosen, share_weights=True), source.tokenizer, info, source.fingerprint
