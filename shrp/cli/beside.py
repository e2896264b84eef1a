"""`explain --beside`: another model's words beside a model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shrp.cli.output import print_table, stderr, stdout
from shrp.errors import DataError
from shrp.phrases import signed
from shrp.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

    from shrp.checkpoint import Checkpoint

_SHOWN = 12
"""Words, or longer pieces, that are printed; JSON has all."""


@dataclass(frozen=True, eq=False)
class Beside:
    """Two models' words of one input."""

    task: Task
    classes: tuple[int, int] | None
    """Whose difference of logits is explained; None of a regression."""
    full: tuple[float, float]
    """The output of each."""
    unit: str
    method: str
    replaced_by: str
    frame: pd.DataFrame
    """Of `shrp.attribution.beside.beside`."""

    @property
    def names(self) -> list[str] | None:
        """The two classes."""
        return None if self.classes is None else [self.task.label_names[i] for i in self.classes]

    @property
    def what(self) -> str:
        """What is explained, in words."""
        return "output" if self.names is None else f"logit of {self.names[0]} less that of {self.names[1]}"


def check_same_task(one: Checkpoint, other: Checkpoint) -> None:
    """Raise `DataError` where two models answer different questions."""
    if not one.info.task.reads_as(other.info.task):
        raise DataError(
            f"{one.path} is for {one.info.task.name} and {other.path} for {other.info.task.name}, with other classes "
            "or texts: their words can't be set side by side."
        )


def words_beside(one: Checkpoint, other: Checkpoint, text: tuple[str, ...]) -> Beside | None:
    """What both lose without each word of an input; None where there is no word, which is said."""
    import torch

    from shrp.attribution.beside import beside, parting, same_replacement, same_unit
    from shrp.attribution.difference import against
    from shrp.attribution.instance import prepare
    from shrp.attribution.tokens import ablate_words
    from shrp.attribution.units import in_units

    task = one.info.task
    try:
        both = [prepare(each.model, each.tokenizer, task, text) for each in (one, other)]
    except DataError as error:
        stderr.print(f"no words of '{' / '.join(text)[:60]}': {error}")
        return None
    with torch.inference_mode():
        logits = [each.outputs(each.embeddings)[0].cpu().numpy() for each in both]
    classes, unit, replaced_by = parting(*logits), same_unit(both), same_replacement(both)
    both = [in_units(each, unit) for each in both]
    if classes is not None:
        both = [against(each, *classes) for each in both]
    found = [ablate_words(each, 0, replacement=replaced_by) for each in both]
    full = found[0].full, found[1].full
    return Beside(task, classes, full, unit, found[0].method, replaced_by, beside(*found))


def as_json(found: Beside) -> dict[str, Any]:
    """The same as JSON-able data."""
    columns = ["text", found.unit, "one", "other", "difference"]
    rows = found.frame[columns].rename(columns={"text": "part", found.unit: "text"}).astype(object)
    of, rather_than = found.names or ("output", None)
    return {
        "of": of,
        "rather_than": rather_than,
        "unit": found.unit,
        "method": found.method,
        "replaced_by": found.replaced_by,
        "full": {"one": found.full[0], "other": found.full[1]},
        "scores": rows.where(rows.notna(), None).to_dict("records"),
    }


def show(found: Beside, names: Sequence[str]) -> None:
    """Print the words over which the two part most.

    Args:
        names: of both models.
    """
    frame = found.frame
    order = frame["difference"].abs().sort_values(ascending=False, kind="stable").index[:_SHOWN]
    some = f"; the {_SHOWN} over which they part most" * (len(frame) > _SHOWN)
    values = " and ".join(
        f"{signed(value, 2)} for {name}" for value, name in zip(found.full, names, strict=True)
    )
    stdout.print(f"   what the {found.what}, {values}, loses without each {found.unit}{some}")
    pair = len(found.task.text_columns) == 2
    rows = [
        {"place": str(row["place"])}
        | ({"text": found.task.text_columns[row["text"] - 1]} if pair else {})
        | {found.unit: row[found.unit]}
        | {name: _number(row[column]) for name, column in zip(names, ("one", "other"), strict=True)}
        | {"apart": _number(row["difference"])}
        for row in frame.loc[order].to_dict("records")
    ]
    print_table("", rows)


def _number(value: float) -> str:
    return "not read" if value != value else signed(value, 2)
