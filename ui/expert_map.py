"""What a plan keeps: as a map of layers and experts, as a table and in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.pruning.plan import PruningPlan
from ui.theme import MUTED, SEQUENTIAL, layout


def expert_map(
    plan: PruningPlan, experts: int, subtitle: str, *, legend: bool = False
) -> go.Figure:
    """The weights of a plan's experts, one row a layer; those that are not kept are grey.

    Args:
        experts: in a layer, `H`.
        legend: whether room is left for one.
    """
    weights = weights_of(plan, experts)
    z = np.stack(list(weights.values()))
    cells = {"x": list(range(experts)), "y": [f"layer {layer}" for layer in weights]}
    cells |= {"xgap": 1, "ygap": 1, "hoverinfo": "skip"}
    fig = go.Figure()
    grey = [[0, MUTED], [1, MUTED]]
    fig.add_heatmap(z=np.where(np.isnan(z), 0.0, np.nan), colorscale=grey, showscale=False, **cells)
    fig.add_heatmap(
        z=100 * z,
        zmin=0,
        zmax=100,
        colorscale=SEQUENTIAL,
        # What rounds to 0% has no number.
        text=np.vectorize(lambda v: f"{v:.0f}" if v > 0.5 else "", otypes=[object])(np.nan_to_num(100 * z)),
        texttemplate="%{text}" if experts <= 16 else None,
        colorbar={"title": {"text": "weight (%)"}, "thickness": 12},
        **cells,
    )
    height, margin = 150 + 28 * max(4, len(z)) + 36 * legend, {"b": 84} if legend else {}
    title, kept = "Kept experts and their weights", f"{plan.budget} of {len(z) * experts} experts"
    subtitle = f"{kept}; grey: not kept{subtitle}"
    layout(fig, title, subtitle=subtitle, x="expert", height=height, legend=legend, margin=margin)
    grid = {"showgrid": False, "zeroline": False}
    fig.update_xaxes(tickmode="array", tickvals=cells["x"], range=[-0.5, experts - 0.5], **grid)
    fig.update_yaxes(type="category", range=[len(z) - 0.5, -0.5], **grid)
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
