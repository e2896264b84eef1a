"""`reference`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.data_options import (
    LabelColumn,
    LabelMeanings,
    OwnFile,
    SkipIncomplete,
    SliceColumn,
    TextColumns,
    evaluation_data,
)
from shrp.cli.options import (
    AsJson,
    Device,
    EvaluatedLength,
)
from shrp.cli.output import bar, example, print_json, print_table

SAME_SCORE = 0.005
"""A teacher whose score is further from the recorded one than this is another teacher: batching and half precision
move hardly an input in a thousand."""


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Keep the teacher's outputs on data, for Overview",
        epilog=example(
            "reference mine/routed --teacher mine/teacher --data probe",
            "Writes teacher.safetensors into the checkpoint's folder, by which the app compares with the teacher.",
        ),
    )(reference)


def reference(
    checkpoint: Annotated[
        Path, typer.Argument(help="The checkpoint that gets the file.", show_default=False)
    ],
    teacher: Annotated[Path, typer.Option(help="The dense checkpoint that it was distilled from.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="`probe`, `glue` or a file, once for each data set; `probe` if left out. "
            "What the file has of other data stays.",
        ),
    ] = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Put the dense teacher's outputs on data beside a checkpoint, as a small file without any text of the data."""
    from shrp.checkpoints import reference as references
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.score_rows import rows_as_now
    from shrp.data.batching import token_counts
    from shrp.data.tasks import may_be_one
    from shrp.errors import CheckpointError
    from shrp.evaluation.evaluate import evaluate_stream

    own = OwnFile(text_column, label_column, slice_column, None, label_means, skip_incomplete)
    names = list(dict.fromkeys(data or ["probe"]))
    if all(name in ("probe", "glue") for name in names):
        own.refuse("is for a file of your own; give one with --data.")
    loaded, dense = load(checkpoint), load(teacher, device=device)  # which alone computes
    if dense.info.config.layers:
        raise CheckpointError(f"{teacher} is not dense: it has converted layers, so it is nobody's teacher.")
    if dense.info.task.label_names != loaded.info.task.label_names:
        raise CheckpointError(f"{teacher} and {checkpoint} are for tasks with different labels.")
    if not may_be_one(dense.info.task, loaded.info.task):
        names = f"{dense.info.task.name} and {loaded.info.task.name}"
        raise CheckpointError(
            f"{teacher} and {checkpoint} are for two tasks, {names}, though labels have the same names."
        )
    found, rows = {}, []
    length = max_length or loaded.info.max_length
    for name in names:
        of_files = name not in ("probe", "glue")
        source = evaluation_data(name, loaded.info.task, own if of_files else OwnFile())
        with bar("reference") as progress:
            task = progress.add_task(f"evaluating on {source.name}", total=len(source))
            for result in evaluate_stream(dense.model, dense.tokenizer, source, max_length=length):
                progress.update(task, completed=result.n)
        lengths = partial(token_counts, loaded.tokenizer, source.texts)
        for row in rows_as_now(
            loaded.info, source, lambda lengths=lengths: max(lengths(), default=0), length
        ):
            recorded = row.get("score")
            if (
                row["kind"] == "teacher"
                and recorded is not None
                and abs(result.score - recorded) > SAME_SCORE
            ):
                raise CheckpointError(
                    f"{teacher} scores {result.score:.4f} on {source.name}, but {checkpoint} was made with a teacher "
                    f"of {recorded:.4f}: this is another one."
                )
        found[source.source_fingerprint] = references.from_evaluation(result, dense.fingerprint, length)
        rows.append(
            {"data": source.name, "n": result.n, "metric": result.metric, "teacher": float(result.score)}
        )
    try:  # as the file is now: another command may have put outputs on other data there meanwhile
        there = references.read(checkpoint, loaded.info.task)
    except CheckpointError:  # a spoilt one is written anew
        there = {}
    file = references.write(checkpoint, there | found)
    if json:
        told = {"out": str(file), "bytes": file.stat().st_size, "device": str(dense.model.device)}
        print_json(told | {"references": rows})
    else:
        print_table(f"{file}, {file.stat().st_size:,} bytes", rows)
