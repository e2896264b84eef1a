"""What the benchmarks' command lines share: lists in options, and an end in a sentence, not in a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from shrp.cli.output import stderr
from shrp.errors import ShrpError
from shrp.training.config import check_seed


def run(main: Callable[..., Any]) -> None:
    """Run a function with typer's options, or a whole `typer.Typer`, as the program."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or every process that is forked warns
    try:
        main() if isinstance(main, typer.Typer) else typer.run(main)
    except ShrpError as error:
        _say(str(error))
    except OSError as error:  # a folder that can't be written, a full disk
        _say(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.")


def _say(text: str) -> None:
    stderr.print(f"error: {text}")
    sys.exit(1)


def numbers(text: str, kind: Callable[[str], Any] = int) -> list[Any]:
    """Numbers from the text of an option, `12,24,48`."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"numbers are separated by commas, as in 1,3,5; {text!r} is not.") from error


def seeds_of(text: str) -> list[int]:
    """Seeds from the text of an option, each checked, so before anything is trained.

    Raises:
        BadParameter: they are no numbers.
        TrainingError: one is out of range.
    """
    found = numbers(text)
    for seed in found:
        check_seed(seed)
    return found


def names(text: str, known: Sequence[str], option: str, *, none: bool = False) -> list[str]:
    """Names from the text of an option, `sst2,cola`.

    Args:
        none: whether an empty text, for no name, will do.

    Raises:
        BadParameter: one is not known, so that this is said before anything is trained.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in found if name not in known]:
        raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(known)}.", param_hint=option)
    if not found and not none:
        raise typer.BadParameter(f"name at least one of {', '.join(known)}.", param_hint=option)
    return found
