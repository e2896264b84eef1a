"""`convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrp.cli.data_options import TextColumns
from shrp.cli.options import AsJson, layer_list, say_cut_at, say_resume
from shrp.cli.output import example, print_json, stderr, training_progress
from shrp.cli.training import base_geometry
from shrp.cli.training_options import Base, BaseName, BatchSize, Out, Precision, Resume, Seed


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="Convert layers on unlabelled texts, for several tasks",
        epilog=example(
            "convert --base bert-base-uncased --texts corpus.csv --layers upper:6 --out bert-6of12",
            "Writes a checkpoint without a task, for `train --converted`.",
        ),
    )(convert)


def convert(
    base: Base,
    out: Out,
    texts: Annotated[
        list[Path], typer.Option(help="CSV, TSV, JSONL or Parquet files of texts; no labels are read.")
    ],
    layers: Annotated[
        str | None,
        typer.Option(
            help='Layers to convert: "6-11", "1,3,5" or "upper:6", counted from 0; the upper half by default.',
            show_default=False,
        ),
    ] = None,
    text_column: TextColumns = None,
    routing: Annotated[
        str | None, typer.Option(help="sequence, the default, or token.", show_default=False)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Experts that a gate lets through; 1 by default.", show_default=False)
    ] = None,
    conversion_size: Annotated[
        int | None,
        typer.Option(help="Texts of the epoch after each conversion; 2,500 by default.", show_default=False),
    ] = None,
    final_size: Annotated[
        int | None,
        typer.Option(
            help="Texts of the last epoch of a conversion, gone through again where there are fewer; 20,000 by "
            "default.",
            show_default=False,
        ),
    ] = None,
    converted: Annotated[
        Path | None,
        typer.Option(help="A routed encoder that this command made before: it is pruned, none is converted."),
    ] = None,
    per_layer: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Prune to so many experts a layer, the most used on the texts, and train on: the result is static.",
        ),
    ] = None,
    usage_of: Annotated[
        Path | None,
        typer.Option(
            help="A task's routed checkpoint with the same layers, whose usage says which experts are kept instead."
        ),
    ] = None,
    further_size: Annotated[
        int | None,
        typer.Option(min=1, help="Texts that the pruned encoder trains on with; 60,000 by default."),
    ] = None,
    batch_size: BatchSize = 32,
    max_length: Annotated[int, typer.Option(min=4, help="Longest text, in tokens.")] = 64,
    precision: Precision = "auto",
    seed: Seed = 0,
    base_name: BaseName = None,
    resume: Resume = False,
    json: AsJson = False,
) -> None:
    """Convert layers of an encoder on unlabelled texts, once for all tasks: `train --converted` goes on from it.

    Each converted layer is trained to reproduce the hidden states of the dense layer it replaces. With --per-layer the
    encoder is then pruned and fine-tuned the same way, all layers at once, in one epoch. A killed run goes on
    after its last epoch with `--resume` and the same options.
    """
    from shrp.checkpoints import checkpoint
    from shrp.checkpoints.base import load_base, name_of
    from shrp.checkpoints.info import CheckpointInfo, history_text, joined
    from shrp.checkpoints.saving import refuse_existing
    from shrp.data.batching import longest_input, token_counts
    from shrp.data.tasks import TEXTS
    from shrp.errors import PlanError, TrainingError
    from shrp.model.config import ShrpConfig
    from shrp.pruning.plan import make_plan
    from shrp.pruning.prune import prune
    from shrp.training.config import FURTHER_SIZE, RECOVERY_RATES, TextConfig
    from shrp.training.runs import Run, finish, run_folder
    from shrp.training.text import load_conversion, task_usage, train_on_text, usage_on_text

    refuse_existing(out)  # said now, not after the epochs
    say_resume(out, resume)
    geometry, called = base_geometry(base), name_of(base, base_name)
    if per_layer is not None and per_layer > geometry[1]:
        raise PlanError(f"--per-layer is for 1 to {geometry[1]} experts a layer, not {per_layer}.")
    of_pruning = {"--further-size": further_size, "--usage-of": usage_of, "--converted": converted}
    if per_layer is None and (given := [name for name, value in of_pruning.items() if value is not None]):
        raise PlanError(f"{given[0]} is for a pruned encoder: give --per-layer too.")
    before = load_conversion(converted, base, called) if converted else None
    if before is None:
        indices = layer_list(layers or f"upper:{max(geometry[0] // 2, 1)}", geometry[0])
        shrp = ShrpConfig(indices, routing=routing or "sequence", top_k=1 if top_k is None else top_k)
        shrp.check_fits(*geometry)
    elif before.is_static:
        raise PlanError(f"{converted} is pruned already; give the routed encoder that it was made of.")
    elif (layers, routing, top_k, conversion_size, final_size) != (None,) * 5:
        raise TrainingError(
            "--layers, --routing, --top-k, --conversion-size and --final-size are those of --converted; "
            "leave them out."
        )
    else:
        shrp = before.info.config
    task = usage = None
    if usage_of is not None:
        task, usage = task_usage(usage_of, shrp, geometry[1], called)
    elif before is not None:
        usage = usage_on_text(checkpoint.read_history(before.path))
    sizes = {"conversion_size": conversion_size, "final_size": final_size}
    config = TextConfig(
        shrp,
        **{name: size for name, size in sizes.items() if size is not None},
        batch_size=batch_size,
        max_length=max_length,
        precision=precision,
        seed=seed,
    )
    given = {path: _texts(path, text_column or ["text"]) for path in texts}
    found = [row for path in texts for row in given[path]]
    dense, tokenizer, _ = load_base(base, TEXTS, seed)
    most = longest_input(dense, tokenizer)
    length = min(most, max_length)
    why = "--max-length changes that" if length < most else "the model reads no more"
    for path, rows in given.items():
        say_cut_at(length, token_counts(tokenizer, rows), path.name, why)
    plan, sources = None, [path.name for path in texts]
    with Run(run_folder(out), resume) as run:
        refuse_existing(out)  # which another command may have made since
        given = {"teacher_outputs": run.folder / "teacher-outputs", "progress": training_progress()}
        precision = config.precision
        if before is None:
            model, history = train_on_text(config, dense, tokenizer, found, run=run, **given)
            precision = run.precision
            training = {"config": config.to_dict(), "texts": len(found), "precision": precision}
            training["sources"] = sources
        else:
            model, history = before.model, checkpoint.read_history(before.path)
            training = dict(before.info.training)
        if per_layer is not None:
            plan = make_plan(usage or usage_on_text(history), per_layer=per_layer)
            further = TextConfig(
                final_size=further_size or FURTHER_SIZE,
                batch_size=batch_size,
                max_length=max_length,
                # Settled once: two timings may disagree, and then the teacher would run twice.
                precision=precision,
                seed=seed,
                **RECOVERY_RATES,
            )
            model, rows = train_on_text(
                further,
                dense,
                tokenizer,
                found,
                model=prune(model, plan),
                run=None if before is None else run,
                **given,
            )
            history = joined(history, rows)
            training["recovery"] = further.to_dict()
            training["recovery_sources"] = sources
            if task is not None:
                training["usage_of"] = task
        info = CheckpointInfo(shrp, TEXTS, plan=plan, base_model=called, training=training)
        extra = {checkpoint.HISTORY: history_text(history)}
        checkpoint.save(model, tokenizer, info, out, extra_files=extra, new=True)
        finish(out)
    if json:
        print_json({"out": str(out), "layers": list(shrp.layers), "texts": len(found), "epochs": history})
    else:
        stderr.print(f"wrote {out}")


def _texts(path: Path, columns: list[str]) -> tuple[tuple[str, ...], ...]:
    """The texts of a file; rows without one, such as blank lines between paragraphs, are left out and counted."""
    from shrp.data.sources import complete_rows
    from shrp.data.tabular import read_table, text_rows

    frame = read_table(path)
    with complete_rows(frame, columns, None, path.name) as complete:
        texts = text_rows(complete, columns, path.name)
    if left := len(frame) - len(texts):
        stderr.print(f"left out {left:,} of {len(frame):,} rows of {path.name}, without a text")
    return texts
