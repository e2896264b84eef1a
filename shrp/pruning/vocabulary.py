"""Vocabulary trimming: remove unused tokens (as TextPruner, Yang et al. 2022, arXiv 2203.15996).

WordPiece takes the longest known piece, so a text whose pieces are all kept is tokenized as before; other words are split
into smaller pieces.
"""

from __future__ import annotations

import copy
import json
import re
import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.batching import piece_counts, save_tokenizer
from shrp.errors import DataError, UnsupportedModelError
from shrp.evaluation.costs import WHOLE_VOCABULARY

_FILE = "tokenizer.json"
_UNUSED = re.compile(r"\[unused\d+\]")
"""Unused entries of BERT's vocabulary."""
_NOT_TRIMMED = "can't be trimmed, only WordPiece: BERT, DistilBERT, ELECTRA, ERNIE and MPNet."
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What to keep of a tokenizer's vocabulary of `size` tokens."""

    kept: np.ndarray
    """Ids of the tokens that stay, ascending, int64 `(kept,)`; a token's new id is its place."""
    size: int

    def missing(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]]) -> float:
        """Share of the pieces of some texts that are not kept; nan without pieces."""
        counts = piece_counts(tokenizer, texts, self.size)
        total = counts.sum()
        return float(1 - counts[self.kept].sum() / total) if total else float("nan")


def vocabulary_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]], common: int = 0
) -> Vocabulary:
    """The tokens that representative texts, such as a task's training data, need.

    Kept are the pieces that occur, the first `common` longer pieces of the vocabulary (BERT's is
    sorted by frequency), special tokens, and the single characters of ASCII and of the texts.

    Raises:
        UnsupportedModelError: the tokenizer is not WordPiece.
        DataError: there are no texts.
    """
    model = _wordpiece(_core(tokenizer))
    prefix = model["continuing_subword_prefix"]
    if not texts:
        raise DataError("there are no texts to count tokens in.")
    pieces = tokenizer.get_vocab()
    size = 1 + max(pieces.values())
    counts = piece_counts(tokenizer, texts, size)
    keep = counts > 0
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    special |= {pieces.get(model["unk_token"])} - {None}
    longer = [
        index
        for piece, index in pieces.items()
        if index not in special and len(piece.removeprefix(prefix)) > 1 and not _UNUSED.fullmatch(piece)
    ]
    keep[sorted(longer)[:common]] = True
    normalizer = tokenizer.backend_tokenizer.normalizer
    seen = {character for text in texts for part in text for character in part}
    if normalizer is not None:  # may decompose a character
        seen |= {part for character in seen for part in normalizer.normalize_str(character)}
    seen |= {lower for character in seen for lower in character.lower()}
    characters = seen | set(string.printable)
    for piece, index in pieces.items():
        keep[index] |= piece.removeprefix(prefix) in characters
    keep[sorted(special)] = True
    return Vocabulary(np.flatnonzero(keep), size)


def with_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A copy of a model and its tokenizer with these tokens only.

    Raises:
        UnsupportedModelError: the tokenizer is not WordPiece, or has an unknown post-processor.
    """
    place = {int(old): new for new, old in enumerate(vocabulary.kept)}
    smaller = _smaller_tokenizer(tokenizer, place)
    model = copy.deepcopy(model)
    before = model.get_input_embeddings()
    pad = before.padding_idx
    if pad is not None and place.get(pad) != pad:  # some families count positions from it
        raise UnsupportedModelError(
            "the id of the padding token would change, from which positions are counted."
        )
    weight = before.weight.detach()[vocabulary.kept.tolist()].clone()
    after = nn.Embedding(*weight.shape, padding_idx=pad, _weight=weight)
    after.weight.requires_grad_(before.weight.requires_grad)
    model.set_input_embeddings(after)
    config = model.config
    setattr(config, WHOLE_VOCABULARY, getattr(config, WHOLE_VOCABULARY, None) or config.vocab_size)
    config.vocab_size = len(place)
    for name in _IDS:
        if (old := getattr(config, name, None)) is not None:
            setattr(config, name, place.get(old))
    return model, smaller


def _core(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A fast tokenizer's JSON."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise UnsupportedModelError(f"a tokenizer without a fast form (tokenizer.json) {_NOT_TRIMMED}")
    return json.loads(core.to_str())


def _wordpiece(backend: dict[str, Any]) -> dict[str, Any]:
    """The model of a tokenizer's JSON."""
    if (kind := backend["model"].get("type", "an unknown kind")) != "WordPiece":
        raise UnsupportedModelError(f"a vocabulary of {kind} {_NOT_TRIMMED}")
    return backend["model"]


def _smaller_tokenizer(tokenizer: PreTrainedTokenizerBase, place: dict[int, int]) -> PreTrainedTokenizerBase:
    """The tokenizer with the tokens whose old ids are in `place`, at their new ids."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, folder)
        path = Path(folder) / _FILE
        backend = json.loads(path.read_text(encoding="utf-8"))
        model = _wordpiece(backend)
        model["vocab"] = {
            piece: place[old]
            for piece, old in sorted(model["vocab"].items(), key=lambda item: item[1])
            if old in place
        }
        for token in backend["added_tokens"]:
            token["id"] = place[token["id"]]
        _renumber(backend.get("post_processor"), place)
        path.write_text(json.dumps(backend, ensure_ascii=False), encoding="utf-8")
        for file in Path(folder).glob("vocab.*"):  # the whole one, which some classes would read
            file.unlink()
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _renumber(processor: dict[str, Any] | None, place: dict[int, int]) -> None:
    """Give the tokens that a post-processor adds their new ids."""
    kind = None if processor is None else processor["type"]
    if kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [place[old] for old in token["ids"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, old = processor[name]
            processor[name] = [token, place[old]]
    elif kind is not None:
        raise UnsupportedModelError(f"a tokenizer with a post-processor of kind {kind} can't be trimmed.")
