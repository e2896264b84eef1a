"""The lab's curve: score against cost for all sizes of a selection, with the current point and what it is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.score_rows import row_cost
from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.statistics import stored_interval
from shrp.pruning.plan import PruningPlan
from shrp.pruning.sweep import budgets, pareto_best
from ui import measurements, prunings
from ui.prunings import Setting
from ui.store import results
from ui.text import capital, escape_html, interval_text, is_percentage, metric_name, percent, score_text
from ui.theme import (
    BLUE,
    GREY,
    INK,
    KIND_COLORS,
    KIND_INKS,
    ORANGE,
    PURPLE,
    SELECTED,
    add_floor,
    floor_label,
    layout,
    pick_by_click,
    whiskers,
)

COSTS = {
    "encoder_flops": f"encoder FLOPs, % of dense ({TOKENS} tokens)",
    "encoder_params": "encoder parameters, % of dense",
    "model_flops": f"whole-model FLOPs, % of dense ({TOKENS} tokens)",
    "model_params": "whole-model parameters, % of dense",
}
"""What the curve can be drawn over, with the axis title."""
STORED = {
    "static": ("stored: pruned", "circle-open", GREY),
    "fine-tuned": ("stored: fine-tuned", "star", PURPLE),
    "control": ("stored: control", "x", ORANGE),
}
"""Series of scores that the checkpoint carries: name, symbol and colour, none of them the curve's."""


@dataclass(frozen=True)
class Size:
    """One size of a selection."""

    number: int
    """As the slider counts."""
    plan: PruningPlan


def sizes(checkpoint: Checkpoint, setting: Setting, stats: UsageStats, data: str) -> list[Size]:
    """All sizes that a sweep evaluates with the selection and combination of a setting, without its edits.

    Args:
        data: fingerprint of what the usage is of.
    """
    layers, experts = len(stats.layers), stats.num_experts
    how = setting.allocation, setting.selection, setting.combination, setting.seed

    def make() -> list[Size]:
        numbers = range(1, experts + 1) if setting.allocation == "per_layer" else budgets(layers, experts)
        allocation, *rest = how
        return [Size(n, prunings.plan_of(Setting(allocation, n, *rest), stats)) for n in numbers]

    return results("sweep sizes", 32).get_or_make((checkpoint.fingerprint, data, stats.data, how), make)


def known(checkpoint: Checkpoint, data: TextData, all_sizes: Sequence[Size]) -> list[tuple[Size, Evaluation]]:
    """The sizes that were evaluated before, by anyone; the disk is asked once."""
    looked, key = results("sweeps looked up", 64), (checkpoint.fingerprint, data.fingerprint, data.name)
    key = (*key, tuple(size.plan.key() for size in all_sizes))
    ask = prunings.in_memory if looked.get(key) else prunings.recall
    looked.put(key, True)
    found = [(size, ask(checkpoint, data, size.plan)) for size in all_sizes]
    return [(size, evaluation) for size, evaluation in found if evaluation is not None]


def frame_of(checkpoint: Checkpoint, found: Sequence[tuple[Size, Evaluation]]) -> pd.DataFrame:
    """One row a size: number, kept, plan, score, low, high, n, pareto, and costs as shares of dense."""
    dense, rows = dense_cost(checkpoint.model, TOKENS), []
    for size, one in found:
        rows.append(
            {
                "number": size.number,
                "kept": size.plan.budget,
                "plan": size.plan.key(),
                "score": one.score,
                "low": one.interval[0],
                "high": one.interval[1],
                "n": one.n,
            }
            | prunings.cost_of(checkpoint, size.plan).relative_to(dense)
        )
    columns = ["number", "kept", "plan", "score", "low", "high", "n", *COSTS]
    frame = pd.DataFrame(rows, columns=columns).sort_values("number").reset_index(drop=True)
    best = pareto_best(frame["encoder_flops"], frame["score"]) if len(frame) else []
    return frame.assign(pareto=frame.index.isin(best))


def stored_frame(checkpoint: Checkpoint, data: TextData) -> pd.DataFrame:
    """The scores that a checkpoint carries of these data, but the routed model's: model, kind, score, low, high, n,
    and costs as shares of dense. `kind` is `teacher` or one of `STORED`.
    """
    dense, rows = dense_cost(checkpoint.model, TOKENS), []
    for row in measurements.score_rows(checkpoint, data):
        if row.get("metric", data.task.metric) != data.task.metric or row.get("score") is None:
            continue
        kind, price = str(row.get("kind", "")), row_cost(row, checkpoint)
        if kind == "routed" or price is None:
            continue
        low, high = stored_interval(row)
        rows.append(
            {
                "model": str(row.get("model", kind)),
                "kind": "fine-tuned" if kind == "static" and row.get("recovered") else kind,
                "score": float(row["score"]),
                "low": low,
                "high": high,
                "n": int(row.get("n", len(data))),
            }
            | price.relative_to(dense)
        )
    columns = ["model", "kind", "score", "low", "high", "n", *COSTS]
    return pd.DataFrame(rows, columns=columns)


def curve(
    frame: pd.DataFrame,
    stored: pd.DataFrame,
    routed: Evaluation | None,
    over: str,
    data: TextData,
    title: str,
    current: tuple[int, float, Evaluation | None],
    floor: float = math.nan,
) -> go.Figure:
    """Score against cost.

    Args:
        frame: `frame_of`.
        stored: `stored_frame`.
        routed: the routed model's evaluation, where it is known.
        over: the cost, a key of `COSTS`.
        title: of the selection.
        current: the experts kept now, their cost as a share of dense, and their evaluation: None before there is one,
            and perhaps of some examples only.
        floor: the majority-class baseline's score.
    """
    metric = data.task.metric
    scale, unit = (100.0, "%") if is_percentage(metric) else (1.0, "")
    fig = go.Figure()
    x, (score, low, high) = 100 * frame[over], (scale * frame[c] for c in ("score", "low", "high"))
    if len(frame) > 2:
        fig.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor="rgba(19,154,120,0.13)",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    fig.add_scatter(
        x=x,
        y=score,
        mode="lines+markers",
        name=f"pruned, {title}",
        line={"color": KIND_COLORS["static"], "width": 1.5},
        marker={"size": 7, "color": KIND_COLORS["static"]},
        unselected={"marker": {"opacity": 1}},
        customdata=[[int(number)] for number in frame["number"]],
        hovertext=[
            f"{row.kept} experts: {score_text(row.score, metric)} ({interval_text((row.low, row.high), metric)})<br>"
            f"encoder: {percent(row.encoder_flops)} of the FLOPs, {percent(row.encoder_params)} of the parameters"
            "<br><i>click to set the slider</i>"
            for row in frame.itertuples()
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    _add_stored(fig, stored[stored["kind"] != "teacher"], over, scale, metric)
    lines = [("routed", routed.score, routed.n)] if routed is not None and math.isfinite(routed.score) else []
    lines += [("dense", row.score, row.n) for row in stored[stored["kind"] == "teacher"].itertuples()][:1]
    _add_lines(fig, lines, scale, unit)
    _add_current(fig, current, scale, metric)
    layout(
        fig,
        f"{capital(metric_name(metric))} by cost",
        subtitle=f"{escape_html(data.name)}, n = {len(data):,}; band and bars: 95% CI",
        x=COSTS[over],
        y=metric_name(metric) + (" (%)" if unit else ""),
        height=520,
        legend=True,
        margin={"r": 76},
    )
    _zoom(fig, frame, stored, over, scale, current, [line[1] for line in lines], floor, unit)
    pick_by_click(fig)
    return fig


def _add_stored(fig: go.Figure, stored: pd.DataFrame, over: str, scale: float, metric: str) -> None:
    for kind, (name, symbol, color) in STORED.items():
        part = stored[stored["kind"] == kind]
        if part.empty:
            continue
        values, low, high = (scale * part[c].to_numpy(float) for c in ("score", "low", "high"))
        fig.add_scatter(
            x=100 * part[over],
            y=values,
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 9, "color": color},
            unselected={"marker": {"opacity": 1}},
            error_y=whiskers(values, low, high, thickness=0.8),
            hovertext=[
                f"{escape_html(row.model)}: {score_text(row.score, metric)}" for row in part.itertuples()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )


def _add_lines(fig: go.Figure, lines: list[tuple[str, float, int]], scale: float, unit: str) -> None:
    """The routed and the dense model's score as lines, named on the right."""
    colors = {"routed": KIND_COLORS["routed"], "dense": KIND_COLORS["teacher"]}
    inks = {"routed": KIND_INKS.get("routed", BLUE), "dense": KIND_INKS.get("teacher", INK)}
    for place, (name, score, _) in enumerate(sorted(lines, key=lambda line: line[1])):
        fig.add_hline(scale * score, line={"color": colors[name], "width": 1, "dash": "dash"}, opacity=0.7)
        fig.add_annotation(
            text=f"{name}<br>{scale * score:.{1 if unit else 3}f}{unit}",
            font={"size": 11, "color": inks[name]},
            x=1.005,
            y=scale * score,
            xref="paper",
            xanchor="left",
            yanchor="bottom" if place else "top",
            align="left",
            showarrow=False,
        )


def _add_current(
    fig: go.Figure, current: tuple[int, float, Evaluation | None], scale: float, metric: str
) -> None:
    """The current point with its interval; before there is a score a line at its cost alone."""
    kept, share, found = current
    line = {"color": SELECTED, "width": 1, "dash": "dot"}
    fig.add_vline(100 * share, line=line, opacity=0.8)
    if found is None or not math.isfinite(found.score):
        return
    value, (low, high) = scale * found.score, (scale * end for end in found.interval)
    said = "" if found.complete else f", estimate from {found.n:,}"
    fig.add_scatter(
        x=[100 * share],
        y=[value],
        mode="markers+text",
        name=f"now: {kept}{said}",
        text=[f"{kept}"],
        textposition="top left",
        textfont={"size": 14, "color": SELECTED},
        marker={
            "size": 15,
            "symbol": "circle-open" if not found.complete else "circle",
            "color": SELECTED,
            "line": {"width": 2, "color": "white" if found.complete else SELECTED},
        },
        unselected={"marker": {"opacity": 1}},
        error_y=whiskers([value], [low], [high], color=SELECTED),
        hovertext=[f"{kept} experts: {score_text(found.score, metric)}{said}"],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _zoom(fig, frame, stored, over, scale, current, lines, floor, unit) -> None:
    """Show what the prunings and the lines span; the dense model's cost is far to the right and not a point."""
    others = stored[stored["kind"] != "teacher"]
    x = 100 * np.array([*frame[over], *others[over], current[1]], dtype=float)
    x = x[np.isfinite(x)]
    margin = max(0.06 * np.ptp(x), 0.5)
    fig.update_xaxes(range=[x.min() - margin, x.max() + margin])
    ends = [scale * part[c].to_numpy(float) for part in (frame, others) for c in ("score", "low", "high")]
    found = current[2]
    ends.append(scale * np.array([*lines, *((found.score, *found.interval) if found else ())], dtype=float))
    y = np.concatenate(ends)
    y = y[np.isfinite(y)]
    if not len(y):
        return
    low, high = y.min(), y.max()
    span, floor = max(high - low, 0.02 * scale), scale * floor
    if math.isfinite(floor) and low - floor <= span / 2:
        add_floor(fig, floor, unit)
        low, high = min(low, floor), max(high, floor)
    elif math.isfinite(floor):
        fig.add_annotation(
            text=f"↓ {floor_label(floor, unit)}",
            font={"size": 11, "color": INK},
            x=0,
            y=0,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
    fig.update_yaxes(range=[low - 0.08 * span, high + 0.08 * span])


def routed_share(checkpoint: Checkpoint) -> float:
    """Encoder FLOPs of the model as it routes, as a share of the dense encoder's."""
    price = cost(checkpoint.model, TOKENS)
    return price.relative_to(dense_cost(checkpoint.model, TOKENS))["encoder_flops"]
