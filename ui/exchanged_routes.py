"""Whether it matters which expert an input takes: scores and answers once routes are exchanged among inputs."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.shuffled import ALL, ShuffledRoutes
from shrp.usage import UsageStats
from ui import expert_profile_results as made
from ui import state
from ui.downloads import chart
from ui.lab_views import points, points_interval
from ui.text import escape, escape_html, is_percentage, metric_name, percent, score_text
from ui.theme import BLUE, GREY, ORANGE, layout, whiskers
from ui.usage_figures import cells_height

EXCHANGE = "exchange"
"""Key of the switch, in the session's state and in the URL."""


def section(selection: state.Selection, stats: UsageStats) -> None:
    """The switch, and what it asks for.

    Args:
        stats: of the selection's data.
    """
    if not st.toggle(
        "Does it matter? Exchange routes among inputs",
        key=EXCHANGE,
        bind="query-params",
        help="Every input takes the route of another one, drawn at random, in one layer at a time and in all together. "
        "Usage stays what it is. A model that loses nothing by it has no use for routes of the inputs' own. Runs all "
        "inputs once for each layer.",
    ):
        return
    found = made.shuffled(selection.checkpoint, selection.data, stats)
    frame, evaluation = found.frame(), found.before
    about = f"{escape_html(stats.data)}, n = {evaluation.n:,}"
    name = f"{selection.name}-exchanged-routes"
    left, right = st.columns(2, gap="medium")
    labelled = evaluation.labels is not None
    if labelled:
        with left:
            chart(
                score_marks(frame, evaluation.metric, f"{about}; whiskers: paired 95% intervals"),
                frame,
                "exchanged-score",
                f"{name}-score",
                f"Change of {metric_name(evaluation.metric)} by layer: "
                + "; ".join(f"{r.layer} {points(r.change, evaluation.metric)}" for r in frame.itertuples()),
            )
    if not evaluation.task.is_regression:
        with right if labelled else left:
            chart(
                flip_bars(frame, f"{about}; whiskers: 95% intervals (Wilson)"),
                frame,
                "exchanged-flips",
                f"{name}-answers",
                "Share of inputs whose answer changes, by layer: "
                + "; ".join(f"{r.layer} {percent(r.share)}" for r in frame.itertuples()),
            )
    st.markdown(said(found, frame))
    st.caption(
        f"“{ALL}”: each input takes the whole route of one other input; a single layer: the layers above route as they "
        "then would. One draw, the same whenever you look."
        + (" Tokens of a batch exchange their routes, layer by layer." if stats.unit == "tokens" else "")
    )


def said(found: ShuffledRoutes, frame: pd.DataFrame) -> str:
    """What the exchange in all layers changes, as Markdown."""
    before, row = found.before, frame.iloc[-1]
    parts = []
    if before.labels is not None:
        metric, ends = before.metric, (row["low"], row["high"])
        text = (
            f"{metric_name(metric)} goes from {score_text(before.score, metric)} to {score_text(row['score'], metric)} "
            f"({points(row['change'], metric)}"
        )
        if ends[0] != ends[0]:
            verdict = "no interval to tell by"
        elif ends[0] <= 0 <= ends[1]:
            verdict = "no loss beyond chance"
        else:
            verdict = "a loss beyond chance" if ends[1] < 0 else "a gain beyond chance"
        if ends[0] == ends[0]:
            text += f", paired 95% interval {points_interval(ends, metric)}"
        parts.append(f"{text}): **{verdict}**")
    if not before.task.is_regression:
        parts.append(
            f"{int(row['flipped']):,} of n = {before.n:,} answers change ({percent(row['share'])}, "
            f"{100 * row['share_low']:.1f}–{100 * row['share_high']:.1f}%)"
        )
    return f"With the routes of all layers exchanged, {'; '.join(parts) or 'outputs change'}, on {escape(before.data)}."


def score_marks(frame: pd.DataFrame, metric: str, subtitle: str) -> go.Figure:
    """A row a layer and one of all: the change of the score with its interval.

    Args:
        frame: of `ShuffledRoutes.frame`.
    """
    times = 100 if is_percentage(metric) else 1
    values, low, high = (times * frame[name] for name in ("change", "low", "high"))
    fig = go.Figure(
        go.Scatter(
            x=values,
            y=frame["layer"].astype(str),
            mode="markers",
            marker={"color": [ORANGE if layer == ALL else BLUE for layer in frame["layer"]], "size": 10},
            error_x=whiskers(values, low, high, color=GREY),
            hovertext=[
                f"<b>{_where(r.layer)}</b><br>{score_text(r.score, metric)}, {points(r.change, metric)}"
                f"<br>paired 95% interval {points_interval((r.low, r.high), metric)}"
                for r in frame.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    unit = "points" if is_percentage(metric) else metric_name(metric)
    return _rows(fig, frame, f"Change of {metric_name(metric)}", subtitle, unit)


def flip_bars(frame: pd.DataFrame, subtitle: str) -> go.Figure:
    """A row a layer and one of all: the share of inputs whose predicted class changes."""
    values, low, high = (100 * frame[name] for name in ("share", "share_low", "share_high"))
    fig = go.Figure(
        go.Bar(
            x=values,
            y=frame["layer"].astype(str),
            orientation="h",
            marker={"color": [ORANGE if layer == ALL else BLUE for layer in frame["layer"]]},
            error_x=whiskers(values, low, high, color=GREY),
            hovertext=[
                f"<b>{_where(r.layer)}</b><br>{r.flipped:,} answers change, {percent(r.share)}"
                for r in frame.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    fig.update_xaxes(ticksuffix="%", rangemode="tozero")
    return _rows(fig, frame, "Answers that change", subtitle, "share of inputs")


def _rows(fig: go.Figure, frame: pd.DataFrame, title: str, subtitle: str, x: str) -> go.Figure:
    fig.update_xaxes(zeroline=False)
    fig.update_yaxes(
        type="category", categoryorder="array", categoryarray=[str(layer) for layer in frame["layer"]][::-1]
    )
    height = cells_height(len(frame))
    return layout(fig, title, subtitle=subtitle, x=x, y="layer", height=height, legend=False)


def _where(layer: int | str) -> str:
    return "All layers" if layer == ALL else f"Layer {layer} alone"
