"""`card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.output import example, stderr


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
    licence: Annotated[str, typer.Option(help="Of the base's weights, in words.")] = "",
) -> None:
    """Write a checkpoint's model card, README.md in its folder: data, recipe, scores with controls, limits."""
    from shrp import card as cards
    from shrp.checkpoint import load

    text = cards.card(checkpoint.resolve().name, load(checkpoint), licence)
    (checkpoint / cards.CARD).write_text(text, encoding="utf-8")
    stderr.print(f"wrote {checkpoint / cards.CARD}", highlight=False)
