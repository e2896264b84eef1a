"""The command line: `python -m shrp COMMAND`, one module per command.

Results go to stdout (one JSON object with `--json`), progress to stderr. Exit codes: 0 done, 1 an error that a person can
fix (one sentence), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections import Counter

import typer
from rich.text import Text

from shrp.cli.compare import compare
from shrp.cli.convert import convert
from shrp.cli.evaluate import evaluate
from shrp.cli.explain import explain
from shrp.cli.export import export
from shrp.cli.finetune import finetune
from shrp.cli.knock_out import knock_out
from shrp.cli.options import grouped
from shrp.cli.output import stderr, use_utf8
from shrp.cli.prune import prune
from shrp.cli.sweep import sweep
from shrp.cli.train import train
from shrp.cli.trim import trim_vocabulary
from shrp.cli.usage import usage
from shrp.errors import OptionError, ShrpError, first_line

app = typer.Typer(
    name="shrp",
    help="Specialised head routing and pruning (SHRP) of Transformer encoders: train, inspect, prune, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich's table of options cuts their names in a narrow terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
COMMANDS = (
    (finetune, "Fine-tune a dense encoder", "--base bert-base-uncased --task sst2 --out sst2-teacher"),
    (train, "Make a routed checkpoint of it", "--base sst2-teacher --task sst2 --out sst2-6of12"),
    (convert, "Convert layers on unlabelled text", "--base bert-base-uncased --texts a.csv --out converted"),
    (prune, "Keep some experts, remove the routers", "checkpoints/sst2-6of12 --budget 12 --out pruned"),
    (evaluate, "Score a model", "checkpoints/sst2-6of12 --data my.csv --predictions answers.csv"),
    (usage, "Count which experts are used", "checkpoints/sst2-6of12 --by class --drivers"),
    (knock_out, "Remove experts or heads", "checkpoints/sst2-6of12 --expert 9.11 --expert 10.1"),
    (explain, "Explain a text", 'checkpoints/sst2-6of12 --text "A joy." --text "Anything but a joy."'),
    (sweep, "Score prunings of all sizes", "checkpoints/sst2-6of12 --held-out --out sweep.csv"),
    (compare, "Compare models", "checkpoints/sst2-6of12 pruned --flips flips.csv"),
    (trim_vocabulary, "Remove unused tokens", "pruned --common 12000 --out trimmed"),
    (export, "Export to ONNX", "checkpoints/sst2-6of12 --per-layer 2 --out exported"),
)
for function, summary, how in COMMANDS:
    name = function.__name__.replace("_", "-")
    example = f"Example:\n\n\b\n  python -m shrp {name} {how}"  # click's \b keeps it on a line of its own
    app.command(name, short_help=summary, epilog=example)(grouped(function))


def main() -> None:
    """Run the command line; errors meant for people become one sentence and exit code 1."""
    use_utf8()
    try:
        _refuse_repeated(sys.argv[1:])
        _join_launched(sys.argv[1:])
        _command()(prog_name="python -m shrp")
    except ShrpError as error:
        _fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if not _memory_is_full(error):
            raise
        why = f" ({first_line(error).rstrip('.')})" if str(error) else ""
        _fail(f"the device's memory is full{why}: use smaller batches, shorter texts or another device.")
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}.")
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(130)


@functools.cache
def _command() -> typer.core.TyperGroup:
    """All commands; typer would build them again at every call."""
    return typer.main.get_command(app)


def _memory_is_full(error: BaseException) -> bool:
    """Whether an error means that memory is full. PyTorch's own class exists for CUDA alone, and is slow to import."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def _refuse_repeated(arguments: list[str]) -> None:
    """Raise `OptionError` if an option that takes one value is given twice: the last would win silently."""
    command = _command().commands.get(arguments[0]) if arguments else None
    options = [one for one in command.params if one.param_type_name == "option"] if command else []
    given = Counter(argument.partition("=")[0] for argument in arguments)
    for option in options:
        times = sum(given[name] for name in option.opts)
        if times > 1 and not (option.multiple or option.is_flag):
            raise OptionError(f"{option.opts[0]} is given {times} times but takes one value.")


def _join_launched(arguments: list[str]) -> None:
    """Join the processes of a launcher, such as torchrun, if there are several; the main one alone prints.

    Raises:
        OptionError: the command does not train.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    if not {*arguments[:1]} & {"train", "convert", "finetune"}:
        raise OptionError("several processes were launched, and only train, convert and finetune run in several.")
    from shrp.training import processes

    processes.start()
    if processes.rank():
        stderr.quiet, sys.stdout = True, io.StringIO()


def _fail(text: str) -> None:
    stderr.quiet = False
    stderr.print(Text.assemble(("error:", "bold red"), " ", text))
    sys.exit(1)
