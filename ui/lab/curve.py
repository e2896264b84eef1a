"""The lab's curve: score against cost of all sizes, with the current point and the models it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import MADE_OF
from shrp.checkpoints.score_rows import SHARES, score_frame, with_shares
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, ShrpError
from shrp.evaluation.costs import TOKENS, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import NO_EDITS, PruningPlan
from shrp.pruning.sweep import budgets
from ui import loaders, measurements, prunings, theme
from ui.prunings import Setting
from ui.store import kept, results
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
from ui.theme import INK, KIND_COLORS, KIND_INKS, SELECTED, whiskers

OVER = "encoder_flops"
"""The cost that the curve is drawn over."""
STORED = {
    "static": ("stored: pruned", "circle-open", theme.GREY, 15),
    "fine-tuned": ("stored: fine-tuned", "star", theme.PURPLE, 8),
    "control": ("stored: control", "x", theme.ORANGE, 9),
    "tuned": ("fine-tuned", "square", theme.PURPLE, 9),
}
"""Series of scores that the checkpoint carries, and of models made of it: name, symbol, colour and size in pixels. None
has the curve's colour; each can be seen where several have one score.
"""
_MOST_TUNED = 8
_SCORED = ["score", "low", "high", "n", *SHARES]
_POINTS = {"unselected": {"marker": {"opacity": 1}}} | theme.HOVER


def sizes(checkpoint: Checkpoint, data: TextData, setting: Setting, stats: UsageStats) -> list[PruningPlan]:
    """All plans that a sweep evaluates with the selection of a setting, without its edits."""
    how = replace(setting, number=0, edits=NO_EDITS)

    def make() -> list[PruningPlan]:
        experts = stats.num_experts
        each = setting.allocation == "per_layer"
        numbers = range(1, experts + 1) if each else budgets(len(stats.layers), experts)
        return [prunings.plan_of(replace(how, number=number), stats) for number in numbers]

    return kept("sweep sizes", 32, (checkpoint.fingerprint, data.fingerprint, data.name, how), make)


def known(
    checkpoint: Checkpoint, data: TextData, plans: Sequence[PruningPlan]
) -> list[tuple[PruningPlan, Evaluation]]:
    """The plans that were evaluated before, by anyone; the disk is asked once, and where memory has forgotten some."""

    def found(ask: Callable[..., Evaluation | None]) -> list[tuple[PruningPlan, Evaluation]]:
        asked = [(plan, ask(checkpoint, data, plan)) for plan in plans]
        return [(plan, evaluation) for plan, evaluation in asked if evaluation is not None]

    counts, key = results("sweep counts", 64), (checkpoint.fingerprint, data.fingerprint, data.name)
    key = (*key, tuple(plan.key() for plan in plans))
    count, evaluated = counts.get(key), found(prunings.in_memory)
    if count is None or len(evaluated) < count:
        evaluated = found(prunings.recall)
    counts.put(key, len(evaluated))
    return evaluated


def frame_of(checkpoint: Checkpoint, found: Sequence[tuple[PruningPlan, Evaluation]]) -> pd.DataFrame:
    """One row a plan, the smallest first: kept, score, low, high, n, and costs as shares of dense."""
    rows = [{"kept": plan.budget} | _scored(checkpoint, plan, one) for plan, one in found]
    return pd.DataFrame(rows, columns=["kept", *_SCORED]).sort_values("kept", ignore_index=True)


def _scored(checkpoint: Checkpoint, plan: PruningPlan, one: Evaluation) -> dict[str, float]:
    price = prunings.cost_of(checkpoint, plan).relative_to(dense_cost(checkpoint.model, TOKENS))
    return {"score": one.score, "low": one.interval[0], "high": one.interval[1], "n": one.n} | price


def stored_frame(checkpoint: Checkpoint, data: TextData) -> pd.DataFrame:
    """The scores that a checkpoint carries of these data, but the routed model's.

    Columns model, kind (`teacher` or one of `STORED`), score, low, high, n, and costs as shares of dense.
    """
    rows = score_frame(measurements.score_rows(checkpoint, data))
    frame = with_shares(rows, checkpoint.info, checkpoint.model)
    frame = frame[(frame["metric"] == data.task.metric) & (frame["kind"] != "routed") & frame[OVER].notna()]
    tuned = (frame["kind"] == "static") & frame["recovered"].astype(bool)
    return frame.assign(kind=frame["kind"].mask(tuned, "fine-tuned"))[["model", "kind", *_SCORED]]


def tuned_frame(checkpoint: Checkpoint, data: TextData) -> pd.DataFrame:
    """As `stored_frame`, of kind `tuned`: checkpoints that were pruned from this one and fine-tuned, scored here.

    Only the last few of those that are listed.
    """
    rows, models = [], []
    for name, info in loaders.discover_all().items():
        made = {} if isinstance(info, CheckpointError) else info.training
        if made.get("pruned_from") == checkpoint.fingerprint and "recovery" in made:
            models.append((name, info))
    for name, info in models[: -_MOST_TUNED - 1 : -1]:
        if (found := _tuned(name, data)) is not None:
            rows.append({"model": name, "kind": "tuned"} | _scored(checkpoint, info.plan, found))
    return pd.DataFrame(rows, columns=["model", "kind", *_SCORED])


def _tuned(name: str, data: TextData) -> Evaluation | None:
    """The evaluation of a checkpoint, which is loaded once for it; None where it can't be loaded or run."""
    try:
        path = loaders.path_of(name)
        key = (str(path), loaders.stamp_of(path, MADE_OF), data.fingerprint, data.name)
        work = lambda: measurements.evaluation(loaders.load_checkpoint(name), data)  # noqa: E731
        return kept("fine-tuned models", 64, key, work)
    except ShrpError:
        return None


def curve(
    frame: pd.DataFrame,
    stored: pd.DataFrame,
    routed: Evaluation | None,
    data: TextData,
    title: str,
    current: tuple[int, float, Evaluation | None],
    floor: float = math.nan,
    chosen_on: str = "",
    *,
    whole: bool,
) -> go.Figure:
    """Score against cost.

    Args:
        whole: whether the frame has all sizes, which a line may join.
        current: the experts kept now, their cost as a share of dense, and their evaluation: None before there is one,
            and perhaps of some examples only.
        chosen_on: the data on which the experts of stored prunings were chosen, where known.
    """
    metric = data.task.metric
    scale, unit = (100.0, "%") if is_percentage(metric) else (1.0, "")
    fig = go.Figure()
    x, (score, low, high) = 100 * frame[OVER], (scale * frame[c] for c in ("score", "low", "high"))
    if whole:
        band = {"x": np.concatenate([x, x[::-1]]), "y": np.concatenate([high, low[::-1]]), "mode": "lines"}
        band |= {"fill": "toself", "fillcolor": "rgba(19,154,120,0.13)", "line": {"width": 0}}
        fig.add_scatter(**band, hoverinfo="skip", showlegend=False)
    fig.add_scatter(
        x=x,
        y=score,
        mode="lines+markers" if whole else "markers",
        error_y=None if whole else whiskers(score, low, high),
        name=f"pruned, {title}",
        line={"color": KIND_COLORS["static"], "width": 1.5},
        marker={"size": 7, "color": KIND_COLORS["static"]},
        customdata=[[int(kept)] for kept in frame["kept"]],
        hovertext=[
            f"{row.kept} experts: {score_text(row.score, metric)} ({interval_text((row.low, row.high), metric)})<br>"
            f"encoder: {percent(row.encoder_flops)} of the FLOPs, {percent(row.encoder_params)} of the parameters"
            for row in frame.itertuples()
        ],
        **_POINTS,
    )
    _add_stored(fig, stored, scale, metric)
    dense = stored[stored["kind"] == "teacher"]["score"].tolist()[:1]
    lines = [("routed", routed.score)] if routed is not None and math.isfinite(routed.score) else []
    lines += [("dense", score) for score in dense]
    _add_lines(fig, lines, scale, unit)
    _add_current(fig, current, scale, metric)
    about = f"{escape_html(data.name)}, n = {len(data):,}; {'band and bar' if whole else 'bar'}: 95% CI"
    if chosen_on and not stored[stored["kind"] == "static"].empty:
        about += f"<br>stored: experts chosen and weighted on {escape_html(chosen_on)}"
    theme.layout(
        fig,
        f"{capital(metric_name(metric))} by cost",
        subtitle=about,
        x=f"encoder FLOPs, % of dense ({TOKENS} tokens)",
        y=metric_name(metric) + (" (%)" if unit else ""),
        height=520,
        legend=True,
        margin={"r": 76},
    )
    # The dense model's cost is far to the right and not a point.
    shown = stored[stored["kind"] != "teacher"]
    ends = [*shown["score"], *(score for _, score in lines)]
    if found := current[2]:
        ends += [found.score, *found.interval]
    costs = [*frame[OVER], *shown[OVER], current[1]]
    _zoom(fig, costs, [*frame[["score", "low", "high"]].stack(), *ends], floor, scale)
    theme.pick_by_click(fig)
    return fig


def _add_stored(fig: go.Figure, stored: pd.DataFrame, scale: float, metric: str) -> None:
    for kind, part in stored[stored["kind"].isin(STORED)].groupby("kind"):
        name, symbol, color, size = STORED[kind]
        texts = [
            f"{escape_html(readable(row.model))}: {score_text(row.score, metric)} ({interval_text((row.low, row.high), metric)})"
            for row in part.itertuples()
        ]
        look = {"symbol": symbol, "size": size, "color": color}
        at = {"x": 100 * part[OVER], "y": scale * part["score"], "mode": "markers", "name": name}
        fig.add_scatter(**at, marker=look, hovertext=texts, **_POINTS)


def _add_lines(fig: go.Figure, lines: list[tuple[str, float]], scale: float, unit: str) -> None:
    """The routed and the dense model's score as lines, named on the right."""
    for place, (name, score) in enumerate(sorted(lines, key=lambda line: line[1])):
        kind = "teacher" if name == "dense" else name
        fig.add_hline(
            scale * score, line={"color": KIND_COLORS[kind], "width": 1, "dash": "dash"}, opacity=0.7
        )
        where = {"x": 1.005, "y": scale * score, "xref": "paper", "xanchor": "left", "align": "left"}
        fig.add_annotation(
            text=f"{name}<br>{scale * score:.{1 if unit else 3}f}{unit}",
            font={"size": 11, "color": KIND_INKS[kind]},
            yanchor="bottom" if place else "top",
            showarrow=False,
            **where,
        )


def _add_current(
    fig: go.Figure, current: tuple[int, float, Evaluation | None], scale: float, metric: str
) -> None:
    """The current point with its interval; before there is a score a line at its cost alone."""
    kept, share, found = current
    fig.add_vline(100 * share, line={"color": SELECTED, "width": 1, "dash": "dot"}, opacity=0.8)
    if found is None or not math.isfinite(found.score):
        return
    value, (low, high) = scale * found.score, (scale * end for end in found.interval)
    estimate = "" if found.complete else f", estimate from {found.n:,}"
    edge = {"width": 2, "color": "white" if found.complete else SELECTED}
    fig.add_scatter(
        x=[100 * share],
        y=[value],
        mode="markers",
        name=f"now: {kept}{estimate}",
        marker={
            "size": 15,
            "symbol": f"circle{'' if found.complete else '-open'}",
            "color": SELECTED,
            "line": edge,
        },
        error_y=whiskers([value], [low], [high], color=SELECTED),
        hovertext=[f"{kept} experts: {score_text(found.score, metric)}{estimate}"],
        **_POINTS,
    )


def _zoom(fig: go.Figure, costs: list[float], scores: list[float], floor: float, scale: float) -> None:
    """Show what the costs, as shares, and the scores span, and the majority-class baseline where it is near."""
    x, y = 100 * np.array(costs, dtype=float), scale * np.array(scores, dtype=float)
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    margin = max(0.06 * np.ptp(x), 0.5)
    fig.update_xaxes(range=[x.min() - margin, x.max() + margin])
    if not len(y):
        return
    low, high = y.min(), y.max()
    span, floor, unit = max(high - low, 0.02 * scale), scale * floor, "%" if scale > 1 else ""
    if math.isfinite(floor):
        near = low - floor <= span / 2
        text = f"majority-class baseline: {floor:.{1 if unit else 3}f}{unit}"
        corner = {"x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 11, "color": INK}}
        corner |= {"y": floor, "yanchor": "top"} if near else {"y": 0, "yref": "paper", "yanchor": "bottom"}
        fig.add_annotation(text=text if near else f"↓ {text}", showarrow=False, **corner)
        if near:
            fig.add_hline(floor, line={"color": theme.GREY, "width": 1.5, "dash": "dot"})
            low, high = min(low, floor), max(high, floor)
    fig.update_yaxes(range=[low - 0.08 * span, high + 0.08 * span])
