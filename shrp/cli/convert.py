"""`convert`: layers converted on unlabelled text, once for several tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from shrp.cli import options as opt
from shrp.cli.output import print_json, stderr, training_progress
from shrp.data.tasks import LABEL
from shrp.errors import PlanError
from shrp.training.config import QUICK, WIDE_RATES, TextConfig, read_config


@dataclass(frozen=True)
class ConvertOptions:
    """What the `--config` file of `convert` may set."""

    training: TextConfig
    """The conversion: layers and routing (`shrp`), texts of each epoch, length, rates, seed."""
    base_name: str | None = None
    """What checkpoints call the base; by default the folder's name."""


def convert(
    base: opt.Base,
    out: opt.Out,
    texts: Annotated[list[Path], Option(help="A file of texts, or a folder or 'pattern' of shards; repeat.")],
    text_column: opt.TextColumns = None,
    layers: opt.Layers = None,
    quick: Annotated[bool, Option("--quick", help="Convert a classifier for its own task.")] = False,
    validation_file: opt.ValidationFile = None,
    label_column: opt.LabelColumn = LABEL,
    label_means: opt.LabelMeanings = None,
    config: opt.Config = None,
    json: opt.AsJson = False,
) -> None:
    """Convert layers of an encoder on unlabelled text; `train --converted` continues from it on a task.

    Each converted layer is trained to reproduce the hidden states of the dense layer it replaces. With --quick the base
    is a dense classifier, and the result a routed model of its task, scored on --validation-file. The same command
    continues a killed run.
    """
    from shrp.checkpoints import checkpoint
    from shrp.checkpoints.base import base_config, load_base, name_of
    from shrp.checkpoints.info import CheckpointInfo
    from shrp.checkpoints.saving import refuse_existing
    from shrp.data.batching import longest_input, token_counts
    from shrp.data.tasks import TEXTS
    from shrp.training.processes import from_main
    from shrp.training.runs import alone_in, finish, run_folder
    from shrp.training.text import train_on_text

    refuse_existing(out)  # refuse now, not after the epochs
    num_layers, experts = opt.base_geometry(base)
    shrp: dict[str, Any] = {"layers": list(opt.layer_list(layers, num_layers))}
    rates = WIDE_RATES if base_config(base).hidden_size > 512 else {}
    defaults = {"training": (QUICK if quick else {}) | rates}
    options = read_config(config, ConvertOptions, defaults=defaults, overrides={"training": {"shrp": shrp}})
    own = opt.Data(label_column=label_column, label_means=label_means)
    options.training.shrp.check_fits(num_layers, experts)
    if quick:
        _quick(base, out, texts, options, replace(own, text_column=text_column), validation_file, json)
        return
    if validation_file is not None:
        raise PlanError("--validation-file is for --quick: a conversion without it has no task.")
    own.refuse("is for --quick: a conversion without it needs no labels.")
    called = name_of(base, options.base_name)
    how = options.training
    dense, tokenizer, _ = load_base(base, TEXTS, how.seed)
    length = longest_input(dense, tokenizer, how.max_length)
    found = opt.sample_texts(texts, text_column or ["text"], how)
    counts = token_counts(tokenizer, found)
    opt.report_cut_at(length, counts, "the texts", "`max_length` in --config changes that")
    folder = run_folder(out)
    with alone_in(folder, "convert"):
        refuse_existing(out)  # another command may have made it since
        shared = {"teacher_outputs": folder / "teacher-outputs", "progress": training_progress()}
        model, history = train_on_text(how, dense, tokenizer, found, folder / "converted", **shared)
        training = {"config": how.to_dict(), "texts": len(found), "precision": history[-1]["precision"]}
        training |= {"sources": [path.name for path in texts]}
        info = CheckpointInfo(how.shrp, TEXTS, base_model=called, training=training)
        from_main(lambda: checkpoint.save(model, tokenizer, info, out, history=history, new=True))
        finish(out)
    if json:
        print_json({"out": str(out), "layers": list(how.shrp.layers), "texts": len(found), "epochs": history})
    else:
        stderr.print(f"wrote {out}")


def _quick(
    base: str,
    out: Path,
    files: list[Path],
    options: ConvertOptions,
    own: opt.Data,
    validation_file: Path | None,
    json: bool,
) -> None:
    from shrp.checkpoints.checkpoint import load
    from shrp.checkpoints.saving import refuse_existing
    from shrp.data.batching import longest_input, token_counts
    from shrp.training.quick import convert_quickly
    from shrp.training.runs import alone_in, run_folder

    how, dense = options.training, load(base)
    columns = own.text_column or list(dense.info.task.text_columns)
    validation = None if validation_file is None else own.read(validation_file, dense.info.task)
    if validation is not None and validation.labels is None:
        stderr.print(f"{validation.name} has no column '{own.label_column}': the model is not scored")
    rows = opt.sample_texts(files, columns, how)
    texts, added = opt.enough_texts(rows, validation)
    counts = token_counts(dense.tokenizer, rows)
    length = longest_input(dense.model, dense.tokenizer, how.max_length)
    opt.report_cut_at(length, counts, "the texts", "`max_length` in --config changes that")
    with alone_in(run_folder(out), "convert"):
        refuse_existing(out)  # another command may have made it since
        found = convert_quickly(
            replace(dense, info=replace(dense.info, base_model=options.base_name or dense.info.base_model)),
            texts,
            how,
            out,
            validation=validation,
            sources=[*(path.name for path in files), *added],
            progress=training_progress(),
        )
    if json:
        print_json(found | {"out": str(out), "layers": list(how.shrp.layers)})
        return
    stderr.print(f"wrote {out} in {found['seconds']:.0f} s")
    if found["n"]:
        stderr.print(f"routed {found['routed_score']:.4f}, dense {found['dense_score']:.4f} (n = {found['n']:,})")
