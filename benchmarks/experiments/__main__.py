"""`python -m benchmarks.experiments {layer,topk,sweep,overhead,balance}`."""

import sys

import typer

from benchmarks.experiments import balance, layer, overhead, sweep, topk
from shrp.cli.output import stderr
from shrp.errors import ShrpError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for module in (layer, topk, sweep, overhead, balance):
    app.command(module.__name__.rpartition(".")[2])(module.main)

if __name__ == "__main__":
    try:
        app(prog_name="python -m benchmarks.experiments")
    except ShrpError as error:
        stderr.print(f"error: {error}", highlight=False, markup=False)
        sys.exit(1)
