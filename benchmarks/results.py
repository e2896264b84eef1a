"""Write docs/results.md from kept measurements: `python -m benchmarks.results`.

Scores come from the checkpoints themselves and from docs/data/glue.json, which `python -m benchmarks.glue` writes;
speed from docs/data/throughput.json and docs/data/live.json, which are what `python -m benchmarks.throughput --json`
and `python -m benchmarks.live --json` printed, where they are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.speed_section import live_section, throughput_section
from benchmarks.study_section import glue_section
from shrp.checkpoint import CheckpointInfo, discover, load
from shrp.errors import CheckpointError
from shrp.measure import cost, dense_cost, plan_cost
from shrp.plan import make_plan
from shrp.recipe import usage_in
from shrp.verdicts import score_frame, summary, verdicts

ROOT = Path(__file__).parent.parent
HEAD = """# Results

Written by `python -m benchmarks.results` from the scores that the checkpoints carry (`python -m shrp train` measured
them). Intervals are 95% (Wilson for accuracy) unless a row says that it is the range of several draws. "Of teacher" is
the score divided by the dense teacher's on the same data. Parameters and FLOPs are shares of the dense model's, of the
encoder's layers alone and of the whole model with embeddings and head, FLOPs at 128 tokens. A control "ties" where its
score lies within the interval of the SHRP model; random experts stand against the static model of the same size and
recovery, the other controls against every SHRP model. Speed comes last.
"""
SECTIONS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("glue.json", lambda result: glue_section(result["rows"])),
    ("throughput.json", throughput_section),
    ("live.json", live_section),
)


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = ROOT / "checkpoints",
    data: Annotated[Path, typer.Option(help="Folder of kept measurements.")] = ROOT / "docs" / "data",
    out: Annotated[Path, typer.Option(help="File to write.")] = ROOT / "docs" / "results.md",
) -> None:
    """Write the results page."""
    parts = [HEAD]
    for name, info in discover(checkpoints).items():
        if isinstance(info, CheckpointError):
            raise info
        parts.append(_section(name, info, checkpoints / name))
    for name, section in SECTIONS:
        if (data / name).is_file():
            parts.append(section(_read(data / name)))
    out.write_text("\n".join(parts), encoding="utf-8")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{path.name} is not JSON ({error}); measure again.") from error


def _section(name: str, info: CheckpointInfo, folder: Path) -> str:
    lines = [
        f"## {name}",
        "",
        f"Task {info.task.name}; base: {info.base_model}; converted layers: "
        f"{', '.join(map(str, info.config.layers))}; {info.config.routing} routing, Top-{info.config.top_k}. "
        f"{_trained(info.training)}",
        "",
    ]
    costs = _costs(info, folder)
    for data in dict.fromkeys(row["data"] for row in info.scores):
        rows = [row for row in info.scores if row["data"] == data]
        lines += [f"### On {data} (n = {rows[0]['n']})", "", _verdict(rows), "", *_table(rows, costs), ""]
    return "\n".join(lines)


def _trained(training: Mapping[str, Any]) -> str:
    """On what and how a checkpoint was trained, in a sentence."""
    examples, config = training.get("train_examples"), training.get("config", {})
    if examples is None:
        return "Nothing was stored about its training."
    return (
        f"Trained on {training.get('train_data')} ({examples:,} examples, "
        f"{config.get('epoch_size') or 'all'} an epoch, {training.get('epochs')} epochs, seed {config.get('seed')}), "
        f"validated on {training.get('validation_data')}; one seed, so differences within the intervals mean nothing."
    )


def _costs(info: CheckpointInfo, folder: Path) -> dict[Any, dict[str, float]]:
    """Shares kept, by experts a layer (None: the routed model)."""
    if info.plan is not None or not info.usage:
        return {}
    model = load(folder).model
    dense = dense_cost(model)
    shares: dict[Any, dict[str, float]] = {None: cost(model).relative_to(dense)}
    for m in {row.get("per_layer") for row in info.scores} - {None}:
        shares[m] = plan_cost(model, make_plan(usage_in(info), per_layer=m)).relative_to(dense)
    return shares


def _table(rows: list[dict[str, Any]], costs: dict[Any, dict[str, float]]) -> list[str]:
    metric = rows[0]["metric"]
    lines = [
        f"| model | {metric} | interval | of teacher | encoder parameters | model parameters | encoder FLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        note = "" if row["interval_is"] == "95%" else f" ({row['interval_is']})"
        share = costs.get(row.get("per_layer")) if row["kind"] != "teacher" and "epochs" not in row else None
        kept = [
            f"{share[k]:.1%}" if share else "" for k in ("encoder_params", "model_params", "encoder_flops")
        ]
        label = f"control: {row['model']}" if row["kind"] == "control" else row["model"]
        retained = f"{row['retained']:.1%}" if "retained" in row else ""
        cells = [label, f"{row['score']:.4f}", f"{low:.4f} to {high:.4f}{note}", retained, *kept]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Which controls tie with or beat the SHRP models that they are controls of, in words."""
    found = verdicts(score_frame(rows), lambda score, _metric: f"{score:.4f}")
    close = [f"- {verdict.text}" for verdict in found if verdict.outcome != "trails"]
    return "\n".join([summary(found), *([""] if close else []), *close])


if __name__ == "__main__":
    typer.run(main)
