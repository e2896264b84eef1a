"""The map of Expert usage: which experts are used, for all examples or a group of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from ui import measurements, state
from ui.bound import fall_back
from ui.downloads import chart
from ui.text import escape_html, percent, slice_name
from ui.usage import figures

ALL = "all examples"
GROUP = "group"
"""Key of the widget, in the session's state and in the URL."""
_MAP = "usage-map"


def groups_of(selection: state.Selection, stats: UsageStats) -> dict[str, np.ndarray]:
    """Name -> mask `(N,)` of all examples, and of the groups of every grouping."""
    found = {ALL: np.ones(stats.n, dtype=bool)}
    for by, groups in measurements.groups(selection.checkpoint, selection.data, stats).items():
        for name, mask in groups.items():
            label = f"{by}: {slice_name(str(name))}"
            found[f"{by}: {name}" if label in found else label] = mask  # `a_b` and `a b` are two slices
    return found


def usage_map(selection: state.Selection, stats: UsageStats, cell: tuple[int, int]) -> tuple[str, np.ndarray]:
    """Draw the heatmap and its options; call `ui.state.follow_cell` before.

    Returns:
        The picked group's name, and which examples are in it `(N,)`.
    """
    groups = groups_of(selection, stats)
    fall_back(GROUP, groups, ALL)
    with st.popover("Expert, examples", icon=":material/tune:"):
        st.selectbox("Layer", stats.layers, key=state.LAYER)
        st.selectbox("Expert", range(stats.num_experts), key=state.EXPERT)
        group = st.selectbox("Examples", list(groups), key=GROUP, bind="query-params")
    rows, title = groups[group], "Top-1 share"
    values = np.stack([stats.share(layer, rows) for layer in stats.layers])
    counts = np.stack([stats.counts(layer, rows) for layer in stats.layers])
    n, data = int(rows.sum()), escape_html(stats.data)
    tokens = f" ({int(counts[0].sum()):,} tokens)" if stats.unit == "tokens" else ""
    even = percent(1 / stats.num_experts)
    subtitle = f"%, {data}, {escape_html(group)}, n = {n:,}{tokens}; even use: {even}"
    chart(
        figures.usage_heatmap(
            values,
            stats.layers,
            title=title,
            subtitle=subtitle,
            measure=title,
            counts=counts,
            unit=figures.counted_in(stats.unit),
            selected=cell,
        ),
        lambda: map_frame(stats, values, counts, title).assign(data=stats.data, group=group, n=n),
        key=_MAP,
        name=f"{selection.name}-usage",
        alt=f"{title} of {stats.num_experts} experts in layers {stats.layers[0]} to {stats.layers[-1]}.",
        hint="The CSV holds the same numbers. The button above the chart has boxes for layer and expert.",
        on_select=lambda: state.pick_cell(_MAP),
    )
    return group, rows


def map_frame(stats: UsageStats, values: np.ndarray, counts: np.ndarray, name: str) -> pd.DataFrame:
    """A row for each layer and expert: layer, expert, the value `(L, H)` under `name`, and count `(L, H)`."""
    cells = pd.MultiIndex.from_product([stats.layers, range(stats.num_experts)], names=["layer", "expert"])
    return cells.to_frame(index=False).assign(**{name: values.ravel(), "count": counts.ravel()})
