"""How far the probabilities of two models can be trusted: a sentence, a reliability chart and a risk-coverage chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.evaluation import calibration
from shrp.evaluation.calibration import Difference, Ece
from shrp.evaluation.evaluation import Evaluation
from ui.differences import FEW, content
from ui.downloads import chart
from ui.store import once
from ui.text import escape, escape_html, interval_text, percent, points, points_interval, score_text
from ui.theme import DASHES, GREY, KIND_COLORS, KIND_SYMBOLS, layout, whiskers

_SHARE, _BRIER = "accuracy", "brier"  # how a number is written: in percent, or with three digits


def tab(reference: Evaluation, other: Evaluation, names: tuple[str, str], file: str) -> None:
    """The whole tab, on the inputs that both models have seen.

    Args:
        reference, other: of a classification task with labels, on the same data.
        names: of both, plain text.
        file: of the downloads.
    """
    one, two = calibration.shared(reference, other)
    if not one.n:
        st.info("No example has been evaluated with both models yet.")
        return
    st.caption(
        "Confidence is the probability of the predicted class. The expected calibration error is the mean difference "
        "between accuracy and confidence; the Brier score is 0 at best and 2 at worst."
    )
    found = once(
        "calibration",
        256,
        (content(two), content(one)),
        "Weighing calibration against chance",
        lambda progress: calibration.difference(two, one),
    )
    st.markdown(in_words(found, (calibration.brier(one), calibration.brier(two)), one, names))
    if one.n < FEW:
        st.caption(f":material/info: Under {FEW} examples: too few to conclude from.")
    for key, of, draw, x in (
        ("reliability", calibration.reliability, reliability_figure, "confidence"),
        ("risk-coverage", calibration.risk_coverage, coverage_figure, "coverage"),
    ):
        parts = [of(one).assign(model=names[0]), of(two).assign(model=names[1])]
        frame = pd.concat(parts, ignore_index=True)
        alt = "; ".join(
            f"{name}: "
            + ", ".join(f"{percent(y)} at {percent(at)}" for at, y in zip(part[x], part["accuracy"]))
            for name, part in frame.groupby("model", sort=False)
        )
        fig = draw(frame, names, one.data, one.n)
        chart(fig, frame.assign(data=one.data), key, f"{file}-{key}", f"Accuracy by {x}. {alt}.")


def in_words(found: Difference, briers: tuple[float, float], on: Evaluation, names: tuple[str, str]) -> str:
    """Errors, what chance makes of them, Brier scores and the change, as Markdown.

    Args:
        found: of the model that is compared with the reference, less the reference.
        briers: of the reference and the other.
        on: either's evaluation on the shared examples.
        names: of the reference and the other.
    """
    said = [
        f"**{escape(name)}** {_error(error)}, Brier score {score_text(score, _BRIER)}"
        for name, error, score in zip(names, (found.second, found.first), briers, strict=True)
    ]
    return (
        f"Expected calibration error on {escape(on.data)}, n = {on.n:,}: {'; '.join(said)}. From {escape(names[0])} to "
        f"{escape(names[1])} the error changes by {points(found.ece, _SHARE)} ({_change(found.ece_interval, _SHARE)}), "
        f"the Brier score by {points(found.brier, _BRIER)} ({_change(found.brier_interval, _BRIER)}); less is better."
    )


def _error(found: Ece) -> str:
    """An error with its interval and what chance gives."""
    bounds = interval_text(found.interval, _SHARE)
    return (
        f"{percent(found.value)} ({f'95% CI {bounds}' if bounds else 'no interval'}; "
        f"{'beyond' if found.beyond_chance else 'not beyond'} chance: a calibrated model has "
        f"{percent(found.by_chance)} on average, and at most {percent(found.chance_most)} in 95 of 100 cases)"
    )


def _change(interval: tuple[float, float], metric: str) -> str:
    """A paired interval."""
    if not np.isfinite(interval).all():
        return "no interval"
    return f"95% CI {points_interval(interval, metric)}"


def reliability_figure(frame: pd.DataFrame, names: tuple[str, str], data: str, n: int) -> go.Figure:
    """Accuracy against confidence, bin by bin, beside the diagonal of a calibrated model.

    Args:
        frame: `shrp.evaluation.calibration.reliability` of both, their names in `model`.
        names: of the reference, and of the model that is held against it.
        data, n: the data's name and the inputs.
    """
    start = 100 * float(frame[["low", "accuracy"]].min().min())
    fig = go.Figure()
    fig.add_scatter(
        x=[start, 100],
        y=[start, 100],
        mode="lines",
        name="calibrated",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
    _add_models(fig, frame, names, "confidence", _bin_hover)
    return layout(
        fig,
        "Is the model as often right as it is confident?",
        subtitle=f"{escape_html(data)}, n = {n:,}, in bins of about as many inputs; bars: 95% intervals (Wilson)<br>"
        "dashed: calibrated; below it a model is surer than it is right",
        x="mean confidence (%)",
        y="accuracy (%)",
        height=440,
        legend=True,
    )


def coverage_figure(frame: pd.DataFrame, names: tuple[str, str], data: str, n: int) -> go.Figure:
    """Accuracy where only the most confident part is answered, against that part. Args as for `reliability_figure`,
    the frame of `shrp.evaluation.calibration.risk_coverage`.
    """
    fig = go.Figure()
    _add_models(fig, frame, names, "coverage", _coverage_hover)
    return layout(
        fig,
        "Accuracy when only the most confident are answered",
        subtitle=f"{escape_html(data)}, n = {n:,} at 100%; bars: 95% intervals (Wilson)<br>"
        "confidence that knows what it doesn't know: higher on the left",
        x="inputs answered, most confident first (%)",
        y="accuracy (%)",
        height=420,
        legend=True,
    )


def _add_models(fig: go.Figure, frame: pd.DataFrame, names: Sequence[str], x: str, hover) -> None:
    """A line a model with its whiskers, over a column of shares."""
    kinds = ("teacher" if "teacher" in names[0] else "routed", "static")
    for name, kind, dash in zip(names, kinds, DASHES, strict=False):
        part = frame[frame["model"] == name]
        accuracy, low, high = (100 * part[c] for c in ("accuracy", "accuracy low", "accuracy high"))
        fig.add_scatter(
            x=100 * part[x],
            y=accuracy,
            mode="lines+markers",
            name=escape_html(name),
            line={"color": KIND_COLORS[kind], "width": 1.5, "dash": dash if dash == "solid" else "dot"},
            marker={"size": 9, "symbol": KIND_SYMBOLS[kind]},
            error_y=whiskers(accuracy, low, high),
            hovertext=[f"{escape_html(name)}<br>{hover(row)}" for row in part.to_dict("records")],
            hovertemplate="%{hovertext}<extra></extra>",
        )


def _bin_hover(row: dict) -> str:
    ends = f"{percent(row['low'])} to {percent(row['high'])}"
    return f"confidence {ends}, mean {percent(row['confidence'])}<br>{_right(row)}"


def _coverage_hover(row: dict) -> str:
    return (
        f"{percent(row['coverage'])} answered, confidence from {percent(row['threshold'])}<br>{_right(row)}"
    )


def _right(row: dict) -> str:
    bounds = interval_text((row["accuracy low"], row["accuracy high"]), _SHARE)
    return f"accuracy {percent(row['accuracy'])} (95%: {bounds})<br>n = {row['n']:,}"
