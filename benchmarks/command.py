"""How a benchmark ends that the library refuses: in a sentence, not in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from shrp.cli.output import stderr
from shrp.errors import ShrpError


def run(main: Callable[..., Any]) -> None:
    """Run a function with typer's options, or a whole `typer.Typer`, as the program."""
    try:
        main() if isinstance(main, typer.Typer) else typer.run(main)
    except ShrpError as error:
        stderr.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
