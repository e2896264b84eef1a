"""Which checkpoints there are in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from shrp.checkpoints.checkpoint import read_config
from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.saving import CONFIG, GRAPH, WEIGHTS
from shrp.data.tabular import is_unicode
from shrp.errors import CheckpointError


def discover(root: str | os.PathLike) -> dict[str, CheckpointInfo | CheckpointError]:
    """Every SHRP checkpoint in the folders directly under `root`, by name; a broken one maps to its error.

    A folder with neither a config nor weights is no checkpoint at all and is passed over, and so is an export, or one
    that may not be looked into, or whose name is not valid Unicode and can't be shown.
    """
    found: dict[str, CheckpointInfo | CheckpointError] = {}
    root = Path(root)
    try:
        folders = sorted(root.iterdir())
    except OSError:
        return found
    for folder in folders:
        is_model = any(os.path.isfile(folder / name) for name in (CONFIG, WEIGHTS))
        if folder.name.startswith(".") or not is_model or not is_unicode(folder.name):
            continue
        if not os.path.isfile(folder / WEIGHTS) and os.path.isfile(folder / GRAPH):  # an export
            continue
        try:
            found[folder.name] = _describe(folder)
        except CheckpointError as error:
            found[folder.name] = error
    return found


def _describe(folder: Path) -> CheckpointInfo:
    """The info of a checkpoint after checking that its weights file is whole, which reads only its header."""
    _, info = read_config(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or truncated: {error}.") from error
    return info
