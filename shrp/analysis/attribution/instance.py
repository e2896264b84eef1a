"""One input to be explained: its words, the tokens that each is made of, and the model as a function of embeddings.

Shapes: `B` perturbed copies, `T` tokens, `W` words, `C` classes, `e` size of the word embeddings.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import regex
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.words import ONE_A_CHARACTER, run_of
from shrp.data.batching import collate, encode, longest_input, token_counts, token_spans
from shrp.data.tasks import Task
from shrp.errors import DataError
from shrp.evaluation.evaluate import label_columns
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import expert_layers, num_experts_of
from shrp.model.gates import play_back, record_routing
from shrp.model.modules import with_layers
from shrp.model.partial import skipped

TOKENS_AT_ONCE = 1024
"""Tokens of perturbed copies in one pass."""

# Letters and digits with inner apostrophes and hyphens (don't, well-made), or a run of punctuation, or an emoji.
_LETTERS = run_of(rf"[^\W{ONE_A_CHARACTER}]")
_WORD = regex.compile(
    rf"[{ONE_A_CHARACTER}]\p{{M}}*|{_LETTERS}(?:['’\-]{_LETTERS})*|[^\w\s](?:[^\w\s]|[\p{{M}}\u200d])*"
)

POSITIONS_WITHOUT_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types whose positions count past padding tokens, by their ids."""


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
    full_length: int
    """Tokens of the whole text, before it was cut."""
    inputs: dict[str, Tensor]
    """The encoded input, each `(1, T)`."""
    embeddings: Tensor
    """Word embeddings `(1, T, e)`, detached."""
    replacements: dict[str, Tensor]
    """Embedding `(e,)` of the `pad` and the `mask` token, if there are such."""
    columns: tuple[int, ...]
    unit: str = "word"
    """What `words` are (`shrp.analysis.attribution.instance`)."""
    contrast: tuple[int, int] | None = None
    """The class and the other class whose logits' difference is explained (`against`)."""
    preference: tuple[int, int, int] | None = None
    """Layer, expert and the other expert whose log-odds are explained (`prefer`)."""

    @property
    def truncated(self) -> bool:
        """Whether the model reads only the text's beginning."""
        return self.full_length > len(self.tokens)

    @property
    def reroutes(self) -> bool:
        """Whether a change of the words may change the route."""
        below = float("inf") if self.preference is None else self.preference[0]
        return any(layer < below for layer in expert_layers(self.model))

    @property
    def word_positions(self) -> list[int]:
        """Places of all words' tokens."""
        return [position for word in self.words for position in word.positions]

    def baseline(self, replacement: str = "pad") -> Tensor:
        """Embeddings `(1, T, e)` with every word's tokens replaced, special tokens kept."""
        embeddings = self.embeddings.clone()
        embeddings[:, self.word_positions] = self.replacement(replacement)
        return embeddings

    def replacement(self, name: str) -> Tensor:
        """The embedding `(e,)` of the replacing token.

        Raises:
            DataError: the tokenizer has no such token.
        """
        if name not in self.replacements:
            known = " or ".join(sorted(self.replacements))
            raise DataError(f"This model's tokenizer has no token to use as '{name}'; use {known}.")
        return self.replacements[name]

    def per_word(self, by_token: Tensor) -> Tensor:
        """Sum values of tokens `(..., T)` over each word, `(..., W)`."""
        return torch.stack([by_token[..., list(word.positions)].sum(-1) for word in self.words], -1)

    def outputs(self, embeddings: Tensor, **inputs: Tensor) -> Tensor:
        """What is explained, `(B, C)`, for embeddings `(B, T, e)` in place of the input's own.

        These are the logits in the order of the task's labels; the difference of two, `(B, 1)`; or a router's log-odds in
        nats, `(B, 1)`, under token routing their mean over tokens.

        Args:
            inputs: replace the input's own `attention_mask` or `token_type_ids`; each `(B, T)`.
        """
        rows = len(embeddings)
        others = {k: v.expand(rows, -1) for k, v in self.inputs.items() if k != "input_ids"} | inputs
        if self.preference is None:
            return self.explained(self.model(inputs_embeds=embeddings, **others).logits)
        layer, expert, rather_than = self.preference
        with record_routing() as record:
            self.model(inputs_embeds=embeddings, **others)
        trace = record.last(layer)
        # A saturated router's probability may round to 0, which has no logarithm.
        logs = trace.probs.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        odds = logs[..., expert] - logs[..., rather_than]
        if odds.dim() == 2:
            mask = torch.ones_like(odds) if trace.token_mask is None else trace.token_mask.to(odds.dtype)
            odds = (odds * mask).sum(-1) / mask.sum(-1)
        return odds.unsqueeze(-1)

    def explained(self, logits: Tensor) -> Tensor:
        """What is explained `(B, C)`, of the logits `(B, C)` as the model orders them."""
        ordered = logits.float()[:, list(self.columns)]
        if self.contrast is None:
            return ordered
        output, rather_than = self.contrast
        return ordered[:, [output]] - ordered[:, [rather_than]]

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
        DataError: the input has no word, or not the task's number of texts; it holds the padding token and the model counts
            positions without it; or the tokenizer is a slow one.
    """
    text = tuple(text)
    if len(text) != len(task.text_columns):
        raise DataError(f"An input of '{task.name}' has {len(task.text_columns)} text(s), not {len(text)}.")
    limit = longest_input(model, tokenizer)
    encoded = encode(tokenizer, [text], limit)
    ids = encoded[0]["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    words, unknown = _words(text, ids, token_spans(tokenizer, text, limit), tokenizer.unk_token_id)
    if not words:
        raise DataError("There is no word in this input to attribute anything to; type at least one.")
    if tokenizer.pad_token_id in ids and model.config.model_type in POSITIONS_WITHOUT_PADDING:
        raise DataError(
            f"The text holds the padding token {tokenizer.pad_token}; remove it to explain words."
        )
    table = model.get_input_embeddings().weight.detach()
    special = {"pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}
    inputs = collate(tokenizer, encoded, [0], model.device)
    replacements = {name: table[token] for name, token in special.items() if token is not None}
    full_length, columns = token_counts(tokenizer, [text])[0], tuple(label_columns(model, task))
    about = model, task, text, tuple(tokens), words, unknown, full_length
    return Instance(*about, inputs, table[inputs["input_ids"]], replacements, columns)


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


def against(instance: Instance, output: int, rather_than: int) -> Instance:
    """The input with the logit of `output` minus that of `rather_than` as its output.

    Raises:
        DataError: these are not two classes of the task.
    """
    labels = instance.task.label_names
    if output == rather_than or not {output, rather_than} <= set(range(len(labels))):
        known = ", ".join(f"{place} ({name})" for place, name in enumerate(labels)) or "it has none"
        raise DataError(
            f"name two different classes of '{instance.task.name}' ({known}), not {output} and {rather_than}."
        )
    return replace(instance, contrast=(output, rather_than))


def prefer(instance: Instance, layer: int, expert: int, rather_than: int) -> Instance:
    """The input with a router's log-odds of two experts as its output; the layers above are left out.

    Raises:
        DataError: the layer has no router, or these are not two of its experts.
    """
    routed = sorted(expert_layers(instance.model))
    if layer not in routed:
        raise DataError(f"layer {layer} has no router to explain; routed layers are {routed}.")
    experts = num_experts_of(instance.model)
    if expert == rather_than or not {expert, rather_than} <= set(range(experts)):
        raise DataError(f"name two different experts of 0 to {experts - 1}, not {expert} and {rather_than}.")
    family = family_of(instance.model)
    above = range(layer + 1, len(encoder_layers(instance.model)))
    model = with_layers(instance.model, {index: skipped(family) for index in above})
    return replace(instance, model=model, preference=(layer, expert, rather_than))


UNITS = ("word", "phrase", "sentence")
"""A phrase ends at a comma, semicolon, colon, dash or bracket, after `LONGEST_PHRASE` words, and where a sentence does."""
LONGEST_PHRASE = 12
"""Words; text without punctuation has phrases of this length."""
MOST = 128
"""More units than this take long to explain and to read."""

# What touches a mark goes with it, such as a closing quote or an emoji, and so do closing quotes that stand alone.
_WITH_IT = r"[^\w\s<(\[{“‘«「『`]*(?:\s+(?:''|[\"”’»)\]}])(?=\s|$))*"
_SENTENCE_END = re.compile(rf"(?P<mark>[.!?…。！？｡؟।]+){_WITH_IT}")
_PHRASE_END = re.compile(rf"(?P<mark>[,;:，、；：،]+|--+|[–—]|(?<=\s)-(?=\s)|[)\]}}）」』]){_WITH_IT}")
_PHRASE_START = re.compile(r"(?:(?<=\s)|^)[(\[{]|[（「『]")
_ABBREVIATIONS = re.compile(r"(mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd|co|corp|etc|vs|eg|ie|cf|approx|[^\W\d_])")
"""Words whose full stop ends no sentence, such as an initial."""
_NEAR = 16
"""Characters before a full stop that are looked at."""


def in_units(instance: Instance, unit: str) -> Instance:
    """Join the words of an instance into one of `UNITS`.

    Raises:
        DataError: there is no such unit, or the instance is not in words.
    """
    if unit not in UNITS:
        raise DataError(f"An input can be explained by {', '.join(UNITS)}, not by '{unit}'.")
    if instance.unit != UNITS[0]:
        raise DataError(f"This input is in {instance.unit}s already; start from its words.")
    if unit == UNITS[0]:
        return instance
    pieces = tuple(_as_one(instance.text, run) for run in _runs(instance, unit))
    return replace(instance, words=pieces, unit=unit)


def fitting_unit(instance: Instance, most: int = MOST) -> str:
    """The shortest unit of which the instance has 2 to `most`; else the one of which it has the fewest above 1, or words."""
    counts = {unit: len(in_units(instance, unit).words) for unit in UNITS}
    several = [unit for unit, count in counts.items() if count > 1]
    short = [unit for unit in several if counts[unit] <= most]
    return next(iter(short), min(several, key=counts.__getitem__, default=UNITS[0]))


def _runs(instance: Instance, unit: str) -> list[list[Word]]:
    """The words of each unit; punctuation alone joins the unit before."""
    begin = [_beginnings(text, unit) for text in instance.text]
    runs: list[list[Word]] = []
    place = None
    for word in instance.words:
        before, place = place, (word.part, bisect_right(begin[word.part], word.span[0]))
        too_long = unit == UNITS[1] and not _is_punctuation(word) and _length(runs[-1:]) >= LONGEST_PHRASE
        if place == before and not too_long:
            runs[-1].append(word)
        else:
            runs.append([word])
    merged: list[list[Word]] = []
    for run in runs:
        if merged and not _length([run]) and merged[-1][0].part == run[0].part:
            merged[-1] += run
        else:
            merged.append(run)
    return merged


def _length(runs: Sequence[Sequence[Word]]) -> int:
    """Words in all, without punctuation."""
    return sum(not _is_punctuation(word) for run in runs for word in run)


def _beginnings(text: str, unit: str) -> list[int]:
    """Places of a text at which a piece begins, the first one left out."""
    found = {match.end() for match in re.finditer(r"\n", text)}
    found |= {m.end() for m in _SENTENCE_END.finditer(text) if _ends_sentence(text, m)}
    if unit == UNITS[1]:
        found |= {m.end() for m in _PHRASE_END.finditer(text) if _ends_phrase(text, m)}
        found |= {m.start() for m in _PHRASE_START.finditer(text)}
    return sorted(found)


def _ends_sentence(text: str, match: re.Match) -> bool:
    if match["mark"][-1].isascii() and text[match.end() : match.end() + 1].isalnum():
        return False  # 3.5 is one; Chinese has no spaces
    before = re.search(r"\w+$", text[max(0, match.start() - _NEAR) : match.start()])
    if match[0] != "." or before is None:
        return True
    word = before[0].lower()
    return word == "i" or not _ABBREVIATIONS.fullmatch(word)


def _ends_phrase(text: str, match: re.Match) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    mark = match["mark"]
    if mark[0] in "-–—":
        return not (before.isdigit() and after.isdigit())  # 1990–2000
    if mark in ")]}":  # a plural's, as of film(s), ends nothing
        opened = text.rfind("([{"[")]}".index(mark)], 0, match.start())
        return opened <= 0 or text[opened - 1].isspace()
    return not (mark[-1].isascii() and after.isalnum())  # 1,000 and 12:30 are one


def _is_punctuation(word: Word) -> bool:
    """Whether it is punctuation only; emoji and mathematical signs are not."""
    return all(unicodedata.category(character).startswith("P") for character in word.text)


def _as_one(text: Sequence[str], run: Sequence[Word]) -> Word:
    first, last = run[0], run[-1]
    start, end = first.span[0], max(word.span[1] for word in run)
    positions = tuple(position for word in run for position in word.positions)
    return Word(text[first.part][start:end] or last.text, first.part, positions, (start, end))
