"""What the settings beside a tokenizer may hold: no name of a file that lies elsewhere, nor of a class of other things.

A tokenizer's class is picked by name, and takes its settings as arguments, some of which are paths. A stranger's
checkpoint could so have any file of the machine read as its vocabulary, and a copy of it would carry the file away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from shrp.errors import CheckpointError, ShrpError

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""The files whose entries become arguments of a tokenizer's class."""
_NAMED = ("tokenizer_config.json", "config.json")
"""Those that may name the class; the first that does counts, as for transformers."""
_OF_FAMILIES = (
    *("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert", "MPNet", "DebertaV2"),
    *("Herbert", "Phobert", "Bertweet", "BertJapanese"),
    *("GPT2", "T5", "DPRContextEncoder", "DPRQuestionEncoder"),  # of some RoBERTa and BERT encoders
)
_MEND = "save its tokenizer.json, loaded as PreTrainedTokenizerFast, over it by `save_pretrained`"
CLASSES = frozenset(
    {"PreTrainedTokenizerFast", "TokenizersBackend"}
    | {f"{name}Tokenizer{kind}" for name in _OF_FAMILIES for kind in ("", "Fast")}
)
"""Tokenizers that models of the supported families come with, by the names of their classes."""
_READ = frozenset({"vocab", "merges", "init_inputs", "tokenizer_object", "gguf_file", "fast_tokenizer_files"})
_READ_BY_ENDING = ("_file", "_files", "_path", "_dir", "_spm", "_kwargs")
"""Of arguments that are paths, or hold some: `vocab_file`, `sudachi_config_path`, `sp_model_kwargs`."""
_HARMLESS = frozenset({"name_or_path"})  # where a tokenizer once came from
_DICTIONARIES = ({"mecab_dic": "ipadic"}, {"mecab_dic": "unidic"}, {"mecab_dic": "unidic_lite"})
"""Settings of Japanese tokenizers that name an installed dictionary, not a path."""


def refuse_paths(folder: str | os.PathLike) -> None:
    """Raise where a tokenizer would read other files than its folder's own, or be of a class that is not one of
    `CLASSES`; what is no JSON is left to its reader.

    Raises:
        CheckpointError: one of `SETTINGS` has such an entry, at any depth, or one of the configs names such a class.
    """
    no = f"{folder} has no usable tokenizer:"
    for name in _NAMED:
        found = _read(folder, name)
        named = found.get("tokenizer_class") if isinstance(found, Mapping) else None
        if not named:
            continue
        if named not in list(CLASSES):  # a list: a stranger's value may not be hashable
            raise CheckpointError(
                f"{no} {name} asks for the class {named!r:.60}, which is not among those that are read; {_MEND}."
            )
        break
    for name in SETTINGS:
        for key, value in _entries(_read(folder, name)):
            reads = key in _READ or (key.endswith(_READ_BY_ENDING) and key not in _HARMLESS)
            if reads and value not in (None, "", {}, [], *_DICTIONARIES):
                raise CheckpointError(
                    f"{no} {name} has an entry {key[:40]!r}, by which it would read other files than the checkpoint's; "
                    "save the tokenizer by `save_pretrained`, and use the files that are written."
                )


def check_class(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise of a tokenizer that no checkpoint could be loaded with: before anything is trained.

    Raises:
        ShrpError: its class is not one of `CLASSES`.
    """
    if (name := type(tokenizer).__name__) not in CLASSES:
        raise ShrpError(f"tokenizers of the class {name} are not read; {_MEND}.")


def _read(folder: str | os.PathLike, name: str) -> Any:
    try:
        return json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


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
