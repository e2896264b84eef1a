"""What routes go by and are worth: `python -m benchmarks.routes checkpoints/cola-6of12 checkpoints/mrpc-6of12 ...`.

On GLUE's validation data, for each routed layer: how much class, the model's own answer and length tell of the expert
that an input takes (`shrp.specialisation`), and what the score is once inputs exchange their routes there, then in all
layers together, and with the mixture of all experts in place of routes (`shrp.shuffled`). Nothing is trained.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import run
from benchmarks.table import Table
from shrp import checkpoint
from shrp.batching import token_counts
from shrp.cli.output import stderr
from shrp.convert import router_layers
from shrp.data import load_data
from shrp.errors import PlanError
from shrp.shuffled import ALL, MIXTURE, shuffle_routes
from shrp.specialisation import specialisation, specialisation_frame
from shrp.usage import measure_usage

KEY = ("checkpoint", "layer")
OUT = Path(__file__).parent.parent / "docs" / "data" / "routes.json"
_TOLD = ("explained", "ceiling", "p", "beyond_length", "p_beyond", "effective_experts")


def study(path: Path, table: Table, done: set[str]) -> None:
    """Add a checkpoint's rows.

    Args:
        done: names of checkpoints that this run has measured; its own is added.

    Raises:
        PlanError: it has no router, or one of its name was measured already.
    """
    made = checkpoint.load(path)
    if not router_layers(made.model):
        raise PlanError(f"{path} has no routed layer, so there are no routes; name routed checkpoints.")
    task, cut = made.info.task, made.info.max_length
    data = load_data("glue", task.name)
    stats = measure_usage(made.model, made.tokenizer, data, max_length=cut)
    found = shuffle_routes(made.model, made.tokenizer, data, stats, max_length=cut)
    lengths = token_counts(made.tokenizer, data.texts)
    told = specialisation_frame(specialisation(stats, data, lengths, found.before.predictions))
    common = {
        "checkpoint": f"{task.name}-{len(stats.layers)}of{made.model.config.num_hidden_layers}",
        "distilled": bool(made.info.training.get("config", {}).get("distill_hidden")),
        "metric": task.metric,
        "n": len(data),
        "routed": found.before.score,
    }
    if common["checkpoint"] in done:
        raise PlanError(
            f"{path} is another {common['checkpoint']}, and rows have one of a name; measure it alone."
        )
    done.add(common["checkpoint"])
    other = found.other_answer
    flips = None if other is None else found.after[ALL].predictions != found.before.predictions
    for row in found.frame.to_dict("records"):
        groups = (
            told[told["layer"] == row["layer"]].to_dict("records") if row["layer"] in stats.layers else []
        )
        line = {"layer": row["layer"], "interval": _ends(row["low"], row["high"])}
        line |= {"matched_interval": _ends(row["matched_low"], row["matched_high"])}
        line |= {name: _number(row[name]) for name in ("moved", "score", "change", "flipped")}
        line |= {name: _number(row[name]) for name in ("matched", "matched_change")}
        line |= {"told": {one["by"]: {name: _number(one[name]) for name in _TOLD} for one in groups}}
        if row["layer"] == ALL and flips is not None:
            line |= {"other_answer": int(other.sum()), "flipped_by_other": int((flips & other).sum())}
        table.add(common | line)
    stderr.print(
        f"{common['checkpoint']}: {found.before.score:.4f}, exchanged {found.after[ALL].score:.4f}, the mixture "
        f"{found.after[MIXTURE].score:.4f}",
        highlight=False,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ends(low: float, high: float) -> list[Any] | None:
    return [low, high] if math.isfinite(low) else None


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders of routed checkpoints of GLUE tasks.")],
    out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
) -> None:
    """Fill the file on routes."""
    table = Table(out, "python -m benchmarks.routes", KEY)
    done: set[str] = set()
    for path in checkpoints:
        study(path, table, done)


if __name__ == "__main__":
    run(main)
