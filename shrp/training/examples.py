"""The training data of a run: which examples an epoch sees, in which batches, and what a model gets of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from shrp.data.batching import bucketed_batches, collate, encode, epoch_rows
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.training.config import Epoch, TrainConfig, epoch_seed

FIT_EXAMPLES = 256
"""Examples that an Expander is fitted on, or heads measured: far more tokens than the 32 or 64 dimensions of a head."""


class Examples(torch.utils.data.Dataset):
    """Numbers of examples, of which `collate` makes tensors; an epoch's are fixed by the config and its number alone.

    Args:
        longest: tokens at which an input is cut.

    Raises:
        TrainingError: the data have no labels, or no examples.
    """

    def __init__(
        self, config: TrainConfig, data: TextData, tokenizer: PreTrainedTokenizerBase, longest: int
    ) -> None:
        if data.labels is None or not len(data):
            raise TrainingError("the training data need labels and at least one example.")
        self.config, self.data, self.tokenizer = config, data, tokenizer
        self.encoded = encode(tokenizer, data.texts, longest)
        self.lengths = np.array([len(row["input_ids"]) for row in self.encoded])

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> int:
        return row

    def rows(self, epoch: Epoch) -> np.ndarray:
        """The examples of an epoch: it goes on where the one before ended."""
        total = len(self)
        sizes = [min(each.size or total, total) for each in self.config.schedule()]
        return epoch_rows(total, sizes[epoch.index], sum(sizes[: epoch.index]), self.config.seed)

    def visited(self) -> np.ndarray:
        """Those that any epoch of the schedule sees."""
        return np.unique(np.concatenate([self.rows(epoch) for epoch in self.config.schedule()]))

    def batches(self, epoch: Epoch) -> list[list[int]]:
        """An epoch's examples in batches of about one length."""
        rows = self.rows(epoch)
        seed = epoch_seed(self.config.seed, epoch.index)
        batches = bucketed_batches(self.lengths[rows], self.config.batch_size, seed)
        return [[int(rows[i]) for i in batch] for batch in batches]

    def first_inputs(self, epoch: Epoch) -> Iterator[dict[str, torch.Tensor]]:
        """Model inputs of an epoch's first examples, to start a new layer from."""
        rows = self.rows(epoch)[:FIT_EXAMPLES]
        for batch in bucketed_batches(self.lengths[rows], self.config.batch_size):
            yield collate(self.tokenizer, self.encoded, rows[batch])

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Model inputs, each `(B, T)`, with `labels` and `rows`, each `(B,)`."""
        labels = self.data.labels[list(rows)]
        if self.data.task.is_regression:
            labels = labels.astype(np.float32)  # not every accelerator has float64
        inputs = collate(self.tokenizer, self.encoded, rows)
        return inputs | {"labels": torch.from_numpy(labels), "rows": torch.as_tensor(rows)}
