"""What the settings beside a tokenizer may not hold: names of files that lie elsewhere.

A tokenizer's class takes its settings as arguments, some of which are paths. A checkpoint of a stranger's could so have
any file of the machine read as its vocabulary, and a copy of that checkpoint would carry the file away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shrp.errors import CheckpointError

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""The files whose entries become arguments of a tokenizer's class."""
_READ = frozenset({"vocab", "merges", "init_inputs", "tokenizer_object", "gguf_file", "fast_tokenizer_files"})
_READ_BY_ENDING = ("_file", "_files", "_path", "_dir", "_kwargs")
"""Of arguments that are paths, or hold some: `vocab_file`, `sudachi_config_path`, `sp_model_kwargs`."""
_HARMLESS = frozenset({"name_or_path"})  # where a tokenizer once came from


def refuse_paths(folder: str | os.PathLike) -> None:
    """Raise where a tokenizer would read other files than its folder's own; what is no JSON is left to its reader.

    Tokenizers that transformers has saved name none.

    Raises:
        CheckpointError: one of `SETTINGS` has such an entry, at any depth.
    """
    for name in SETTINGS:
        try:
            found = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for key, value in _entries(found):
            reads = key in _READ or (key.endswith(_READ_BY_ENDING) and key not in _HARMLESS)
            if reads and value not in (None, "", {}, []):
                raise CheckpointError(
                    f"{folder} has no usable tokenizer: {name} has an entry {key[:40]!r}, by which it would read other "
                    "files than the checkpoint's; save the tokenizer by `save_pretrained`, and use the files that are "
                    "written."
                )


def _entries(found: Any) -> Iterator[tuple[str, Any]]:
    """Every entry of a JSON value, whatever it lies in."""
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
