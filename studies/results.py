"""Write docs/results.md from kept measurements: `python -m studies.results`.

Scores come from the checkpoints themselves and from what `python -m studies.glue`, `size_check`, `ablation`,
`selection`, `routes` and `experiments` wrote to docs/data; speed from throughput.json and live.json there, which are
what `python -m studies.throughput --json` and `python -m studies.live --json` printed. What is not there is left
out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from shrp.checkpoints import card
from shrp.checkpoints.card_scores import score_sections
from shrp.checkpoints.checkpoint import Checkpoint, load
from shrp.checkpoints.folders import discover
from shrp.errors import CheckpointError, DataError
from shrp.files import write_text
from shrp.studies.studies import FILES, read_rows
from studies.command import run
from studies.experiment_section import experiments_section
from studies.route_section import routes_section
from studies.speed_section import live_section, throughput_section
from studies.study_section import ablation_section, glue_section, selection_section, size_section

ROOT = Path(__file__).parent.parent
HEAD = """# Results

Written by `python -m studies.results` from the studies' files in docs/data and from the scores that the checkpoints
carry (`python -m shrp train` measured them, or `python -m studies.glue --ship`). Intervals are 95% (Wilson for
accuracy, else the bootstrap of inputs) unless a row says that it is the range of several draws. "Of teacher" is the
score divided by the dense teacher's on the same data. Parameters and FLOPs are shares of the dense model's, of the
encoder's layers alone and of the whole model with embeddings and head, FLOPs at 128 tokens. A control "ties" where
the interval of SHRP's lead over it holds 0. Beside checkpoints that follows from both scores' intervals, the range of
random draws standing for one; random experts, and pruned heads and neurons, are compared with the static model of
the same size and recovery, the other controls with every SHRP model. Speed comes last.
"""
STUDIES: tuple[tuple[str, Callable[[Sequence[Mapping[str, Any]]], str]], ...] = (
    ("glue", glue_section),
    ("size", size_section),
    ("ablation", ablation_section),
    ("selection", selection_section),
    ("routes", routes_section),
)
SPEED: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("throughput", "rows", throughput_section),
    ("live", "checkpoints", live_section),
)
"""A command's file, the field of it that holds what was measured, and what writes the section."""


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = ROOT / "checkpoints",
    data: Annotated[Path, typer.Option(help="Folder of kept measurements.")] = FILES,
    out: Annotated[Path, typer.Option(help="File to write.")] = ROOT / "docs" / "results.md",
) -> None:
    """Write the results page.

    Raises:
        DataError: a folder is not there, or neither holds anything.
        CheckpointError: a checkpoint can't be read.
    """
    for folder, option in ((checkpoints, "--checkpoints"), (data, "--data")):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; name another with {option}.")
    studies = [write(rows) for name, write in STUDIES if (rows := read_rows(name, data))]
    parts = [HEAD, *studies, experiments_section(data)]
    for name, info in discover(checkpoints).items():
        if isinstance(info, CheckpointError):
            raise info
        parts.append(_section(name, load(checkpoints / name)))
    parts += [write(found) for name, field, write in SPEED if (found := _read(data, name, field))]
    if not any(parts[1:]):
        raise DataError(f"neither {data} nor {checkpoints} holds any results; name others.")
    write_text(out, "\n".join(parts))


def _read(folder: Path, name: str, field: str) -> dict[str, Any]:
    """What a command printed, with a list in `field`; empty where it has not been run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found[field], list):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path.name} is not of measured speed; write what python -m studies.{name} --json prints to it."
    )


def _section(name: str, loaded: Checkpoint) -> str:
    lines = [f"## {name}", "", f"{card.description(loaded.info)} {card.made(loaded)}", ""]
    lines += [f"- {text}" for text in card.collapsed(loaded.info)]
    return "\n".join([*lines, "", *score_sections(loaded)])


if __name__ == "__main__":
    run(main)
