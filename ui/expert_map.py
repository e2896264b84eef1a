"""Layers x experts as a map: what a plan keeps, or how often experts are used. The lab adds clicks to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.pruning.plan import PruningPlan
from ui.theme import MUTED, SEQUENTIAL, layout


def expert_map(
    values: Mapping[int, np.ndarray],
    experts: int,
    title: str,
    subtitle: str,
    unit: str,
    *,
    further: Collection[int] = (),
    top: float = 1.0,
    legend: bool = False,
    columns: int = 1,
) -> go.Figure:
    """A map of shares, one row a layer.

    Args:
        values: layer -> shares of 1 `(H,)`, nan for experts that are not kept, which are grey.
        experts: `H`.
        unit: what the shares are of, for the scale.
        further: layers without values, whose rows stay empty, so that two maps line up.
        top: upper end of the scale.
        legend: whether room is left for one.
        columns: how many maps stand side by side.
    """
    layers = sorted({*values, *further})
    z = np.stack([np.asarray(values.get(layer, np.full(experts, np.nan)), dtype=float) for layer in layers])
    known = np.array([layer in values for layer in layers])[:, None]
    cells = {"x": list(range(experts)), "y": [f"layer {layer}" for layer in layers]}
    cells |= {"xgap": 1, "ygap": 1, "hoverinfo": "skip"}
    fig = go.Figure()
    missing, grey = np.where(np.isnan(z) & known, 0.0, np.nan), [[0, MUTED], [1, MUTED]]
    fig.add_heatmap(z=missing, colorscale=grey, showscale=False, **cells)
    fig.add_heatmap(
        z=100 * z,
        zmin=0,
        zmax=100 * top,
        colorscale=SEQUENTIAL,
        # What rounds to 0% has no number.
        text=np.vectorize(lambda v: f"{v:.0f}" if v > 0.5 else "", otypes=[object])(np.nan_to_num(100 * z)),
        texttemplate="%{text}" if experts <= 16 else None,
        colorbar={"title": {"text": f"{unit} (%)"}, "thickness": 12},
        **cells,
    )
    height, margin = 150 + 28 * max(4, len(layers)) + 36 * legend, {"b": 84} if legend else {}
    look = {"height": height, "legend": legend, "margin": margin, "columns": columns}
    layout(fig, title, subtitle=subtitle, x="expert", **look)
    grid = {"showgrid": False, "zeroline": False}
    fig.update_xaxes(tickmode="array", tickvals=cells["x"], range=[-0.5, experts - 0.5], **grid)
    fig.update_yaxes(type="category", range=[len(layers) - 0.5, -0.5], **grid)
    return fig


def weights_of(plan: PruningPlan, experts: int) -> dict[int, np.ndarray]:
    """Layer -> weights `(H,)` of a plan, nan for experts that it does not keep."""
    found = {}
    for layer, kept in plan.layers:
        found[layer] = np.full(experts, np.nan)
        found[layer][list(kept.experts)] = kept.weights
    return found


def plan_frame(plan: PruningPlan) -> pd.DataFrame:
    """One row a kept expert: layer, expert, weight."""
    rows = [(i, e, w) for i, kept in plan.layers for e, w in zip(kept.experts, kept.weights, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "expert", "weight"])


def plan_words(plan: PruningPlan) -> str:
    """The kept experts in words, for those who cannot see a map."""
    return "; ".join(
        f"layer {layer} keeps {', '.join(map(str, kept.experts))}" for layer, kept in plan.layers
    )
