"""Write docs/results.md from what the checkpoints say of themselves: `python -m benchmarks.results`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoint import CheckpointInfo, discover, load
from shrp.errors import CheckpointError
from shrp.measure import cost, dense_cost, plan_cost
from shrp.plan import make_plan
from shrp.recipe import usage_in

ROOT = Path(__file__).parent.parent
HEAD = """# Results

Written by `python -m benchmarks.results` from the scores that the checkpoints carry (`python -m shrp train` measured
them). Intervals are 95% (Wilson for accuracy) unless a row says that it is the range of several draws. "Of teacher" is
the score divided by the dense teacher's on the same data. Parameters and FLOPs are shares of the dense model's, of the
encoder's layers alone and of the whole model with embeddings and head, FLOPs at 128 tokens.
"""


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = ROOT / "checkpoints",
    out: Annotated[Path, typer.Option(help="File to write.")] = ROOT / "docs" / "results.md",
) -> None:
    """Write the results page."""
    parts = [HEAD]
    for name, info in discover(checkpoints).items():
        if isinstance(info, CheckpointError):
            raise info
        parts.append(_section(name, info, checkpoints / name))
    out.write_text("\n".join(parts), encoding="utf-8")


def _section(name: str, info: CheckpointInfo, folder: Path) -> str:
    config = info.training.get("config", {})
    lines = [
        f"## {name}",
        "",
        f"Task {info.task.name}; base: {info.base_model}; converted layers: "
        f"{', '.join(map(str, info.config.layers))}; {info.config.routing} routing, Top-{info.config.top_k}. "
        f"Trained on {info.training.get('train_data')} ({info.training.get('train_examples'):,} examples, "
        f"{config.get('epoch_size') or 'all'} an epoch, {info.training.get('epochs')} epochs, "
        f"seed {config.get('seed')}), validated on {info.training.get('validation_data')}; "
        "one seed, so differences within the intervals mean nothing.",
        "",
    ]
    costs = _costs(info, folder)
    for data in dict.fromkeys(row["data"] for row in info.scores):
        rows = [row for row in info.scores if row["data"] == data]
        lines += [f"### On {data} (n = {rows[0]['n']})", "", _verdict(rows), "", *_table(rows, costs), ""]
    return "\n".join(lines)


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
    """Say in words which controls tie with or beat the SHRP figure that they stand beside."""
    ours = [row for row in rows if row["kind"] in ("routed", "static")]
    told = []
    for control in (row for row in rows if row["kind"] == "control"):
        peers = [
            row
            for row in ours
            if row.get("per_layer") == control.get("per_layer")
            and bool(row.get("recovered")) == bool(control.get("recovered"))
        ]
        for peer in peers:
            if control["score"] >= peer["interval"][0]:
                word = "beats" if control["score"] > peer["score"] else "ties with"
                told.append(
                    f'the control "{control["model"]}" ({control["score"]:.4f}) {word} '
                    f'"{peer["model"]}" ({peer["score"]:.4f})'
                )
    if not told:
        return "No control comes within the interval of the SHRP figure that it stands beside."
    return "Controls that are not behind: " + "; ".join(told) + "."


if __name__ == "__main__":
    typer.run(main)
