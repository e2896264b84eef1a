"""Augmented copies of a task's texts, for distillation on more texts than the task has.

After the data augmentation of TinyBERT (Jiao et al. 2020), with replacements from the encoder's own token embeddings in
place of a masked language model and GloVe. Some copies are corrupted instead. The label of a copy is not known, so
train on the teacher's logits alone (`distill_logits` = 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from shrp.data.text_data import TextData

NEAR = 10
"""Replacements considered for a word."""
EXCHANGED = 0.3
"""Probability of each word that has near ones to be replaced."""
DISTURBED = 0.4
"""Share of copies that are corrupted instead."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CHUNK = 1024


def near_words(
    tokenizer: PreTrainedTokenizerBase, embeddings: Tensor, words: Iterable[str]
) -> dict[str, list[str]]:
    """For each of the words that is one token, the `NEAR` other such words that come nearest by cosine, nearest first.

    `embeddings`: of all tokens, `(V, d)`.
    """

    def tokens(words: Sequence[str]) -> dict[str, int | None]:
        """The token of each word inside a text; None where it takes more than one."""
        if not words:
            return {}
        found = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        return {word: ids[0] if len(ids) == 1 else None for word, ids in zip(words, found, strict=True)}

    decoded = [word.strip() for word in tokenizer.batch_decode([[i] for i in range(len(tokenizer))])]
    spelled = {i: word for i, word in enumerate(decoded) if len(word) > 1 and word.isalpha()}
    # A part of a word may look like one; as a word of its own it would be another token.
    alone = tokens(list(spelled.values()))
    own = {i: word for i, word in spelled.items() if alone[word] == i}
    names, place = list(own.values()), {i: place for place, i in enumerate(own)}
    unit = F.normalize(embeddings.detach().float()[list(own)], dim=-1)
    asked = {word: token for word, token in tokens(sorted(set(words))).items() if token in own}
    wanted, near = sorted(set(asked.values())), {}
    for start in range(0, len(wanted), _CHUNK):
        part = wanted[start : start + _CHUNK]
        likeness = unit[[place[token] for token in part]] @ unit.T
        # Some spare ones: spellings of the word itself don't count.
        best = likeness.topk(min(2 * NEAR, len(names))).indices.tolist()
        for token, row in zip(part, best, strict=True):
            others = [names[i] for i in row if names[i].lower() != own[token].lower()]
            near[token] = others[:NEAR]
    return {word: near[token] for word, token in asked.items() if near[token]}


def augmented(
    data: TextData, copies: int, tokenizer: PreTrainedTokenizerBase, embeddings: Tensor, seed: int = 0
) -> TextData:
    """The examples of `data`, and after them so many augmented copies of each.

    `embeddings`: of the encoder whose nearest words are the replacements, `(V, d)`.

    Returns:
        `(copies + 1) * len(data)` examples; a copy has the label and slice of its original.
    """
    words = [word for text in data.texts for part in text for word in _WORD.findall(part)]
    change = _Change(data, near_words(tokenizer, embeddings, words), np.random.default_rng(seed))
    texts = [*data.texts, *(tuple(map(change, text)) for _ in range(copies) for text in data.texts)]
    return TextData(
        data.task,
        f"{data.name} and {copies} augmented {'copy' if copies == 1 else 'copies'} of each",
        tuple(texts),
        None if data.labels is None else np.tile(data.labels, copies + 1),
        None if data.slices is None else data.slices * (copies + 1),
    )


class _Change:
    """Changes a text at random."""

    def __init__(self, data: TextData, near: dict[str, list[str]], generator: np.random.Generator) -> None:
        self.words = [word for text in data.texts for part in text for word in part.split()]
        self.near, self.generator = near, generator

    def __call__(self, text: str) -> str:
        if self.generator.random() < DISTURBED:
            return self._disturbed(text)
        return _WORD.sub(lambda found: self._exchanged(found[0]), text)

    def _exchanged(self, word: str) -> str:
        if word not in self.near or self.generator.random() >= EXCHANGED:
            return word
        new = self._one_of(self.near[word])
        return new[0].upper() + new[1:] if word[0].isupper() else new

    def _disturbed(self, text: str) -> str:
        """Remove, swap, replace or insert one word, and each further one with probability 0.1."""
        words = text.split()
        for _ in range(1 + self.generator.binomial(max(len(words) - 1, 0), 0.1)):
            if not words:
                break
            i, how = int(self.generator.integers(len(words))), int(self.generator.integers(4))
            if how == 0 and len(words) > 2:
                del words[i]
            elif how == 1 and i + 1 < len(words):
                words[i], words[i + 1] = words[i + 1], words[i]
            elif how == 2:
                words[i] = self._one_of(self.words)
            else:
                words.insert(i + 1, self._one_of(self.words))
        return " ".join(words)

    def _one_of(self, words: Sequence[str]) -> str:
        return words[int(self.generator.integers(len(words)))]
