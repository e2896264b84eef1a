"""Figures of the study of routes: what exchanging them costs, and what they go by."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from shrp.analysis.routes import ALIKE, ALL, MIXTURE
from ui.text import escape_html, metric_name
from ui.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, layout, whiskers

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)
_SYMBOLS, _DASHES = ("circle", "square", "diamond", "x"), ("solid", "dash", "dot", "dashdot")


def exchanged_marks(worth: pd.DataFrame, note: str) -> go.Figure:
    """A row a checkpoint: what is left of its score with the routes of each layer exchanged, of all, of all among
    inputs answered alike, and without any.

    Args:
        worth: the first of `shrp.studies.routes.frames_of`.
        note: what the rows are of.
    """
    fig = go.Figure()
    classes = worth["matched"].notna()
    columns = {"kept": "matched", "kept_low": "matched_low", "kept_high": "matched_high"}
    routed = worth["routed"].where(worth["routed"] > 0)
    # What moves may be the threshold alone, so classifiers stand here with answer shares matched.
    for kept, matched in columns.items():
        value = worth[matched] / routed + (kept != "kept")
        worth = worth.assign(**{kept: worth[kept].where(~classes, value)})
    for name, rows, color, symbol, alone in (
        (
            "one layer's exchanged",
            worth[~worth["layer"].isin([ALL, ALIKE, MIXTURE])],
            BLUE,
            "circle-open",
            True,
        ),
        ("all exchanged", worth[worth["layer"] == ALL], ORANGE, "square", False),
        ("all, answered alike", worth[worth["layer"] == ALIKE], PURPLE, "triangle-up", False),
        ("none: the mixture", worth[worth["layer"] == MIXTURE], GREEN, "diamond", False),
    ):
        values, low, high = (100 * rows[column] for column in columns)
        fig.add_scatter(
            x=values,
            y=_with_n(rows),
            error_x=None if alone else whiskers(values, low, high),
            mode="markers",
            name=name,
            marker={"color": color, "symbol": symbol, "size": 8 if alone else 11},
            hovertext=[
                f"<b>{escape_html(r.checkpoint)}</b>, {name}{f' (layer {r.layer})' if alone else ''}"
                f"<br>{metric_name(r.metric)} {r.routed:.4f} as routed, {r.score:.4f} so"
                f"{'' if r.matched != r.matched else f', shares matched {r.matched:.4f}'}<br>n = {r.n:,}"
                for r in rows.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    fig.add_vline(100, line={"color": GREY, "dash": "dash", "width": 1})
    fig.update_yaxes(type="category", autorange="reversed")
    fig.update_xaxes(ticksuffix="%")
    return layout(
        fig,
        "Other routes, and none",
        subtitle=f"{note}; classifiers with answer shares matched<br>bars: 95% intervals; dashed: as routed",
        x="of the routed model's score",
        height=190 + 34 * worth["checkpoint"].nunique(),
        legend=True,
    )


def _with_n(rows: pd.DataFrame) -> list[str]:
    """Each row's checkpoint, with the inputs that its scores are over."""
    return [f"{escape_html(row.checkpoint)} (n = {row.n:,})" for row in rows.itertuples()]


def told_lines(told: pd.DataFrame, by: str, note: str) -> go.Figure:
    """Layer by layer, what part of the choice one grouping explains: a line a checkpoint, a colour a task.

    Args:
        told: the second of `shrp.studies.routes.frames_of`.
        by: the grouping.
        note: what the rows are of.
    """
    fig = go.Figure()
    tasks = list(dict.fromkeys(told["checkpoint"].str.split("-").str[0]))
    depths = list(dict.fromkeys(told["checkpoint"].str.split("-").str[-1]))
    for name, rows in told[told["by"] == by].groupby("checkpoint", sort=False):
        task, depth = (of.index(part) for of, part in zip((tasks, depths), name.split("-", 1), strict=True))
        color, symbol = _COLORS[task % len(_COLORS)], _SYMBOLS[depth % len(_SYMBOLS)]
        fig.add_scatter(
            x=rows["layer"],
            y=100 * rows["explained"],
            mode="lines+markers",
            name=f"{escape_html(name)}, n = {int(rows['n'].max()):,}",
            marker={"symbol": [symbol if p <= 0.05 else f"{symbol}-open" for p in rows["p"]], "size": 8},
            line={"color": color, "dash": _DASHES[depth % len(_DASHES)]},
            customdata=rows[["p", "n"]].assign(
                possible=100 * rows["ceiling"], used=rows["effective_experts"]
            ),
            hovertemplate=f"{escape_html(name)}, layer %{{x}}: %{{y:.1f}}% of a possible %{{customdata[2]:.0f}}%, "
            "p = %{customdata[0]:.2g}, n = %{customdata[1]:,}<br>%{customdata[3]:.1f} effective experts<extra></extra>",
        )
    fig.update_yaxes(ticksuffix="%", rangemode="tozero")
    fig.update_xaxes(dtick=1)
    return layout(
        fig,
        f"Explained by {by}",
        subtitle=f"{note}<br>part of the experts' entropy, beyond chance; hollow: p > 5%; a colour a task",
        x="layer",
        y="explained",
        height=430,
        legend=True,
    )
