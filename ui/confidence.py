"""How far the probabilities of two models can be trusted: a sentence and a reliability chart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.evaluation import calibration
from shrp.evaluation.calibration import Ece
from shrp.evaluation.evaluation import Evaluation
from ui.differences import FEW, content
from ui.downloads import chart
from ui.store import once
from ui.text import escape, escape_html, interval_text, percent, score_text
from ui.theme import DASHES, GREY, KIND_COLORS, KIND_SYMBOLS, layout, whiskers

_SHARE, _BRIER = "accuracy", "brier"  # how a number is written: in percent, or with three digits


def tab(reference: Evaluation, other: Evaluation, names: tuple[str, str], file: str) -> None:
    """The whole tab, on the examples that both models have seen, of a classification task with labels."""
    one, two = calibration.shared(reference, other)
    if not one.n:
        st.info("No example has been evaluated with both models yet.")
        return
    st.caption(
        "Confidence is the probability of the predicted class. The expected calibration error is the mean difference "
        "between accuracy and confidence; the Brier score is 0 at best and 2 at worst."
    )
    key, label = (content(two), content(one)), "Testing calibration"
    found = once("calibration", 256, key, label, lambda progress: [calibration.ece(e) for e in (one, two)])
    st.markdown(in_words(found, (calibration.brier(one), calibration.brier(two)), one, names))
    if one.n < FEW:
        st.caption(f":material/info: Under {FEW} examples: too few to conclude from.")
    bins = [calibration.reliability(e).assign(model=name) for e, name in zip((one, two), names)]
    alt = "; ".join(
        f"{name}: "
        + ", ".join(f"{percent(y)} at {percent(x)}" for x, y in zip(part["confidence"], part["accuracy"]))
        for name, part in zip(names, bins)
    )
    frame, key = pd.concat(bins, ignore_index=True), "reliability"
    fig = figure(frame, names, one)
    chart(fig, frame.assign(data=one.data), key, f"{file}-{key}", f"Accuracy by confidence. {alt}.")


def in_words(errors: Sequence[Ece], briers: Sequence[float], on: Evaluation, names: tuple[str, str]) -> str:
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


def figure(frame: pd.DataFrame, names: tuple[str, str], on: Evaluation) -> go.Figure:
    """Accuracy against the mean confidence of a bin. `frame`: `calibration.reliability` of both, their names in `model`."""
    fig, ends = go.Figure(), [100 * float(frame[["low", "accuracy"]].min().min()), 100]
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    fig.add_scatter(x=ends, y=ends, mode="lines", name="calibrated", line=line, hoverinfo="skip")
    kinds = ("teacher" if "teacher" in names[0] else "routed", "static")
    for name, kind, dash in zip(names, kinds, (DASHES[0], "dot"), strict=True):
        part = frame[frame["model"] == name]
        accuracy, low, high = (100 * part[c] for c in ("accuracy", "accuracy low", "accuracy high"))
        fig.add_scatter(
            x=100 * part["confidence"],
            y=accuracy,
            mode="lines+markers",
            name=escape_html(name),
            line={"color": KIND_COLORS[kind], "width": 1.5, "dash": dash},
            marker={"size": 9, "symbol": KIND_SYMBOLS[kind]},
            error_y=whiskers(accuracy, low, high),
            hovertext=[f"{escape_html(name)}<br>{_hover(row)}" for row in part.to_dict("records")],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return layout(
        fig,
        "Is the model as often right as it is confident?",
        subtitle=f"{escape_html(on.data)}, n = {on.n:,}, in bins of equal size; bars: 95% intervals (Wilson)<br>dashed: "
        "calibrated; below it a model is overconfident",
        x="mean confidence (%)",
        y="accuracy (%)",
        height=430,
        legend=True,
    )


def _hover(row: dict) -> str:
    bounds = interval_text((row["accuracy low"], row["accuracy high"]), _SHARE)
    return (
        f"confidence {percent(row['low'])} to {percent(row['high'])}, mean {percent(row['confidence'])}"
        f"<br>accuracy {percent(row['accuracy'])} (95%: {bounds})<br>n = {row['n']:,}"
    )
