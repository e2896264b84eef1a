"""The chart of the Results page: score against size."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui.results.data import DEPTHS, name_of
from ui.theme import BLUE, GREY, INK, ORANGE

AIM = 95.0
"""Percent of the dense model's score at which a line is drawn."""


def points(summary: list[dict[str, Any]], published: list[dict[str, Any]], recipe: str) -> pd.DataFrame:
    """One row per model that was fine-tuned after pruning, ours of one recipe and those of the literature."""
    found = []
    for row in summary:
        if row["recipe"] != recipe or not (row["fine_tuned_after_pruning"] or row["routed"]):
            continue
        low, high = row["interval"] or (None, None)
        found.append(
            {
                "model": f"{name_of(row)}, {DEPTHS[row['depth']]}",
                "group": "SHRP" if row["model"] == "shrp" else "controls",
                "encoder": 100 * row["encoder_params_share"],
                "share": 100 * row["share"],
                "low": None if low is None else 100 * low,
                "high": None if high is None else 100 * high,
            }
        )
    for row in published:
        found.append(
            {
                "model": row["name"],
                "group": "literature (BERT-base)",
                "encoder": 100 * row["encoder_params_share"],
                "share": 100 * row["share"],
                "low": None,
                "high": None,
            }
        )
    return pd.DataFrame(found)


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
            error_y={
                "type": "data",
                "array": (part["high"] - part["share"]).fillna(0),
                "arrayminus": (part["share"] - part["low"]).fillna(0),
                "thickness": 1,
            },
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
