"""Figures of the pruning lab: the kept experts, and scores within slices and classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.plan import PruningPlan
from ui.text import escape_html, metric_name
from ui.theme import KIND_COLORS, KIND_SYMBOLS, MUTED, SEQUENTIAL, layout


def kept_map(
    plan: PruningPlan, experts: int, usage: Mapping[int, np.ndarray] | None = None, measured: str = ""
) -> go.Figure:
    """Layers x experts: the weight of each kept expert; dropped ones stay grey.

    Args:
        usage: layer -> Top-1 shares `(H,)` for the hover texts, where they are known.
        measured: what the usage was measured on, for the subtitle.
    """
    layers = [layer for layer, _ in plan.layers]
    weights = np.full((len(layers), experts), np.nan)
    for row, (_, kept) in enumerate(plan.layers):
        weights[row, list(kept.experts)] = kept.weights
    share = np.stack([np.asarray(usage[layer], dtype=float) for layer in layers]) if usage else None
    used = "<br>Top-1 share %{customdata:.1%}" if usage else ""
    names, columns = [f"layer {layer}" for layer in layers], list(range(experts))
    fig = go.Figure()
    fig.add_trace(
        go.Heatmap(
            z=np.where(np.isnan(weights), 0.0, np.nan),
            x=columns,
            y=names,
            customdata=share,
            colorscale=[[0, MUTED], [1, MUTED]],
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate=f"%{{y}}, expert %{{x}}: dropped{used}<extra></extra>",
        )
    )
    fig.add_trace(
        go.Heatmap(
            z=100 * weights,
            x=columns,
            y=names,
            customdata=share,
            zmin=0,
            zmax=100,
            colorscale=SEQUENTIAL,
            xgap=1,
            ygap=1,
            texttemplate="%{z:.0f}" if experts <= 16 else None,
            colorbar={"title": {"text": "weight (%)"}, "thickness": 12},
            hovertemplate=f"%{{y}}, expert %{{x}}: kept<br>weight %{{z:.1f}}%{used}<extra></extra>",
        )
    )
    layout(
        fig,
        "Kept experts and their weights",
        subtitle=f"{plan.budget} of {len(layers) * experts} experts; grey: dropped"
        + (f"<br>{escape_html(measured)}" if measured else ""),
        x="expert",
        height=170 + 26 * max(4, len(layers)),
        margin={"t": 96 if measured else 72},
    )
    fig.update_xaxes(tickmode="array", tickvals=columns, showgrid=False, zeroline=False)
    fig.update_yaxes(autorange="reversed", showgrid=False, zeroline=False)
    return fig


def by_group(frame: pd.DataFrame, group: str, value: str, data: str) -> go.Figure:
    """Routed and pruned side by side within slices or classes.

    Args:
        frame: columns `group`, `n`, and for `routed` and `pruned` each `<who>`, `<who> low`, `<who> high`, in
            shares or as correlations.
        group: `slice` or `class`.
        value: what is measured: a metric, or recall.
    """
    scale = 1.0 if value in ("matthews", "pearson", "spearman") else 100.0
    frame = frame.sort_values("pruned", ascending=False)
    names = [
        f"{escape_html(str(name)).replace('_', ' ')} (n = {n:,})" for name, n in zip(frame[group], frame["n"])
    ]
    fig = go.Figure()
    places = np.arange(len(frame))
    for who, symbol, color, shift in (
        ("routed", KIND_SYMBOLS["routed"], KIND_COLORS["routed"], -0.15),
        ("pruned", KIND_SYMBOLS["static"], KIND_COLORS["static"], 0.15),
    ):
        score = frame[who].to_numpy(dtype=float)
        fig.add_trace(
            go.Scatter(
                x=scale * score,
                y=places + shift,  # one above the other, so that their bars don't overlap
                customdata=names,
                mode="markers",
                name=who,
                marker={"symbol": symbol, "size": 9, "color": color},
                error_x={
                    "type": "data",
                    "array": np.nan_to_num(scale * (frame[f"{who} high"] - score)),
                    "arrayminus": np.nan_to_num(scale * (score - frame[f"{who} low"])),
                    "thickness": 1,
                    "width": 3,
                },
                hovertemplate=f"%{{customdata}}<br>{who} %{{x:.1f}}%<extra></extra>"
                if scale == 100
                else f"%{{customdata}}<br>{who} %{{x:.3f}}<extra></extra>",
            )
        )
    layout(
        fig,
        f"{metric_name(value).capitalize()} by {group}",
        subtitle=f"{escape_html(data)}; bars: 95% intervals",
        x=metric_name(value) + (" (%)" if scale == 100 else ""),
        height=170 + 30 * max(3, len(frame)),
        legend=True,
    )
    fig.update_yaxes(
        tickmode="array", tickvals=places, ticktext=names, range=[len(frame) - 0.5, -0.5], zeroline=False
    )
    return fig
