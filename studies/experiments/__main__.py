"""`python -m studies.experiments {layer,topk,sweep,overhead,balance,matching,rates}`."""

import typer

from studies.command import run
from studies.experiments import balance, layer, matching, overhead, rates, sweep, topk

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for module in (layer, topk, sweep, overhead, balance, matching, rates):
    app.command(module.__name__.rpartition(".")[2])(module.main)

if __name__ == "__main__":
    run(app)
