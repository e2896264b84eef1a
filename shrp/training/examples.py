"""The examples of a training: which an epoch sees, in which batches, and what the model receives of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from shrp.data.batching import (
    LABELS,
    answer_tokens,
    bucketed_batches,
    collate,
    context_spans,
    encode,
    epoch_rows,
    word_places,
)
from shrp.data.tasks import UNLABELLED
from shrp.training.config import Epoch, TextConfig, TrainConfig, epoch_seed

FIT_EXAMPLES = 256
"""Examples that an Expander is fitted on: far more tokens than the 32 or 64 dimensions of a head."""


class Examples:
    """Encoded training texts; which of them an epoch sees, in which batches, depends on config and epoch alone.

    Args:
        labels: `(n,)`, or of words `(n, W)`, which the first token of each gets, or of spans `(n, A, 2)`, the first of which is
            the answer; None for unlabelled text.
        digest: of the texts.
        longest: tokens at which a text is cut.
    """

    def __init__(
        self,
        config: TrainConfig | TextConfig,
        texts: Sequence[tuple[str, ...]],
        labels: np.ndarray | None,
        digest: str,
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
    ) -> None:
        self.config, self.tokenizer, self.digest = config, tokenizer, f"{digest} at {longest} tokens"
        # Not every accelerator has float64.
        self.labels = (
            labels.astype(np.float32) if labels is not None and labels.dtype == np.float64 else labels
        )
        self.encoded = encode(tokenizer, texts, longest)
        if labels is not None and labels.ndim == 3:
            found = zip(context_spans(tokenizer, texts, longest), labels[:, 0].tolist(), strict=True)
            # An answer that is cut is the first token, as usual on SQuAD.
            self.labels = np.array([answer_tokens(places, *answer) for places, answer in found]).clip(0)
        self.on_words = labels is not None and labels.ndim == 2
        if self.on_words:
            for row, places, own in zip(self.encoded, word_places(tokenizer, texts, longest), labels, strict=True):
                given = np.full(len(row["input_ids"]), UNLABELLED, dtype=np.int64)
                read = np.flatnonzero(places >= 0)
                given[places[read]] = own[read]
                row[LABELS] = given.tolist()
        self.lengths = np.array([len(row["input_ids"]) for row in self.encoded])

    def size(self, epoch: Epoch) -> int:
        """How many examples an epoch sees."""
        total = len(self.encoded)
        return epoch.size or total if self.config.repeats else min(epoch.size or total, total)

    def rows(self, epoch: Epoch) -> np.ndarray:
        """The examples of an epoch: it goes on where the one before ended."""
        before = sum(self.size(one) for one in self.config.schedule() if one.index < epoch.index)
        return epoch_rows(len(self.encoded), self.size(epoch), before, self.config.seed)

    def visited(self) -> np.ndarray:
        """The examples that any epoch of the schedule sees."""
        return np.unique(np.concatenate([self.rows(epoch) for epoch in self.config.schedule()]))

    def batches(self, epoch: Epoch) -> list[np.ndarray]:
        """An epoch's examples in batches of about one length."""
        rows, seed = self.rows(epoch), epoch_seed(self.config.seed, epoch.index)
        return [rows[b] for b in bucketed_batches(self.lengths[rows], self.config.batch_size, seed)]

    def batch(
        self, rows: Sequence[int] | np.ndarray, device: torch.device | str
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Model inputs, `(B, T)` each, and labels; None for unlabelled text.

        Labels are `(B,)`, of tokens `(B, T)`, or the first and last tokens of answers `(B, 2)`.
        """
        if self.on_words:
            inputs = collate(self.tokenizer, self.encoded, rows, device)
            labels = inputs.pop(LABELS)
            return inputs, labels
        labels = None if self.labels is None else torch.from_numpy(self.labels[list(rows)]).to(device)
        return collate(self.tokenizer, self.encoded, rows, device), labels

    def first(self, epoch: Epoch) -> list[np.ndarray]:
        """An epoch's first examples in batches of about one length, to start a new layer from."""
        rows = self.rows(epoch)[:FIT_EXAMPLES]
        return [rows[b] for b in bucketed_batches(self.lengths[rows], self.config.batch_size)]
