"""Re-evaluate a routed model under one pruning plan after another, as a person moves a slider."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.data import TextData
from shrp.evaluate import Evaluation, evaluate_stream
from shrp.plan import PruningPlan
from shrp.prune import prune


class LiveEvaluator:
    """Evaluates prunings of one model on one data set; one object serves several threads."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        data: TextData,
        *,
        batch_size: int = 32,
        max_length: int = 128,
    ) -> None:
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self.batch_size, self.max_length = batch_size, max_length

    def stream(self, plan: PruningPlan | None) -> Iterator[Evaluation]:
        """Yield running estimates for the static model of `plan` (None: the routed model); the last is exact.

        Dropping the iterator abandons the work.
        """
        model = self.model if plan is None else prune(self.model, plan, share_weights=True)
        yield from evaluate_stream(
            model, self.tokenizer, self.data, batch_size=self.batch_size, max_length=self.max_length
        )
