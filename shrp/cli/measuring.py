"""`measure`: what a checkpoint costs, and how fast it and others are, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.inspecting import Folder
from shrp.cli.options import AsJson
from shrp.cli.output import example, print_json, print_table
from shrp.errors import DataError
from shrp.phrases import counted

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    import torch

    from shrp.checkpoints.checkpoint import Checkpoint


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Parameters, FLOPs and latency, beside dense",
        epilog=example(
            "measure pruned --latency --beside checkpoints/sst2-6of12 --beside exported",
            "Prints tables; writes nothing.",
        ),
    )(measure)


IN_PYTORCH = "PyTorch, float32"


def measure(
    checkpoint: Folder,
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens an input; by default 128, or as many as the model reads.", show_default=False
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Inputs a batch, for latency; 8 by default.", show_default=False)
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also time it against the dense architecture, side by side.")
    ] = False,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another checkpoint, or an export, to time too; give it several times for several."
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Timed runs of each; 20 by default.", show_default=False)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="For latency: where PyTorch computes, cpu by default; cuda, mps, ...", metavar="NAME"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Parameters and FLOPs (encoder and whole model) against the dense architecture, and latency if asked.

    FLOPs are 2 x the multiply-accumulates of matrix products, for one input. Latency is of a batch on this machine, of
    checkpoints by PyTorch in float32, of exports by onnxruntime: the median of the timed runs in milliseconds, with the
    quartiles, all taken in turns, and how many times as fast as the first checkpoint's dense architecture that is.
    """
    from shrp.checkpoints.checkpoint import load
    from shrp.evaluation.costs import TOKENS, cost, dense_cost
    from shrp.export.exported import is_export
    from shrp.families.families import positions

    of_latency = {"--beside": beside, "--batch": batch, "--repeats": repeats, "--device": device}
    if not latency and (given := [name for name, value in of_latency.items() if value]):
        raise DataError(f"{given[0]} is for what is to be timed: give --latency with it, or leave it out.")
    batch, repeats = batch or 8, repeats or 20
    if is_export(checkpoint):
        raise DataError(
            f"{checkpoint} is an export: time it beside the checkpoint that it was made from, `measure CHECKPOINT "
            f"--latency --beside {checkpoint}`."
        )
    loaded = load(checkpoint, device=device or "cpu")
    most = positions(loaded.model.config)
    tokens = min(TOKENS, most) if tokens is None else tokens
    if tokens > most:
        raise DataError(f"this model reads at most {most} tokens, not {tokens}.")
    ours, dense = cost(loaded.model, tokens), dense_cost(loaded.model, tokens)
    kept = ours.relative_to(dense)
    of = {"checkpoint": str(checkpoint), "checkpoint_fingerprint": loaded.fingerprint}
    result = of | {"tokens": tokens, "model": vars(ours), "dense": vars(dense), "kept": kept}
    if latency:
        result["latency"] = _timed(loaded, beside or [], batch, tokens, repeats)
    if json:
        print_json(result)
        return
    rows = [
        {"quantity": name, "model": getattr(ours, name), "dense": getattr(dense, name), "kept": kept[name]}
        for name in ("encoder_params", "model_params", "encoder_flops", "model_flops")
    ]
    print_table(f"{checkpoint}, {tokens} tokens an input", rows)
    if latency:
        _print_timed(result["latency"], repeats)


def _timed(
    loaded: Checkpoint, beside: Sequence[Path], batch: int, tokens: int, repeats: int
) -> dict[str, Any]:
    """Times of the dense architecture, of the checkpoint, and of what else is asked for, in turns."""
    import torch

    from shrp.evaluation.timing import dense_like, latency, model_inputs

    inputs = model_inputs(loaded.model, batch, tokens)
    dense = dense_like(loaded.model)
    # What is back on the CPU has been computed: a GPU's calls return before their work is done.
    runs = [lambda: dense(**inputs).logits.cpu(), lambda: loaded.model(**inputs).logits.cpu()]
    names, runtimes = ["dense", "checkpoint"], [IN_PYTORCH] * 2
    folders = [loaded.path, *beside]
    for i, folder in enumerate(beside, 1):
        if any(folder.resolve() == other.resolve() for other in folders[:i]):
            raise DataError(f"{folder} is timed already; name another folder, or leave it out.")
        run, runtime = _run_of(folder, batch, tokens, loaded.model.device)
        runs.append(run)
        names.append(f"./{folder}" if str(folder) in names else str(folder))
        runtimes.append(runtime)
    frame = latency(dict(enumerate(runs)), repeats=repeats).assign(name=names, runtime=runtimes)
    device = str(loaded.model.device)
    frame["device"] = [device if runtime == IN_PYTORCH else "cpu" for runtime in runtimes]
    frame["inputs_per_s"] = batch * 1000 / frame["median_ms"]
    frame["speedup"] = frame["median_ms"].iloc[0] / frame["median_ms"]
    how = {"batch": batch, "tokens": tokens, "device": device}
    return how | {"threads": torch.get_num_threads(), "rows": frame.to_dict("records")}


def _print_timed(told: Mapping[str, Any], repeats: int) -> None:
    rows = [
        {
            "": row["name"],
            "runtime": row["runtime"],
            "ms": f"{row['median_ms']:.1f}",
            "quartiles": f"{row['low_ms']:.1f} to {row['high_ms']:.1f}",
            "inputs/s": f"{row['inputs_per_s']:.1f}",
            "times dense": f"{row['speedup']:.2f}",
        }
        for row in told["rows"]
    ]
    where = counted(told["threads"], "thread")
    if told["device"] != "cpu":
        where = f"PyTorch on {told['device']}, else {where}"
    print_table(
        f"latency, ms a batch of {told['batch']} inputs of {told['tokens']} tokens: "
        f"{where}, {counted(repeats, 'run')} each, in turns: median and quartiles",
        rows,
    )


def _run_of(folder: Path, batch: int, tokens: int, device: torch.device) -> tuple[Callable[[], Any], str]:
    """A function that runs what is in a folder on random inputs, and what it is run by; an export always on the CPU.

    Raises:
        CheckpointError, ExportError: it can't be loaded.
        DataError: it does not read so many tokens.
    """
    from shrp.checkpoints.checkpoint import load
    from shrp.evaluation.timing import model_inputs
    from shrp.export.exported import is_export, load_export
    from shrp.families.families import positions

    if is_export(folder):
        export = load_export(folder, spin=False)
        if tokens > export.max_length:
            raise DataError(
                f"{folder} reads at most {export.max_length} tokens, not {tokens}; give --tokens."
            )
        feed = export.random_inputs(batch, tokens)
        return lambda: export.run(feed), f"onnxruntime, {export.precision}"
    loaded = load(folder, device=device)
    if tokens > (most := positions(loaded.model.config)):
        raise DataError(f"{folder} reads at most {most} tokens, not {tokens}; give --tokens.")
    inputs = model_inputs(loaded.model, batch, tokens)
    return lambda: loaded.model(**inputs).logits.cpu(), IN_PYTORCH
