"""Does it matter which route an example takes? `python -m studies.routes checkpoints/sst2-6of12 ...`.

Scores routed checkpoints on GLUE's validation data with the examples' routes permuted in all layers, permuted among
examples with the same prediction, and with a mixture of all experts in place of routes. Nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.analysis.routes import shuffle_routes
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.cli.output import progress_on, records, stderr
from shrp.data.sources import load_data
from shrp.errors import PlanError
from shrp.model.convert import expert_layers
from studies.rows import DATA, Rows, run

FIELDS = ("layer", "draws", "score", "change", "change_interval", "matched_change", "matched_interval")
FIELDS += ("moved", "flipped")


def study(path: Path, rows: Rows) -> None:
    """Add the rows of one checkpoint; raise `PlanError` if it has no routed layer."""
    made = checkpoint.load(path)
    if not expert_layers(made.model):
        raise PlanError(f"{path} has no routed layer; name routed checkpoints.")
    data = load_data("glue", made.info.task.name)
    options = {"max_length": made.info.max_length}
    stats = measure_usage(made.model, made.tokenizer, data, **options)
    with progress_on(f"permuting routes of {path.name}") as show:
        found = shuffle_routes(made.model, made.tokenizer, data, stats, progress=show, **options)
    about = {
        "checkpoint": f"{made.info.task.name}-{len(stats.layers)}of{made.model.config.num_hidden_layers}",
        "metric": made.info.task.metric,
        "n": len(data),
        "routed": found.before.score,
    }
    for row in records(found.frame, "change"):
        if row["layer"] not in stats.layers:
            rows.add(about | {name: row.get(name) for name in FIELDS})
            stderr.print(f"{about['checkpoint']}, {row['layer']}: {row['score']:.4f} ({row['change']:+.4f})")


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders of routed checkpoints of GLUE tasks.")],
    out: Annotated[Path, typer.Option(help="File of rows.")] = DATA / "routes.json",
) -> None:
    """Score checkpoints with their routes permuted."""
    rows = Rows(out, ("checkpoint", "layer"))
    for path in checkpoints:
        study(path, rows)


if __name__ == "__main__":
    run(main)
