"""`augment`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.data_options import LabelColumn, OwnFile, SkipIncomplete, TextColumns
from shrp.cli.options import check_free
from shrp.cli.output import example, stderr, write_csv
from shrp.cli.training_options import Base, GlueTask, Seed


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Training data, with changed copies of its examples",
        epilog=example(
            "augment --base bert-base-uncased --task cola --out cola-more.csv",
            "Writes a CSV file in the task's columns, for `train --train-file`.",
        ),
    )(augment)


def augment(
    base: Base,
    out: Annotated[Path, typer.Option("--out", help="The new table, a CSV file.")],
    task: GlueTask = None,
    train_file: Annotated[
        Path | None, typer.Option(help="Your own training data: CSV, TSV, JSONL or Parquet.")
    ] = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    skip_incomplete: SkipIncomplete = False,
    copies: Annotated[int, typer.Option(min=1, help="Changed copies of each example.")] = 6,
    seed: Seed = 0,
) -> None:
    """Write training data and changed copies of it, for a student to learn what its teacher says of them.

    In a copy, words are exchanged for others that are near in the encoder's embeddings, or a few are left out, moved or
    added. Its label is that of the example that it was made of, right or not: give `train` `--distill-logits 1`, with
    which it asks the teacher alone.
    """
    from shrp.checkpoints.base import load_base
    from shrp.data.augment import augmented
    from shrp.data.sources import load_data
    from shrp.data.tabular import MAX_BYTES
    from shrp.errors import DataError
    from shrp.training.config import check_seed

    if (task is None) == (train_file is None):
        raise DataError("give a GLUE --task or your own --train-file, one of the two.")
    if out.suffix.lower() != ".csv":
        raise DataError(f"--out is for a CSV file, so its name must end in .csv; {out.name} does not.")
    check_free(out, "--out")
    own = OwnFile(text_column, label_column, skip_incomplete=skip_incomplete)
    if train_file is None:
        own.refuse("is for a file of your own; what GLUE holds is known.")
        data = load_data("glue", task, "train")
    else:
        data = own.load(train_file, None)
    check_seed(seed)
    model, tokenizer, _ = load_base(base, data.task, seed)
    more = augmented(data, copies, tokenizer, model.get_input_embeddings().weight, seed)
    # GLUE has some empty texts, which are no part of a table that a person can train on.
    kept = [row for row, text in enumerate(more.texts) if all(part.strip() for part in text)]
    examples = sum(row < len(data) for row in kept)
    frame, texts = more.subset(kept).to_frame(), data.task.text_columns
    # Columns keep their names, so the validation file can be read with the same options.
    labels = [label_column] * (len(frame.columns) > len(texts)) if train_file else frame.columns[len(texts) :]
    size = sum(len(part.encode()) + 3 for row in kept for part in more.texts[row])
    if size > MAX_BYTES:
        raise DataError(
            f"{out} would have about {size / 2**20:,.0f} MB, and `train` reads at most {MAX_BYTES // 2**20} MB: give "
            "fewer --copies, or a sample of the data."
        )
    # All is quoted: a carriage return in a text would end its row otherwise.
    write_csv(frame.set_axis([*texts, *labels], axis=1), out, quoting=csv.QUOTE_ALL)
    left_out = len(more) - len(kept)
    stderr.print(
        f"wrote {out}: {examples:,} examples and {len(kept) - examples:,} changed copies"
        + (f"; left out {left_out:,} with an empty text" if left_out else "")
    )
