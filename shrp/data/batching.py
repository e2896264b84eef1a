"""Tokenization, and padded batches of tensors."""

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from shrp.data.tabular import is_unicode
from shrp.data.tasks import UNLABELLED
from shrp.errors import DataError
from shrp.families.families import positions
from shrp.progress import Progress, silent

Batch = dict[str, Tensor]
Encoded = dict[str, list[int]]

LABELS = "labels"
"""Of the tokens of an encoded example, where a training adds them."""
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCHES_PER_CHUNK = 50
LONGEST_ANSWER = 30
"""Most tokens of a predicted span, as is usual on SQuAD."""

# A fast tokenizer keeps its truncation settings, and raises "Already borrowed" when one thread changes them while
# another encodes. Sessions of the app share a tokenizer, so they take turns.
_ENCODING = threading.Lock()
_AT_ONCE = 1000  # texts encoded in one turn
_ENCODED = 20_000  # texts that `read` keeps encoded: 20 to 150 MB


def longest_input(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> int:
    """Most tokens that the model reads, special tokens included; at most `max_length`.

    The tokenizer alone does not know: many give no limit, or another model's.
    """
    limit = min(positions(model.config), tokenizer.model_max_length)
    return limit if max_length is None else min(limit, max_length)


def check_writable(texts: Iterable[tuple[str, ...]]) -> None:
    """Raise `DataError` if a text holds half of a surrogate pair, as from a cut emoji: no tokenizer reads it."""
    for text in (text for parts in texts for text in parts if not is_unicode(text)):
        raise DataError(
            f"A text is not valid Unicode: {text[:60]!a} holds half of a character, as from a cut emoji. Remove it."
        )


def encode(tokenizer, texts: Sequence[tuple[str, ...]], max_length: int = 128) -> list[Encoded]:
    """Tokenize texts or pairs of texts, mixed in any way, without padding.

    Args:
        tokenizer: a Hugging Face tokenizer; a fast one encodes texts in parallel.
        max_length: longest sequence in tokens, special tokens included; for a model at most its `longest_input`. A pair
            is cut at its longer side.

    Returns:
        One dictionary an example: `input_ids`, `attention_mask` and, where the tokenizer gives them, `token_type_ids`.

    Raises:
        DataError: an example is neither one text nor a pair, or not valid Unicode.
    """
    check_writable(texts)
    places: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(len(text), []).append(place)
    if not places.keys() <= {1, 2}:
        raise DataError(f"An example is one text or a pair, not {max(places)} texts.")
    limit = min(max_length, tokenizer.model_max_length)
    rows: list[Encoded] = [{}] * len(texts)
    parts = (all_[i : i + _AT_ONCE] for all_ in places.values() for i in range(0, len(all_), _AT_ONCE))
    for alike in parts:  # a tokenizer's own result takes several times the memory of what is kept of it
        columns = [list(column) for column in zip(*(texts[place] for place in alike))]
        with _ENCODING:
            encoded = tokenizer(*columns, truncation=True, max_length=limit, return_attention_mask=True)
        keys = [key for key in MODEL_INPUTS if key in encoded]
        for place, row in zip(alike, zip(*(encoded[key] for key in keys))):
            rows[place] = dict(zip(keys, row))
    return rows


def _with_offsets(tokenizer: PreTrainedTokenizerBase, *columns: str | list[str], max_length: int) -> BatchEncoding:
    """As `encode` would, with the characters of each token."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no fast form (tokenizer.json), and only that gives the positions of tokens."
        )
    limit = min(max_length, tokenizer.model_max_length)
    with _ENCODING:
        return tokenizer(*columns, truncation=True, max_length=limit, return_offsets_mapping=True)


def token_spans(tokenizer, text: tuple[str, ...], max_length: int = 128) -> list[tuple[int, int, int] | None]:
    """Where in its text each token of `encode`'s result comes from.

    Returns:
        For each token `(text, start, end)`: which text of the pair, and its characters there. None for special tokens.

    Raises:
        DataError: the tokenizer has no fast form, and only that knows.
    """
    encoded = _with_offsets(tokenizer, *text, max_length=max_length)
    parts = encoded.sequence_ids(0)
    return [None if part is None else (part, *span) for part, span in zip(parts, encoded["offset_mapping"])]


def word_places(tokenizer, texts: Sequence[tuple[str, ...]], max_length: int = 128) -> list[np.ndarray]:
    """Where in `encode`'s result each word of some texts begins: the place of its first token.

    Words are what stands between blanks, as in a corpus whose words were joined by blanks.

    Returns:
        For each text int64 `(words,)`; -1 for a word without a token, as those beyond `max_length`.

    Raises:
        DataError: the tokenizer has no fast form, and only that knows.
    """
    found = []
    for text in texts:
        words = np.array([word.span() for word in re.finditer(r"\S+", text[0])], dtype=np.int64).reshape(-1, 2)
        places = np.full(len(words), -1, dtype=np.int64)
        spans = [(place, *span[1:]) for place, span in enumerate(token_spans(tokenizer, text, max_length)) if span]
        # By its last character, as a token may begin with the blank before the word; backwards, so the first one stays.
        for place, start, end in reversed(spans):
            word = int(np.searchsorted(words[:, 0], end - 1, side="right")) - 1
            if end > start and word >= 0 and end <= words[word, 1]:
                places[word] = place
        found.append(places)
    return found


def context_spans(tokenizer, texts: Sequence[tuple[str, ...]], max_length: int = 128) -> list[np.ndarray]:
    """Which characters of the second of two texts each token of `encode`'s result is, without blanks before it.

    Returns:
        For each pair int32 `(T, 2)`; -1 for special tokens and those of the first text.

    Raises:
        DataError: the tokenizer has no fast form, and only that knows.
    """
    found = []
    for begin in range(0, len(texts), _AT_ONCE):
        part = texts[begin : begin + _AT_ONCE]
        encoded = _with_offsets(tokenizer, *map(list, zip(*part)), max_length=max_length)
        for i, (_, text) in enumerate(part):
            places = np.array(encoded["offset_mapping"][i], dtype=np.int32)
            places[[of != 1 for of in encoded.sequence_ids(i)]] = 0
            blank = np.array([*map(str.isspace, text), False])
            while (led := (places[:, 0] < places[:, 1]) & blank[places[:, 0]]).any():  # some tokens begin with a blank
                places[led, 0] += 1
            places[places[:, 0] >= places[:, 1]] = -1
            found.append(places)
    return found


def answer_tokens(places: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """The first and the last token of an answer's characters; `UNLABELLED` where the text is cut before its end.

    Args:
        places: of the tokens, as `context_spans`.
    """
    of_text = np.flatnonzero(places[:, 0] >= 0)
    inside = of_text[(places[of_text, 0] < end) & (places[of_text, 1] > start)]
    if not len(inside) or (inside[-1] == of_text[-1] and places[inside[-1], 1] < end):
        return UNLABELLED, UNLABELLED
    return int(inside[0]), int(inside[-1])


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
                **{"truncation": False, "add_special_tokens": special, "return_attention_mask": False},
                verbose=False,
            )
        yield from encoded["input_ids"]


def save_tokenizer(tokenizer, folder: str | os.PathLike) -> None:
    """Write a tokenizer's files without truncation and padding, which a fast one keeps from its last call."""
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
    """Pad some encoded examples to the longest of them.

    Always on the right, whatever the tokenizer's side: heads read position 0, and absolute positions count from there.

    Returns:
        int64 tensors `(batch, tokens)`, with the keys of the encoded examples.
    """
    rows = [encoded[i] for i in indices]
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id, LABELS: UNLABELLED}
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
    """Group examples of similar length, so that little of a batch is padding.

    Args:
        lengths: tokens of each example.
        shuffle_seed: None sorts everything by length. A seed gives a training order: a random permutation, sorted by
            length within chunks of 50 batches, the batches then in random order; pass `(seed, epoch)` for each epoch.

    Returns:
        Batches of indices into `lengths`, each index once; only the last one of a chunk may be smaller.
    """
    lengths = np.asarray(lengths)

    def split(part: np.ndarray) -> list[list[int]]:
        ordered = part[np.argsort(lengths[part], kind="stable")].tolist()
        return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]

    if shuffle_seed is None:
        return split(np.arange(len(lengths)))
    generator = np.random.default_rng(shuffle_seed)
    order = generator.permutation(len(lengths))
    chunk = batch_size * BATCHES_PER_CHUNK
    batches = [batch for start in range(0, len(order), chunk) for batch in split(order[start : start + chunk])]
    return [batches[i] for i in generator.permutation(len(batches))]


def read(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, ...]],
    *,
    batch_size: int = 64,
    max_length: int = 128,
    progress: Progress = silent,
) -> Iterator[tuple[list[int], Batch]]:
    """Yield batches of examples of similar length: their rows, and the inputs on the model's device.

    Of more than `_ENCODED` examples, so many are in memory as tokens at a time.
    """
    check_writable(texts)  # all of them, before anything is computed
    limit, done = longest_input(model, tokenizer, max_length), 0
    for start in range(0, len(texts), _ENCODED):
        encoded = encode(tokenizer, texts[start : start + _ENCODED], limit)
        for places in bucketed_batches([len(row["input_ids"]) for row in encoded], batch_size):
            yield [start + place for place in places], collate(tokenizer, encoded, places, model.device)
            done += len(places)
            progress(done, len(texts))


def epoch_rows(total: int, size: int, start: int, seed: int) -> np.ndarray:
    """A stretch of `size` rows from `start` on of an endless sequence of permutations of `total` rows."""
    passes = range(start // total, (start + size - 1) // total + 1)
    sequence = np.concatenate([np.random.default_rng((seed, p)).permutation(total) for p in passes])
    offset = start - passes[0] * total
    return sequence[offset : offset + size]


_SPECIAL = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


def special_mask(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> np.ndarray:
    """Which `ids` are special tokens such as `[CLS]`, bool `(T,)`; the unknown token is not one of them."""
    special = {getattr(tokenizer, name, None) for name in _SPECIAL} - {None}
    return np.isin(np.asarray(ids, dtype=np.int64), list(special))
