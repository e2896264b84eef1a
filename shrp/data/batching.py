"""From texts to padded batches of tensors, for training and evaluation alike."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.tabular import is_unicode
from shrp.errors import DataError
from shrp.families.families import positions

Batch = dict[str, Tensor]
Encoded = dict[str, list[int]]

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCHES_PER_CHUNK = 50

# A fast tokenizer keeps its truncation settings inside, and raises "Already borrowed" when one thread changes
# them while another encodes. The app shares one tokenizer between sessions, so encoding takes turns.
_ENCODING = threading.Lock()
_AT_ONCE = 1000
"""Texts that are counted in one turn."""


def longest_input(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> int:
    """Most tokens that the model can read at once, special tokens included, or `max_length` if that is fewer.

    The tokenizer alone does not know: many say nothing of a limit, or name another model's.
    """
    limit = min(positions(model.config), tokenizer.model_max_length)
    return limit if max_length is None else min(limit, max_length)


def check_writable(texts: Iterable[tuple[str, ...]]) -> None:
    """Refuse what no tokenizer reads.

    Raises:
        DataError: A text holds half of a surrogate pair, as from a cut emoji or from bytes that are not UTF-8.
    """
    for text in (text for parts in texts for text in parts if not is_unicode(text)):
        raise DataError(
            f"A text is not valid Unicode: {text[:60]!a} holds half of a character, as from a cut emoji or from "
            "bytes that are not UTF-8. Take that out."
        )


def encode(tokenizer, texts: Sequence[tuple[str, ...]], max_length: int = 128) -> list[Encoded]:
    """Tokenize texts or pairs of texts, without padding.

    Args:
        tokenizer: A Hugging Face tokenizer; a fast one encodes all texts in one parallel call.
        texts: Tuples of one or two texts, mixed as one likes.
        max_length: Longest sequence in tokens, special tokens included, and for a model no more than its
            `longest_input`. A pair is cut at its longer side.

    Returns:
        One dictionary of equally long lists an input: `input_ids`, `attention_mask`, and
        `token_type_ids` where the tokenizer gives them.

    Raises:
        DataError: An input is neither one text nor a pair, or no text that can be written down.
    """
    check_writable(texts)
    places: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(len(text), []).append(place)
    if not places.keys() <= {1, 2}:
        raise DataError(f"Every input is one text or a pair; here the sizes are {sorted(places)}.")
    limit = min(max_length, tokenizer.model_max_length)
    rows: list[Encoded] = [{}] * len(texts)
    for alike in places.values():
        columns = [list(column) for column in zip(*(texts[place] for place in alike))]
        with _ENCODING:
            encoded = tokenizer(*columns, truncation=True, max_length=limit, return_attention_mask=True)
        keys = [key for key in MODEL_INPUTS if key in encoded]
        for place, row in zip(alike, zip(*(encoded[key] for key in keys))):
            rows[place] = dict(zip(keys, row))
    return rows


def token_spans(tokenizer, text: tuple[str, ...], max_length: int = 128) -> list[tuple[int, int, int] | None]:
    """Where in its text each token of one encoded input comes from.

    Args:
        tokenizer: A fast one.
        text: One text, or a pair.
        max_length: As for `encode`, whose tokens these are.

    Returns:
        For each token `(text, start, end)`: which text of the pair, and its characters there. None for special
        tokens that the tokenizer added.

    Raises:
        DataError: The tokenizer is a slow one, which does not know.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no fast form (tokenizer.json), which alone tells from where in a text a "
            "token comes."
        )
    limit = min(max_length, tokenizer.model_max_length)
    with _ENCODING:
        encoded = tokenizer(*text, truncation=True, max_length=limit, return_offsets_mapping=True)
    parts = encoded.sequence_ids(0)
    return [None if part is None else (part, *span) for part, span in zip(parts, encoded["offset_mapping"])]


def token_counts(tokenizer, texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Tokens of each text or pair without truncation, special tokens included. Raises as `check_writable`."""
    check_writable(texts)
    return [len(ids) for ids in _token_ids(tokenizer, texts)]


def _token_ids(tokenizer, texts: Sequence[tuple[str, ...]], special: bool = True) -> Iterator[list[int]]:
    """The token ids of each text or pair, without truncation."""
    for start in range(0, len(texts), _AT_ONCE):
        columns = [list(column) for column in zip(*texts[start : start + _AT_ONCE])]
        with _ENCODING:
            encoded = tokenizer(
                *columns,
                truncation=False,
                add_special_tokens=special,
                return_attention_mask=False,
                verbose=False,
            )
        yield from encoded["input_ids"]


def save_tokenizer(tokenizer, folder: str | os.PathLike) -> None:
    """Write a tokenizer's files without how texts are cut and padded, which it forgets too: a fast one keeps that of
    the texts it read last, of any caller.
    """
    with _ENCODING:
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(folder)


def piece_counts(tokenizer, texts: Sequence[tuple[str, ...]], size: int) -> np.ndarray:
    """How often each token occurs in some texts, without special tokens; int64 `(size,)`, by id."""
    counts = np.zeros(size, dtype=np.int64)
    for ids in _token_ids(tokenizer, texts, special=False):
        np.add.at(counts, ids, 1)
    return counts


def collate(
    tokenizer,
    encoded: Sequence[Encoded],
    indices: Sequence[int] | np.ndarray,
    device: torch.device | str = "cpu",
) -> Batch:
    """Pad some encoded inputs to the longest of them, on the right.

    Heads read position 0 and absolute positions count from there, so a tokenizer that would pad on the left, as some
    made for generation do, is not asked for the side.

    Args:
        tokenizer: Gives the padding ids.
        encoded: The result of `encode`.
        indices: Which inputs to take, in this order; at least one.
        device: Where the tensors go; that of the model which is to read them.

    Returns:
        int64 tensors of shape (batch, tokens), with the keys of the encoded inputs.
    """
    rows = [encoded[i] for i in indices]
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    batch = {}
    for key in rows[0]:
        values = np.full((len(rows), width), fill.get(key, 0), dtype=np.int64)
        for line, row in zip(values, rows):
            line[: len(row[key])] = row[key]
        batch[key] = torch.from_numpy(values).to(device)
    return batch


def bucketed_batches(
    lengths: Sequence[int] | np.ndarray, batch_size: int, shuffle_seed: int | Sequence[int] | None = None
) -> list[list[int]]:
    """Group inputs of similar length, so that little of a batch is padding.

    Args:
        lengths: Tokens of each input.
        batch_size: Inputs a batch; only one batch, of what is left over, is smaller.
        shuffle_seed: None sorts everything by length. A seed gives a training order: a random permutation,
            sorted by length within chunks of 50 batches, the batches then in random order. It depends on the
            seed and the lengths alone; pass `(seed, epoch)` for another order each epoch.

    Returns:
        Batches of indices into `lengths`; each index occurs once.
    """
    lengths = np.asarray(lengths)
    if shuffle_seed is None:
        return _split(np.argsort(lengths, kind="stable"), batch_size)
    generator = np.random.default_rng(shuffle_seed)
    order = generator.permutation(len(lengths))
    chunk = batch_size * BATCHES_PER_CHUNK
    batches = []
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        batches += _split(part[np.argsort(lengths[part], kind="stable")], batch_size)
    return [batches[i] for i in generator.permutation(len(batches))]


def _split(order: np.ndarray, batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def epoch_rows(total: int, size: int, start: int, seed: int) -> np.ndarray:
    """A stretch of `size` rows from `start` on of an endless sequence of permutations of `total` rows."""
    passes = range(start // total, (start + size - 1) // total + 1)
    sequence = np.concatenate([np.random.default_rng((seed, p)).permutation(total) for p in passes])
    offset = start - passes[0] * total
    return sequence[offset : offset + size]


_SPECIAL = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


def special_mask(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> np.ndarray:
    """Where `ids` are `[CLS]`, `[SEP]` or their like, bool `(T,)`; an unknown word is not one of them."""
    special = {getattr(tokenizer, name, None) for name in _SPECIAL} - {None}
    return np.isin(np.asarray(ids, dtype=np.int64), list(special))
