"""Two models on the same examples: the paired test, where accuracy is lost, changed predictions, the threshold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.data.tabular import distinct
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.evaluation import paired
from shrp.evaluation.calibration import answer_shares, matching_shift, shifted
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import ranking
from shrp.evaluation.paired import Agreement, agreement, by_group, paired_difference
from ui import closer
from ui.bound import leave_known
from ui.downloads import chart, downloads
from ui.pickers import always_one
from ui.state import Selection
from ui.store import results
from ui.text import (
    ALPHA,
    axis_names,
    capital,
    class_width,
    escape,
    escape_html,
    interval_text,
    is_percentage,
    metric_name,
    p_text,
    percent,
    points,
    points_interval,
    row_height,
    score_text,
    share_text,
    slice_name,
)
from ui.theme import GREY, KIND_COLORS, KIND_SYMBOLS, layout, whiskers

FEW = 30
"""Groups of fewer examples are marked."""
WIDE = 0.02
"""An interval that reaches further than this to a side is called wide."""
DIRECTION, SLICES, CLASSES, GROUPS = "flip_direction", "flip_slice", "flip_label", "lost_by"
"""Keys of the filters of changed predictions, and of the grouping of losses."""
_PAGE = 740  # pixels that a table has in a window of 1200
_PICKED, _CHANGE, _P, _SLICE, _LEAST = 35, 132, 75, 95, 120  # of its columns, and of a text's at least


# Differences of scores


def difference(a: Evaluation, b: Evaluation, *, resamples: int = 2000) -> tuple[float, tuple[float, float]]:
    """`shrp.evaluation.paired.paired_difference`, kept: bootstraps take seconds."""
    if not resamples:
        return paired_difference(a, b, resamples=0)
    key = (content(a), content(b), resamples)
    store = results("paired differences", 1024)
    if (found := store.get(key)) is None:
        store.put(key, found := paired_difference(a, b, resamples=resamples))
    return found


def groups(reference: Evaluation, other: Evaluation, by: str) -> pd.DataFrame:
    """`shrp.evaluation.paired.by_group`, kept; a copy."""
    key, store = (content(reference), content(other), by), results("paired groups", 64)
    if (found := store.get(key)) is None:
        store.put(key, found := by_group(reference, other, by))
    return found.copy()


def content(one: Evaluation) -> tuple[Hashable, ...]:
    """All that a comparison takes from an evaluation."""
    digest = hashlib.sha1(one.logits.tobytes(), usedforsecurity=False)
    digest.update(one.indices.tobytes())
    if one.labels is not None:
        digest.update(one.labels.tobytes())
    if one.slices is not None:
        digest.update("\0".join(("", *one.slices)).encode())
    return one.task, one.data, one.total, one.metric, digest.hexdigest()


def below_or_above(change: float, metric: str, what: str) -> str:
    """`0.8 points below the routed model`, or `the same score as ...`."""
    size = points(abs(change), metric).removeprefix("+")
    if not any(digit in size for digit in "123456789"):
        return f"the same {metric_name(metric)} as {what}"
    return f"{size} {'below' if change < 0 else 'above'} {what}"


def is_clear(bounds: tuple[float, float]) -> bool:
    """Whether an interval excludes 0."""
    return bounds[0] > 0 or bounds[1] < 0


def how_wide(bounds: tuple[float, float], metric: str, n: int) -> str:
    """What an interval that includes 0 does not show, as a sentence; empty for one that excludes 0."""
    if not all(map(math.isfinite, bounds)) or is_clear(bounds):
        return ""
    reach = max(-bounds[0], bounds[1])
    if reach < WIDE:
        return "No significant difference."
    size = f"{math.ceil(100 * reach)} points" if is_percentage(metric) else f"{reach:.2f}"
    return (
        f"No significant difference, but the interval is wide: {n:,} examples cannot tell less than {size}."
    )


@dataclass(frozen=True)
class Test:
    """The paired comparison of B with A: score of B minus that of A."""

    difference: float
    bounds: tuple[float, float]
    counts: Agreement | None
    """None for regression."""
    n: int
    metric: str

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test; nan where the metric is not accuracy, of which the test is."""
        return self.counts.p_value if self.counts and self.metric == "accuracy" else math.nan


def test(a: Evaluation, b: Evaluation) -> Test:
    """Compare two evaluations on the same labelled examples.

    Raises:
        DataError: they are not of the same data.
    """
    change, bounds = difference(b, a)
    counts = None if a.task.is_regression else agreement(a, b)
    return Test(change, bounds, counts, a.n, a.metric)


def verdict_of(found: Test, a: str, b: str) -> str:
    """What a test shows, as Markdown.

    Args:
        a, b: names, as Markdown.
    """
    said = f"**{b}: {below_or_above(found.difference, found.metric, a)}**"
    if not math.isfinite(found.bounds[0]):
        return f"{said}; without an interval, nothing can be concluded."
    said += f" (95% CI {points_interval(found.bounds, found.metric)}, n = {found.n:,})."
    return f"{said} {how_wide(found.bounds, found.metric, found.n)}".strip()


def paired_test(found: Test, names: tuple[str, str], looked: int) -> None:
    """Draw who is right where, with McNemar's test and a warning about many comparisons.

    Args:
        names: of A and B.
        looked: comparisons made so far in this session on these data.
    """
    counts = found.counts
    if counts is not None:
        frame = pd.DataFrame(
            {
                f"{names[1]} right": [_cell(counts.both, counts.n), _cell(counts.only_b, counts.n)],
                f"{names[1]} wrong": [_cell(counts.only_a, counts.n), _cell(counts.neither, counts.n)],
            },
            index=[f"{names[0]} right", f"{names[0]} wrong"],
        )
        st.table(frame, width="content")
        st.caption(
            f"McNemar's exact test: {p_text(counts.p_value)}, on the {counts.only_a + counts.only_b:,} of "
            f"{counts.n:,} examples that only one model predicts correctly."
        )
    limit = f" Count only p < {ALPHA / looked:.2g} as a difference (Bonferroni)." if looked > 1 else ""
    st.caption(
        f"{looked} comparison{'s' * (looked > 1)} so far in this session on these data.{limit} A model picked "
        "because it scored best here is flattered by these data: confirm it on others."
    )


def _cell(number: int, n: int) -> str:
    return f"{number:,} ({percent(number / n)})"


# Where accuracy is lost


def lost(
    reference: Evaluation,
    other: Evaluation,
    data: TextData,
    lengths: np.ndarray,
    names: tuple[str, str],
    file: str,
) -> None:
    """Losses within slices, classes or lengths, one grouping at a time: a sentence and a figure.

    Args:
        lengths: of the examples in tokens `(N,)`.
        names: of the reference and of the model that is compared with it.
        file: name that downloads begin with.
    """
    if data.labels is None:
        st.info("These data have no labels, so nothing is right or wrong. See *Changed predictions*.")
        return
    kinds = {"Slice": SLICE, "Class": CLASS, "Length": LENGTH}
    if data.slices is None:
        del kinds["Slice"]
    if data.task.is_regression:
        del kinds["Class"]
    by = kinds[always_one("By", tuple(kinds), GROUPS, label_visibility="collapsed")]
    if by == LENGTH:
        reference, other = _by_length(reference, data, lengths), _by_length(other, data, lengths)
    frame = groups(reference, other, CLASS if by == CLASS else SLICE)
    value = "recall" if by == CLASS else other.metric
    text = summary(frame, by, value)
    st.markdown(text)
    table = with_names(frame, by, names).assign(few=frame["n"] < FEW, measure=value, data=other.data)
    chart(
        losses_by_group(frame, by, value, names, other.data),
        table,
        f"by-{by}",
        f"{file}-by-{by}",
        f"{metric_name(value)} of {names[0]} and {names[1]} in each {by}. "
        + text.replace("*", "").replace("\\", ""),
    )


def _by_length(one: Evaluation, data: TextData, lengths: np.ndarray) -> Evaluation:
    """The evaluation with groups of lengths as its slices."""
    names = np.empty(one.total, dtype=object)
    for name, mask in input_groups(data, lengths=lengths, by=(LENGTH,))[LENGTH].items():
        names[mask] = name
    return replace(one, slices=tuple(names[one.indices]))


def with_names(frame: pd.DataFrame, by: str, models: tuple[str, str]) -> pd.DataFrame:
    """A table of groups with the models' names in its columns, for a file."""
    known = {"group": by, "reference": models[0], "other": models[1]}
    firsts = {name: name.split()[0] for name in frame.columns}
    return frame.rename(columns={n: n.replace(one, known.get(one, one), 1) for n, one in firsts.items()})


def summary(frame: pd.DataFrame, by: str, value: str) -> str:
    """The largest loss and how many are significant, as Markdown.

    Args:
        frame: `shrp.evaluation.paired.by_group`'s result, not empty.
    """
    metric, worst = "accuracy" if value == "recall" else value, frame.iloc[0]
    many = {SLICE: "slices", CLASS: "classes", LENGTH: "lengths"}[by]
    if worst["change"] != worst["change"]:
        return f"The change of {metric_name(value)} is not defined in these {many}."
    bounds = points_interval((worst["change low"], worst["change high"]), metric)
    known = int(frame["change low"].notna().sum())
    lost_in, won_in = int((frame["change high"] < 0).sum()), int((frame["change low"] > 0).sum())
    chance = f" (about {0.05 * known:.1f} expected by chance)" if known > 4 else ""
    return (
        f"Largest loss: **{escape(slice_name(str(worst['group'])))}**, {points(worst['change'], metric)} "
        f"(95% CI {bounds}, n = {worst['n']:,}). {lost_in} of {len(frame)} {many} lose significantly, {won_in} "
        f"gain{chance}."
    )


def _group_label(name: str, n: int) -> str:
    return f"{slice_name(name)} (n = {n:,}{', few ⚠' if n < FEW else ''})"


def losses_by_group(
    frame: pd.DataFrame, by: str, value: str, models: tuple[str, str], data: str
) -> go.Figure:
    """On the left both models' scores, on the right the change with its paired interval; largest loss on top.

    Args:
        frame: `shrp.evaluation.paired.by_group`'s result.
        by: `slice`, `class` or `length`.
        value: a metric, or `recall`.
        models: names of the reference and of the model that is compared with it.
        data: name of the data.
    """
    percentage = value == "recall" or is_percentage(value)
    scale, digits = (100.0, ".1f") if percentage else (1.0, ".3f")
    names = [_group_label(escape_html(str(g)), n) for g, n in zip(frame["group"], frame["n"], strict=True)]
    labels = [
        _group_label(g, n) for g, n in zip(axis_names(map(str, frame["group"])), frame["n"], strict=True)
    ]
    places = np.arange(len(frame))
    fig = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.55, 0.45], horizontal_spacing=0.04)

    def dots(rows, column, where, who, look, form, col) -> None:
        v, low, high = (scale * rows[c].to_numpy(float) for c in (column, f"{column} low", f"{column} high"))
        hover = [
            f"{names[i]}<br>{escape_html(who)}: {x:{form}}"
            + (f" (95% {a:{digits}} to {b:{digits}})" if a == a else "")
            for i, x, a, b in zip(np.round(where).astype(int), v, low, high, strict=True)
        ]
        fig.add_scatter(
            x=v,
            y=where,
            text=hover,
            mode="markers",
            name=who,
            marker=look | {"size": 9},
            error_x=whiskers(v, low, high),
            hovertemplate="%{text}<extra></extra>",
            row=1,
            col=col,
        )

    first = "teacher" if "teacher" in models[0] else "routed"
    for column, who, kind, shift in (
        ("reference", models[0], first, -0.14),
        ("other", models[1], "static", 0.14),
    ):
        look = {"symbol": KIND_SYMBOLS[kind], "color": KIND_COLORS[kind]}
        dots(frame, column, places + shift, who, look, digits, 1)
    clear = ((frame["change low"] > 0) | (frame["change high"] < 0)).to_numpy()
    for chosen, who, symbol in (
        (clear, "change, significant", "square"),
        (~clear, "change, not significant", "square-open"),
    ):
        look = {"symbol": symbol, "color": KIND_COLORS["static"]}
        dots(frame[chosen], "change", places[chosen], who, look, f"+{digits}", 2)
    fig.add_vline(0, line={"color": GREY, "width": 1, "dash": "dash"}, row=1, col=2)
    few = f"; ⚠: under {FEW} examples" if (frame["n"] < FEW).any() else ""
    layout(
        fig,
        f"{capital(metric_name(value))} by {by}",
        subtitle=f"{escape_html(data)}, n = {int(frame['n'].sum()):,} examples; bars: 95% CI, paired on the "
        f"right{few}",
        height=190 + 32 * max(3, len(frame)),
        legend=True,
    )
    unit = metric_name(value) + (" (%)" if scale == 100 else "")
    fig.update_xaxes(title_text=unit, row=1, col=1)
    fig.update_xaxes(title_text="change (points)" if scale == 100 else "change", zeroline=False, row=1, col=2)
    fig.update_yaxes(
        range=[len(frame) - 0.5, -0.5], zeroline=False, tickmode="array", tickvals=places, ticktext=labels
    )
    return fig


# Changed predictions


@st.fragment
def changed(
    reference: Evaluation, other: Evaluation, selection: Selection, names: tuple[str, str], file: str
) -> None:
    """The examples that two models predict differently: filters, a table, links to look closer, a download.

    Args:
        selection: whose data both are evaluated on, and whose checkpoint the links look closer with.
        names: of both, short enough for the heads of columns.
        file: name of the file to download.
    """
    data = selection.data
    frame = paired.flip_table(reference, other, data)
    what = (
        f"differ by more than {paired.far_apart(reference):g}" if data.task.is_regression else "change class"
    )
    kinds = frame["direction"].value_counts()
    said = ", ".join(f"{n:,} {escape(kind)}" for kind, n in kinds.items() if kind != paired.UNLABELLED)
    st.markdown(
        f"**{len(frame):,} of {other.n:,} predictions {what}**, {share_text(len(frame), other.n)}, from "
        f"{escape(names[0])} to {escape(names[1])}{f': {said}' * bool(said)}."
    )
    if frame.empty:
        return
    shown = _filtered(frame, data.task.is_regression)
    if shown.empty:
        st.info("No changed prediction fits these filters; remove one.")
        return
    if rows := _table(shown, data, names):
        picked = shown["index"].iloc[rows].tolist()
        closer.links(data, picked, routed=selection.is_routed, whose=f"by {selection.name} as it is")
    downloads(_for_a_file(shown, data.task, names), "flips", f"{file}-changed")


def _for_a_file(frame: pd.DataFrame, task: Task, names: tuple[str, str]) -> pd.DataFrame:
    """The table with the models' names in its columns."""
    columns = {"reference": names[0], "other": names[1], "class": "p is of class"}
    columns |= {"p_reference": f"p {names[0]}", "p_other": f"p {names[1]}"}
    ours = paired.flip_text_columns(task)
    theirs = distinct(task.text_columns, [columns.get(name, name) for name in frame if name not in ours])
    return frame.rename(columns=columns | dict(zip(ours, theirs, strict=True)))


def _filtered(frame: pd.DataFrame, regression: bool) -> pd.DataFrame:
    """The rows that the filters leave; empty filters leave all."""
    filters = [("direction", "Direction", DIRECTION)]
    filters += [("slice", "Slice", SLICES)] * ("slice" in frame)
    filters += [("label", "Label", CLASSES)] * ("label" in frame and not regression)
    whole = frame
    for (column, label, key), place in zip(filters, st.columns(len(filters), gap="medium"), strict=True):
        options = sorted(whole[column].unique())
        leave_known(key, options)
        picked = place.multiselect(label, options, key=key, bind="query-params", placeholder="All")
        if picked:
            frame = frame[frame[column].isin(picked)]
    return frame


def _table(frame: pd.DataFrame, data: TextData, names: tuple[str, str]) -> list[int]:
    """Draw the table; returns the place of the picked row, if one is. Texts wrap, so nothing is cut."""
    task, (reference, other) = data.task, names
    arrow, probabilities = (
        f"{reference} → {other}",
        {f"p {reference}": "p_reference", f"p {other}": "p_other"},
    )
    texts = distinct(task.text_columns, ("label", "slice", reference, other, arrow, *probabilities))
    ours = paired.flip_text_columns(task)
    shown = pd.DataFrame({name: frame[column] for name, column in zip(texts, ours, strict=True)})
    if "label" in frame:
        shown["label"] = frame["label"]
    wide = class_width(task.label_names)
    others = _PICKED + wide * ("label" in frame) + _CHANGE + 2 * _P + _SLICE * ("slice" in frame)
    width = max(_LEAST, (_PAGE - others) // len(texts))
    config = {name: st.column_config.TextColumn(name, width=width) for name in texts}
    height = row_height(max(shown[name].str.len().max() for name in texts), width)
    if task.is_regression:
        shown[reference], shown[other] = frame["reference"], frame["other"]
        number = {"format": "%.2f", "width": "small"}
        config |= {
            name: st.column_config.NumberColumn(name, **number) for name in ("label", reference, other)
        }
    else:
        # Names of classes break into lines at spaces alone.
        shown[arrow] = (frame["reference"] + " → " + frame["other"]).map(slice_name)
        height = max(height, row_height(int(shown[arrow].str.len().max()), _CHANGE))
        config[arrow] = st.column_config.TextColumn(arrow, width=_CHANGE)
        if "label" in frame:
            shown["label"] = frame["label"].map(slice_name)
            config["label"] = st.column_config.TextColumn(width=wide)
        whose = "the label" if "label" in frame else f"the prediction of {reference}"
        for name, column in probabilities.items():
            shown[name] = 100 * frame[column]
            config[name] = st.column_config.NumberColumn(
                name, format="%.1f%%", width=_P, help=f"Probability of {whose}"
            )
    if "slice" in frame:
        shown["slice"] = frame["slice"].map(slice_name)
        config["slice"] = st.column_config.TextColumn(width=_SLICE)
    # A picked row belongs to this list alone.
    of = f"{data.fingerprint}-{reference}-{other}-{crc32(frame['index'].to_numpy().tobytes())}"
    event = st.dataframe(
        shown,
        key=f"flips-{of}",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        column_config=config,
        row_height=height,
        height=min(560, 40 + height * len(shown)),
        alt=f"Examples that {reference} and {other} predict differently",
    )
    return [row for row in event.selection.rows if row < len(frame)]


# The threshold


@dataclass(frozen=True, eq=False)
class Matched:
    """A model with its output bias shifted until it predicts each class as often as a reference does."""

    shift: np.ndarray
    """`(C,)`, in the order of the task's labels."""
    evaluation: Evaluation


def matched(other: Evaluation, reference: Evaluation, data: TextData) -> Matched | None:
    """`other` with its threshold calibrated to the predicted class frequencies of `reference`; needs no labels.

    Returns:
        None for regression, and while not all examples are evaluated.
    """
    if data.task.is_regression or not (other.complete and reference.complete):
        return None
    store, key = (
        results("matched shares", 512),
        (content(other), content(reference), data.fingerprint, data.name),
    )
    if (found := store.get(key)) is None:
        shift = matching_shift(other.logits, reference.logits)
        store.put(key, found := Matched(shift, shifted(other, data, shift)))
    return found


def most_is_the_threshold(found: Matched | None, other: Evaluation, reference: Evaluation) -> bool:
    """Whether calibrating the threshold significantly brings back at least half of a loss, and over a point."""
    if found is None or other.labels is None:
        return False
    lost_by, back = reference.score - other.score, found.evaluation.score - other.score
    if not (lost_by > 0 and back > 0.01 and back >= lost_by / 2):
        return False
    return difference(found.evaluation, other)[1][0] > 0


def threshold(reference: Evaluation, other: Evaluation, data: TextData, names: tuple[str, str]) -> None:
    """Say how often both predict a class, and the score of the second with its threshold calibrated."""
    found = matched(other, reference, data)
    if found is None:
        st.info("A regression has no threshold.")
        return
    a, b = answer_shares(reference.logits), answer_shares(other.logits)
    most = int(np.abs(a - b).argmax()) if data.task.num_labels > 2 else 1
    said = (
        f"**Threshold.** {capital(escape(names[1]))} predicts *{escape(data.task.label_names[most])}* for "
        f"{percent(b[most])} of the examples, {escape(names[0])} for {percent(a[most])}."
    )
    if data.labels is not None:
        one, metric = found.evaluation, other.metric
        bounds = interval_text(one.interval, metric)
        change, ends = difference(one, reference)
        said += (
            f" With the threshold calibrated (predicted class frequencies matched, no labels used): {metric_name(metric)} "
            f"{score_text(one.score, metric)}{f' (95% CI {bounds})' * bool(bounds)}, "
            f"{below_or_above(change, metric, escape(names[0]))} (95% CI {points_interval(ends, metric)})."
        )
        if data.task.num_labels == 2:
            areas = [score_text(ranking(e.labels, e.logits), "auc") for e in (other, reference)]
            said += f" ROC AUC, free of any threshold: {areas[0]} against {areas[1]}."
    st.markdown(said)


def agreement_text(other: Evaluation, reference: Evaluation, names: Sequence[str]) -> str:
    """Without labels: how often two models predict the same, as Markdown; empty for regression."""
    if other.task.is_regression:
        return ""
    _, mine, theirs = np.intersect1d(other.indices, reference.indices, return_indices=True)
    same = int((other.predictions[mine] == reference.predictions[theirs]).sum())
    return (
        f"**{capital(names[1])} predicts the same class as {names[0]} for {same:,} of {len(mine):,} examples**, "
        f"{share_text(same, len(mine))}."
    )
