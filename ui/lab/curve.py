"""The pruning lab's curve: score against cost, as settings are tried, beside reference marks."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.evaluation.costs import TOKENS
from shrp.evaluation.verdicts import HEADS_PRUNED
from ui.lab.marks import DROPPED, NO_ROUTER, RANDOM
from ui.lab.work import AS_GIVEN, COMBINATIONS, FITTED, GLOBAL, RECORDED
from ui.text import capital, escape_html, is_percentage, metric_name
from ui.theme import (
    BLUE,
    GREEN,
    GREY,
    INK,
    KIND_COLORS,
    KIND_INKS,
    KIND_SYMBOLS,
    ORANGE,
    PURPLE,
    SELECTED,
    add_floor,
    floor_label,
    layout,
    whiskers,
)

COSTS = {
    "encoder_flops": f"encoder FLOPs, % of the dense encoder's ({TOKENS} tokens)",
    "model_flops": f"whole-model FLOPs, % of the dense model's ({TOKENS} tokens)",
    "encoder_params": "encoder parameters, % of the dense encoder's",
    "model_params": "whole-model parameters, % of the dense model's",
}
"""Columns that the curve can be drawn over, with the axis title that names the denominator."""

PARETO = "Pareto-best"
_STYLES = {
    "Usage": (GREEN, "cross"),
    RECORDED: ("#a6761d", "triangle-up"),
    "Gate × norm": (PURPLE, "triangle-left"),
    "Ablation": ("#7d8600", "pentagon"),
    FITTED: ("#1b8fc0", "triangle-right"),
}
"""Colour and mark of a selection, the same whatever else was tried."""
_GIVEN = (GREY, "star-square")
"""Of what a file chose by other means."""
_BEST = "#a87e00"
_MANY = re.compile(r"(\d+) (?:a layer|experts?\b)")
_SYMBOLS = {
    "static, stored score, recovered": "star",
    f"control: {DROPPED}": "triangle-down",
    f"control: {NO_ROUTER}": "hexagon-open",
    f"control: {HEADS_PRUNED}": "diamond-tall-open",
    f"control: {RANDOM}, recovered": "x-open",
}


def curve(
    tried: pd.DataFrame,
    references: pd.DataFrame,
    over: str,
    metric: str,
    data: str,
    current: str | None = None,
    best: pd.DataFrame | None = None,
    floor: float = float("nan"),
    matched: bool = False,
) -> go.Figure:
    """Score against cost: what was tried here, beside reference marks.

    Args:
        tried: `ui.lab.work.attempts_frame`.
        references: `ui.lab.marks.marks_frame`.
        over: the cost, a key of `COSTS`.
        current: the `setting` to ring.
        best: `ui.lab.pareto.pareto`'s rows, to be marked with their numbers.
        floor: the score of the best constant answer; nan where there is none.
        matched: whether what was tried is scored with the routed model's answer shares; the references never are.
    """
    fig = go.Figure()
    scale = 100.0 if is_percentage(metric) else 1.0
    if not tried.empty:
        _add_tried(fig, tried[~tried["control"]], over, scale)
        _add_controls(fig, tried[tried["control"]], over, scale)
        ringed = tried[tried["setting"] == current]
        if len(ringed):
            _add_rings(fig, ringed, over, scale, "this setting", "circle-open", 18, SELECTED)
    _add_references(fig, references, over, scale)
    if best is not None and len(best):
        _add_rings(fig, best, over, scale, PARETO, "diamond-open", 14, _BEST)
        numbered = fig.data[-1]
        numbered.mode, numbered.text = "markers+text", [f"#{number}" for number in best["number"]]
        numbered.textposition, numbered.textfont = "top center", {"size": 11, "color": _BEST}
    n = f"n = {int(references['n'].max()):,}, " if len(references) else ""
    notes = ["numbers beside squares and stars: experts a layer"] if _has_numbers(references) else []
    notes += ["#: row of the table below"] if best is not None and len(best) else []
    if matched:
        notes += ["evaluated here: answer shares matched; scores stored with the checkpoint: not"]
    layout(
        fig,
        f"{capital(metric_name(metric))} against cost",
        subtitle=f"{escape_html(data)}, {n}bars and bands: 95% intervals (averaged controls: range of draws)"
        + (f"<br>{'; '.join(notes)}" if notes else ""),
        x=COSTS[over],
        y=metric_name(metric) + (" (%)" if scale == 100 else ""),
        height=640,  # a narrow window stacks the legend
        legend=True,
        margin={"r": 110},
    )
    _zoom(fig, tried, references, over)
    _zoom_scores(fig, [frame for frame in (tried, references) if len(frame)], scale, floor)
    return fig


def _zoom_scores(fig: go.Figure, frames: list[pd.DataFrame], scale: float, floor: float) -> None:
    """Start at what scores and their intervals span; a constant answer far below is told of at the bottom."""
    found = [scale * frame[["score", "low", "high"]].to_numpy(dtype=float).ravel() for frame in frames]
    ends = np.concatenate([*found, [scale * floor] * (not frames)])
    ends = ends[np.isfinite(ends)]
    if not len(ends):
        return
    low, high = ends.min(), ends.max()
    span, unit = max(high - low, 0.02 * scale), "%" if scale == 100 else ""
    if low - scale * floor > span / 2:
        fig.add_annotation(
            text=f"↓ {floor_label(scale * floor, unit)}",
            font={"size": 11, "color": INK},
            x=0,
            y=0,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
    elif math.isfinite(floor):
        add_floor(fig, scale * floor, unit)
        low, high = min(low, scale * floor), max(high, scale * floor)
    fig.update_yaxes(range=[low - 0.08 * span, high + 0.08 * span])


def _zoom(fig: go.Figure, tried: pd.DataFrame, references: pd.DataFrame, over: str) -> None:
    """Start at what the prunings span: the dense teacher is far to the right, and its line says where it is."""
    parts = [frame[over] for frame in (tried, references[references["kind"] != "teacher"]) if len(frame)]
    if not parts:
        return
    x = 100 * pd.concat(parts).astype(float)
    margin = max(0.06 * (x.max() - x.min()), 0.5)
    fig.update_xaxes(range=[x.min() - margin, x.max() + margin])


def _add_tried(fig: go.Figure, tried: pd.DataFrame, over: str, scale: float) -> None:
    """Global budgets as a line in a band, the same number in each layer as hollow marks, with a dot in plans edited by
    hand; a plain mean of the experts has an edge, or a thick one.
    """
    combinations = list(dict.fromkeys(zip(tried["selection"], tried["combination"])))
    for selection, combination in sorted(combinations):
        name = f"{selection.lower()}, {combination.lower()}"
        color, mark = _STYLES.get(selection, _GIVEN)
        is_mean = COMBINATIONS.get(combination) == "mean"
        rows = tried[(tried["selection"] == selection) & (tried["combination"] == combination)]
        rows = rows.sort_values(over)
        edited, budgets = rows["edited"], rows["allocation"] == GLOBAL
        for kind, part, symbol, mode in (
            ("global budget", rows[~edited & budgets], mark, "lines+markers"),
            ("per layer", rows[~edited & ~budgets], f"{mark}-open", "markers"),
            ("edited by hand", rows[edited], f"{mark}-open-dot", "markers"),
        ):
            if part.empty:
                continue
            title = name if combination == AS_GIVEN else f"{name}: {kind}"
            trace = _points(part, over, scale, title, color, symbol, mode)
            if is_mean:
                hollow = "open" in symbol  # and so all edge
                trace.marker.line = {"width": 2.5, "color": color} if hollow else {"width": 1, "color": INK}
                trace.line.dash = "dash"
            if kind == "global budget" and len(part) > 12:  # that many bars would hide one another
                fig.add_trace(_band(part, over, scale, color, f"{trace.name}, 95% interval"))
                trace.error_y, trace.marker.size = None, 5
                trace.line.dash = "longdash" if is_mean else "solid"
            fig.add_trace(trace)


def _add_controls(fig: go.Figure, controls: pd.DataFrame, over: str, scale: float) -> None:
    """Random draws: the mean and range of several of one size, one draw or an edited one with its interval."""
    for combination, rows in controls.groupby("combination", sort=True):
        found = [rows.loc[i] for i in rows.index[rows["edited"]]]
        for _, draws in rows[~rows["edited"]].groupby(["allocation", "experts kept"], sort=False):
            one = draws.iloc[0].copy()
            if len(draws) > 1:
                one["setting"] = (
                    f"{one['setting']} and {len(draws) - 1} more, mean and range of {len(draws)} draws"
                )
                one["low"], one["high"] = draws["score"].min(), draws["score"].max()
                one["score"] = draws["score"].mean()
            found.append(one)
        name = f"random control drawn here, {combination.lower()}"
        drawn = pd.DataFrame(found).sort_values(over)
        trace = _points(drawn, over, scale, name, ORANGE, "asterisk-open", "markers")
        trace.marker.line = {"width": 1.5, "color": ORANGE}
        fig.add_trace(trace)


def _band(rows: pd.DataFrame, over: str, scale: float, color: str, name: str) -> go.Scatter:
    known = rows.dropna(subset=["low", "high"])
    x, low, high = (known[name].to_numpy(dtype=float) for name in (over, "low", "high"))
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return go.Scatter(
        x=100 * np.concatenate([x, x[::-1]]),
        y=scale * np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        mode="lines",
        name=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _add_rings(
    fig: go.Figure, rows: pd.DataFrame, over: str, scale: float, name: str, symbol: str, size: int, color: str
) -> None:
    fig.add_trace(
        go.Scatter(
            x=100 * rows[over],
            y=scale * rows["score"],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": size, "color": color, "line": {"width": 2.5, "color": color}},
            hoverinfo="skip",
        )
    )


def _has_numbers(references: pd.DataFrame) -> bool:
    return any(_MANY.search(label) for label in references["setting"]) if len(references) else False


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
        error_y=whiskers(scale * score, scale * low, scale * high),
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
    lines: list[tuple[float, str, str, float]] = []
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
        trace.textfont = {"size": 11, "color": KIND_INKS.get(kind, BLUE)}
        trace.marker.size = 12 if recovered or kind != "static" else 10
        fig.add_trace(trace)
        if kind in ("teacher", "routed"):
            score = float(rows["score"].iloc[0])
            if not math.isfinite(score):  # a correlation where all labels are one number
                continue
            lines.append((score, kind, name, rows[over].iloc[0]))
            line = {"color": KIND_COLORS[kind], "width": 1, "dash": "dash"}
            fig.add_hline(scale * score, line=line, opacity=0.6)
    lines.sort()
    for place, (score, kind, name, cost) in enumerate(lines):  # beside the plot, the higher above the lower
        text = f"{scale * score:.1f}%" if scale == 100 else f"{score:.3f}"
        fig.add_annotation(
            text=f"{name}<br>{text}" + (f" at {cost:.0%}" if kind == "teacher" else ""),
            font={"size": 11, "color": KIND_INKS[kind]},
            x=1.005,
            y=scale * score,
            xref="paper",
            xanchor="left",
            yanchor="bottom" if place else "top",
            align="left",
            showarrow=False,
        )


def _series_of(row) -> str:
    """The legend's name for a reference."""
    names = {"teacher": "dense teacher", "routed": "routed model", "static": "static, stored score"}
    if row.setting.startswith(HEADS_PRUNED):  # one of each size
        return f"control: {HEADS_PRUNED}"
    name = names.get(row.kind, f"control: {escape_html(row.setting.split(',')[0])}")
    return f"{name}, recovered" if row.recovered else name
