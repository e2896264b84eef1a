"""How far the probabilities of two models can be trusted: a sentence, a reliability chart and a risk-coverage chart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.evaluation import calibration
from shrp.evaluation.calibration import Difference, Ece
from shrp.evaluation.evaluation import Evaluation
from ui.differences import FEW
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
        st.info("No input has been answered by both models yet.")
        return
    st.caption(
        "Confidence is the probability of the predicted class. A model is calibrated where, of the answers that it is "
        "80% confident of, 80% are right; the expected calibration error is how far accuracy is from confidence on "
        "average, the Brier score how far all probabilities are from the labels (0 at best, 2 at worst)."
    )
    st.markdown(in_words(_difference(two, one), (calibration.brier(one), calibration.brier(two)), one, names))
    if one.n < FEW:
        st.caption(f":material/info: Under {FEW} inputs: too few to go by.")
    binned = _both(one, two, names, calibration.reliability)
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{percent(row.accuracy)} at {percent(row.confidence)}" for row in rows)
        for name, rows in _by_model(binned)
    )
    chart(
        reliability_figure(binned, names, one.data, one.n),
        binned.assign(data=one.data),
        "reliability",
        f"{file}-reliability",
        f"Accuracy at the mean confidence of each bin. {alt}.",
    )
    covered = _both(one, two, names, calibration.risk_coverage)
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{percent(row.accuracy)} of {percent(row.coverage, 0)}" for row in rows)
        for name, rows in _by_model(covered)
    )
    chart(
        coverage_figure(covered, names, one.data, one.n),
        covered.assign(data=one.data),
        "risk-coverage",
        f"{file}-risk-coverage",
        f"Accuracy on the most confident part of the inputs. {alt}.",
    )


def in_words(found: Difference, briers: tuple[float, float], on: Evaluation, names: tuple[str, str]) -> str:
    """Errors, what chance makes of them, Brier scores and the change, as Markdown.

    Args:
        found: of the model that is held against the reference, less the reference.
        briers: of the reference and the other.
        on: either's evaluation on the shared inputs.
        names: of the reference and the other.
    """
    parts = [f"Expected calibration error on {escape(on.data)}, n = {on.n:,}:"]
    said = [
        f"**{escape(name)}** {_error(error)}, Brier score {score_text(score, _BRIER)}"
        for name, error, score in zip(names, (found.second, found.first), briers, strict=True)
    ]
    parts.append("; ".join(said) + ".")
    parts.append(
        f"From {escape(names[0])} to {escape(names[1])} the error changes by {points(found.ece, _SHARE)} "
        f"({_change(found.ece_interval, _SHARE)}), the Brier score by {points(found.brier, _BRIER)} "
        f"({_change(found.brier_interval, _BRIER)}); less is better."
    )
    return " ".join(parts)


def _error(found: Ece) -> str:
    """An error with its interval and what chance gives."""
    bounds = interval_text(found.interval, _SHARE)
    verdict = "beyond" if found.beyond_chance else "not beyond"
    return (
        f"{percent(found.value)} ({f'95% interval {bounds}' if bounds else 'no interval'}; {verdict} chance, which "
        f"alone gives a calibrated model {percent(found.by_chance)} on average, and over "
        f"{percent(found.chance_most)} in 5 of 100 cases)"
    )


def _change(interval: tuple[float, float], metric: str) -> str:
    """A paired interval, and whether it holds 0."""
    if not np.isfinite(interval).all():
        return "no interval"
    holds = "holds 0" if interval[0] <= 0 <= interval[1] else "excludes 0"
    return f"paired 95% interval {points_interval(interval, metric)}, which {holds}"


def _difference(a: Evaluation, b: Evaluation) -> Difference:
    """As `shrp.evaluation.calibration.difference`, kept for all sessions."""
    return once(
        "calibration",
        256,
        (_content(a), _content(b)),
        "Weighing calibration against chance",
        lambda progress: calibration.difference(a, b),
    )


def _content(one: Evaluation) -> str:
    """All that calibration takes from an evaluation."""
    digest = hashlib.sha1(f"{one.task.name} {one.logits.shape}".encode(), usedforsecurity=False)
    for part in (one.logits, one.labels, one.indices):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _both(one: Evaluation, two: Evaluation, names: tuple[str, str], of) -> pd.DataFrame:
    """A function's frames of two evaluations as one, the model's name in a first column."""
    parts = []
    for name, evaluation in zip(names, (one, two), strict=True):
        frame = of(evaluation)
        frame.insert(0, "model", name)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _by_model(frame: pd.DataFrame) -> list[tuple[str, list]]:
    return [(name, list(part.itertuples())) for name, part in frame.groupby("model", sort=False)]


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
