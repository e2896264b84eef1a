"""`convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.options import AsJson, TextColumns, layer_list
from shrp.cli.output import print_json, stderr
from shrp.cli.training import Base, BaseName, BatchSize, Out, Precision, Seed, base_geometry, shrp_config


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command()(convert)


def convert(
    base: Base,
    out: Out,
    texts: Annotated[
        list[Path], typer.Option(help="CSV, TSV, JSONL or Parquet files of texts; no labels are read.")
    ],
    layers: Annotated[
        str, typer.Option(help='Layers to convert: "6-11", "1,3,5" or "upper:6" (counted from 0).')
    ] = "upper:6",
    text_column: TextColumns = None,
    routing: Annotated[str, typer.Option(help="sequence or token.")] = "sequence",
    top_k: Annotated[int, typer.Option(help="Experts that a gate lets through.")] = 1,
    conversion_size: Annotated[int, typer.Option(help="Texts of the epoch after each conversion.")] = 2500,
    final_size: Annotated[int, typer.Option(help="Texts of the last epoch.")] = 20_000,
    batch_size: BatchSize = 32,
    max_length: Annotated[int, typer.Option(min=4, help="Longest text, in tokens.")] = 64,
    precision: Precision = "auto",
    seed: Seed = 0,
    base_name: BaseName = None,
    json: AsJson = False,
) -> None:
    """Convert layers of an encoder on unlabelled texts, once for all tasks: `train --converted` goes on from it.

    Each layer learns to say what the dense layer in its place says (stage 1, with the balance loss).
    """
    import tempfile

    from shrp import checkpoint
    from shrp.base import load_base
    from shrp.errors import TrainingError
    from shrp.general import TEXTS, GeneralConfig, convert_on_text
    from shrp.tabular import read_table, text_rows
    from shrp.train import history_text

    if out.exists():  # said now, not after the epochs
        raise TrainingError(f"{out} exists already; choose another folder for the result.")
    geometry = base_geometry(base)
    shrp = shrp_config(layer_list(layers, geometry[0]), routing, top_k)
    shrp.check_fits(*geometry)
    config = GeneralConfig(
        shrp,
        conversion_size=conversion_size,
        final_size=final_size,
        batch_size=batch_size,
        max_length=max_length,
        precision=precision,
        seed=seed,
    )
    found = [
        row
        for path in texts
        for row in text_rows(read_table(path), text_column or ["text"], path.name, False)
    ]
    model, tokenizer, _ = load_base(base, TEXTS, seed)
    with tempfile.TemporaryDirectory() as folder:
        model, history = convert_on_text(
            config, model, tokenizer, found, Path(folder), progress=say_conversion
        )
    training = {"config": config.to_dict(), "texts": len(found)}
    info = checkpoint.CheckpointInfo(shrp, TEXTS, base_model=base_name or base, training=training)
    checkpoint.save(model, tokenizer, info, out, extra_files={checkpoint.HISTORY: history_text(history)})
    if json:
        print_json({"out": str(out), "layers": list(shrp.layers), "texts": len(found), "epochs": history})
    else:
        stderr.print(f"wrote {out}", highlight=False)


def say_conversion(row: dict) -> None:
    """A line for an epoch's row of the history."""
    what = "all layers" if row["converted_layer"] is None else f"layer {row['converted_layer']} converted"
    stderr.print(
        f"{what}: {row['texts']:,} texts, hidden states off by {row['distill_hidden_loss']:.4f}, "
        f"balance {row['balance_loss']:.4f}, {row['seconds']:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
