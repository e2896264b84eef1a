"""`explain --beside`: another model's words beside a model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shrp.cli.output import print_table, stderr, stdout
from shrp.data.tasks import Task, may_be_one
from shrp.errors import DataError
from shrp.phrases import signed

if TYPE_CHECKING:
    import pandas as pd

    from shrp.analysis.attribution.beside import Question
    from shrp.checkpoints.checkpoint import Checkpoint

SHOWN = 12
"""Words, or longer pieces, that are printed; JSON has all."""


@dataclass(frozen=True, eq=False)
class Beside:
    """Two models' words of one input."""

    task: Task
    asked: Question
    full: tuple[float, float]
    """What is explained, as each has it."""
    method: str
    frame: pd.DataFrame
    """Of `shrp.analysis.attribution.beside.beside`."""


def check_same_task(one: Checkpoint, other: Checkpoint) -> None:
    """Raise `DataError` where two models answer different questions."""
    ours, theirs = one.info.task, other.info.task
    if not (ours.reads_as(theirs) and may_be_one(ours, theirs)):
        raise DataError(
            f"{one.path} is for {ours.name} and {other.path} for {theirs.name}: their words can't be set side by "
            "side, as they answer different questions."
        )


def words_beside(
    one: Checkpoint,
    other: Checkpoint,
    text: tuple[str, ...],
    output: int | None = None,
    rather_than: int | None = None,
) -> Beside | None:
    """What both lose without each word of an input; None where there is no word, which is said.

    Args:
        output, rather_than: as for `shrp.analysis.attribution.beside.question`.
    """
    import torch

    from shrp.analysis.attribution.beside import beside, question
    from shrp.analysis.attribution.instance import prepare
    from shrp.analysis.attribution.tokens import ablate_words

    task = one.info.task
    try:
        both = [prepare(each.model, each.tokenizer, task, text) for each in (one, other)]
    except DataError as error:
        stderr.print(f"no words of '{' / '.join(text)[:60]}': {error}")
        return None
    with torch.inference_mode():
        logits = [each.outputs(each.embeddings)[0].cpu().numpy() for each in both]
    if len(both[1].tokens) > (cut := other.info.max_length):
        stderr.print(
            f"{other.path} reads {len(both[1].tokens):,} tokens of '{' / '.join(text)[:60]}' here, and {cut:,} where "
            "it is scored"
        )
    asked = question(both, logits, output, rather_than)
    found = [ablate_words(*asked.of(each), replacement=asked.replacement) for each in both]
    return Beside(task, asked, (found[0].full, found[1].full), found[0].method, beside(*found))


def as_json(found: Beside) -> dict[str, Any]:
    """The same as JSON-able data."""
    asked, labels = found.asked, found.task.label_names
    rows = found.frame.rename(columns={"text": "part", asked.unit: "text"}).drop(columns="place")
    rows.columns = [name.replace(" ", "_") for name in rows.columns]
    rows = rows.astype(object)
    return {
        "of": labels[asked.output] if labels else "output",
        "rather_than": None if asked.rather_than is None else labels[asked.rather_than],
        "unit": asked.unit,
        "method": found.method,
        "replaced_by": asked.replacement,
        "full": {"one": found.full[0], "other": found.full[1]},
        "scores": rows.where(rows.notna(), None).to_dict("records"),
    }


def show(found: Beside, names: tuple[str, str]) -> None:
    """Print the words that count most differently in the two.

    Args:
        names: of both models, none of them a column's here.
    """
    frame, unit, columns = found.frame, found.asked.unit, found.task.text_columns
    order = frame["apart"].abs().sort_values(ascending=False, kind="stable").index[:SHOWN]
    some = f"; the {SHOWN} that count most differently" * (len(frame) > SHOWN)
    values = " and ".join(
        f"{signed(value, 2)} for {name}" for value, name in zip(found.full, names, strict=True)
    )
    stdout.print(
        f"   what {found.asked.what(found.task.label_names)}, {values}, loses without each {unit}, and which part that "
        f"is of the model's largest loss{some}"
    )
    heads = [*names, *(f"{name}, part" for name in names)]
    rows = [
        {"place": str(row["place"])}
        | ({"text": columns[row["text"] - 1]} if len(columns) == 2 else {})
        | {unit: row[unit]}
        | dict(
            zip(
                heads,
                [
                    *map(_number, (row["one"], row["other"])),
                    *map(_part, (row["one part"], row["other part"])),
                ],
                strict=True,
            )
        )
        for row in frame.loc[order].to_dict("records")
    ]
    print_table("", rows)


def _part(value: float) -> str:
    return "not read" if value != value else f"{value:+.0%}"


def _number(value: float) -> str:
    return "not read" if value != value else signed(value, 2)
