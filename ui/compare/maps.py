"""Both sides' maps of layers and experts, drawn beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.usage import UsageStats
from ui.compare.sides import LETTERS, Side
from ui.downloads import chart
from ui.text import escape_html, percent
from ui.theme import title_height
from ui.usage.figures import cells_height, usage_heatmap


@dataclass(frozen=True)
class Map:
    """One side's map of layers and experts, drawn for half the width."""

    fig: go.Figure
    frame: pd.DataFrame
    what: str
    alt: str
    hint: str = ""


def side_by_side(maps: Sequence[Map], rows: int, name: str) -> None:
    """Both sides' maps, whose rows line up, however many lines stand above each.

    Args:
        rows: of either map.
        name: of the files, before the rest of their names.
    """
    top = max(one.fig.layout.margin.t for one in maps)
    height = cells_height(rows) + max(0, top - title_height("one line<br>and another"))
    for letter, one, column in zip(LETTERS, maps, st.columns(2, gap="medium"), strict=True):
        one.fig.update_layout(height=height, margin_t=top, title_y=1 - 22 / height)
        key = f"{one.what}-{letter}"
        with column:
            chart(one.fig, one.frame, key, f"{name}-{key}", one.alt, hint=one.hint)


def usage_map(letter: str, side: Side, stats: UsageStats, layers: Sequence[int], top: float) -> Map:
    """One side's Top-1 shares; rows are the layers that either side routes, so that both maps line up.

    Args:
        top: upper end of the scale.
    """
    nothing = np.full(stats.num_experts, np.nan)
    shares = np.stack([stats.share(layer) if layer in stats.top1 else nothing for layer in layers])
    counts = np.stack([stats.counts(layer) if layer in stats.top1 else 0 * nothing for layer in layers])
    chosen = stats.counts(stats.layers[0]).sum()
    n = f"n = {stats.n:,} inputs" + (f", {int(chosen):,} real tokens" if stats.unit == "tokens" else "")
    gaps = "; empty rows are not routed" if len(stats.layers) < len(layers) else ""
    even = percent(1 / stats.num_experts)
    fig = usage_heatmap(
        shares,
        layers,
        title=f"{letter}: Top-1 share",
        subtitle=f"{escape_html(side.choice.name)}<br>{escape_html(stats.data)}, {n}; even use would be {even}{gaps}",
        measure="Top-1 share",
        counts=counts,
        unit=stats.unit,
        top=top,
        clickable=False,
        columns=2,
    )
    return Map(
        fig,
        stats.to_frame(),
        "usage",
        f"Top-1 share of each of {stats.num_experts} experts in the layers {', '.join(map(str, stats.layers))} of "
        f"{side.choice.name}.",
        "The same as a table: the CSV below.",
    )
