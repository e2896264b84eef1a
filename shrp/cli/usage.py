"""`usage`: which experts the routers choose."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from shrp.cli.options import AsJson, Data, Routed, report_cut
from shrp.cli.output import print_json, print_table, progress_on, stderr
from shrp.errors import DataError


def usage(
    checkpoint: Routed,
    *,
    data: Data,
    by: Annotated[str | None, Option(help="Also by class, answer, outcome, slice or length.")] = None,
    drivers: Annotated[bool, Option("--drivers", help="Also what drives routing.")] = False,
    json: AsJson = False,
) -> None:
    """Count which experts the routers choose: shares, entropy, margins, warnings."""
    import numpy as np

    from shrp.analysis.specialisation import specialisation, specialisation_frame
    from shrp.analysis.usage import measure_usage
    from shrp.cli.subjects import opened, provenance, tokens_read
    from shrp.data.slices import groups_by, lacking
    from shrp.evaluation.evaluate import label_columns, summarise

    loaded, source, length = opened(checkpoint, data, task=False)
    if by is not None and (why := lacking(by, source)):
        raise DataError(why)
    of = (loaded.model, loaded.tokenizer, source)
    with progress_on("routing", len(source)) as show:
        stats = measure_usage(*of, max_length=length, progress=show)
    report_cut(loaded.model.config, loaded.tokenizer, source, length)
    outputs = stats.logits[..., label_columns(loaded.model, source.task)]
    answers = summarise(source, np.arange(len(source)), outputs, False).predictions
    read = tokens_read(loaded, source, length)
    result: dict[str, Any] = {
        "task": loaded.info.task.name,
        "data": stats.data,
        "n": stats.n,
        "unit": stats.unit,
        "layers": stats.summary().to_dict("records"),
        "experts": stats.to_frame().to_dict("records"),
        "warnings": [vars(warning) for warning in stats.warnings()],
        "too_few": stats.too_few,
    }
    if by is not None:
        groups = groups_by(by, source, answers, read).items()
        result["by"] = {name: {"n": int(rows.sum()), "shares": stats.shares(rows)} for name, rows in groups}
    if drivers:
        with progress_on("permutation test") as show:
            found = specialisation(stats, source, read, answers, progress=show)
        result["drivers"] = specialisation_frame(found).to_dict("records") if found else []
    if json:
        print_json(result | {"provenance": provenance(loaded, source, length)})
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    print_table(f"{result['data']}: n = {result['n']:,}, counted in {result['unit']}", result["layers"])
    for name, group in result.get("by", {}).items():
        shares = [{f"e{e}": f"{value:.0%}" for e, value in enumerate(row)} for row in group["shares"].values()]
        rows = [{"layer": layer} | row for layer, row in zip(group["shares"], shares, strict=True)]
        print_table(f"Top-1 share, {name}, n = {group['n']:,}", rows)
    print_table(
        "what drives routing: share of the choice that a grouping explains beyond chance, and beyond length",
        result.get("drivers", []),
        ("by", "layer", "explained", "q", "beyond_length", "q_beyond"),
    )
    if result["too_few"]:
        stderr.print(
            f"{result['n']} examples are too few for warnings; at least {result['too_few']} are needed"
        )
    for warning in result["warnings"]:
        stderr.print(f"{warning['kind']}: {warning['text']}")
