"""Figures of scores: models with their intervals on one data set, and training epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.evaluation.statistics import stored_interval
from ui.text import (
    capital,
    escape_html,
    interval_text,
    is_percentage,
    metric_name,
    percent,
    readable,
    score_text,
)
from ui.theme import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    HOVER,
    KIND_COLORS,
    KIND_SYMBOLS,
    MUTED,
    ORANGE,
    PURPLE,
    SYMBOLS,
    layout,
    whiskers,
)

KIND_NAMES = {
    "teacher": "dense teacher",
    "routed": "SHRP, routed",
    "static": "SHRP, pruned",
    "control": "control",
}
_LOSSES = {
    "loss": ("total", GREY),
    "task_loss": ("task", BLUE),
    "distill_logits_loss": ("distillation, logits", ORANGE),
    "distill_hidden_loss": ("distillation, hidden states", GREEN),
    "balance_loss": ("load balance", PURPLE),
}


def score_dots(frame: pd.DataFrame) -> go.Figure:
    """Scores with their intervals on one data set, controls among SHRP's models.

    Lines stand at the teacher's score and, if near, at the majority-class baseline's; a model's size follows its name.
    `frame`: one data set's part of `shrp.checkpoints.score_rows.with_shares`.
    """
    metric = frame["metric"].iloc[0]
    factor, unit = (100, " (%)") if is_percentage(metric) else (1, "")
    sized = frame["encoder_params"].notna()
    names = [escape_html(readable(name)) for name in frame["model"]]
    sizes = [f" · {percent(share)}" if known else "" for share, known in zip(frame["encoder_params"], sized)]
    labels = [name + size for name, size in zip(names, sizes)]
    fig = go.Figure()
    for kind, name in KIND_NAMES.items():
        part = frame[frame["kind"] == kind]
        if part.empty:
            continue
        score, low, high = (pd.to_numeric(part[c]) * factor for c in ("score", "low", "high"))
        fig.add_scatter(
            x=score,
            y=[labels[i] for i in part.index],
            mode="markers",
            name=name,
            marker={"size": 11, "color": KIND_COLORS[kind], "symbol": KIND_SYMBOLS[kind]},
            error_x=whiskers(score, low, high, thickness=1.6),
            hovertext=[_score_hover(row) for row in part.itertuples()],
            **HOVER,
        )
    notes = []
    if not (teacher := frame.loc[frame["kind"] == "teacher", "score"]).empty:
        notes.append("dotted: the dense teacher")
        fig.add_vline(x=factor * float(teacher.iloc[0]), line={"dash": "dot", "color": GREY, "width": 1})
    if not (floors := pd.to_numeric(frame["constant"]).dropna()).empty:
        floor, marks = float(floors.iloc[0]), frame[["score", "low", "high"]].astype(float)
        least, most = float(np.nanmin(marks)), float(np.nanmax(marks))
        if floor >= least - (most - least) / 2:  # a line far off would press all models together
            fig.add_vline(x=factor * floor, line={"dash": "dash", "color": GREY, "width": 1})
            notes.append("dashed: majority-class baseline")
        else:
            notes.append(f"majority-class baseline: {score_text(floor, metric)}")
    fig.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    ns = " / ".join(f"{n:,}" for n in sorted({int(n) for n in frame["n"].dropna()}))
    spread = ", bars of averaged draws: their range" if (frame["interval_is"] != "95%").any() else ""
    about = f"n = {ns}; bars: 95% intervals{spread}<br>{'; '.join(notes)}"
    about += "<br>after names: share of the dense encoder's parameters" * bool(sized.any())
    return layout(
        fig,
        f"{capital(metric_name(metric))} on {escape_html(frame['data'].iloc[0])}",
        subtitle=about,
        x=f"{metric_name(metric)}{unit}",
        height=190 + 30 * max(len(frame), 3),
        legend=True,
    )


def score_alt(frame: pd.DataFrame) -> str:
    """The scores that `score_dots` shows, in words."""
    return "; ".join(
        f"{readable(row.model)} {score_text(row.score, row.metric)}" for row in frame.itertuples()
    )


def _score_hover(row: Any) -> str:
    lines = [
        f"<b>{escape_html(readable(row.model))}</b>",
        f"{metric_name(row.metric)} {score_text(row.score, row.metric)}",
    ]
    if bounds := interval_text((row.low, row.high), row.metric):
        lines.append(f"{escape_html(row.interval_is)}{' interval' * row.interval_is.endswith('%')}: {bounds}")
    if not pd.isna(row.n):
        lines.append(f"n = {int(row.n):,}")
    if not pd.isna(row.retained):
        lines.append(f"{percent(row.retained)} of the teacher's score")
    return "<br>".join(lines)


def history_frame(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The training history without usage, one row an epoch, with columns low, high and `converted_layer` (or None)."""
    rows = []
    for row in history:
        low, high = stored_interval({"interval": row.get("validation_interval")})
        kept = {k: v for k, v in row.items() if k not in ("usage", "validation_interval")}
        rows.append({"converted_layer": None} | kept | {"low": low, "high": high})
    return pd.DataFrame(rows)


def history_alt(history: Sequence[Mapping[str, Any]]) -> str:
    """What `training_history` shows, in words."""
    scored = [row for row in history if "validation_score" in row]
    if not scored:
        return f"Losses over {len(history)} epochs on unlabelled text, without a validation score."
    said = score_text(scored[-1]["validation_score"], scored[-1]["metric"])
    return f"Validation score and losses over {len(history)} epochs; the last score is {said}."


def training_history(frame: pd.DataFrame, *, data: str, teacher_score: float | None) -> go.Figure:
    """Validation score with its interval, if there is one, and below it the losses, by epoch; the stages are marked."""
    scored = "validation_score" in frame
    below = 2 if scored else 1
    heights = [0.55, 0.45] if scored else None
    fig = make_subplots(rows=below, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=heights)
    note = "trained on unlabelled text: nothing was validated"
    if scored:
        _validation(fig, frame, teacher_score)
        dotted = "; dotted: the dense teacher" if teacher_score is not None else ""
        n = int(frame["validation_n"].dropna().iloc[-1])
        note = f"validation: {escape_html(data)}, n = {n:,}<br>bars: 95% intervals{dotted}"
    for (column, (name, color)), dash, symbol in zip(_LOSSES.items(), DASHES, SYMBOLS, strict=True):
        if column in frame and pd.to_numeric(frame[column]).abs().max() > 0:
            fig.add_scatter(
                x=frame["epoch"],
                y=frame[column],
                mode="lines+markers",
                name=f"loss: {name}",
                line={"color": color, "width": 3 if column == "loss" else 1.6, "dash": dash},
                marker={"size": 6, "symbol": symbol},
                hovertemplate=f"epoch %{{x}}: {name} %{{y:.4f}}<extra></extra>",
                row=below,
                col=1,
            )
    for stage, part in frame.groupby("stage"):
        first, last = part["epoch"].min(), part["epoch"].max()
        fill = MUTED if stage == 1 else "rgba(0,0,0,0)"
        fig.add_vrect(x0=first - 0.5, x1=last + 0.5, fillcolor=fill, opacity=0.35, line_width=0, layer="below")
        place = {"x": (first + last) / 2, "y": 1, "yref": "y domain", "yanchor": "bottom"}
        fig.add_annotation(text=f"stage {stage}", showarrow=False, **place)
    ticks = [
        str(row.epoch) + ("" if pd.isna(row.converted_layer) else f"<br>L{int(row.converted_layer)}")
        for row in frame.itertuples()
    ]
    fig.update_xaxes(tickvals=frame["epoch"], ticktext=ticks, showgrid=False)
    subtitle = f"{note}<br>losses: means over the epoch's training steps"
    height = 520 if scored else 400
    layout(fig, "Training, epoch by epoch", subtitle=subtitle, height=height, legend=True)
    fig.update_xaxes(
        title_text="epoch, counted from 0 (L: the layer converted at its start)", row=below, col=1
    )
    fig.update_yaxes(title_text="loss", rangemode="tozero", row=below, col=1)
    return fig


def _validation(fig: go.Figure, frame: pd.DataFrame, teacher_score: float | None) -> None:
    """The upper part: the validation score."""
    metric = str(frame["metric"].dropna().iloc[0])  # (stage 1 on unlabelled text has none)
    factor, unit = (100, " (%)") if is_percentage(metric) else (1, "")
    score, low, high = (pd.to_numeric(frame[c]) * factor for c in ("validation_score", "low", "high"))
    fig.add_scatter(
        x=frame["epoch"],
        y=score,
        error_y=whiskers(score, low, high),
        mode="lines+markers",
        name=f"validation {metric_name(metric)}",
        line={"color": BLUE, "width": 2},
        hovertext=[_epoch_hover(row, metric) for row in frame.itertuples()],
        row=1,
        col=1,
        **HOVER,
    )
    if teacher_score is not None:
        fig.add_hline(factor * teacher_score, line={"dash": "dot", "color": GREY, "width": 1.5}, row=1, col=1)
    fig.update_yaxes(title_text=f"{metric_name(metric)}{unit}", row=1, col=1)


def _epoch_hover(row: Any, metric: str) -> str:
    layer = "" if pd.isna(row.converted_layer) else f", layer {int(row.converted_layer)} converted"
    bounds = interval_text((row.low, row.high), metric)
    interval = f" (95%: {bounds})" * bool(bounds)
    return (
        f"epoch {row.epoch}, stage {row.stage}{layer}<br>{score_text(row.validation_score, metric)}{interval}"
    )
