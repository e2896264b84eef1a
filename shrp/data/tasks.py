"""What a task is (classes or numbers of texts, classes of words, or answers in a text): plain data of a checkpoint's config."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shrp.errors import DataError

METRICS = ("accuracy", "f1", "f1_macro", "matthews", "pearson", "spearman", "entity_f1", "answer_f1", "exact_match")
WORD_METRICS = ("entity_f1", "accuracy")
"""Of a task on words: seqeval's F1 of whole entities, and the share of words that are right."""
SPAN_METRICS = ("answer_f1", "exact_match")
"""Of a task on spans: SQuAD's F1 of the words of an answer, and whether it is the same but for case, articles and punctuation."""
TEXT, WORDS, SPANS = "text", "words", "spans"
"""What a label is of: a text (or a pair), each word of a text (token classification), or a span of the second text that
answers the first (extractive question answering)."""
UNLABELLED = -100
"""In arrays of labels and predictions of words, and of spans: there is none here."""
SPAN_ENDS, QUESTION_COLUMNS = ("start", "end"), ("question", "context")
"""Outputs of a task on spans, and the usual columns of its texts."""
LABEL, WORD_COLUMN = "label", "tokens"
"""The usual columns of labels, and of lists of words."""
REGRESSION_METRICS = ("pearson", "spearman")
_ENTITY_TAG = re.compile(r"O$|[BIES]-.")


@dataclass(frozen=True)
class Task:
    """One supervised task on a text, a pair of texts, the words of a text, or spans that answer a question.

    Raises:
        DataError: the parts do not fit together.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    """The classes in the order of their ids; empty for a regression task."""
    metric: str
    """The headline metric, one of `metrics`."""
    metrics: tuple[str, ...]
    """From `METRICS`; "f1" is the F1 of class 1, as in GLUE."""
    label_column: str = field(default=LABEL, compare=False)
    """The column of the labels in the file that the task was inferred from."""
    kind: str = TEXT
    """`TEXT`, `WORDS` or `SPANS`. Words are what stands between blanks."""

    def __post_init__(self) -> None:
        if len(self.text_columns) not in (1, 2):
            raise DataError(f"A task reads one or two text columns, not {len(self.text_columns)}.")
        if len(self.label_names) == 1:
            raise DataError(
                f"'{self.name}' has only the class '{self.label_names[0]}'; a task needs at least two."
            )
        if len(set(self.label_names)) != len(self.label_names):
            raise DataError(f"The label names of a task must differ: {list(self.label_names)}.")
        if self.kind not in (TEXT, WORDS, SPANS) or (self.on_words and (not self.label_names or len(self.text_columns) > 1)):
            raise DataError(f"A task labels a text, or with classes the words of one text, not {self.kind!r:.40}.")
        if self.on_spans and (self.label_names != SPAN_ENDS or len(self.text_columns) != 2):
            raise DataError("A task on spans reads a question and a text, and its outputs are the answer's start and end.")
        own = {"entity_f1", *SPAN_METRICS}
        allowed = [m for m in METRICS if (m in REGRESSION_METRICS) == self.is_regression and m not in own]
        allowed = list(WORD_METRICS) if self.on_words else list(SPAN_METRICS) if self.on_spans else allowed
        if self.metric not in self.metrics or not set(self.metrics) <= set(allowed):
            raise DataError(f"'{self.metric}' must be in {list(self.metrics)}, and those in {allowed}.")
        if "f1" in self.metrics and self.num_labels != 2:
            raise DataError("The metric 'f1' needs exactly two classes; 'f1_macro' takes any number.")

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number rather than a class."""
        return not self.label_names

    @property
    def on_words(self) -> bool:
        """Whether each word has a label (token classification)."""
        return self.kind == WORDS

    @property
    def on_spans(self) -> bool:
        """Whether a span of the second text answers the first (extractive question answering)."""
        return self.kind == SPANS

    @property
    def on_tokens(self) -> bool:
        """Whether the model has an output for each token, of which words or spans are made, instead of one for the text."""
        return self.kind != TEXT

    @property
    def classifies_texts(self) -> bool:
        """Whether each text has one class: labels are neither numbers nor of words or spans."""
        return not self.is_regression and not self.on_tokens

    @property
    def counts_examples(self) -> bool:
        """Whether the headline metric is the share of examples that are right."""
        return self.metric == "accuracy" and not self.on_tokens

    def reads_as(self, other: "Task") -> bool:
        """Whether both have as many texts and the same classes in order, of texts or of words."""
        ours, theirs = ((len(one.text_columns), one.kind, one.label_names) for one in (self, other))
        return ours == theirs

    @property
    def num_labels(self) -> int:
        """Width of the model's output: the number of classes, or 1 for regression."""
        return len(self.label_names) or 1

    def check_of_texts(self, what: str) -> None:
        """Raise `DataError` if words or spans have labels, as `what` needs a class or a number for a text."""
        if self.on_tokens:
            has = "marks an answer in it" if self.on_spans else "has one for each word"
            raise DataError(f"{what} needs one prediction for a text; '{self.name}' {has}.")

    def to_dict(self) -> dict[str, Any]:
        """The task as a JSON-able dictionary, for a checkpoint's config."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.label_column == LABEL:
            del values["label_column"]
        if self.kind == TEXT:
            del values["kind"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Task":
        """Rebuild a task from `to_dict`'s result; a `DataError` if a field is missing or of the wrong kind."""
        try:
            return cls(
                name=str(values["name"]),
                text_columns=_strings(values["text_columns"]),
                label_names=_strings(values["label_names"]),
                metric=str(values["metric"]),
                metrics=_strings(values["metrics"]),
                label_column=str(values.get("label_column", LABEL)),
                kind=str(values.get("kind", TEXT)),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"not a description of a task: {error}.") from error


def _strings(values: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(values, str):  # would become a tuple of letters
        raise TypeError(f"expected a list of strings, got '{values}'")
    return tuple(str(value) for value in values)


def _glue(name: str, columns: str, labels: str, metrics: str) -> Task:
    names = tuple(metrics.split())
    return Task(name, tuple(columns.split()), tuple(labels.split()), names[0], names)


# Columns and label order are those of the hub's nyu-mll/glue.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("sst2", "sentence", "negative positive", "accuracy"),
        _glue("cola", "sentence", "unacceptable acceptable", "matthews accuracy"),
        _glue("mrpc", "sentence1 sentence2", "not_equivalent equivalent", "f1 accuracy"),
        _glue("qqp", "question1 question2", "not_duplicate duplicate", "f1 accuracy"),
        _glue("stsb", "sentence1 sentence2", "", "pearson spearman"),
        _glue("mnli", "premise hypothesis", "entailment neutral contradiction", "accuracy"),
        _glue("qnli", "question sentence", "entailment not_entailment", "accuracy"),
        _glue("rte", "sentence1 sentence2", "entailment not_entailment", "accuracy"),
        _glue("wnli", "sentence1 sentence2", "not_entailment entailment", "accuracy"),
    )
}


TEXTS = Task("texts", ("text",), (), "pearson", ("pearson", "spearman"))
"""The task of a checkpoint of unlabelled texts, whose head is never used."""


def get_task(name: str | Task) -> Task:
    """The GLUE task of that name; a `Task` is returned as it is. A `DataError` lists the known ones."""
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise DataError(f"There is no task '{name}'; the known ones are {', '.join(TASKS)}.")
    return TASKS[name]


def custom_task(
    name: str,
    text_columns: Iterable[str],
    label_names: Iterable[str] = (),
    regression: bool = False,
    kind: str = TEXT,
) -> Task:
    """A task for a person's own data: accuracy and macro F1, or Pearson's and Spearman's correlation for regression.

    On words, the F1 of entities where the labels are tags like `B-PER`, `I-PER` and `O`; and accuracy. On spans, without label
    names, SQuAD's F1 and exact match.

    Raises:
        DataError: a classification task has fewer than two classes.
    """
    labels = SPAN_ENDS if kind == SPANS else _strings(label_names)
    if not regression and len(labels) < 2:
        raise DataError(f"A classification task needs at least two classes, not {len(labels)}.")
    metrics = REGRESSION_METRICS if regression else ("accuracy", "f1_macro")
    if kind == WORDS:
        entities = any(label.startswith("B-") for label in labels) and all(map(_ENTITY_TAG.match, labels))
        metrics = WORD_METRICS if entities else ("accuracy",)
    if kind == SPANS:
        metrics = SPAN_METRICS
    return Task(name, _strings(text_columns), labels, metrics[0], metrics, kind=kind)


def may_be_one(one: Task, other: Task) -> bool:
    """Whether two tasks with the same labels may be the same: QNLI and RTE are not, files of different names may be."""
    if one.name in TASKS and other.name in TASKS:
        return one.name == other.name
    alike = one.is_regression == other.is_regression and one.kind == other.kind
    return alike and len(one.text_columns) == len(other.text_columns)
