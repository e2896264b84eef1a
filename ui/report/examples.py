"""The report's examples: the inputs that tell most about a model, with their routes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shrp.analysis.explore import explore
from shrp.analysis.usage import UsageStats
from shrp.data.tabular import distinct
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from ui.expert_cells import routes_side_by_side
from ui.measurements import cut_inputs
from ui.overview.cliff import cliff_warning
from ui.report.parts import Section
from ui.state import Selection
from ui.text import percent, plain, shorten, with_interval

EXAMPLES = 5
"""Inputs of each kind of example."""


def _route(selection: Selection) -> str:
    """What of an input's route is told, as the start of a sentence's object."""
    config = selection.checkpoint.info.config
    if config.routing == "token":
        return "the expert that most of its tokens take"
    return (
        "the expert taken"
        if config.top_k == 1
        else f"of its {config.top_k} experts the one with the largest gate"
    )


def examples_part(
    part: Section, selection: Selection, usage: UsageStats | None, evaluation: Evaluation | None
) -> None:
    """The score on the data, and a table of each kind of example."""
    data = selection.data
    if data is None or evaluation is None:
        part.words(
            f"The model could not be evaluated, so there are no examples. {selection.no_data}".rstrip()
        )
        return
    score = None if evaluation.labels is None else evaluation.score
    measured = with_interval(score, evaluation.interval, evaluation.metric, evaluation.n)
    if score is None:
        part.words(f"{data.name} has no labels (n = {evaluation.n:,}), so there is no score.")
    else:
        part.words(f"Measured here on {data.name}: {measured}.")
    if score is not None and (warning := cliff_warning(selection.checkpoint, data, evaluation)):
        part.warning(plain(warning))
    for title, rows in groups(evaluation).items():
        part.heading(title)
        if not len(rows):
            part.words("There is none.")
            continue
        inputs = evaluation.indices[rows]
        part.table(
            example_frame(evaluation, rows, data, usage),
            f"{len(rows)} of {evaluation.n:,} inputs of {data.name}"
            + (f"; route: {_route(selection)} in each layer, input side first" if usage is not None else ""),
            texts=_text_names(data.task),
        )
        if usage is None:
            continue
        seen = explore(
            selection.checkpoint.model,
            selection.checkpoint.tokenizer,
            data.task,
            [data.texts[i] for i in inputs],
        )
        labels = [
            f"{i}. {shorten(' / '.join(data.texts[i]), 38)}" for i in inputs.tolist()
        ]  # the index keeps equal texts apart
        _, cut = cut_inputs(selection.checkpoint, data)
        longer = any(one.full_length > cut for one in seen)
        part.figure(
            routes_side_by_side(seen, labels=labels, title=f"Routes: {title[0].lower()}{title[1:]}"),
            f"For each of these inputs, in the routed layers {', '.join(map(str, seen[0].layers))}: "
            f"{_route(selection)}, as in the table"
            + (f", where inputs are cut at {cut} tokens." if longer else "."),
            f"Data: {data.name}, n = {len(rows)} inputs picked by the outputs, not a sample.",
        )


def groups(evaluation: Evaluation, size: int = EXAMPLES) -> dict[str, np.ndarray]:
    """Which inputs to show: heading -> rows of the evaluation, the most telling first, at most `size` each.

    With labelled classes the surest right and the surest wrong answers; for numbers the least and the largest errors;
    without labels the surest and the least sure answers.
    """
    if evaluation.task.is_regression:
        if evaluation.labels is None:
            order = np.argsort(evaluation.predictions, kind="stable")
            return {"Lowest outputs": order[:size], "Highest outputs": order[::-1][:size]}
        errors = np.argsort(np.abs(evaluation.predictions - evaluation.labels), kind="stable")
        return {"Closest to the label": errors[:size], "Most wrong": errors[::-1][:size]}
    order = np.argsort(-evaluation.probabilities.max(axis=1), kind="stable")
    if evaluation.labels is None:
        return {"Most confident": order[:size], "Least confident": order[::-1][:size]}
    right = evaluation.correct[order]
    return {"Most confident and right": order[right][:size], "Most wrong": order[~right][:size]}


def example_frame(
    evaluation: Evaluation, rows: np.ndarray, data: TextData, usage: UsageStats | None
) -> pd.DataFrame:
    """One row an input, as texts: number, text, label, output, its probability, slice and route where known."""
    task, found = evaluation.task, []
    texts = _text_names(task)
    for row in rows.tolist():
        index, prediction = int(evaluation.indices[row]), evaluation.predictions[row]
        known: dict[str, str] = {"input": f"{index}"} | dict(zip(texts, data.texts[index]))
        if evaluation.labels is not None:
            known["label"] = _named(task.label_names, evaluation.labels[row])
        known["output"] = _named(task.label_names, prediction)
        if not task.is_regression:
            known["probability"] = percent(float(evaluation.probabilities[row].max()))
        if evaluation.slices is not None:
            known["slice"] = evaluation.slices[row].replace("_", " ")
        if usage is not None:
            known["route"] = " · ".join(
                f"L{layer}:\u00a0{int(usage.top1[layer][index].argmax())}" for layer in usage.layers
            )
        found.append(known)
    return pd.DataFrame(found)


def _text_names(task: Task) -> list[str]:
    """The names of the texts' columns in `example_frame`."""
    return distinct(task.text_columns, ("input", "label", "output", "probability", "slice", "route"))


def _named(names: tuple[str, ...], value: float) -> str:
    return names[int(value)] if names else f"{float(value):.3f}"
