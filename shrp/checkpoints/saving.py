"""Checkpoints are written all of it or nothing, and over nothing but checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import reference
from shrp.checkpoints.card import card, licence_in
from shrp.checkpoints.info import (
    CARD,
    CLASS_PREFIX,
    CONFIG,
    HISTORY,
    MORE_WEIGHTS,
    PREFIX,
    WEIGHTS,
    CheckpointInfo,
    history_text,
)
from shrp.checkpoints.reference import Reference
from shrp.data.batching import save_tokenizer
from shrp.errors import CheckpointError
from shrp.families.families import encoder_layers
from shrp.files import as_others, new_folder, read_object
from shrp.model.convert import layer_kinds
from shrp.model.layers import StaticLayer

_NOT_BY_ITS_CLASS = (
    "this is a model with SHRP layers; import shrp and load it with transformers' auto class or shrp.load"
)
"""In place of the weights' file name, which `shrp.load` does not read: the family's own class, called by its name, shows
it in an error, where it would load random weights for the converted layers.
"""


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    info: CheckpointInfo,
    folder: str | os.PathLike,
    *,
    dtype: torch.dtype | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    teacher: Mapping[str, Reference] | None = None,
    new: bool = False,
    halves: bool = False,
) -> Path:
    """Write a checkpoint folder, all of it or nothing; a checkpoint that is there is replaced, unless `new`.

    Args:
        dtype: store floating-point weights in this type, for example `torch.float16`; None keeps theirs.
        history: the training's epochs, for `history.jsonl`; none writes no file.
        teacher: the dense teacher's outputs by data fingerprint, as a small file next to the weights.
        new: refuse to replace anything, also what another process has just written there.
        halves: write the weights as two files of about the same size, for where large ones are not taken.

    Raises:
        CheckpointError: `folder` is something else than a checkpoint, or can't be written, or `info` does not describe
            the model.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    _check_described(model, info)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = new_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        state = {
            name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
            for name, value in model.state_dict().items()
        }
        _write_weights(state, partial, halves)
        config = model.config.to_diff_dict() | {
            **named(model, converted=bool(info.config.layers)),
            "dtype": str(dtype or next(model.parameters()).dtype).removeprefix("torch."),
            "shrp": info.to_dict(),
        }
        (partial / CONFIG).write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
        save_tokenizer(tokenizer, partial)
        if history:
            (partial / HISTORY).write_text(history_text(history), encoding="utf-8")
        if teacher:
            reference.write(partial, teacher)
        _write_card(model, info, partial, folder)
        put_in_place(partial, folder, new=new)
    except (OSError, SafetensorError) as error:  # a full disk, for one
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder} cannot be written: {reason}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_weights(state: dict[str, torch.Tensor], folder: Path, halves: bool) -> None:
    sizes = np.cumsum([value.nbytes for value in state.values()])
    first = 1 + int(np.searchsorted(sizes, sizes[-1] / 2)) if halves else len(state)
    items = list(state.items())
    for name, part in ((WEIGHTS, items[:first]), (MORE_WEIGHTS, items[first:])):
        if part:
            save_file(dict(part), folder / name, metadata={"format": "pt"})
            as_others(folder / name)  # safetensors makes it private


def _write_card(model: PreTrainedModel, info: CheckpointInfo, partial: Path, folder: Path) -> None:
    """Write the model card, with the licence of an earlier card."""
    before = ""
    with suppress(OSError, UnicodeDecodeError):
        before = (folder / CARD).read_text(encoding="utf-8")
    licence = licence_in(before, info.base_model)
    text = card(folder.resolve().name, info, model, licence)
    (partial / CARD).write_text(text, encoding="utf-8")


def named(model: PreTrainedModel, *, converted: bool) -> dict[str, Any]:
    """How a config names a model, so that without SHRP no converted one is taken for the dense model it was."""
    kind, cls = model.config.model_type, type(model).__name__
    if not converted:
        return {"model_type": kind, "architectures": [cls]}
    return {
        "model_type": PREFIX + kind,
        "architectures": [CLASS_PREFIX + cls],
        "transformers_weights": _NOT_BY_ITS_CLASS,
    }


def round_as_stored(model: PreTrainedModel, dtype: torch.dtype | None) -> None:
    """Round a model's weights in place as storing them will, so that its score is that of what is written."""
    if dtype is not None:
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.to(dtype))


def _check_described(model: PreTrainedModel, info: CheckpointInfo) -> None:
    """Raise `CheckpointError` where the layers are not of the kinds that `info` says: it could not be loaded."""
    static = [i for i, layer in enumerate(encoder_layers(model)) if isinstance(layer, StaticLayer)]
    planned = sorted(info.plan.keep_counts()) if info.plan else []
    if static != planned:
        raise CheckpointError(
            f"the model's pruned layers are {static}, and its info has a plan for {planned}; "
            "`Checkpoint.prune` makes both."
        )
    converted = [i for i, kind in enumerate(layer_kinds(model)) if kind != "dense"]
    if converted != sorted(info.config.layers):
        raise CheckpointError(
            f"the model's converted layers are {converted}, and by its info they are {list(info.config.layers)}."
        )


def entries(folder: Path) -> tuple[Path, ...]:
    """What is in a folder; nothing where there is none, as when another process takes it away meanwhile."""
    try:
        return tuple(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return ()


def check_name(folder: Path) -> None:
    """Raise `CheckpointError` where a folder has no name that a result and its state next to it can have (`.`, `..`)."""
    if folder.name in ("", ".."):
        raise CheckpointError(f"'{folder}' is no name for a result; name a folder of its own.")


def is_free(folder: Path) -> bool:
    """Whether nothing is at a place, or an empty folder. Raises as `check_name`."""
    check_name(folder)
    return not folder.exists() or (folder.is_dir() and not entries(folder))


def refuse_foreign(folder: Path) -> None:
    """Raise `CheckpointError` where saving to `folder` would destroy something else than a checkpoint of SHRP's."""
    if not is_free(folder) and "shrp" not in read_object(folder / CONFIG):
        raise CheckpointError(
            f"{folder} exists and is not a checkpoint of SHRP's; choose a new or an empty folder."
        )


def refuse_existing(folder: str | os.PathLike) -> None:
    """Raise `CheckpointError` where there is anything at `folder`, which a result of some work would replace."""
    if not is_free(Path(folder)):
        raise CheckpointError(f"{folder} exists already; choose another folder for the result.")


def put_in_place(partial: Path, folder: Path, *, new: bool = False) -> None:
    """Rename a finished folder to `folder`, next to it, in place of what is there; nothing changes if that fails.

    Raises:
        CheckpointError: there is something, and `new` says that nothing is to go.
    """
    if new:
        try:
            if folder.is_dir() and not entries(folder):
                folder.unlink() if folder.is_symlink() else folder.rmdir()
            os.replace(partial, folder)
        except OSError:
            refuse_existing(folder)
            raise
        return
    if not folder.exists():
        os.replace(partial, folder)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    try:
        os.replace(folder, retired / "old")
        os.replace(partial, folder)
    except BaseException:  # an interruption too: what was there would be lost with what is removed below
        if not folder.exists():
            os.replace(retired / "old", folder)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)
