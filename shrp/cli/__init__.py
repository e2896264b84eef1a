"""The command line: `python -m shrp COMMAND`, a module of this package for each command or for a few that go together.

Results go to stdout (one JSON object with `--json`), progress to stderr. Exit codes: 0 done, 1 an error that a
person can mend (said in one sentence), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter

import typer
from rich.text import Text

from shrp.cli import (
    cards,
    comparing,
    converting,
    explaining,
    exporting,
    finetuning,
    inspecting,
    knocking,
    measuring,
    pruning,
    ranking,
    reference,
    sweeping,
    training,
    trimming,
)
from shrp.cli.output import say_in_unicode, stderr
from shrp.errors import OptionError, ShrpError, first_line

app = typer.Typer(
    name="shrp",
    help="Specialised head routing and pruning (SHRP) of Transformer encoders: train, inspect, prune, evaluate.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's table of options cuts their names where the terminal is narrow
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (
    finetuning,
    training,
    converting,
    pruning,
    inspecting,
    explaining,
    measuring,
    knocking,
    sweeping,
    comparing,
    ranking,
    reference,
    cards,
    trimming,
    exporting,
):
    module.register(app)


def main() -> None:
    """Run the command line; errors meant for people become one sentence and exit code 1."""
    say_in_unicode()
    try:
        _refuse_repeated(sys.argv[1:])
        _command()(prog_name="python -m shrp")
    except ShrpError as error:
        _say_error(str(error))
        sys.exit(1)
    except (RuntimeError, MemoryError) as error:
        if not _memory_is_full(error):
            raise
        why = f" ({first_line(error).rstrip('.')})" if str(error) else ""
        _say_error(
            f"the device's memory is full{why}: give smaller batches or shorter inputs, or another device."
        )
        sys.exit(1)
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename}: " if error.filename else ""
        _say_error(f"{where}{error.strerror or error}.")
        sys.exit(1)
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(130)


@functools.cache
def _command() -> typer.core.TyperGroup:
    """All commands; typer reads every option of every one of them anew each time that it is asked."""
    return typer.main.get_command(app)


def _memory_is_full(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; PyTorch has a class for it on CUDA alone."""
    # By name: PyTorch is slow to import for one.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def _refuse_repeated(arguments: list[str]) -> None:
    """Raise `OptionError` where an option that takes one value is given twice: the last one would win in silence."""
    commands = _command().commands
    if not arguments or arguments[0] not in commands:
        return
    single = {
        name: option.opts[0]
        for option in commands[arguments[0]].params
        if option.param_type_name == "option" and not (option.multiple or option.is_flag)
        for name in option.opts
    }
    given = Counter(single.get(one.partition("=")[0]) for one in arguments[1:])
    for name, times in given.items():
        if name is not None and times > 1:
            raise OptionError(f"{name} is given {times} times, and takes one value; leave the others out.")


def _say_error(text: str) -> None:
    stderr.print(Text.assemble(("error:", "bold red"), " ", text))
