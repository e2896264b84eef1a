"""`pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.data_options import (
    DataSource,
    LabelColumn,
    LabelMeanings,
    OnlySlices,
    OwnFile,
    PairColumn,
    SkipIncomplete,
    SliceColumn,
    SliceWords,
    TextColumns,
    evaluation_data,
)
from shrp.cli.options import AsJson, Device, EvaluatedLength, check_has_task, say_cut
from shrp.cli.output import example, print_json, print_table, provenance, records, stdout, told


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Where what tells minimal pairs apart passes, layer by layer",
        epilog=example(
            "pairs checkpoints/cola-6of12",
            "Prints for each layer how much of the way to the other input's output the states of the first token, of "
            "those that differ and of all others bring; writes nothing.",
        ),
    )(pairs)


def pairs(
    checkpoint: Annotated[
        Path, typer.Argument(help="An SHRP checkpoint, routed or not.", show_default=False)
    ],
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    slice_column: SliceColumn = None,
    slice_words: SliceWords = None,
    only: OnlySlices = None,
    pair_column: PairColumn = None,
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    most: Annotated[
        int | None, typer.Option(min=2, help="Of more pairs so many are drawn.", show_default="all")
    ] = None,
    max_length: EvaluatedLength = None,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Put hidden states of each input of a minimal pair into the other one, and see how far the output follows.

    In both directions, and of pairs whose inputs have as many tokens, so that each has its counterpart.
    """
    from shrp.analysis.pairs_patched import KINDS, patch_pairs
    from shrp.checkpoints.checkpoint import load

    loaded = load(checkpoint, device=device)
    check_has_task(loaded.info.task)
    own = OwnFile(
        text_column, label_column, slice_column, pair_column, label_means, skip_incomplete, slice_words, only
    )
    source = evaluation_data(data, loaded.info.task, own)
    length = max_length or loaded.info.max_length
    with told("pairs", len(source)) as progress:
        found = patch_pairs(
            loaded.model, loaded.tokenizer, source, max_length=length, most=most, progress=progress
        )
    say_cut(loaded.model.config, loaded.tokenizer, (source,), length)
    table = found.table()
    of = "output" if source.task.is_regression else "logit of the greater label less that of the smaller one"
    if json:
        made = provenance(loaded, source, length)
        counts = {"n": found.n, "left_out": found.left_out, "not_drawn": found.not_drawn}
        print_json({"of": of} | counts | {"layers": records(table, "part"), "provenance": made})
        return
    more = f"; {found.left_out:,} more with other numbers of tokens are left out" * bool(found.left_out)
    more += f"; drawn of {found.n + found.not_drawn:,}" * bool(found.not_drawn)
    stdout.print(f"{source.name}: n = {found.n:,} minimal pairs, in both directions{more}")
    rows = []
    for layer, part in table.groupby("layer"):
        by = part.set_index("kind")
        shares = {kind: _share(*by.loc[kind, ["part", "low", "high"]]) for kind in KINDS}
        rows.append({"entering layer": str(layer)} | shares)
    print_table(f"parts of the way to the other input's {of}, and 95% intervals over pairs", rows)


def _share(part: float, low: float, high: float) -> str:
    """`54.1% (49.0 to 59.3)`, and no interval where it has none."""
    # + 0.0 turns -0.0 into 0.0
    part, low, high = (round(100 * value, 1) + 0.0 for value in (part, low, high))
    return f"{part:.1f}%" + ("" if low != low else f" ({low:.1f} to {high:.1f})")
