"""Write docs/results.md from kept measurements: `python -m benchmarks.results`.

Scores come from the checkpoints themselves and from what `python -m benchmarks.glue`, `size_check`, `ablation` and
`experiments` wrote to docs/data; speed from throughput.json and live.json there, which are what
`python -m benchmarks.throughput --json` and `python -m benchmarks.live --json` printed. What is not there is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import run
from benchmarks.experiment_section import experiments_section
from benchmarks.speed_section import live_section, throughput_section
from benchmarks.study_section import ablation_section, glue_section, size_section
from shrp import card
from shrp.checkpoint import Checkpoint, discover, load
from shrp.errors import CheckpointError

ROOT = Path(__file__).parent.parent
HEAD = """# Results

Written by `python -m benchmarks.results` from the studies' files in docs/data and from the scores that the checkpoints
carry (`python -m shrp train` measured them, or `python -m benchmarks.glue --ship`). Intervals are 95% (Wilson for
accuracy, else the bootstrap of inputs) unless a row says that it is the range of several draws. "Of teacher" is the
score divided by the dense teacher's on the same data. Parameters and FLOPs are shares of the dense model's, of the
encoder's layers alone and of the whole model with embeddings and head, FLOPs at 128 tokens. A control "ties" where its
score lies within the interval of the SHRP model; random experts stand against the static model of the same size and
recovery, the other controls against every SHRP model. Speed comes last.
"""
Sections = tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...]
STUDIES: Sections = (
    ("glue.json", lambda result: glue_section(result["rows"])),
    ("size.json", lambda result: size_section(result["rows"])),
    ("ablation.json", lambda result: ablation_section(result["rows"])),
)
SPEED: Sections = (
    ("throughput.json", throughput_section),
    ("live.json", live_section),
)


def main(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = ROOT / "checkpoints",
    data: Annotated[Path, typer.Option(help="Folder of kept measurements.")] = ROOT / "docs" / "data",
    out: Annotated[Path, typer.Option(help="File to write.")] = ROOT / "docs" / "results.md",
) -> None:
    """Write the results page."""
    parts = [HEAD, *_sections(STUDIES, data), experiments_section(data)]
    for name, info in discover(checkpoints).items():
        if isinstance(info, CheckpointError):
            raise info
        parts.append(_section(name, load(checkpoints / name)))
    parts += _sections(SPEED, data)
    out.write_text("\n".join(parts), encoding="utf-8")


def _sections(sections: Sections, data: Path) -> list[str]:
    """The sections whose files are there."""
    return [write(_read(data / name)) for name, write in sections if (data / name).is_file()]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{path.name} is not JSON ({error}); measure again.") from error


def _section(name: str, loaded: Checkpoint) -> str:
    lines = [f"## {name}", "", f"{card.description(loaded.info)} {card.made(loaded)}", ""]
    lines += [f"- {text}" for text in card.collapsed(loaded.info)]
    return "\n".join([*lines, "", *card.score_sections(loaded)])


if __name__ == "__main__":
    run(main)
