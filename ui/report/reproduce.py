"""The end of the report: how to have its numbers again, and what they can't say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from shrp.checkpoints.card_training import converted, recovered_on_texts
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import TEXTS
from shrp.evaluation.costs import TOKENS
from ui.data_sources import FOLDER, OWN, columns_left
from ui.own import data as own_data
from ui.own.fit import Columns
from ui.report.parts import Section
from ui.state import Selection
from ui.text import file_name

_OPTIONS = (
    *(
        "stage2_epochs",
        "balance",
        "epoch_size",
        "conversion_size",
        "batch_size",
        "max_length",
        "learning_rate",
    ),
    *("new_learning_rate", "distill_logits", "distill_hidden", "expander_init", "swap", "exploration"),
    *("precision", "seed"),
)
"""Settings of a training run that `shrp train` takes under the same name."""
_CONVERT_OPTIONS = ("conversion_size", "final_size", "batch_size", "max_length", "precision", "seed")
"""The same of `shrp convert`."""


def reproduce_part(part: Section, selection: Selection) -> None:
    """The commands that give the report's numbers, and the one that trained the checkpoint."""
    name = _folder(selection)
    known = {"probe": "probe", "glue": "glue", "hub": "glue"}
    data = known.get(selection.source, "YOUR_FILE")
    part.words("From SHRP's folder, with the checkpoint's folder in place of its name:")
    words = selection.data.slice_words.splitlines() if selection.data is not None else []
    wanted = sorted(set(selection.data.slices)) if selection.rows is not None else []
    alone = "".join(f" --only {shlex.quote(name)}" for name in wanted)
    column = own_data.slice_column() if selection.source == OWN else None
    if selection.source == FOLDER and selection.data is not None and selection.data.slices is not None:
        column = "slice"
    by_column = f" --slice-column {shlex.quote(column)}" if column and not words else ""
    sliced = by_column + "".join(f" --slice {shlex.quote(line)}" for line in words) + alone
    columns = columns_left(selection.checkpoint.info.task) if selection.source == FOLDER else None
    read = _joined(_read_as(selection, columns))
    info = selection.checkpoint.info
    of_task = info.task.name != TEXTS.name  # what was converted on texts answers nothing
    labelled = selection.data is not None and selection.data.labels is not None
    answers = "" if labelled else " --predictions answers.csv"
    lines = [f"python -m shrp evaluate {name} --data {data}{read}{sliced}{answers}"] * of_task
    if selection.is_routed:
        told = " --explained --exchanged"
        lines.append(f"python -m shrp usage {name} --data {data}{read}{sliced}{told}")
    lines.append(f"python -m shrp measure {name} --tokens {TOKENS}")
    if selection.is_routed:
        of_some = sliced * bool(alone)
        if of_task and labelled:
            for allocation in ("", " --allocation budget"):
                lines.append(f"python -m shrp sweep {name} --data {data}{read}{of_some}{allocation}")
        read = _joined(_read_as(selection, columns, pairs=False))
        on = f" --data {data}{read}{of_some}" * (bool(alone) or not info.usage)
        lines.append(f"python -m shrp prune {name} --budget {2 * len(info.config.layers)}{on} --out pruned")
    part.code("\n".join([*lines, "streamlit run app.py"]))
    training = selection.checkpoint.info.training
    if (command := train_command(selection)) is not None:
        part.words("To train it again:")
        part.code(command)
        part.words(
            "Made from the settings that the checkpoint stores, over the recipe without additions; those that it "
            "doesn't store are the command's defaults, and numbers may differ a little between machines.",
            soft=True,
        )
    elif selection.checkpoint.is_static and not recovered_on_texts(selection.checkpoint.info):
        part.words(
            "It was pruned from a routed checkpoint, whose own report has the command that trained that one."
        )
    elif training:
        part.words(
            "No one command repeats its training: it was converted in parts, its experts were drawn at random, or "
            "it does not store its settings in full."
        )


def _read_as(selection: Selection, columns: Columns | None, *, pairs: bool = True) -> list[str]:
    """With which the command line reads the data as the app does.

    Args:
        columns: of the file in the data folder, where the data are that.
        pairs: as for `own_data.options`.
    """
    if selection.source == OWN:
        return own_data.options(pairs=pairs)
    task = selection.checkpoint.info.task
    return [] if columns is None else own_data.options_of(columns, task, pairs=pairs)


def _joined(words: Sequence[str]) -> str:
    return f" {shlex.join(words)}" if words else ""


def train_command(selection: Selection) -> str | None:
    """The command that a checkpoint's stored settings make; None where they are not stored or it was pruned from one.

    A comment above it names a base that no command could find by its name.

    Of layers that were converted on texts before the task there are two, `shrp convert` and `shrp train`; three where a
    task's routed model chose among them before that.
    """
    info = selection.checkpoint.info
    config, before = info.training.get("config"), info.training.get("converted")
    if not isinstance(config, Mapping) or not info.config.layers or info.config.control != "none":
        return None
    if info.plan and not recovered_on_texts(info):
        return None
    made = before if isinstance(before, Mapping) else info.training
    if {"earlier", "selection"} & set(made):
        return None  # `shrp convert` converts in one, and draws no experts at random
    if not isinstance(before, Mapping) and info.task.name != TEXTS.name and _converted_none(config):
        return None  # its layers were converted before, and how is not stored
    named = "" if _base(info) == info.base_model else f"# YOUR_BASE is {info.base_model or 'not stored'}.\n"
    if info.task.name == TEXTS.name:
        return named + _convert_command(info, before or info.training, _folder(selection))
    trained_on = str(info.training.get("train_data", ""))
    data = (
        ["--task", info.task.name]
        if trained_on == f"glue/{info.task.name} train"
        else ["--train-file", "YOUR_TRAINING_FILE", "--validation-file", "YOUR_VALIDATION_FILE"]
    )
    words = ["python", "-m", "shrp", "train", "--base", _base(info), *data]
    # A setting that was not stored did not exist yet, and the plain recipe leaves it at what it was then.
    words += ["--recipe", "paper"]
    if converted(info.training):
        words += ["--converted", "converted"]
    else:
        words += _layers(info)
        if order := config.get("order"):
            words += ["--order", ",".join(map(str, order))]
    words += _settings(config, _OPTIONS)
    flags = {"freeze_embeddings": True, "freeze_dense": True, "dropout": False}
    words += [
        f"--{'' if value else 'no-'}{name.replace('_', '-')}"
        for name, value in flags.items()
        if config.get(name) is value
    ]
    teacher = info.training.get("teacher")
    tuned_for = teacher.get("epochs") if isinstance(teacher, Mapping) else None
    if (
        isinstance(teacher, Mapping)
        and isinstance(labels := teacher.get("head_labels"), list)
        and not tuned_for
    ):
        words += ["--head-labels", ",".join(map(str, labels))]
    if isinstance(tuned_for, int):
        words += ["--teacher-epochs", str(teacher["epochs"])]
        tuned = teacher.get("config")
        if isinstance(tuned, Mapping) and isinstance(rate := tuned.get("learning_rate"), int | float):
            words += ["--teacher-learning-rate", f"{rate:g}"]
    command = shlex.join([*words, "--out", _folder(selection)])
    if converted(info.training):
        return f"{named}{_convert_command(info, made, 'converted')}\n{command}"
    return named + command


def _base(info: CheckpointInfo) -> str:
    """The base, where it is called what the hub could know it by."""
    return info.base_model if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", info.base_model or "") else "YOUR_BASE"


def _folder(selection: Selection) -> str:
    """The checkpoint's name as a folder's; the folder of an uploaded one is a temporary one that means nothing."""
    return file_name(selection.name)


def _convert_command(info: CheckpointInfo, made: Mapping[str, Any], out: str) -> str:
    """The `shrp convert` command, from what it stored; two where a task said which experts to keep, with a comment on
    what lies between them.
    """
    words = ["python", "-m", "shrp", "convert", "--base", _base(info), "--texts", "YOUR_TEXTS"]
    routed = [*words, *_layers(info), *_settings(made.get("config", {}), _CONVERT_OPTIONS)]
    if not info.plan:
        return shlex.join([*routed, "--out", out])
    pruned = ["--per-layer", str(max(info.plan.keep_counts().values()))]
    pruned += ["--further-size", str(made["recovery"]["final_size"])]
    if not made.get("usage_of"):
        return shlex.join([*routed, *pruned, "--out", out])
    first, task = f"{out}-routed", made["usage_of"]
    words += ["--converted", first, "--usage-of", f"YOUR_ROUTED_{task.upper()}_CHECKPOINT"]
    words += _settings(made["recovery"], ("batch_size", "max_length", "precision", "seed"))
    return "\n".join(
        [
            shlex.join([*routed, "--out", first]),
            f"# YOUR_ROUTED_{task.upper()}_CHECKPOINT is what `shrp train --converted {first}` makes for {task}.",
            shlex.join([*words, *pruned, "--out", out]),
        ]
    )


def _converted_none(config: Mapping[str, Any]) -> bool:
    """Whether a training says that it converted no layer itself."""
    shrp = config.get("shrp")
    return isinstance(shrp, Mapping) and shrp.get("layers") == []


def _layers(info: CheckpointInfo) -> list[str]:
    layers = ",".join(map(str, info.config.layers))
    return ["--layers", layers, "--routing", info.config.routing, "--top-k", str(info.config.top_k)]


def _settings(config: Mapping[str, Any], options: Sequence[str]) -> list[str]:
    words = []
    for option in options:
        value = config.get(option)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            words += [
                f"--{option.replace('_', '-')}",
                f"{value:g}" if isinstance(value, float) else str(value),
            ]
    return words


def limits_part(part: Section, selection: Selection) -> None:
    """What the numbers of the report do not cover."""
    lines = [
        "Intervals are 95% (of averaged random draws the range) and cover the choice of these inputs only: not the "
        "seed of training, nor other data.",
        "FLOPs and parameters are counted from the architecture; time depends on the machine and is not in here.",
        "A share of the encoder and a share of the whole model differ: the embeddings are in the second alone.",
        "Examples are picked by the model's outputs, so they show its extremes and not how often they occur.",
        "Comparisons with controls are one by one, without a correction for their number.",
    ]
    if selection.is_routed:
        lines += [
            "Usage says where inputs go, not that an expert matters; Expert usage measures that.",
            "The best point of a curve was picked on the inputs that it is scored on, which flatters it a little.",
        ]
    if selection.source == "probe":
        lines.append(
            "The probe set is made of sentences about single phenomena; it is no sample of real text."
        )
    part.bullets(lines)
