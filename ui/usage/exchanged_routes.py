"""Whether it matters which expert an input takes: scores and answers with other routes, and with none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.routes import ALIKE, ALL, DRAWS, MIXTURE, ShuffledRoutes
from shrp.analysis.usage import UsageStats
from shrp.data.tasks import Task
from shrp.errors import ShrpError
from shrp.evaluation.metrics import EQUAL
from ui import state
from ui.downloads import chart
from ui.expert import results as made
from ui.text import escape_html, is_percentage, metric_name, percent, points, points_interval, score_text
from ui.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, layout, whiskers
from ui.usage.figures import cells_height

EXCHANGE = "exchange"
"""Key of the switch, in the session's state and in the URL."""
_COLORS = {ALL: ORANGE, ALIKE: PURPLE, MIXTURE: GREEN}


def section(selection: state.Selection, stats: UsageStats) -> None:
    """The switch, and what it asks for.

    Args:
        stats: of the selection's data.
    """
    if not st.toggle(
        "Measure the loss with other routes, and with none",
        key=EXCHANGE,
        bind="query-params",
        help="Gives every input the route of another one, drawn at random: in one layer at a time, in all layers, and "
        "in all layers from one that is answered alike. Then one mixture of all experts, weighted by usage, for all "
        f"inputs. Runs all inputs once per layer, {2 * DRAWS + 1} times for the rest.",
    ):
        return
    try:
        found = made.shuffled(selection.checkpoint, selection.data, stats)
    except ShrpError as error:
        state.show_error(error)
        return
    frame, evaluation = found.frame, found.before
    about = f"{escape_html(stats.data)}, n = {evaluation.n:,}"
    name = f"{selection.name}-exchanged-routes"
    left, right = st.columns(2, gap="medium")
    labelled = evaluation.labels is not None
    if labelled:
        with left:
            chart(
                score_marks(
                    frame,
                    evaluation.metric,
                    f"{about}<br>whiskers: 95% intervals; hollow: answer shares matched",
                ),
                frame,
                "exchanged-score",
                f"{name}-score",
                f"Change of {metric_name(evaluation.metric)} by layer: "
                + "; ".join(f"{r.layer} {points(r.change, evaluation.metric)}" for r in frame.itertuples()),
            )
    if not evaluation.task.is_regression:
        with right if labelled else left:
            chart(
                flip_bars(frame, f"{about}<br>whiskers: 95% intervals"),
                frame,
                "exchanged-flips",
                f"{name}-answers",
                "Share of inputs whose answer changes, by layer: "
                + "; ".join(f"{r.layer} {percent(r.share)}" for r in frame.itertuples()),
            )
    st.markdown("\n".join(f"- {line}" for line in said(found)))
    layers = len(stats.layers)
    with st.expander("What the rows mean", icon=":material/help:"):
        st.caption(
            "Numbered rows: routes exchanged in that layer only, once; the layers above route again. In brackets: "
            "choices that move to another expert. *All*: each input takes the complete route of one other input; "
            f"*alike*: of one of those {_alike(evaluation.task)}; *no routes*: one mixture of all experts, weighted by "
            "usage, for every input, as in a pruned model that keeps them all. *All* and *alike* are means of "
            f"{frame['draws'].max()} draws, the same at every visit, with intervals of these means. If no layer's "
            f"routes mattered, about {0.05 * layers:.1f} of the {layers} layers' intervals would still exclude 0. "
            "Shares matched: outputs shifted, without labels, until each class is as frequent as in the routed model, "
            "since only the threshold may have moved; intervals take the shift as given. Nothing is retrained; for a "
            "model trained without a router, see the no-router control in Experiments."
            + (
                " Here the tokens of a batch, of inputs of about the same length, exchange theirs, also within a text."
                if stats.unit == "tokens"
                else ""
            )
        )


def _alike(task: Task) -> str:
    if task.is_regression:
        return "whose outputs are in the same quartile"
    return "that the model answers alike"


def said(found: ShuffledRoutes) -> list[str]:
    """What is lost without routes, by wrong ones, and by others of the same answer, as Markdown."""
    rows = found.frame.set_index("layer")
    return [
        f"**No routes**: with the mixture of all experts in their place, {_changes(found, rows.loc[MIXTURE])}",
        f"**Wrong routes**: with those of all layers exchanged, {_moved(rows.loc[ALL])}, "
        f"{_changes(found, rows.loc[ALL])}",
        f"**Other routes of the same answer**: {_of_the_same(found, rows.loc[ALIKE])}",
    ]


def _of_the_same(found: ShuffledRoutes, row: pd.Series) -> str:
    answers, among = found.before.predictions, f"among inputs {_alike(found.before.task)}"
    if not found.before.task.is_regression and len(set(answers.tolist())) == 1:
        return "the model gives all inputs one answer, so these are the wrong routes once more."
    if all(np.allclose(one.logits, found.before.logits, atol=EQUAL) for one in found.after[ALIKE]):
        return f"exchanged {among}, they change no output, so there is nothing to tell."
    return f"with those of all layers exchanged {among}, {_moved(row)}, {_changes(found, row)}"


def _moved(row: pd.Series) -> str:
    return f"where {percent(row['moved'], 0)} of the choices fall on another expert"


def _changes(found: ShuffledRoutes, row: pd.Series) -> str:
    """What one row of the frame changes, in words."""
    before, parts = found.before, []
    if row["flipped_max"] == 0:
        return f"no answer of n = {before.n:,} changes."
    if before.labels is not None:
        text = f"{metric_name(before.metric)} goes from {score_text(before.score, before.metric)} to "
        parts.append(text + _score(row, "", before.metric))
        if pd.notna(row["matched"]):
            parts.append(f"with answer shares matched, to {_score(row, 'matched_', before.metric)}")
    if not before.task.is_regression:
        ends = f"{100 * row['share_low']:.1f}–{100 * row['share_high']:.1f}%"
        parts.append(
            f"{_answers(row)} of n = {before.n:,} answers changed ({percent(row['share'])}, 95% interval {ends})"
        )
    return f"{'; '.join(parts) or 'outputs change'}."


def _answers(row: pd.Series) -> str:
    """How many answers change: of several draws the mean, and from what to what."""
    least, most = int(row["flipped_min"]), int(row["flipped_max"])
    return f"{most:,}" if least == most else f"{row['flipped']:,.1f} ({least:,} to {most:,} by draw)"


def _score(row: pd.Series, prefix: str, metric: str) -> str:
    """A score with its change, the interval, and what that says."""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    value = row["matched" if prefix else "score"]
    text = f"{score_text(value, metric)} ({points(row[f'{prefix}change'], metric)}"
    if low != low:
        return f"{text}), no interval to tell by"
    verdict = (
        "a loss beyond chance"
        if high < 0
        else "a gain beyond chance"
        if low > 0
        else "no change beyond chance"
    )
    return f"{text}, 95% interval {points_interval((low, high), metric)}), **{verdict}**"


def score_marks(frame: pd.DataFrame, metric: str, subtitle: str) -> go.Figure:
    """A row a layer, one of all, of all alike and of the mixture: the change of the score with its interval.

    Args:
        frame: of `ShuffledRoutes.frame`.
    """
    times = 100 if is_percentage(metric) else 1
    values, low, high = (times * frame[name] for name in ("change", "low", "high"))
    fig = go.Figure(
        go.Scatter(
            x=values,
            y=_names(frame),
            mode="markers",
            marker={"color": [_COLORS.get(layer, BLUE) for layer in frame["layer"]], "size": 10},
            error_x=whiskers(values, low, high, color=GREY),
            hovertext=[
                f"<b>{_where(r)}</b><br>{score_text(r.score, metric)}, {points(r.change, metric)}"
                f"<br>95% interval {points_interval((r.low, r.high), metric)}{_draws(r)}"
                for r in frame.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    if frame["matched"].notna().any():
        fig.add_scatter(
            x=times * frame["matched_change"],
            y=_names(frame),
            mode="markers",
            marker={
                "color": [_COLORS.get(layer, BLUE) for layer in frame["layer"]],
                "size": 9,
                "symbol": "circle-open",
            },
            hovertext=[
                f"<b>{_where(r)}</b><br>with answer shares matched {score_text(r.matched, metric)}, "
                f"{points(r.matched_change, metric)}"
                f"<br>95% interval {points_interval((r.matched_low, r.matched_high), metric)}{_draws(r)}"
                for r in frame.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    fig.add_vline(x=0, line={"dash": "dot", "color": GREY, "width": 1.5})
    unit = "points" if is_percentage(metric) else metric_name(metric)
    return _rows(fig, frame, f"Change of {metric_name(metric)}", subtitle, unit)


def _draws(row) -> str:
    return f", mean of {row.draws} draws" if row.draws > 1 else ""


def flip_bars(frame: pd.DataFrame, subtitle: str) -> go.Figure:
    """A row a layer, one of all, of all alike and of the mixture: the share of inputs whose predicted class changes."""
    values, low, high = (100 * frame[name] for name in ("share", "share_low", "share_high"))
    fig = go.Figure(
        go.Bar(
            x=values,
            y=_names(frame),
            orientation="h",
            marker={"color": [_COLORS.get(layer, BLUE) for layer in frame["layer"]]},
            error_x=whiskers(values, low, high, color=GREY),
            hovertext=[
                f"<b>{_where(r)}</b><br>{_answers(r)} answers change, {percent(r.share)}"
                for _, r in frame.iterrows()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    fig.update_xaxes(ticksuffix="%", rangemode="tozero")
    return _rows(fig, frame, "Answers that change", subtitle, "share of inputs")


def _rows(fig: go.Figure, frame: pd.DataFrame, title: str, subtitle: str, x: str) -> go.Figure:
    fig.update_xaxes(zeroline=False)
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=_names(frame)[::-1])
    height = cells_height(len(frame)) + 20
    return layout(fig, title, subtitle=subtitle, x=x, y="layer (choices moved)", height=height, legend=False)


def _names(frame: pd.DataFrame) -> list[str]:
    """What the rows are called on an axis."""
    return [
        "no routes" if row.layer == MIXTURE else f"{row.layer} ({percent(row.moved, 0)})"
        for row in frame.itertuples()
    ]


def _where(row) -> str:
    if row.layer == MIXTURE:
        return "No routes: the mixture in all layers"
    whole = {ALL: "All layers exchanged", ALIKE: "All layers exchanged among inputs answered alike"}
    where = whole.get(row.layer, f"Layer {row.layer} exchanged alone")
    return f"{where}, {percent(row.moved)} of choices fall on another expert"
