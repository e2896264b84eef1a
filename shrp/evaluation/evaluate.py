"""Evaluate a model on a data set, with an estimate after every batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from shrp.data.batching import (
    LONGEST_ANSWER,
    Batch,
    collate,
    context_spans,
    encode,
    longest_input,
    word_places,
)
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import Evaluation, summarise
from shrp.evaluation.metrics import to_predictions
from shrp.model.modules import logits_of

BATCHES_PER_CHUNK = 4
NEWS = 0.02
"""Share of new examples from which on a running estimate is computed again; with batches of 32, each one is up to 1,600."""
Texts = Sequence[tuple[str, ...]]


def evaluate(model, tokenizer, data: TextData, **options) -> Evaluation:
    """The last estimate of `evaluate_stream`, with its interval."""
    return last_of(evaluate_stream(model, tokenizer, data, **options))


def last_of(estimates: Iterator[Evaluation]) -> Evaluation:
    """The last of some estimates; earlier ones are not kept."""
    return deque(estimates, maxlen=1)[0]


def evaluate_stream(
    model,
    tokenizer,
    data: TextData,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    order: Sequence[int] | np.ndarray | None = None,
) -> Iterator[Evaluation]:
    """Evaluate batch by batch, yielding all that is known after each.

    The model is in inference and evaluation mode only while it computes, and contexts that the caller has entered
    (gates, recordings) apply as at each `next()`.

    Args:
        model: a Hugging Face classifier, of texts or of tokens, or one that marks answers. Its outputs are put in the order of
            the task's labels.
        max_length: tokens at which a text is cut; fewer where the model has no positions for so many.
        order: which examples, each at most once, in consecutive batches. None takes all in a class-balanced random order,
            so that early estimates are fair, sorted by length within every four batches.

    Yields:
        Estimates with their rows in the order of the data. Their interval is there each time for accuracy, and only at the
        end for metrics that need a bootstrap.

    Raises:
        DataError: there are no examples, or the model does not fit the task. Raised at the first `next()`.
    """
    limit = longest_input(model, tokenizer, max_length)

    def prepare(texts: Texts) -> tuple[list[int], Callable[[np.ndarray], np.ndarray]]:
        encoded, as_scored = encode(tokenizer, texts, limit), Outputs(model, tokenizer, data, limit, texts)

        def run(places: np.ndarray) -> np.ndarray:
            outputs = batch_logits(model, collate(tokenizer, encoded, places))
            to_predictions(data.task, outputs)  # Raises where the model's width is not the task's.
            return as_scored(places, outputs)

        return [len(row["input_ids"]) for row in encoded], run

    yield from stream(data, prepare, batch_size=batch_size, order=order)


def stream(
    data: TextData,
    prepare: Callable[[Texts], tuple[Sequence[int], Callable[[np.ndarray], np.ndarray]]],
    *,
    batch_size: int,
    order: Sequence[int] | np.ndarray | None = None,
) -> Iterator[Evaluation]:
    """`evaluate_stream` for any source of outputs.

    Args:
        prepare: takes the texts of a few batches; returns each one's tokens and a function that takes the places of a
            batch among them, int64 `(b,)`, and returns outputs in the order of the task's labels, float32
            `(b, num_labels)`, or of words `(b, W, num_labels)`.
    """
    rows = data.stratified_order() if order is None else np.asarray(order, dtype=np.int64)
    if not len(rows):
        raise DataError(f"'{data.name}' holds no examples to evaluate on.")
    size = batch_size * BATCHES_PER_CHUNK

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for chunk in (rows[start : start + size] for start in range(0, len(rows), size)):
            # Encoded here rather than all at once, so that the first estimate does not wait for the last text.
            lengths, run = prepare([data.texts[i] for i in chunk])
            places = np.arange(len(chunk)) if order is not None else np.argsort(lengths, kind="stable")
            for start in range(0, len(chunk), batch_size):
                batch = places[start : start + batch_size]
                yield chunk[batch], run(batch)

    yield from estimates(data, len(rows), batches())


def estimates(
    data: TextData, n: int, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[Evaluation]:
    """An evaluation after each batch of outputs of `n` examples in all, given as rows `(b,)` and logits `(b, C)`.

    Each takes time in proportion to the examples so far, so one is given again until `NEWS` more are known.
    """
    logits, indices = np.empty((n, *data.output_shape[1:]), dtype=np.float32), np.empty(n, dtype=np.int64)
    done, found = 0, None
    for rows, outputs in batches:
        end = done + len(rows)
        logits[done:end], indices[done:end], done = outputs, rows, end
        if found is None or done == n or done >= (1 + NEWS) * found.n:
            found = summarise(data, indices[:done], logits[:done], done == n or data.task.counts_examples)
        yield found


def batch_logits(model, batch: Batch) -> np.ndarray:
    """The model's outputs for one batch, float32 `(batch, outputs)`, or of tokens `(batch, T, outputs)`.

    Its device and modes are left as they were.
    """
    device = next(model.parameters()).device
    # Each module's own flag is restored, as parts of a model in training may be frozen in evaluation mode. A model in
    # evaluation mode, perhaps at work in other threads, is not touched.
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            logits = logits_of(model(**{key: values.to(device) for key, values in batch.items()}))
    finally:
        for module in training:
            module.training = True
    return logits.float().cpu().numpy()


class Outputs:
    """Puts a model's logits in the form that a task is scored in.

    That is its order of labels and, for words, each one's first token, for spans the best one.

    Args:
        max_length: tokens at which texts are cut.
        texts: those that rows count; None for all of the data's.
    """

    def __init__(self, model, tokenizer, data: TextData, max_length: int, texts: Texts | None = None) -> None:
        self.columns, self.shape = label_columns(model, data.task), data.output_shape[1:]
        limit, self.places = longest_input(model, tokenizer, max_length), None
        if data.task.on_words:
            self.places = word_places(tokenizer, data.texts if texts is None else texts, limit)
        self.spans = context_spans(tokenizer, data.texts if texts is None else texts, limit) if data.task.on_spans else None

    def __call__(self, rows: Iterable[int], logits: np.ndarray, in_order: bool = True) -> np.ndarray:
        """Float32 `(b, num_labels)`; of words `(b, W, num_labels)`, nan where none is read; of spans characters, `(b, 2)`.

        Args:
            rows: of the batch, `(b,)`.
            logits: `(b, num_labels)`, or of tokens `(b, T, num_labels)`.
            in_order: of the task's labels, rather than the model's.
        """
        logits = logits[..., self.columns] if in_order else logits
        if self.spans is not None:
            return np.array([best_span(self.spans[row], *of.T) for row, of in zip(rows, logits, strict=True)], np.float32)
        if self.places is None:
            return logits
        found = np.full((len(logits), *self.shape), np.nan, dtype=np.float32)
        for line, row, output in zip(found, rows, logits, strict=True):
            read = np.flatnonzero(self.places[row] >= 0)
            line[read] = output[self.places[row][read]]
        return found


def best_span(places: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    """The characters of the span of at most `LONGEST_ANSWER` tokens with the largest sum of a start's and an end's logit.

    Args:
        places: of the tokens, as `context_spans`; without any of the text the span is empty.
        starts, ends: logits, `(T,)` or longer.
    """
    (tokens,) = np.nonzero(places[:, 0] >= 0)
    if not len(tokens):
        return 0, 0
    sums = starts[tokens][:, None] + ends[tokens]
    allowed = np.tri(len(tokens), k=LONGEST_ANSWER - 1, dtype=bool) & ~np.tri(len(tokens), k=-1, dtype=bool)
    first, last = np.divmod(np.where(allowed, sums, -np.inf).argmax(), len(tokens))
    return places[tokens[first], 0], places[tokens[last], 1]


def label_columns(model, task: Task) -> list[int]:
    """For each of the task's labels, the model's output that stands for it.

    If the config names just the task's labels, in whatever order, the names decide. Otherwise the order is the task's.
    """
    names = getattr(model.config, "id2label", None) or {}
    ours = [name.casefold() for name in task.label_names]
    theirs = [str(names[index]).casefold() for index in sorted(names, key=int)]
    if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
        return [theirs.index(name) for name in ours] or [0]
    return list(range(task.num_labels))
