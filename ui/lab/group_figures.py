"""The figure of the pruning lab's losses: two models within slices or classes, and the change; also in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.data.slices import CLASS, LENGTH, SLICE
from ui.text import (
    PAIR_ORDER,
    axis_names,
    capital,
    escape,
    escape_html,
    is_percentage,
    metric_name,
    points,
    points_interval,
)
from ui.theme import GREY, KIND_COLORS, KIND_SYMBOLS, layout, whiskers

FEW = 30
"""Below this many inputs a group's figures are marked as too few to go by."""


def unit_of(value: str) -> str:
    """What a group's `n` counts: pairs where these are in order or not, else inputs."""
    return "pairs" if value == PAIR_ORDER else "inputs"


def with_names(frame: pd.DataFrame, by: str, models: tuple[str, str]) -> pd.DataFrame:
    """`shrp.evaluation.paired.by_group`'s or `pair_changes`' table for a file: columns by the names of groups and
    models.
    """
    known = {"group": by, "reference": models[0], "other": models[1]}
    known |= {f"only_{key}": f"only {known[key]}" for key in ("reference", "other")}
    names = {}
    for column in frame.columns:
        first, *rest = column.split()
        names[column] = " ".join([known.get(first, first), *rest])
    return frame.rename(columns=names)


def group_label(name: str, n: int) -> str:
    """A group, its name HTML-safe, as the axis says it: `double negation (n = 40)`, marked where n is small."""
    few = ", few ⚠" if n < FEW else ""
    return f"{name.replace('_', ' ')} (n = {n:,}{few})"


def losses_by_group(
    frame: pd.DataFrame, by: str, value: str, models: tuple[str, str], data: str
) -> go.Figure:
    """On the left both models' scores, on the right the change with its paired interval; largest loss on top.

    Args:
        frame: `shrp.evaluation.paired.by_group`'s result.
        by: `slice`, `class` or `length`.
        value: what is measured: a metric, `recall`, or `ui.text.PAIR_ORDER` (whose groups are of pairs).
        models: names of the reference, and of the model that is held against it.
        data: name of the data.
    """
    scale, unit, digits = (
        (100.0, "%", ".1f") if value == "recall" or is_percentage(value) else (1.0, "", ".3f")
    )
    names = [
        group_label(escape_html(str(name)), n) for name, n in zip(frame["group"], frame["n"], strict=True)
    ]
    short = axis_names(map(str, frame["group"]))
    labels = [group_label(name, n) for name, n in zip(short, frame["n"], strict=True)]
    places = np.arange(len(frame))
    fig = make_subplots(cols=2, shared_yaxes=True, column_widths=[0.55, 0.45], horizontal_spacing=0.04)
    for column, who, kind, shift in (
        ("reference", models[0], "teacher" if "teacher" in models[0] else "routed", -0.14),
        ("other", models[1], "static", 0.14),
    ):
        look = {"symbol": KIND_SYMBOLS[kind], "color": KIND_COLORS[kind]}
        fig.add_trace(
            _dots(frame, column, scale, places + shift, names, who, look, digits, unit), row=1, col=1
        )
    clear = (frame["change low"] > 0) | (frame["change high"] < 0)
    change_unit = " points" if scale == 100 else ""
    for chosen, name, symbol in (
        (clear, "change, interval without 0", "square"),
        (~clear, "change, interval with 0 or none", "square-open"),
    ):
        rows, where = frame[chosen], places[chosen.to_numpy()]
        kept = [names[i] for i in where]
        look = {"symbol": symbol, "color": KIND_COLORS["static"]}
        trace = _dots(rows, "change", scale, where, kept, name, look, f"+{digits}", change_unit)
        fig.add_trace(trace, row=1, col=2)
    fig.add_vline(0, line={"color": GREY, "width": 1, "dash": "dash"}, row=1, col=2)
    few = f"; few ⚠: under {FEW} {unit_of(value)}" if (frame["n"] < FEW).any() else ""
    n = int(frame["n"].sum())
    layout(
        fig,
        f"{capital(metric_name(value))} by {by}, largest loss first",
        subtitle=f"{escape_html(data)}, n = {n:,}{' pairs' * (value == PAIR_ORDER)} in all; {models[1]} against "
        f"{models[0]}; bars: 95% intervals, on the right paired{few}",
        height=190 + 32 * max(3, len(frame)),
        legend=True,
    )
    title = metric_name(value)
    fig.update_xaxes(title_text=title + (" (%)" if scale == 100 else ""), row=1, col=1)
    fig.update_xaxes(
        title_text="change (points)" if scale == 100 else f"change of {title}", zeroline=False, row=1, col=2
    )
    fig.update_yaxes(
        range=[len(frame) - 0.5, -0.5], zeroline=False, tickmode="array", tickvals=places, ticktext=labels
    )
    return fig


def _dots(
    frame: pd.DataFrame,
    column: str,
    scale: float,
    places: np.ndarray,
    names: list[str],
    who: str,
    look: dict[str, str],
    digits: str,
    unit: str,
) -> go.Scatter:
    value, low, high = (
        scale * frame[name].to_numpy(dtype=float) for name in (column, f"{column} low", f"{column} high")
    )
    hover = [
        f"{name}<br>{escape_html(who)} {v:{digits}}{unit} "
        + ("(no interval)" if np.isnan(a) else f"(95% {a:{digits}} to {b:{digits}})")
        for name, v, a, b in zip(names, value, low, high, strict=True)
    ]
    return go.Scatter(
        x=value,
        y=places,
        text=hover,
        mode="markers",
        name=who,
        marker=look | {"size": 9},
        error_x=whiskers(value, low, high),
        hovertemplate="%{text}<extra></extra>",
    )


def summary(frame: pd.DataFrame, by: str, value: str) -> str:
    """What the figure shows, as Markdown.

    Args:
        frame: `shrp.evaluation.paired.by_group`'s result, not empty.
    """
    metric = "accuracy" if value == "recall" else value
    worst = frame.iloc[0]
    many = {SLICE: "slices", CLASS: "classes", LENGTH: "lengths"}[by]
    change = points(worst["change"], metric)
    bounds = points_interval((worst["change low"], worst["change high"]), metric)
    what = "Largest loss" if worst["change"] < 0 else f"No {by} loses; smallest gain"
    known = int(frame["change low"].notna().sum())
    lost, won = int((frame["change high"] < 0).sum()), int((frame["change low"] > 0).sum())
    parts = [
        f"{what}: **{escape(str(worst['group']).replace('_', ' '))}**, {change} of {metric_name(value)} "
        f"(95% interval {bounds}, n = {worst['n']:,})."
        if worst["change"] == worst["change"]
        else f"The change of {metric_name(value)} is not defined in these {many}.",
        f"Losses whose interval excludes 0: {lost} of {len(frame)} {many}; such gains: {won}."
        + (
            f" Of the {known} that have an interval about {0.05 * known:.1f} do by chance alone."
            if known > 4
            else ""
        ),
    ]
    if few := int((frame["n"] < FEW).sum()):
        parts.append(f"{few} of the {many} (marked ⚠) have under {FEW} {unit_of(value)}: too few to go by.")
    return " ".join(parts)
