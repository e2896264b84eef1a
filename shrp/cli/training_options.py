"""Options that the commands which train share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Base = Annotated[str, typer.Option("--base", help="A hub id (bert-base-uncased) or a folder with a model.")]
BaseName = Annotated[
    str | None, typer.Option(help="What the checkpoint should call the base; a folder's own name by default.")
]
HeadLabels = Annotated[
    str | None,
    typer.Option(
        help="What the outputs of the base's own head stand for, in their order, such as neg,pos: needed where its "
        "config does not say it in the data's own names (of a regression: number). Its head is then taken as it is.",
    ),
]
TaskName = Annotated[
    str | None, typer.Option(help="What to call the task of your own files; else as the file.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the resulting checkpoint.")]
GlueTask = Annotated[str | None, typer.Option("--task", help="GLUE task; or give your own files.")]
TrainFile = Annotated[Path | None, typer.Option(help="Your own training data: CSV, TSV, JSONL or Parquet.")]
ValidationFile = Annotated[Path | None, typer.Option(help="Your own validation data.")]
EpochSize = Annotated[int | None, typer.Option(help="At most so many examples an epoch.")]
BatchSize = Annotated[int, typer.Option(help="Examples a step.")]
MaxLength = Annotated[int, typer.Option(min=4, help="Longest input, in tokens.")]
Freeze = Annotated[bool, typer.Option(help="Leave the embeddings as they are.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is random.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch of a killed run.")]
