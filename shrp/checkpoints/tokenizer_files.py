"""Check an untrusted tokenizer's files before anything is made of them.

The settings next to a tokenizer become arguments of its class, and some of those are paths: a vocabulary could be any
file of the machine, and a copy would carry it away. `tokenizer.json` is a small program: its parts can blow up a text
(three replacements of "." by 200 letters need gigabytes), or panic in Rust. So names of classes, settings and parts come
from lists, and what the parts contain is bounded.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from shrp.data.tabular import is_unicode
from shrp.errors import CheckpointError, ShrpError
from shrp.files import read_object

TOKENIZER = "tokenizer.json"
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""The files whose entries become arguments of a tokenizer's class."""
_OF_FAMILIES = (
    "Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert", "MPNet", "DebertaV2", "Herbert", "Phobert",
    "Bertweet", "BertJapanese", "GPT2", "T5", "DPRContextEncoder", "DPRQuestionEncoder",  # the last four of some RoBERTa and BERT
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

_PARTS = {
    "normalizer": {
        "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace", "Strip",
        "StripAccents",
    },
    "pre_tokenizer": {
        "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit",
    },
    "post_processor": {"BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"},
    "decoder": {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"},
    "model": {"BPE", "Unigram", "WordLevel", "WordPiece"},
}
"""The parts of a tokenizer, and the types of each that tokenizers of the supported families have."""
_PATTERNS = (" {2,}", r"\s+", r"\s{2,}|[\n\r\t]", r"\A +| +\z")
"""Regular expressions that tokenizers of the families replace by; others may take exponential time."""
_LONGEST_SEQUENCE, _LONGEST_TOKEN, _LARGEST = 16, 1000, 10_000_000
_LONGEST = {"prepend": 1, "replacement": 1}
"""Characters of texts that are put in everywhere; others have at most 100."""
_LONGEST_PIECE = 64
"""Bytes that one character may become by a table; the longest in Unicode's has 33."""


def check_files(folder: str | os.PathLike) -> None:
    """Check a folder's tokenizer; what is no JSON is left to its reader.

    Raises:
        CheckpointError: it would read other files than the folder's own, is of a class that is not one of `CLASSES`, or
            has a `tokenizer.json` that `check_parts` refuses; one sentence says which entry.
    """
    no = f"{folder} has no usable tokenizer:"
    for name in ("tokenizer_config.json", "config.json"):  # the first that names one counts, as for transformers
        if not (named := read_object(Path(folder) / name).get("tokenizer_class")):
            continue
        if named not in list(CLASSES):  # a list: the value may not be hashable
            raise CheckpointError(
                f"{no} {name} asks for the class {named!r:.60}, which is not among those that are read; {_MEND}."
            )
        break
    for name in SETTINGS:
        if not is_unicode(json.dumps(found := read_object(Path(folder) / name), ensure_ascii=False)):
            raise CheckpointError(f"{no} {name} has an entry with half of a surrogate pair, which can't be written; take it out.")
        for key, value in _entries(found):
            reads = key in _READ or (key.endswith(_READ_BY_ENDING) and key not in _HARMLESS)
            if reads and value not in (None, "", {}, [], *_DICTIONARIES):
                raise CheckpointError(
                    f"{no} {name} has an entry {key[:40]!r}, by which it would read other files than the checkpoint's; "
                    "save the tokenizer by `save_pretrained`, and use the files that are written."
                )
    check_content(folder)


def check_content(folder: str | os.PathLike) -> None:
    """Raise `CheckpointError` where `check_parts` refuses a folder's `tokenizer.json`."""
    if wrong := check_parts(read_object(Path(folder) / TOKENIZER)):
        raise CheckpointError(f"{folder} has no usable tokenizer: {TOKENIZER} {wrong}.")


def check_made(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ShrpError` of a tokenizer that no checkpoint could be loaded with, before anything is trained by it."""
    if (name := type(tokenizer).__name__) not in CLASSES:
        raise ShrpError(f"tokenizers of the class {name} are not read; {_MEND}.")
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is not None and (wrong := check_parts(json.loads(core.to_str()))):
        raise ShrpError(f"its tokenizer {wrong}.")


def check_parts(found: Mapping[str, Any]) -> str:
    """What is wrong with the content of a `tokenizer.json`, as it goes on after the file's name; empty if nothing is."""
    try:
        for part, types in _PARTS.items():
            seen: list[str] = []
            for one in _flat(part, found.get(part)):
                kind = one.get(
                    "type", "WordPiece" if part == "model" else ""
                )  # old files don't name the model
                if kind not in list(types):
                    raise _Refused(
                        f"has a {part} of type {kind!r:.40}, which is not among those that are read"
                    )
                if kind in seen and kind != "Replace":
                    raise _Refused(f"has the {part} {kind} twice")
                seen.append(kind)
                if kind == "Replace":
                    _check_replace(one)
                elif kind == "Precompiled":
                    _check_table(base64.b64decode(one["precompiled_charsmap"] or "", validate=True))
                else:
                    _check_bounds(part, {k: v for k, v in one.items() if k not in ("vocab", "merges")})
        if (model := found.get("model")) is not None:
            _check_vocabulary(model)
        _check_cut(found.get("truncation"), found.get("padding"))
        if any(len(token["content"]) > _LONGEST_TOKEN for token in found.get("added_tokens") or ()):
            raise _Refused(f"has an added token of more than {_LONGEST_TOKEN} characters")
    except _Refused as refused:
        return str(refused)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return f"is not as the tokenizers library writes it ({type(error).__name__})"
    return ""


class _Refused(Exception):
    """A part is refused; the words say why."""


def _flat(part: str, found: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A part, or of a sequence all of its own."""
    if found is None:
        return
    if found.get("type") != "Sequence":
        yield found
        return
    (own,) = (value for name, value in found.items() if name != "type")
    if depth > 2 or len(own) > _LONGEST_SEQUENCE:
        raise _Refused(f"has a {part} of more than {_LONGEST_SEQUENCE} parts, or of sequences in sequences")
    for one in own:
        yield from _flat(part, one, depth + 1)


def _check_bounds(part: str, found: Any, longest: int = 100) -> None:
    """Check every text, number and list in a part."""
    if isinstance(found, dict):
        for name, value in found.items():
            _check_bounds(part, value, _LONGEST.get(name, 100))
    elif isinstance(found, list):
        if len(found) > _LONGEST_SEQUENCE:
            raise _Refused(f"has a {part} with a list of more than {_LONGEST_SEQUENCE} entries")
        for value in found:
            _check_bounds(part, value)
    elif isinstance(found, str) and len(found) > longest:
        raise _Refused(f"has a {part} with a text of more than {longest} characters")
    elif type(found) is int and not 0 <= found <= _LARGEST:
        raise _Refused(f"has a {part} with a number that is not from 0 to {_LARGEST:,}")


def _check_replace(one: Mapping[str, Any]) -> None:
    """Check that a replacement makes no text longer, and takes no exponential time."""
    ((kind, pattern),), content = one["pattern"].items(), one["content"]
    if kind == "Regex" and pattern not in _PATTERNS:
        raise _Refused(
            f"replaces by the regular expression {pattern!r:.40}, which is not among those that are read"
        )
    if not pattern or len(content) > (1 if kind == "Regex" else len(pattern)):
        raise _Refused(f"replaces {pattern!r:.40} by a longer text")


def _check_vocabulary(model: Mapping[str, Any]) -> None:
    vocabulary, unknown = model["vocab"], model.get("unk_id")
    tokens = vocabulary if isinstance(vocabulary, dict) else (token for token, _ in vocabulary)
    if any(len(token) > _LONGEST_TOKEN for token in tokens):
        raise _Refused(f"has a token of more than {_LONGEST_TOKEN} characters")
    if unknown is not None and not 0 <= unknown < max(1, len(vocabulary)):
        raise _Refused("has an unk_id that is not in its vocabulary")


def _check_cut(cut: Mapping[str, Any] | None, padding: Mapping[str, Any] | None) -> None:
    """Check its own truncation and padding."""
    if cut and not 0 <= cut.get("stride", 0) <= max(0, cut["max_length"] - 3) <= _LARGEST:
        raise _Refused("has a truncation whose stride does not fit its length")
    if padding:
        _check_bounds("padding", padding)
        strategy = padding["strategy"]
        if strategy != "BatchLongest" and strategy["Fixed"] > 100_000:
            raise _Refused("has a padding to more than 100,000 tokens")


def _check_table(table: bytes) -> None:
    """Check a table of characters as sentencepiece compiles it: a double-array trie, and texts that each end with 0.

    The library looks up the trie unchecked, so each place that a text can lead to must exist.
    """
    no = _Refused("has a normalizer whose precompiled table of characters is damaged")
    size = int.from_bytes(table[:4], "little")
    if len(table) > 4 * 2**20 or not size or size % 1024 or len(table) <= 4 + size:
        raise no
    units, texts = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64), table[4 + size :]
    if not texts.endswith(b"\0") or max(map(len, texts.split(b"\0"))) > _LONGEST_PIECE:
        raise no
    starts = np.array([byte & 0xC0 != 0x80 for byte in texts])  # where a character may start
    texts.decode()
    labels = np.arange(1, 256)
    seen, reached = np.zeros(len(units), dtype=bool), np.array([0])
    while len(reached):
        of = units[reached]
        at = reached ^ ((of >> 10) << ((of & 512) >> 6))  # where the children lie, but for their own byte
        if at.max() >= len(units):
            raise no
        leaves = at[(of >> 8 & 1) == 1]
        values = units[leaves] & 0x7FFFFFFF
        if len(leaves) and (values.max() >= len(texts) or not starts[values].all()):
            raise no
        children = at[:, None] ^ labels  # within blocks of 256, of which there are whole ones
        children = np.unique(children[(units[children] & 0x800000FF) == labels])
        reached = children[~seen[children]]
        seen[reached] = True


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
