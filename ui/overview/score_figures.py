"""Figures of scores: models with their intervals on one data set, and training epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.evaluation.statistics import stored_interval
from ui.floor import floor_words
from ui.text import (
    capital,
    escape_html,
    interval_name,
    interval_text,
    is_percentage,
    metric_name,
    percent,
    score_text,
)
from ui.theme import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
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
    "static": "SHRP, static",
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

    Lines stand at the teacher's score and at a constant answer's, where that is near; a model's size beside its name.

    Args:
        frame: one data set's part of `shrp.checkpoints.score_rows.with_shares`.
    """
    metric, factor = frame["metric"].iloc[0], 100 if is_percentage(frame["metric"].iloc[0]) else 1
    labels = [_sized(row) for row in frame.itertuples()]
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
            hovertext=[score_hover(row) for row in part.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    teacher = frame[frame["kind"] == "teacher"]
    dotted = "" if teacher.empty else "dotted: the dense teacher"
    if not teacher.empty:
        fig.add_vline(
            x=factor * float(teacher["score"].iloc[0]), line={"dash": "dot", "color": GREY, "width": 1}
        )
    floors = pd.to_numeric(frame["constant"]).dropna()
    if not floors.empty:
        floor = float(floors.iloc[0])
        marks = frame[["score", "low", "high"]].astype(float)
        least, most = float(np.nanmin(marks)), float(np.nanmax(marks))
        if near := floor >= least - (most - least) / 2:  # a line far off would press all models together
            fig.add_vline(x=factor * floor, line={"dash": "dash", "color": GREY, "width": 1})
        said = "dashed: a constant answer" if near else floor_words(floor, metric)
        dotted += f"{', ' * bool(dotted)}{said}"
    fig.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    sized = ""
    if frame["encoder_params"].notna().any():
        sized = f"{', ' * bool(dotted)}beside names: parameters, of the dense encoder's"
    ns = sorted({int(n) for n in frame["n"].dropna()})
    spread = ", bars of averaged draws: their range" if (frame["interval_is"] != "95%").any() else ""
    return layout(
        fig,
        f"{capital(metric_name(metric))} on {escape_html(frame['data'].iloc[0])}",
        subtitle=f"n = {' / '.join(f'{n:,}' for n in ns)}; bars: 95% intervals{spread}<br>{dotted}{sized}",
        x=f"{metric_name(metric)}{' (%)' if factor == 100 else ''}",
        height=190 + 30 * max(len(frame), 3),
        legend=True,
    )


def _sized(row: Any) -> str:
    """A model's name with its size behind it, where that is known."""
    name = escape_html(row.model)
    return name if pd.isna(row.encoder_params) else f"{name} · {percent(row.encoder_params)}"


def score_alt(frame: pd.DataFrame) -> str:
    """The scores that `score_dots` shows, in words."""
    return "; ".join(f"{row.model} {score_text(row.score, row.metric)}" for row in frame.itertuples())


def teacher_score(scores: pd.DataFrame, data: str) -> float | None:
    """The dense teacher's score on a data set; None where it has none there."""
    teacher = scores[(scores["kind"] == "teacher") & (scores["data"] == data)]
    return None if teacher.empty else float(teacher["score"].iloc[0])


def score_hover(row: Any) -> str:
    """One score with all that belongs to it, for a hover text."""
    lines = [
        f"<b>{escape_html(row.model)}</b>",
        f"{metric_name(row.metric)} {score_text(row.score, row.metric)}",
    ]
    if bounds := interval_text((row.low, row.high), row.metric):
        lines.append(f"{escape_html(interval_name(row.interval_is))}: {bounds}")
    if not pd.isna(row.n):
        lines.append(f"n = {int(row.n):,}")
    shares = {
        "the teacher's score": row.retained,
        "the dense encoder's parameters": row.encoder_params,
        "the dense model's parameters": row.model_params,
        "the dense encoder's FLOPs": row.encoder_flops,
    }
    lines += [f"{percent(share)} of {what}" for what, share in shares.items() if not pd.isna(share)]
    return "<br>".join(lines)


def history_frame(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The training history without usage, one row an epoch, the interval as columns low and high.

    There always is a column `converted_layer`, None where no layer was converted.
    """
    rows = []
    for row in history:
        low, high = stored_interval({"interval": row.get("validation_interval")})
        kept = {k: v for k, v in row.items() if k not in ("usage", "validation_interval")}
        rows.append(kept | {"converted_layer": row.get("converted_layer"), "low": low, "high": high})
    return pd.DataFrame(rows)


def history_alt(history: Sequence[Mapping[str, Any]]) -> str:
    """What `training_history` shows, in words."""
    scored = [row for row in history if "validation_score" in row]
    if not scored:
        return f"Losses over {len(history)} epochs on unlabelled texts, without a validation score."
    last = scored[-1]
    return (
        f"Validation score and losses over {len(history)} epochs; the last score is "
        f"{score_text(last['validation_score'], last['metric'])}."
    )


def training_history(frame: pd.DataFrame, *, data: str, teacher_score: float | None = None) -> go.Figure:
    """Validation score with its interval, and the losses, epoch by epoch; the stages are marked.

    A conversion on unlabelled texts has no scores; then the losses stand alone.
    """
    scored = "validation_score" in frame
    below = 2 if scored else 1
    fig = make_subplots(
        rows=below,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.09,
        row_heights=[0.55, 0.45] if scored else None,
    )
    note = "trained on unlabelled texts: nothing was validated"
    if scored:
        _validation(fig, frame, teacher_score)
        dotted = "; dotted: the dense teacher" if teacher_score is not None else ""
        note = f"validation: {escape_html(data)}, n = {int(frame['validation_n'].dropna().iloc[-1]):,}<br>"
        note += f"bars: 95% intervals{dotted}"
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
        fig.add_vrect(
            x0=part["epoch"].min() - 0.5,
            x1=part["epoch"].max() + 0.5,
            fillcolor=MUTED if stage == 1 else "rgba(0,0,0,0)",
            opacity=0.35,
            line_width=0,
            layer="below",
        )
        middle, above = (part["epoch"].min() + part["epoch"].max()) / 2, {"yref": "y domain", "y": 1}
        fig.add_annotation(x=middle, **above, text=f"stage {stage}", showarrow=False, yanchor="bottom")
    ticks = [
        str(row.epoch) + ("" if pd.isna(row.converted_layer) else f"<br>L{int(row.converted_layer)}")
        for row in frame.itertuples()
    ]
    fig.update_xaxes(tickvals=frame["epoch"], ticktext=ticks, showgrid=False)
    layout(
        fig,
        "Training, epoch by epoch",
        subtitle=f"{note}<br>losses: means over the epoch's training steps",
        height=520 if scored else 400,
        legend=True,
    )
    fig.update_xaxes(
        title_text="epoch, counted from 0 (L: the layer converted at its start)", row=below, col=1
    )
    fig.update_yaxes(title_text="loss", rangemode="tozero", row=below, col=1)
    return fig


def _validation(fig: go.Figure, frame: pd.DataFrame, teacher_score: float | None) -> None:
    """The upper part: the validation score."""
    metric = str(frame["metric"].dropna().iloc[0])  # (stage 1 on unlabelled texts has none)
    factor = 100 if is_percentage(metric) else 1
    score, low, high = (pd.to_numeric(frame[c]) * factor for c in ("validation_score", "low", "high"))
    fig.add_scatter(
        x=frame["epoch"],
        y=score,
        error_y=whiskers(score, low, high),
        mode="lines+markers",
        name=f"validation {metric_name(metric)}",
        line={"color": BLUE, "width": 2},
        hovertext=[_epoch_hover(row, metric) for row in frame.itertuples()],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
    if teacher_score is not None:
        fig.add_hline(
            y=teacher_score * factor, line={"dash": "dot", "color": GREY, "width": 1.5}, row=1, col=1
        )
    fig.update_yaxes(title_text=f"{metric_name(metric)}{' (%)' if factor == 100 else ''}", row=1, col=1)


def _epoch_hover(row: Any, metric: str) -> str:
    """One epoch's score for a hover text, with as many digits as the metric is written with elsewhere."""
    layer = "" if pd.isna(row.converted_layer) else f", layer {int(row.converted_layer)} converted"
    bounds = interval_text((row.low, row.high), metric)
    return f"epoch {row.epoch}, stage {row.stage}{layer}<br>{score_text(row.validation_score, metric)}" + (
        f" (95%: {bounds})" if bounds else ""
    )
