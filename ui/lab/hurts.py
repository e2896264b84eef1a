"""Where pruning hurts: losses by slice, class and length, and the inputs that flip, against the lab's reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from zlib import crc32

import numpy as np
import pandas as pd
import streamlit as st

from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.data.tabular import distinct
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.evaluation import paired
from shrp.evaluation.evaluation import Evaluation
from shrp.phrases import listed
from shrp.pruning.plan import PruningPlan
from ui import closer, confidence, pair_views, paired_results
from ui.bound import leave_known
from ui.downloads import chart, downloads
from ui.lab.group_figures import FEW, losses_by_group, summary, with_names
from ui.lab.reference import ROUTED, TEACHER, Against
from ui.state import Selection
from ui.tables import class_width, row_height
from ui.text import escape, metric_name, share_text

DIRECTION, SLICES, CLASSES, TABS = "flip_direction", "flip_slice", "flip_label", "hurts"
AGAINST = "hurts_against"
PAIRS, CONFIDENCE = "Minimal pairs", "Confidence"
"""The tabs of these names."""
_PAGE = 740  # pixels that a table has in a window of 1200
_PICKED, _CHANGE, _P, _SLICE, _LEAST = 35, 132, 75, 95, 120  # of its columns, and of a text's at least


@st.fragment
def section(
    references: Sequence[Against],
    pruned: Evaluation,
    selection: Selection,
    lengths: np.ndarray,
    problem: str,
    name: str,
    plan: PruningPlan,
) -> None:
    """The whole section: what is held against what, and a tab each for slices, classes, lengths and flips.

    Args:
        references: of which one is picked, the first by default.
        selection: whose data both are evaluated on, and whose checkpoint looks closer at an input.
        lengths: of the inputs, in tokens.
        problem: why the teacher's outputs could not be read; empty where nothing is wrong.
        name: of the files to download.
        plan: of the pruned model.
    """
    st.header("Where it hurts")
    if problem:
        st.warning(escape(problem), icon=":material/warning:")
    against = _picked(references)
    st.caption(escape(against.why))
    names, held = (against.name, "pruned"), f"against the {against.name}"
    tabs(against.evaluation, pruned, selection, lengths, names, held, name)


def tabs(
    reference: Evaluation,
    other: Evaluation,
    selection: Selection,
    lengths: np.ndarray,
    names: tuple[str, str],
    against: str,
    file: str,
) -> None:
    """A tab each for slices, classes, lengths, flips and, where there are any, minimal pairs and probabilities; without
    labels the flips alone. What the data lack comes after what they have.

    Args as for `section` and `flips`.
    """
    data = selection.data
    if data.labels is None:
        st.info("These data have no labels, so there is no right or wrong, only inputs that flip.")
        flips(reference, other, selection, names, against, file)
        return
    lacking = {SLICE: data.slices is None, CLASS: data.task.is_regression, LENGTH: False}
    both = dict.fromkeys(lacking, (reference, other))
    both[LENGTH] = _sliced(input_groups(data, lengths=lengths, by=(LENGTH,))[LENGTH], reference, other)
    drawn = {
        f"By {by}": partial(groups, *both[by], by, names, file) for by in sorted(lacking, key=lacking.get)
    }
    drawn["Flipped predictions"] = partial(flips, reference, other, selection, names, against, file)
    if pair_views.has_pairs(data):
        drawn[PAIRS] = partial(pair_views.tab, reference, other, data, names, file)
    if not data.task.is_regression:
        drawn[CONFIDENCE] = partial(confidence.tab, reference, other, names, file)
    for place, draw in zip(st.tabs([*drawn], key=TABS, bind="query-params"), drawn.values(), strict=True):
        with place:
            draw()


def _sliced(parts: Mapping[str, np.ndarray], *evaluations: Evaluation) -> tuple[Evaluation, ...]:
    """Evaluations with other groups of inputs, name -> mask `(N,)`, for their slices."""
    names = np.empty(evaluations[0].total, dtype=object)
    for name, mask in parts.items():
        names[mask] = name
    return tuple(replace(one, slices=tuple(names[one.indices])) for one in evaluations)


def _picked(references: Sequence[Against]) -> Against:
    """The reference, picked where there are several."""
    known = {one.name: one for one in references}
    if len(known) == 1:
        return references[0]
    picked = st.segmented_control(
        "Compare with",
        list(known),
        default=references[0].name,
        required=True,
        key=AGAINST,
        bind="query-params",
    )
    return known.get(picked, references[0])


def groups(reference: Evaluation, other: Evaluation, by: str, names: tuple[str, str], file: str) -> None:
    """Losses within groups of inputs: a sentence, and the figure. Args as for `flips`.

    Args:
        by: `class`, or what the evaluations' slices are: `slice` or `length`.
    """
    frame = paired_results.groups(reference, other, CLASS if by == CLASS else SLICE)
    if frame.empty:
        kinds = "slices" if by == SLICE else "classes"
        own = "type slices by words in the sidebar, or " if by == SLICE else ""
        st.info(f"{escape(other.data)} has no {kinds}: {own}pick other data in the sidebar.")
        return
    value = "recall" if by == CLASS else other.metric
    text = summary(frame, by, value)
    st.markdown(text)
    if value in ("matthews", "f1") and (single := without_a_class(other)):
        what = "one class only" if value == "matthews" else "the first class only"
        st.caption(
            f":material/info: Of {what}, so that {metric_name(value)} is 0 whatever is answered: "
            f"{escape(listed(single))}."
        )
    table = with_names(frame, by, names).assign(few=frame["n"] < FEW, measure=value, data=other.data)
    chart(
        losses_by_group(frame, by, value, names, other.data),
        table,
        f"by-{by}",
        f"{file}-by-{by}",
        f"Dots: {metric_name(value)} of both models, {names[0]} and {names[1]}, in each {by}. "
        + text.replace("*", "").replace("\\", ""),
    )


def without_a_class(evaluation: Evaluation) -> list[str]:
    """Slices of one class only, or for F1 of none of the class that it is of: such a score is 0 of any answers."""
    slices, found = np.array(evaluation.slices, dtype=object), []
    for name in sorted(set(evaluation.slices)):
        classes = set(evaluation.labels[slices == name].tolist())
        if classes == {0} or (len(classes) == 1 and evaluation.metric != "f1"):
            found.append(name)
    return found


@st.fragment
def flips(
    reference: Evaluation,
    other: Evaluation,
    selection: Selection,
    names: tuple[str, str],
    against: str,
    file: str,
) -> None:
    """The inputs that two models judge differently, to be filtered, looked closer at, and taken along.

    Args:
        selection: as for `section`.
        names: of both, short enough for the heads of columns.
        against: the reference as the end of a sentence.
        file: name of the file to download.
    """
    data = selection.data
    frame = paired.flip_table(reference, other, data)
    regression = data.task.is_regression
    what = f"differ by more than {paired.far_apart(reference):g}" if regression else "flip"
    counts = frame["direction"].value_counts()
    said = ", ".join(
        f"{number:,} {escape(kind)}" for kind, number in counts.items() if kind != paired.UNLABELLED
    )
    st.markdown(
        f"{len(frame):,} of {other.n:,} predictions {what}, {share_text(len(frame), other.n)}, {against}"
        + (f": {said}" if said else "")
        + f"; {escape(data.name)}."
    )
    if frame.empty:
        return
    shown = _filtered(frame, regression)
    if len(shown) < len(frame):
        st.caption(f"{len(shown):,} of {len(frame):,} shown.")
    if shown.empty:
        st.info("No flipped prediction fits these filters; take one away.")
        return
    if rows := _table(shown, data, names):
        whose = f"by {selection.name} as it is"
        picked = shown["index"].iloc[rows].tolist()
        closer.links(data, picked, routed=selection.is_routed, whose=whose)
    downloads(_taken_along(shown, data.task, names), "flips", f"{file}-flips")


def _taken_along(frame: pd.DataFrame, task: Task, names: tuple[str, str]) -> pd.DataFrame:
    """The flips as they are downloaded, with the models' names in their columns'."""
    columns = {
        "reference": names[0],
        "other": names[1],
        "p_reference": f"p {names[0]}",
        "p_other": f"p {names[1]}",
        "class": "p is of class",
    }
    ours = paired.flip_text_columns(task)
    theirs = distinct(task.text_columns, [columns.get(name, name) for name in frame if name not in ours])
    return frame.rename(columns=columns | dict(zip(ours, theirs, strict=True)))


def _filtered(frame: pd.DataFrame, regression: bool) -> pd.DataFrame:
    """The rows that the filters leave; empty filters leave all."""
    filters = [("direction", "Direction", DIRECTION)]
    if "slice" in frame:
        filters.append(("slice", "Slice", SLICES))
    if "label" in frame and not regression:
        filters.append(("label", "Class of the label", CLASSES))
    whole = frame
    for (column, label, key), place in zip(filters, st.columns(len(filters), gap="medium"), strict=True):
        options = sorted(whole[column].unique())
        leave_known(key, options)  # what was picked for another plan
        with place:
            picked = st.multiselect(label, options, key=key, bind="query-params", placeholder="All")
        if picked:
            frame = frame[frame[column].isin(picked)]
    return frame


def _table(frame: pd.DataFrame, data: TextData, names: tuple[str, str]) -> list[int]:
    """The flips as a table in which nothing is cut: texts wrap, and both predictions share a column.

    Returns:
        The place of the picked row, if one is.
    """
    task, (reference, other) = data.task, names
    arrow, short = f"{reference} → {other}", {TEACHER: "teacher", ROUTED: "routed"}.get(reference, reference)
    probabilities = {f"p {short}": "p_reference", f"p {other}": "p_other"}
    texts = distinct(task.text_columns, ("label", "slice", reference, other, arrow, *probabilities))
    shown = pd.DataFrame(
        {name: frame[column] for name, column in zip(texts, paired.flip_text_columns(task), strict=True)}
    )
    if "label" in frame:
        shown["label"] = frame["label"]
    wide = class_width(task.label_names)
    others = _PICKED + wide * ("label" in frame) + _CHANGE + 2 * _P + _SLICE * ("slice" in frame)
    width = max(_LEAST, (_PAGE - others) // len(texts))
    config = {name: st.column_config.TextColumn(name, width=width) for name in texts}
    height = row_height(max(shown[name].str.len().max() for name in texts), width)
    pick = "Pick a row to look closer at it."
    if task.is_regression:
        st.caption(pick)
        shown[reference], shown[other] = frame["reference"], frame["other"]
        number = {"format": "%.2f", "width": "small"}
        config |= {
            name: st.column_config.NumberColumn(name, **number) for name in ("label", reference, other)
        }
    else:
        # Names of classes take several lines, and these break at spaces alone.
        shown[arrow] = (frame["reference"] + " → " + frame["other"]).str.replace("_", " ")
        height = max(height, row_height(int(shown[arrow].str.len().max()), _CHANGE))
        config[arrow] = st.column_config.TextColumn(f"{short} → {other}", width=_CHANGE)
        if "label" in frame:
            shown["label"] = frame["label"].str.replace("_", " ")
            config["label"] = st.column_config.TextColumn(width=wide)
        whose = "the label" if "label" in frame else f"the prediction on the left ({reference})"
        for name, column in probabilities.items():
            shown[name] = 100 * frame[column]
            config[name] = st.column_config.NumberColumn(
                name, format="%.1f%%", width=_P, help=f"Probability of the class of {whose}"
            )
        st.caption(
            f"Both probabilities are of the same class, that of {whose}; n = {len(frame):,} inputs in the table. {pick}"
        )
    if "slice" in frame:
        shown["slice"] = frame["slice"].str.replace("_", " ")
        config["slice"] = st.column_config.TextColumn(width=_SLICE)
    listed_here = crc32(frame["index"].to_numpy().tobytes())
    event = st.dataframe(
        shown,
        key=f"flips-{data.fingerprint}-{reference}-{other}-{listed_here}",  # a picked row belongs to this list alone
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        column_config=config,
        row_height=height,
        height=min(560, 40 + height * len(shown)),
        alt=f"Inputs whose prediction differs between two models, {reference} and {other}",
    )
    return [row for row in event.selection.rows if row < len(frame)]
