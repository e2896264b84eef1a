"""What routes go by and are worth: `python -m studies.routes checkpoints/cola-6of12 checkpoints/mrpc-6of12 ...`.

On GLUE's validation data, for each routed layer: how much class, the model's own answer and length tell of the expert
that an input takes (`shrp.analysis.specialisation`), and what the score is once inputs exchange their routes there, then
in all layers together, in all among inputs that are answered alike, and with the mixture of all experts in place of
routes (`shrp.analysis.routes`). Exchanges of all layers are drawn several times. Nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from shrp.analysis.routes import ALIKE, ALL, MIXTURE, shuffle_routes
from shrp.analysis.specialisation import specialisation, specialisation_frame
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.cli.output import stderr
from shrp.data.batching import longest_input, token_counts
from shrp.data.sources import load_data
from shrp.errors import PlanError
from shrp.model.convert import router_layers
from shrp.studies.studies import FILES
from studies.checkpoint_rows import base_of, check_alone
from studies.command import run
from studies.table import Table

KEY = ("checkpoint", "layer")
OUT = FILES / "routes.json"
_PAIRS = {
    "interval": ("low", "high"),
    "matched_interval": ("matched_low", "matched_high"),
    "change_range": ("change_min", "change_max"),
    "matched_range": ("matched_min", "matched_max"),
    "flipped_range": ("flipped_min", "flipped_max"),
}
"""What a row has as a pair -> the columns of `ShuffledRoutes.frame`: 95% intervals, and the least and most of draws."""
_TOLD = ("explained", "ceiling", "p", "beyond_length", "p_beyond", "effective_experts")


def study(path: Path, table: Table, done: set[str]) -> None:
    """Add a checkpoint's rows.

    Args:
        done: names of checkpoints that this run has measured; its own is added.

    Raises:
        PlanError: it has no router, or the file has rows of another one of its name.
    """
    made = checkpoint.load(path)
    if not router_layers(made.model):
        raise PlanError(f"{path} has no routed layer, so there are no routes; name routed checkpoints.")
    task, cut = made.info.task, made.info.max_length
    data = load_data("glue", task.name)
    common = {
        "checkpoint": f"{task.name}-{len(router_layers(made.model))}of{made.model.config.num_hidden_layers}",
        "distilled": bool(made.info.training.get("config", {}).get("distill_hidden")),
        "metric": task.metric,
        "n": len(data),
        "routed": made.evaluate(data).score,
        "fingerprint": made.fingerprint,
    }
    check_alone(common, path, table, done)
    stats = measure_usage(made.model, made.tokenizer, data, max_length=cut)
    found = shuffle_routes(made.model, made.tokenizer, data, stats, max_length=cut)
    lengths = np.minimum(
        token_counts(made.tokenizer, data.texts), longest_input(made.model, made.tokenizer, cut)
    )
    told = specialisation_frame(specialisation(stats, data, lengths, found.before.predictions))
    lines = []
    for row in found.frame.to_dict("records"):
        groups = (
            told[told["layer"] == row["layer"]].to_dict("records") if row["layer"] in stats.layers else []
        )
        line = {name: row[name] for name in ("layer", "draws")}
        line |= {name: _ends(row, *ends) for name, ends in _PAIRS.items()}
        line |= {name: _number(row[name]) for name in ("moved", "score", "change", "flipped")}
        line |= {name: _number(row[name]) for name in ("matched", "matched_change")}
        line |= {"told": {one["by"]: {name: _number(one[name]) for name in _TOLD} for one in groups}}
        lines.append(common | line)
    table.add(*lines)
    score = {case: sum(one.score for one in of) / len(of) for case, of in found.after.items()}
    stderr.print(
        f"{common['checkpoint']}: {found.before.score:.4f}, exchanged {score[ALL]:.4f}, among inputs answered alike "
        f"{score[ALIKE]:.4f}, the mixture {score[MIXTURE]:.4f}"
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ends(row: Mapping[str, Any], low: str, high: str) -> list[float] | None:
    return [row[low], row[high]] if math.isfinite(row[low]) else None


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders of routed checkpoints of GLUE tasks.")],
    out: Annotated[Path, typer.Option(help="The file of results.")] = OUT,
) -> None:
    """Fill the file on routes."""
    table = Table(out, "python -m studies.routes", KEY, base=base_of(checkpoints))
    done: set[str] = set()
    for path in checkpoints:
        study(path, table, done)


if __name__ == "__main__":
    run(main)
