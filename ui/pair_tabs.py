"""Tabs on two models on the same examples: where accuracy is lost, changed predictions, threshold and confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.slices import CLASS, LENGTH, SLICE, input_groups
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.evaluation import calibration, paired
from shrp.evaluation.calibration import Ece, answer_shares
from shrp.evaluation.evaluation import Evaluation
from ui import closer, measurements
from ui.bound import always_one
from ui.differences import FEW, below_or_above, content, difference, groups, matched
from ui.downloads import chart, downloads
from ui.state import Selection
from ui.store import once
from ui.text import (
    TWO_LINES,
    axis_names,
    capital,
    escape,
    escape_html,
    interval_text,
    is_percentage,
    metric_name,
    percent,
    plain,
    points,
    points_interval,
    score_text,
    share_text,
    slice_name,
    text_width,
)
from ui.theme import GREY, HOVER, KIND_COLORS, KIND_SYMBOLS, layout, whiskers

LOST, CHANGED, THRESHOLD = "Where accuracy is lost", "Changed predictions", "Threshold and confidence"
GROUPS = "lost_by"
"""Key of the grouping of losses, in the session's state and in the URL."""


def draw(
    name: str,
    reference: Evaluation,
    other: Evaluation,
    selection: Selection,
    models: Mapping[str, str],
    file: str,
    read: Checkpoint,
) -> None:
    """Draw one of the tabs.

    Args:
        selection: whose data both are evaluated on, and whose checkpoint the links look closer with.
        models: name of both -> its kind among scored models (`ui.theme.KIND_COLORS`).
        read: what tells the examples' lengths in tokens.
    """
    data, names = selection.data, tuple(models)
    if name == CHANGED:
        _changed(reference, other, selection, names, file)
    elif name == LOST:
        _lost(reference, other, data, measurements.read_lengths(read, data), models, file)
    else:
        _threshold(reference, other, data, names)
        if data.labels is not None and data.task.classifies_texts:
            _confidence(reference, other, models, file)


def marks(models: Mapping[str, str]) -> list[dict[str, str]]:
    """Colour and symbol of both models; the second is hollow where both are of one kind."""
    first, second = ({"color": KIND_COLORS[kind], "symbol": KIND_SYMBOLS[kind]} for kind in models.values())
    return [first, second | {"symbol": second["symbol"] + "-open" * (first == second)}]


# Where accuracy is lost


def _lost(
    reference: Evaluation,
    other: Evaluation,
    data: TextData,
    lengths: np.ndarray,
    models: Mapping[str, str],
    file: str,
) -> None:
    """Losses within slices, classes or lengths, one grouping at a time: a sentence and a figure."""
    if data.labels is None:
        st.info(f"These data have no labels, so nothing is right or wrong. See *{CHANGED}*.")
        return
    names = tuple(models)
    kinds = [SLICE] * (data.slices is not None) + [CLASS] * data.task.classifies_texts
    kinds.append(LENGTH)
    by = always_one("By", tuple(map(capital, kinds)), GROUPS, label_visibility="collapsed").lower()
    if by == LENGTH:
        groups_of = np.empty(len(data), dtype=object)
        for name, mask in input_groups(data, lengths=lengths, by=(LENGTH,))[LENGTH].items():
            groups_of[mask] = name
        reference, other = (replace(e, slices=tuple(groups_of[e.indices])) for e in (reference, other))
    frame = groups(reference, other, CLASS if by == CLASS else SLICE)
    value = "recall" if by == CLASS else other.metric
    text = summary(frame, by, value)
    st.markdown(text)
    fig = losses_by_group(frame, by, value, models, other.data)
    alt = f"{metric_name(value)} of {names[0]} and {names[1]} in each {by}. {plain(text)}"
    table = frame.assign(by=by, few=frame["n"] < FEW, measure=value, data=other.data, models=_named(names))
    chart(fig, table, f"by-{by}", f"{file}-by-{by}", alt)


def summary(frame: pd.DataFrame, by: str, value: str) -> str:
    """The largest loss and how many are significant, as Markdown.

    `frame`: `shrp.evaluation.paired.by_group`'s result, not empty.
    """
    metric, worst = "accuracy" if value == "recall" else value, frame.iloc[0]
    many = {SLICE: "slices", CLASS: "classes", LENGTH: "lengths"}[by]
    if worst["change"] != worst["change"]:
        return f"The change of {metric_name(value)} is not defined in these {many}."
    bounds = points_interval((worst["change low"], worst["change high"]), metric)
    known = int(frame["change low"].notna().sum())
    losing, gaining = int((frame["change high"] < 0).sum()), int((frame["change low"] > 0).sum())
    chance = f" (about {0.05 * known:.1f} expected by chance)" if known > 4 else ""
    return (
        f"Largest loss: **{escape(slice_name(str(worst['group'])))}**, {points(worst['change'], metric)} "
        f"(95% CI {bounds}, n = {worst['n']:,}). {losing} of {len(frame)} {many} lose significantly, {gaining} "
        f"gain{chance}."
    )


def losses_by_group(frame: pd.DataFrame, by: str, value: str, models: Mapping[str, str], data: str) -> go.Figure:
    """On the left both models' scores, on the right the change with its paired interval; largest loss on top.

    `frame`: `shrp.evaluation.paired.by_group`'s result.
    """
    percentage = value == "recall" or is_percentage(value)
    scale, digits = (100.0, ".1f") if percentage else (1.0, ".3f")
    given = [str(group) for group in frame["group"]]
    counts = [f" (n = {n:,}{', few ⚠' if n < FEW else ''})" for n in frame["n"]]
    names, labels = (
        [slice_name(label) + n for label, n in zip(shown, counts, strict=True)]
        for shown in (map(escape_html, given), axis_names(given))
    )
    places = np.arange(len(frame))
    fig = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.55, 0.45], horizontal_spacing=0.04)

    def dots(rows, column, who, mark, shift=0.0, sign="", col=1) -> None:
        """A series of some rows of the frame, given by their places."""
        v, low, high = (scale * frame[c].to_numpy(float)[rows] for c in (column, f"{column} low", f"{column} high"))
        hover = [
            f"{names[i]}<br>{escape_html(who)}: {x:{sign}{digits}}"
            + (f" (95% {a:{digits}} to {b:{digits}})" if a == a else "")
            for i, x, a, b in zip(rows, v, low, high, strict=True)
        ]
        at = {"x": v, "y": rows + shift, "mode": "markers", "name": who, "row": 1, "col": col}
        bars = whiskers(v, low, high)
        fig.add_scatter(**at, marker=mark | {"size": 9}, error_x=bars, hovertext=hover, **HOVER)

    (one, other), (first, second) = models, marks(models)
    dots(places, "reference", one, first, -0.14)
    dots(places, "other", other, second, 0.14)
    clear = ((frame["change low"] > 0) | (frame["change high"] < 0)).to_numpy()
    dots(places[clear], "change", "change, significant", second | {"symbol": "square"}, sign="+", col=2)
    dots(places[~clear], "change", "change, not significant", second | {"symbol": "square-open"}, sign="+", col=2)
    fig.add_vline(0, line={"color": GREY, "width": 1, "dash": "dash"}, row=1, col=2)
    few = f"; ⚠: under {FEW} examples" if (frame["n"] < FEW).any() else ""
    n = f"n = {int(frame['n'].sum()):,} examples"
    layout(
        fig,
        f"{capital(metric_name(value))} by {by}",
        subtitle=f"{escape_html(data)}, {n}; bars: 95% CI, paired on the right{few}",
        height=190 + 32 * max(3, len(frame)),
        legend=True,
    )
    fig.update_xaxes(title_text=metric_name(value) + (" (%)" if percentage else ""), row=1, col=1)
    fig.update_xaxes(title_text=f"change{' (points)' * percentage}", zeroline=False, row=1, col=2)
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels}
    fig.update_yaxes(range=[len(frame) - 0.5, -0.5], zeroline=False, **ticks)
    return fig


# Changed predictions


@st.fragment
def _changed(
    reference: Evaluation, other: Evaluation, selection: Selection, names: tuple[str, str], file: str
) -> None:
    """The examples that two models predict differently: a table, links to look closer, a download."""
    data = selection.data
    frame = paired.flip_table(reference, other, data)
    far = f"differ by more than {paired.far_apart(reference):g}"
    what = far if data.task.is_regression else "get another answer" if data.task.on_spans else "change class"
    kinds = frame["direction"].value_counts()
    listed = ", ".join(f"{n:,} {escape(kind)}" for kind, n in kinds.items() if kind != paired.UNLABELLED)
    st.markdown(
        f"**{len(frame):,} of {other.n:,} predictions {what}**, {share_text(len(frame), other.n)}, from "
        f"{escape(names[0])} to {escape(names[1])}{f': {listed}' * bool(listed)}."
    )
    if frame.empty:
        return
    if rows := _table(frame, data, names):
        picked = frame["index"].iloc[rows].tolist()
        closer.links(data, picked, routed=selection.is_routed, whose=f"by {selection.name} as it is")
    downloads(frame.assign(models=_named(names)), "flips", f"{file}-changed")


def _named(names: tuple[str, str]) -> str:
    """What the columns `reference` and `other` of a file are of."""
    return f"{names[0]} (reference), {names[1]} (other)"


def _table(frame: pd.DataFrame, data: TextData, names: tuple[str, str]) -> list[int]:
    """Draw the table, whose toolbar searches it; returns the place of the picked row, if one is."""
    task, (reference, other) = data.task, names
    arrow, number = f"{reference} → {other}", st.column_config.NumberColumn
    probabilities = {f"p {reference}": "p_reference", f"p {other}": "p_other"}
    taken = ("label", "direction", "slice", reference, other, arrow, *probabilities)
    texts, ours = distinct(task.text_columns, taken), paired.flip_text_columns(task)
    shown = pd.DataFrame({name: frame[column] for name, column in zip(texts, ours, strict=True)})
    config = dict.fromkeys(texts, st.column_config.TextColumn(width=text_width(task)))
    if "label" in frame:
        shown["label"] = frame["label"]
    if task.is_regression:
        shown[reference], shown[other] = frame["reference"], frame["other"]
        config |= dict.fromkeys(("label", reference, other), number(format="%.2f", width="small"))
    else:
        # Names of classes break into lines at spaces alone.
        shown[arrow] = (frame["reference"] + " → " + frame["other"]).map(slice_name)
        if "label" in frame:
            shown["label"] = frame["label"].map(slice_name)
        whose = "the label" if "label" in frame else f"the prediction of {reference}"
        for name, column in probabilities.items() if task.classifies_texts else ():
            shown[name] = 100 * frame[column]
            config[name] = number(format="%.1f%%", width="small", help=f"Probability of {whose}")
    if data.labels is not None:
        shown["direction"] = frame["direction"]
    if "slice" in frame:
        shown["slice"] = frame["slice"].map(slice_name)
    # A picked row belongs to this list alone.
    of = f"{data.fingerprint}-{reference}-{other}-{crc32(frame['index'].to_numpy().tobytes())}"
    event = st.dataframe(
        shown,
        key=f"flips-{of}",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        column_config=config,
        row_height=TWO_LINES,
        height=min(560, 40 + TWO_LINES * len(shown)),
        alt=f"Examples that {reference} and {other} predict differently",
    )
    return [row for row in event.selection.rows if row < len(frame)]


# The threshold


def _threshold(reference: Evaluation, other: Evaluation, data: TextData, names: tuple[str, str]) -> None:
    """How often both predict a class, and the score of the second with its threshold calibrated."""
    found = matched(other, reference, data)
    if found is None:
        what = "Numbers" if data.task.is_regression else "Answers" if data.task.on_spans else "Labels of words"
        st.info(f"{what} have no threshold that could be calibrated.")
        return
    a, b = answer_shares(reference.logits), answer_shares(other.logits)
    most = int(np.abs(a - b).argmax()) if data.task.num_labels > 2 else 1
    text = (
        f"**Threshold.** {capital(escape(names[1]))} predicts *{escape(data.task.label_names[most])}* for "
        f"{percent(b[most])} of the examples, {escape(names[0])} for {percent(a[most])}."
    )
    if data.labels is not None:
        metric, bounds = other.metric, interval_text(found.interval, other.metric)
        change, ends = difference(found, reference)
        between = points_interval(ends, metric)
        text += (
            f" With the threshold calibrated (predicted class frequencies matched, no labels used): {metric_name(metric)} "
            f"{score_text(found.score, metric)}{f' (95% CI {bounds})' * bool(bounds)}, "
            f"{below_or_above(change, metric, escape(names[0]))}{f' (95% CI {between})' * bool(np.isfinite(ends[0]))}."
        )
    st.markdown(text)


# Confidence

_SHARE, _BRIER = "accuracy", "brier"  # how a number is written: in percent, or with three digits


def _confidence(reference: Evaluation, other: Evaluation, models: Mapping[str, str], file: str) -> None:
    """The whole tab, on the examples that both models have seen, of a classification task with labels."""
    names, (one, two) = tuple(models), calibration.shared(reference, other)
    if not one.n:
        st.info("No example has been evaluated with both models yet.")
        return
    st.caption(
        "Confidence is the probability of the predicted class. The expected calibration error is the mean difference "
        "between accuracy and confidence; the Brier score is 0 at best and 2 at worst."
    )
    key, label = (content(two), content(one)), "Testing calibration"
    found = once("calibration", 256, key, label, lambda progress: [calibration.ece(e) for e in (one, two)])
    st.markdown(confidence_in_words(found, (calibration.brier(one), calibration.brier(two)), one, names))
    if one.n < FEW:
        st.caption(f":material/info: Under {FEW} examples: too few to conclude from.")
    bins = [calibration.reliability(e).assign(model=name) for e, name in zip((one, two), names)]
    alt = "; ".join(
        f"{name}: "
        + ", ".join(f"{percent(y)} at {percent(x)}" for x, y in zip(part["confidence"], part["accuracy"]))
        for name, part in zip(names, bins)
    )
    frame, key = pd.concat(bins, ignore_index=True), "reliability"
    fig = reliability_figure(frame, models, one)
    chart(fig, frame.assign(data=one.data), key, f"{file}-{key}", f"Accuracy by confidence. {alt}.")


def confidence_in_words(errors: Sequence[Ece], briers: Sequence[float], on: Evaluation, names: tuple[str, str]) -> str:
    """Errors, what chance makes of them, and Brier scores, of both models, as Markdown."""
    said = []
    for name, error, score in zip(names, errors, briers, strict=True):
        bounds = interval_text(error.interval, _SHARE)
        said.append(
            f"**{escape(name)}** {percent(error.value)} ({f'95% CI {bounds}' if bounds else 'no interval'}; "
            f"{'above' if error.beyond_chance else 'not above'} chance: a calibrated model has "
            f"{percent(error.by_chance)} on average, and at most {percent(error.chance_most)} in 95 of 100 cases), "
            f"Brier score {score_text(score, _BRIER)}"
        )
    return f"Expected calibration error on {escape(on.data)}, n = {on.n:,}: {'; '.join(said)}; less is better."


def reliability_figure(frame: pd.DataFrame, models: Mapping[str, str], on: Evaluation) -> go.Figure:
    """Accuracy against the mean confidence of a bin. `frame`: `calibration.reliability` of both, their names in `model`."""
    fig, ends = go.Figure(), [100 * float(frame[["low", "accuracy"]].min().min()), 100]
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    fig.add_scatter(x=ends, y=ends, mode="lines", name="calibrated", line=line, hoverinfo="skip")
    for name, mark, dash in zip(models, marks(models), ("solid", "dot"), strict=True):
        part = frame[frame["model"] == name]
        accuracy, low, high = (100 * part[c] for c in ("accuracy", "accuracy low", "accuracy high"))
        fig.add_scatter(
            x=100 * part["confidence"],
            y=accuracy,
            mode="lines+markers",
            name=escape_html(name),
            line={"color": mark["color"], "width": 1.5, "dash": dash},
            marker=mark | {"size": 9},
            error_y=whiskers(accuracy, low, high),
            hovertemplate=f"{escape_html(name)}<br>confidence %{{x:.1f}}%, accuracy %{{y:.1f}}%<extra></extra>",
        )
    return layout(
        fig,
        "Is the model as often right as it is confident?",
        subtitle=f"{escape_html(on.data)}, n = {on.n:,}, in bins of equal size; bars: 95% CI (Wilson)<br>dashed: calibrated; "
        "below it a model is overconfident",
        x="mean confidence (%)",
        y="accuracy (%)",
        height=430,
        legend=True,
    )
