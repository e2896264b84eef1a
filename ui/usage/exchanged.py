"""Whether it matters which expert an example takes: scores and answers with other routes, and with none."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.routes import ALL, DRAWS, MIXTURE, SAME, ShuffledRoutes
from shrp.analysis.usage import UsageStats
from shrp.errors import ShrpError
from ui import state
from ui.downloads import chart
from ui.text import escape_html, is_percentage, metric_name, percent, points, points_interval, score_text
from ui.theme import BLUE, GREEN, ORANGE, PURPLE, layout
from ui.usage import results
from ui.usage.figures import cells_height, interval_marks

EXCHANGE = "exchange"
"""Key of the switch, in the session's state and in the URL."""
_COLORS = {ALL: ORANGE, SAME: PURPLE, MIXTURE: GREEN}
_NAMES = {ALL: "all layers", SAME: "all, same answer", MIXTURE: "no routes"}


def section(selection: state.Selection, stats: UsageStats) -> None:
    """Draw the switch and, if it is on, the results; `stats` are those of the selection's data."""
    st.subheader("Exchanged routes: does the route matter?", anchor=False)
    if not st.toggle(
        "Measure",
        key=EXCHANGE,
        bind="query-params",
        help="Gives each example the route of another one, drawn at random: in one layer, in all layers, and in all "
        "layers from an example with the same answer. Then one mixture of all experts, weighted by usage. Runs the data "
        f"once per layer, and {2 * DRAWS + 1} times more.",
    ):
        return
    try:
        found = results.shuffled(selection.checkpoint, selection.data, stats)
    except ShrpError as error:
        state.show_error(error)
        return
    st.markdown("\n".join(f"- {line}" for line in said(found)))
    frame, before = found.frame, found.before
    labelled = before.labels is not None
    if labelled or not before.task.is_regression:
        metric = before.metric if labelled else None
        fig = change_marks(frame, metric, f"{escape_html(stats.data)}, n = {before.n:,}; whiskers: 95% CI")
        alt = "Change by layer: " + "; ".join(
            f"{r.layer} {points(r.change, metric) if metric else percent(r.share)}"
            for r in frame.itertuples()
        )
        chart(fig, frame, "exchanged", f"{selection.name}-exchanged-routes", alt)
    st.caption(
        "Numbered rows: routes exchanged in that layer only; the layers above route again. In brackets: choices that "
        f"move to another expert. “All” rows are means of {frame['draws'].max()} draws. Hollow: threshold calibrated "
        "(predicted class frequencies matched). Nothing is fine-tuned."
        + " Tokens of a batch exchange their routes, also within a text."
        * (stats.unit == "tokens")
    )


def said(found: ShuffledRoutes) -> list[str]:
    """What is lost without routes, with wrong ones, and with others of the same answer, as Markdown."""
    rows = found.frame.set_index("layer")
    same = "in the same quartile" if found.before.task.is_regression else "with the same answer"
    return [
        f"**No routes** (mixture of all experts): {_changes(found, rows.loc[MIXTURE])}",
        f"**Wrong routes**: {_changes(found, rows.loc[ALL])}",
        f"**Routes of examples {same}**: {_changes(found, rows.loc[SAME])}",
    ]


def _changes(found: ShuffledRoutes, row: pd.Series) -> str:
    """What one row of the frame changes, in words."""
    before, parts = found.before, []
    if row["flipped_max"] == 0 and not before.task.is_regression:
        return f"no answer of n = {before.n:,} changes."
    if before.labels is not None:
        parts.append(f"{metric_name(before.metric)} {_score(row, '', before.metric)}")
        if pd.notna(row["matched"]):
            parts.append(f"threshold calibrated {_score(row, 'matched_', before.metric)}")
    if not before.task.is_regression:
        low, high = 100 * row["share_low"], 100 * row["share_high"]
        parts.append(
            f"{percent(row['share'])} of answers change (95% CI {low:.1f}–{high:.1f}%, n = {before.n:,})"
        )
    return f"{'; '.join(parts) or 'outputs change'}."


def _score(row: pd.Series, prefix: str, metric: str) -> str:
    """A score with its change and what the interval shows."""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    text = f"{score_text(row['matched' if prefix else 'score'], metric)} ({points(row[f'{prefix}change'], metric)}"
    if low != low:
        return f"{text})"
    verdict = ", no significant difference" if low <= 0 <= high else ""
    return f"{text}, 95% CI {points_interval((low, high), metric)}{verdict})"


def change_marks(frame: pd.DataFrame, metric: str | None, subtitle: str) -> go.Figure:
    """A row for each layer, for all layers and for no routes: what changes, with its interval.

    Args:
        frame: of `ShuffledRoutes.frame`.
        metric: whose change is shown; None shows the share of answers that change.
    """
    names = [
        f"{_NAMES.get(r.layer, r.layer)}{'' if r.layer == MIXTURE else f' ({percent(r.moved, 0)})'}"
        for r in frame.itertuples()
    ]
    columns = ("change", "low", "high") if metric else ("share", "share_low", "share_high")
    times = 100 if metric is None or is_percentage(metric) else 1
    values, low, high = (times * frame[name] for name in columns)
    colors = [_COLORS.get(layer, BLUE) for layer in frame["layer"]]
    hover = [
        f"<b>{name}</b>"
        + (f"<br>{score_text(r.score, metric)}, {points(r.change, metric)}" if metric else "")
        + ("" if r.share != r.share else f"<br>{percent(r.share)} of answers change")
        for name, r in zip(names, frame.itertuples(), strict=True)
    ]
    fig = interval_marks(values, names, low, high, hover, color=colors)
    if metric and frame["matched"].notna().any():
        fig.add_scatter(
            x=times * frame["matched_change"],
            y=names,
            mode="markers",
            marker={"color": colors, "size": 9, "symbol": "circle-open"},
            hovertemplate="threshold calibrated: %{x:+.1f}<extra></extra>",
        )
    what = f"Change of {metric_name(metric)}" if metric else "Answers that change"
    unit = metric_name(metric) if metric and times == 1 else "points" if metric else "% of examples"
    height = cells_height(len(frame))
    return layout(
        fig, what, subtitle=subtitle, x=unit, y="layer (choices moved)", height=height, legend=False
    )
