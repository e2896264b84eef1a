"""The chart of the Results page: score against size."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui.results.data import DEPTHS
from ui.theme import BLUE, GREY, INK, ORANGE, whiskers

AIM = 95.0
"""Percent of the dense model's score at which a line is drawn."""


def points(summary: list[dict[str, Any]], published: list[dict[str, Any]], recipe: str) -> pd.DataFrame:
    """One row per model that was fine-tuned after pruning, ours of one recipe and those of the literature; in percent."""
    found = [
        (f"{row['name']}, {DEPTHS[row['depth']]}", "SHRP" if row["model"] == "shrp" else "controls", row)
        for row in summary
        if row["recipe"] == recipe and (row["fine_tuned_after_pruning"] or row["routed"])
    ]
    found += [(row["name"], "literature (BERT-base)", row) for row in published]
    rows = []
    for name, group, row in found:
        numbers = (row["encoder_params_share"], row["share"], *(row.get("interval") or (math.nan, math.nan)))
        rows.append((name, group, *(100 * number for number in numbers)))
    return pd.DataFrame(rows, columns=["model", "group", "encoder", "share", "low", "high"])


def score_against_size(frame: pd.DataFrame) -> go.Figure:
    """Mean share of the dense model's score over the encoder's parameters."""
    looks = {
        "SHRP": {"color": BLUE, "symbol": "circle", "size": 12},
        "controls": {"color": ORANGE, "symbol": "x", "size": 9},
        "literature (BERT-base)": {"color": GREY, "symbol": "diamond-open", "size": 10},
    }
    fig = go.Figure()
    for name, part in frame.groupby("group", sort=False):
        fig.add_scatter(
            x=part["encoder"],
            y=part["share"],
            mode="markers",
            name=name,
            marker=looks[name],
            customdata=part[["model"]],
            error_y=whiskers(part["share"], part["low"], part["high"], thickness=1),
            hovertemplate="%{customdata[0]}<br>%{y:.1f}% kept with %{x:.1f}% of the encoder<extra></extra>",
        )
    fig.add_hline(
        AIM,
        line={"color": GREY, "dash": "dot", "width": 1},
        annotation_text="95% of the dense model",
        annotation_font={"color": INK, "size": 11},
        annotation_position="bottom right",
    )
    fig.update_layout(
        height=330,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": "encoder parameters, % of dense", "type": "log"},
        yaxis={"title": "score, % of dense"},
        legend={"orientation": "h", "y": 1.12},
    )
    fig.update_xaxes(tickvals=[5, 10, 20, 50, 100])
    return fig
