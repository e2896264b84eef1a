"""One input to be explained: its words, the tokens that each is made of, and the model as a function of embeddings.

Shapes: `B` perturbed copies, `T` tokens, `W` words, `C` classes, `e` size of the word embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import regex
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.words import ONE_A_CHARACTER, run_of
from shrp.data.batching import collate, encode, longest_input, token_spans
from shrp.data.tasks import Task
from shrp.errors import DataError
from shrp.evaluation.evaluate import label_columns
from shrp.families.families import family_of
from shrp.model.gates import play_back, record_routing

TOKENS_AT_ONCE = 1024
"""Tokens of perturbed copies in one pass."""

# Letters and digits with inner apostrophes and hyphens (don't, well-made), or a run of punctuation, or an emoji.
_LETTERS = run_of(rf"[^\W{ONE_A_CHARACTER}]")
_WORD = regex.compile(
    rf"[{ONE_A_CHARACTER}]\p{{M}}*|{_LETTERS}(?:['’\-]{_LETTERS})*|[^\w\s](?:[^\w\s]|[\p{{M}}\u200d])*"
)


@dataclass(frozen=True)
class Word:
    """A word, or a run of punctuation, of the input."""

    text: str
    part: int
    """Which text of a pair it is in, 0 or 1."""
    positions: tuple[int, ...]
    """Places of its tokens."""
    span: tuple[int, int] = (0, 0)
    """Its first character in its text, and the one after its last."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One input, ready to be explained; immutable."""

    model: PreTrainedModel
    task: Task
    text: tuple[str, ...]
    tokens: tuple[str, ...]
    words: tuple[Word, ...]
    unknown: tuple[str, ...]
    """Words of which the model reads its unknown token."""
    inputs: dict[str, Tensor]
    """The encoded input, each `(1, T)`."""
    embeddings: Tensor
    """Word embeddings `(1, T, e)`, detached."""
    replacements: dict[str, Tensor]
    """Embedding `(e,)` of the `pad` and the `mask` token, if there are such."""
    columns: tuple[int, ...]
    unit: str = "word"
    """What `words` are: `word`, or `piece` (`in_pieces`)."""

    @property
    def word_positions(self) -> list[int]:
        """Places of all words' tokens."""
        return [position for word in self.words for position in word.positions]

    @property
    def usual(self) -> str:
        """What takes the place of a masked word: the `mask` token, or the `pad` token where there is none."""
        return "mask" if "mask" in self.replacements else "pad"

    def baseline(self, replacement: str) -> Tensor:
        """Embeddings `(1, T, e)` with every word's tokens replaced, special tokens kept.

        Raises:
            DataError: the tokenizer has no such token.
        """
        if replacement not in self.replacements:
            raise DataError(f"This model's tokenizer has no {replacement} token to put in place of a word.")
        embeddings = self.embeddings.clone()
        embeddings[:, self.word_positions] = self.replacements[replacement]
        return embeddings

    def per_word(self, by_token: Tensor) -> Tensor:
        """Sum values of tokens `(..., T)` over each word, `(..., W)`."""
        return torch.stack([by_token[..., list(word.positions)].sum(-1) for word in self.words], -1)

    def outputs(self, embeddings: Tensor) -> Tensor:
        """Logits `(B, C)` in the order of the task's labels, for embeddings `(B, T, e)` in place of the input's own."""
        others = {k: v.expand(len(embeddings), -1) for k, v in self.inputs.items() if k != "input_ids"}
        return self.model(inputs_embeds=embeddings, **others).logits.float()[:, list(self.columns)]

    def route(self) -> dict[int, Tensor]:
        """The gates of the input itself, for `use_gates`."""
        # Not inference mode: its tensors could not take part in a pass that is differentiated.
        with torch.no_grad(), record_routing() as record:
            self.outputs(self.embeddings)
        return play_back(record)

    def batches(self, rows: int) -> Iterator[slice]:
        """Split `rows` copies of the input into batches of at most `TOKENS_AT_ONCE` tokens."""
        size = self.batch_size
        return (slice(start, min(start + size, rows)) for start in range(0, rows, size))

    @property
    def batch_size(self) -> int:
        """Copies of the input that pass the model together."""
        return max(1, TOKENS_AT_ONCE // len(self.tokens))


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, text: Sequence[str]
) -> Instance:
    """Encode one input, cut at the model's limit, and group its tokens into words.

    Raises:
        DataError: the task labels words; the input has no word; it holds the padding token and the model counts positions
            without it; or the tokenizer is a slow one.
    """
    task.check_of_texts("attribution to words and experts")
    text = tuple(text)
    limit = longest_input(model, tokenizer)
    encoded = encode(tokenizer, [text], limit)
    ids = encoded[0]["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    words, unknown = _words(text, ids, token_spans(tokenizer, text, limit), tokenizer.unk_token_id)
    if not words:
        raise DataError("There is no word in this input to attribute anything to; type at least one.")
    if tokenizer.pad_token_id in ids and family_of(model).first_position(model.config):
        raise DataError(f"The text holds the padding token {tokenizer.pad_token}; remove it to explain words.")
    table = model.get_input_embeddings().weight.detach()
    special = {"pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}
    inputs = collate(tokenizer, encoded, [0], model.device)
    replacements = {name: table[token] for name, token in special.items() if token is not None}
    about = model, task, text, tuple(tokens), words, unknown, inputs, table[inputs["input_ids"]], replacements
    return Instance(*about, tuple(label_columns(model, task)))


def _words(
    text: tuple[str, ...],
    ids: list[int],
    spans: Sequence[tuple[int, int, int] | None],
    unknown_id: int | None,
) -> tuple[tuple[Word, ...], tuple[str, ...]]:
    """Assign every token to the word that its first letter is in."""
    found = [[(match.start(), match.end()) for match in _WORD.finditer(part)] for part in text]
    ends: dict[tuple[int, int], int] = {}
    groups: dict[tuple[int, int], list[int]] = {}
    for position, span in enumerate(spans):
        if span is None:
            continue
        part, start, end = span
        piece = text[part][start:end]
        start += len(piece) - len(piece.lstrip())  # some tokens begin with a space
        word = next((s for s in found[part] if s[0] <= start < s[1]), (start, end))
        key = part, word[0]
        # A token may be longer than the word that it begins in, such as a special token typed by hand.
        ends[key] = max(ends.get(key, 0), word[1], end)
        groups.setdefault(key, []).append(position)
    words = tuple(
        Word(text[part][start : ends[part, start]] or "□", part, tuple(positions), (start, ends[part, start]))
        for (part, start), positions in groups.items()
    )
    unknown = [word.text for word in words if any(ids[p] == unknown_id for p in word.positions)]
    return words, tuple(dict.fromkeys(unknown))


MOST = 128
"""More words, or pieces, than this take long to explain and to read."""


def in_pieces(instance: Instance, most: int = MOST) -> Instance:
    """Join the words of a long input into pieces of equal numbers of words, about `most` in all; a short one stays as it is."""
    size = -(-len(instance.words) // most)
    if size < 2:
        return instance
    texts = [[word for word in instance.words if word.part == part] for part in range(len(instance.text))]
    runs = [words[start : start + size] for words in texts for start in range(0, len(words), size)]
    return replace(instance, words=tuple(_as_one(instance.text, run) for run in runs), unit="piece")


def _as_one(text: Sequence[str], run: Sequence[Word]) -> Word:
    first, last = run[0], run[-1]
    start, end = first.span[0], max(word.span[1] for word in run)
    positions = tuple(position for word in run for position in word.positions)
    return Word(text[first.part][start:end] or last.text, first.part, positions, (start, end))
