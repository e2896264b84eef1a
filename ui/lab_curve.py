"""The pruning lab's curve: score against cost, as settings are tried, beside reference marks."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ui.text import escape_html, is_percentage, metric_name
from ui.theme import BLUE, GREEN, KIND_COLORS, KIND_SYMBOLS, ORANGE, PURPLE, SELECTED, SKY, layout

COSTS = {
    "encoder_flops": "encoder FLOPs, % of the dense encoder's ({tokens} tokens)",
    "model_flops": "whole-model FLOPs, % of the dense model's ({tokens} tokens)",
    "encoder_params": "encoder parameters, % of the dense encoder's",
    "model_params": "whole-model parameters, % of the dense model's",
}
"""Columns that the curve can be drawn over, with the axis title that names the denominator."""

_SERIES = (GREEN, PURPLE, SKY, "#a6761d")
_TRIED = "tried: {}, {}"
_MANY = re.compile(r"(\d+) a layer")
_SYMBOLS = {
    "shipped static, recovered": "star",
    "control: layers dropped": "triangle-down",
    "control: no router": "hexagon-open",
    "control: random experts, recovered": "x-open",
}


def curve(
    tried: pd.DataFrame,
    references: pd.DataFrame,
    over: str,
    metric: str,
    data: str,
    tokens: int,
    current: str | None = None,
) -> go.Figure:
    """Score against cost: what this session tried, beside reference marks.

    Args:
        tried: `ui.lab.attempts_frame`.
        references: `ui.lab_marks.marks_frame`.
        over: the cost, a key of `COSTS`.
        current: the `setting` to ring.
    """
    fig = go.Figure()
    scale = 100.0 if is_percentage(metric) else 1.0
    if not tried.empty:
        series = tried.groupby(["control", "selection", "combination"], sort=True)
        for place, ((control, selection, combination), rows) in enumerate(series):
            color = ORANGE if control else _SERIES[place % len(_SERIES)]
            rows = rows.sort_values(over)
            fig.add_trace(
                _points(
                    rows,
                    over,
                    scale,
                    _TRIED.format(selection.lower(), combination.lower()),
                    color,
                    "x" if control else "circle",
                    # Random draws of several seeds are no curve.
                    "markers" if control else "lines+markers",
                )
            )
        ringed = tried[tried["setting"] == current]
        if len(ringed):
            fig.add_trace(
                go.Scatter(
                    x=100 * ringed[over],
                    y=scale * ringed["score"],
                    mode="markers",
                    name="this setting",
                    marker={
                        "symbol": "circle-open",
                        "size": 18,
                        "color": SELECTED,
                        "line": {"width": 2.5, "color": SELECTED},
                    },
                    hoverinfo="skip",
                )
            )
    _add_references(fig, references, over, scale)
    n = f"n = {int(references['n'].max()):,}, " if len(references) else ""
    layout(
        fig,
        f"{metric_name(metric).capitalize()} against cost",
        subtitle=f"{escape_html(data)}, {n}bars: 95% intervals (averaged controls: range of draws)"
        + (
            "<br>numbers beside marks: experts a layer"
            if any(_MANY.search(label) for label in references["setting"])
            else ""
        ),
        x=COSTS[over].format(tokens=tokens),
        y=metric_name(metric) + (" (%)" if scale == 100 else ""),
        height=500,
        legend=True,
    )
    return fig


def _points(
    rows: pd.DataFrame, over: str, scale: float, name: str, color: str, symbol: str, mode: str
) -> go.Scatter:
    low, high = (rows[end].astype(float).to_numpy() for end in ("low", "high"))
    score = rows["score"].to_numpy()
    unit = "%" if scale == 100 else ""
    figures = ".1f" if scale == 100 else ".3f"
    hover = np.stack(
        [
            [escape_html(text) for text in rows["setting"]],
            [
                f"{scale * a:{figures}}–{scale * b:{figures}}{unit}" if a == a else "not known"
                for a, b in zip(low, high)
            ],
            [f"{n:,}" for n in rows["n"]],
            [f"{share:.1%}" for share in rows["encoder_params"]],
            [f"{share:.1%}" for share in rows["encoder_flops"]],
        ],
        axis=1,
    )
    return go.Scatter(
        x=100 * rows[over],
        y=scale * score,
        error_y={
            "type": "data",
            "array": np.nan_to_num(scale * (high - score)),
            "arrayminus": np.nan_to_num(scale * (score - low)),
            "thickness": 1,
            "width": 3,
        },
        customdata=hover,
        mode=mode,
        name=name,
        marker={"size": 9, "symbol": symbol, "color": color},
        line={"width": 1, "dash": "dot", "color": color},
        hovertemplate=f"%{{customdata[0]}}<br>score %{{y:{figures}}}{unit} (interval %{{customdata[1]}}, "
        "n = %{customdata[2]})<br>encoder: %{customdata[3]} of the dense parameters, %{customdata[4]} of the "
        "FLOPs<extra></extra>",
    )


def _add_references(fig: go.Figure, references: pd.DataFrame, over: str, scale: float) -> None:
    series = [_series_of(row) for row in references.itertuples()]
    for name, rows in references.assign(series=series).groupby("series", sort=False):
        kind, recovered = rows["kind"].iloc[0], bool(rows["recovered"].iloc[0])
        symbol = KIND_SYMBOLS.get(kind, "circle")
        for start, other in _SYMBOLS.items():
            symbol = other if name.startswith(start) else symbol
        trace = _points(rows, over, scale, name, KIND_COLORS.get(kind, BLUE), symbol, "markers+text")
        trace.text = [
            _MANY.search(label).group(1) if _MANY.search(label) else "" for label in rows["setting"]
        ]
        trace.textposition = "bottom right" if kind == "control" else "top right"
        trace.textfont = {"size": 11, "color": KIND_COLORS.get(kind, BLUE)}
        trace.marker.size = 12 if recovered or kind != "static" else 10
        fig.add_trace(trace)
        if kind in ("teacher", "routed"):
            fig.add_hline(
                scale * float(rows["score"].iloc[0]),
                line={"color": KIND_COLORS[kind], "width": 1, "dash": "dash"},
                opacity=0.6,
            )


def _series_of(row) -> str:
    """The legend's name for a reference."""
    names = {"teacher": "dense teacher", "routed": "routed model", "static": "shipped static"}
    name = names.get(row.kind, f"control: {row.setting.split(',')[0]}")
    return f"{name}, recovered" if row.recovered else name
