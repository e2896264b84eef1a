"""`card`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.output import example, stderr
from shrp.errors import CheckpointError


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Write the model card of a checkpoint",
        epilog=example("card mine/my-checkpoint", "Writes README.md into the checkpoint's folder."),
    )(card)


def card(
    checkpoint: Annotated[
        Path, typer.Argument(help="The checkpoint that gets the card.", show_default=False)
    ],
    licence: Annotated[
        str, typer.Option(help="Of the base's weights, in words; by default as an earlier card tells it.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Write over a README.md that is there.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print it, and write nothing.")] = False,
) -> None:
    """Write a checkpoint's model card, README.md in its folder: data, recipe, scores with controls, limits."""
    from shrp.checkpoints import card as cards
    from shrp.checkpoints.checkpoint import load
    from shrp.files import write_text

    loaded, file = load(checkpoint), checkpoint / cards.CARD
    before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    licence = licence or cards.licence_in(before, loaded.info.base_model)
    text = cards.card(checkpoint.resolve().name, loaded, licence)
    if show:
        sys.stdout.write(text)
        return
    if before not in ("", text) and not replace:
        raise CheckpointError(
            f"{file} is there already, with other words; --replace writes over it, and keeps the licence that it tells."
        )
    if before == text:
        stderr.print(f"{file} says just that already")
        return
    write_text(file, text)
    stderr.print(f"wrote {file}")
