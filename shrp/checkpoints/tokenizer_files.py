"""What a stranger's tokenizer may be: checked in its files, before anything is made of them.

The settings beside a tokenizer become arguments of its class, and some of those are paths: a vocabulary could be any
file of the machine, and a copy would carry it away. `tokenizer.json` is a small program: its parts can blow up a text
(three replacements of "." by 200 letters need gigabytes), or panic in Rust. So names of classes, settings and parts come
from lists, and what the parts contain is bounded.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from shrp.errors import CheckpointError, ShrpError

TOKENIZER = "tokenizer.json"
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

_PARTS = {
    "normalizer": {
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend"),
        *("Replace", "Strip", "StripAccents"),
    },
    "pre_tokenizer": {
        *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace"),
        "WhitespaceSplit",
    },
    "post_processor": {"BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"},
    "decoder": {
        *("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"),
    },
    "model": {"BPE", "Unigram", "WordLevel", "WordPiece"},
}
"""The parts of a tokenizer, and the types of each that tokenizers of the supported families have."""
_MANY = {"Replace"}
"""Types of which a sequence may have several."""
_SEQUENCE, _LONGEST_SEQUENCE, _MAX_NUMBER = "Sequence", 16, 10_000_000
_PATTERNS = (" {2,}", r"\s+", r"\s{2,}|[\n\r\t]", r"\A +| +\z")
"""Regular expressions that tokenizers of the families replace by; others may take exponential time."""
_LONGEST_PIECE = 64
"""Bytes that one character may become by a table; the longest in Unicode's has 33."""


def check_files(folder: str | os.PathLike) -> None:
    """Raise where a tokenizer would read other files than its folder's own, is of a class that is not one of `CLASSES`,
    or has a `tokenizer.json` that `check_parts` refuses; what is no JSON is left to its reader.

    Raises:
        CheckpointError: one sentence says which entry.
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
    check_content(folder)


def check_content(folder: str | os.PathLike) -> None:
    """Raise `CheckpointError` where `check_parts` refuses a folder's `tokenizer.json`; what is no JSON is left to its
    reader.
    """
    parts = _read(folder, TOKENIZER)
    if isinstance(parts, dict) and (wrong := check_parts(parts)):
        raise CheckpointError(f"{folder} has no usable tokenizer: {TOKENIZER} {wrong}.")


def check_made(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise of a tokenizer that no checkpoint could be loaded with, before anything is read or trained by it.

    Raises:
        ShrpError: its class is not one of `CLASSES`, or `check_parts` refuses it.
    """
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
                kind = one.get("type") or ("" if part != "model" else _model_type(one))
                if kind not in list(types):
                    raise _Refused(
                        f"has a {part} of type {kind!r:.40}, which is not among those that are read"
                    )
                if kind in seen and kind not in _MANY:
                    raise _Refused(f"has the {part} {kind} twice")
                seen.append(kind)
                check = _check_model if part == "model" else _CHECKS.get(kind, _check_plain)
                check(part, one)
        _check_cut(found)
        for token in found.get("added_tokens") or ():
            _text("added token", token["content"], 1000)
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
    if found.get("type") != _SEQUENCE:
        yield found
        return
    (own,) = (value for name, value in found.items() if name != "type")
    if depth > 2 or len(own) > _LONGEST_SEQUENCE:
        raise _Refused(f"has a {part} of more than {_LONGEST_SEQUENCE} parts, or of sequences in sequences")
    for one in own:
        yield from _flat(part, one, depth + 1)


def _model_type(model: Mapping[str, Any]) -> str:
    """The type of a model by its fields: files of old versions don't name it."""
    if "merges" in model:
        return "BPE"
    if "max_input_chars_per_word" in model:
        return "WordPiece"
    return "Unigram" if "unk_id" in model else "WordLevel"


def _text(what: str, value: Any, longest: int) -> None:
    if value is not None and not (isinstance(value, str) and len(value) <= longest):
        raise _Refused(f"has a {what} that is not a text of at most {longest} characters")


def _number(what: str, value: Any, least: int = 0, most: int = _MAX_NUMBER) -> None:
    if value is not None and not (type(value) is int and least <= value <= most):
        raise _Refused(f"has a {what} that is not a number from {least} to {most:,}")


def _check_plain(part: str, one: Mapping[str, Any]) -> None:
    """Of a part whose entries are numbers, short texts and switches."""
    for name, value in one.items():
        if isinstance(value, str):
            _text(f"{name} of its {part}", value, 40)
        elif isinstance(value, list):  # a token and its id
            _text(f"{name} of its {part}", value[0], 1000)
            _number(f"{name} of its {part}", value[1])
        elif type(value) is int:
            _number(f"{name} of its {part}", value)


def _check_replace(part: str, one: Mapping[str, Any]) -> None:
    (kind, pattern), content = *one["pattern"].items(), one["content"]
    _text(f"pattern of its {part}", pattern, 40)
    if kind == "Regex" and pattern not in _PATTERNS:
        raise _Refused(
            f"replaces by the regular expression {pattern!r}, which is not among those that are read"
        )
    _text(f"replacement of {pattern!r}", content, 1 if kind == "Regex" else max(1, len(pattern)))
    if not pattern:
        raise _Refused("replaces nothing by something")


def _check_prepend(part: str, one: Mapping[str, Any]) -> None:
    _text(f"text that its {part} puts first", one["prepend"], 1)


def _check_metaspace(part: str, one: Mapping[str, Any]) -> None:
    _text(f"replacement of spaces in its {part}", one["replacement"], 1)
    _check_plain(part, one)


def _check_template(part: str, one: Mapping[str, Any]) -> None:
    for name in ("single", "pair"):
        if len(one[name]) > _LONGEST_SEQUENCE:
            raise _Refused(f"has a {part} of more than {_LONGEST_SEQUENCE} pieces")
        for piece in one[name]:
            ((_, of),) = piece.items()
            _number(f"type in its {part}", of["type_id"], most=1000)
    for known in one["special_tokens"].values():
        if len(known["ids"]) > 4:
            raise _Refused(f"has a {part} whose tokens are more than 4 ids")
        for number in known["ids"]:
            _number(f"id in its {part}", number)


def _check_model(part: str, one: Mapping[str, Any]) -> None:
    vocabulary = one["vocab"]
    entries = vocabulary.items() if isinstance(vocabulary, dict) else vocabulary
    if any(len(token) > 1000 for token, _ in entries):
        raise _Refused("has a token of more than 1000 characters")
    _number("unk_id", one.get("unk_id"), most=max(0, len(vocabulary) - 1))
    _check_plain(part, {name: value for name, value in one.items() if name not in ("vocab", "merges")})


def _check_cut(found: Mapping[str, Any]) -> None:
    """Check its own truncation and padding."""
    if cut := found.get("truncation"):
        _number("truncation", cut["max_length"], 1)
        _number("stride", cut.get("stride", 0), 0, max(0, cut["max_length"] - 3))
    if padding := found.get("padding"):
        strategy = padding["strategy"]
        if strategy != "BatchLongest":
            _number("padding", strategy["Fixed"], most=100_000)
        _number("padding", padding.get("pad_to_multiple_of"), 1, 4096)
        _number("padding", padding.get("pad_id"))
        _text("padding token", padding.get("pad_token"), 1000)


def _check_table(part: str, one: Mapping[str, Any]) -> None:
    """Check a table of characters as sentencepiece compiles it: a double-array trie, and texts that each end with 0.

    The library looks up the trie unchecked, so each place that a text can lead to must exist.
    """
    no = _Refused(f"has a {part} whose precompiled table of characters is damaged")
    table = base64.b64decode(one["precompiled_charsmap"] or "", validate=True)
    size = int.from_bytes(table[:4], "little")
    if len(table) > 4 * 2**20 or not size or size % 1024 or len(table) <= 4 + size:
        raise no
    units, texts = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64), table[4 + size :]
    if not texts.endswith(b"\0") or max(map(len, texts.split(b"\0"))) > _LONGEST_PIECE:
        raise no
    starts = np.array([byte & 0xC0 != 0x80 for byte in texts])  # where a character may start
    texts.decode()

    def below(places: np.ndarray) -> np.ndarray:
        """Where the children of units lie, but for their own byte."""
        of = units[places]
        return places ^ ((of >> 10) << ((of & 512) >> 6))

    seen = np.zeros(len(units), dtype=bool)
    at = below(np.array([0]))
    while len(at):
        if at.max() >= len(units):
            raise no
        children = (
            at[:, None] ^ np.arange(1, 256)
        ).ravel()  # within blocks of 256, of which there are whole ones
        labels = np.tile(np.arange(1, 256), len(at))
        children = np.unique(children[(units[children] & 0x800000FF) == labels])
        children = children[~seen[children]]
        seen[children] = True
        at = below(children)
        leaves = at[(units[children] >> 8 & 1) == 1]
        if len(leaves) and leaves.max() < len(units):
            values = units[leaves] & 0x7FFFFFFF
            if values.max() >= len(texts) or not starts[values].all():
                raise no


_CHECKS: dict[str, Callable[[str, Mapping[str, Any]], None]] = {
    "Replace": _check_replace,
    "Prepend": _check_prepend,
    "Metaspace": _check_metaspace,
    "TemplateProcessing": _check_template,
    "Precompiled": _check_table,
}


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
