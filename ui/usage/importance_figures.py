"""Figures of importance: maps of effects, usage against effect, effects by group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from shrp.evaluation.statistics import FALSE_DISCOVERIES
from ui.text import axis_names, escape_html, signed, slice_name
from ui.theme import BLUE, DIVERGING, GREY, layout

EXPERT, HEAD = "expert", "head"
"""What is knocked out."""
_MOST_COLUMNS = 14
"""Experts in a map, so that its numbers are legible at 1200 pixels; the CSV has all."""


def grid_height(rows: int, extra: int) -> int:
    """Pixels for a map of `rows` rows, with `extra` for all around it."""
    return extra + max(4, rows) * 26


def effect_map(table: pd.DataFrame, what: str, subtitle: str, of: str = EXPERT) -> go.Figure:
    """Layers x experts: the mean signed effect on the output; experts that are never used stay blank.

    Args:
        table: of `KnockOuts.table`.
        what: the output, HTML-safe, as the subtitle.
        of: `EXPERT` or `HEAD`; heads have no usage.
    """
    layers = sorted(table["layer"].unique())
    grid = table.set_index(["layer", "expert"]).sort_index()
    z = grid["signed"].where(grid["uses"] > 0).unstack()
    limit = float(np.nanmax(np.abs(z.to_numpy()))) if z.notna().any(axis=None) else 1.0
    columns = ["signed_low", "signed_high", "usage", "uses", "effect"]
    custom = np.dstack([grid[column].unstack().to_numpy() for column in columns])
    use = "<br>used by %{customdata[3]:,} inputs, usage %{customdata[2]:.1%}" if of == EXPERT else ""
    digits = max(2, 1 - math.floor(math.log10(limit or 1)))  # small effects need more of them to differ
    text = [["" if np.isnan(v) else signed(v, digits) for v in row] for row in z.to_numpy()]
    fig = go.Figure(
        go.Heatmap(
            z=z.to_numpy(),
            x=list(z.columns),
            y=[f"layer {layer}" for layer in layers],
            customdata=custom,
            text=text,
            texttemplate="%{text}" if z.shape[1] <= 16 else None,
            zmin=-(limit or 1),
            zmax=limit or 1,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"title": {"text": "mean effect"}, "thickness": 12},
            hovertemplate=f"%{{y}}, {of} %{{x}}<br>mean effect %{{z:+.4f}} (95% CI %{{customdata[0]:+.4f}} to "
            f"%{{customdata[1]:+.4f}})<br>mean size %{{customdata[4]:.4f}}{use}<extra></extra>",
        )
    )
    layout(
        fig,
        f"Mean effect of each {of} on {what}",
        subtitle=subtitle,
        x=of,
        height=grid_height(len(layers), 165),
        margin={"t": 96},
    )
    fig.update_xaxes(tickmode="array", tickvals=list(z.columns), showgrid=False, zeroline=False)
    fig.update_yaxes(showgrid=False, zeroline=False, autorange="reversed")
    return fig


def usage_scatter(table: pd.DataFrame, measure: str, name: str, subtitle: str) -> go.Figure:
    """Usage against a measure of what an expert does, a point for each expert that is used.

    Args:
        table: of `KnockOuts.table`.
        measure: the table's column.
        name: of the measure, HTML-safe, with its unit.
    """
    used = table[(table["uses"] > 0) & table[measure].notna()]
    fig = go.Figure(
        go.Scatter(
            x=used["usage"],
            y=used[measure],
            mode="markers+text",
            text=[f"{r.layer}·{r.expert}" for r in used.itertuples()],
            textposition="top center",
            textfont={"size": 10},
            customdata=used[["layer", "expert", "uses"]],
            marker={"size": 8, "color": BLUE},
            hovertemplate="layer %{customdata[0]}, expert %{customdata[1]}<br>usage %{x:.1%} (%{customdata[2]:,} "
            f"examples)<br>{name} %{{y:.4f}}<extra></extra>",
            cliponaxis=False,
        )
    )
    fig.update_xaxes(tickformat=".0%", rangemode="tozero")
    fig.update_yaxes(zeroline=True, zerolinecolor=GREY)
    return layout(
        fig,
        "Usage against what knocking an expert out does",
        subtitle=f"{subtitle}; points: layer · expert",
        x="usage (Top-1 share)",
        y=name,
        height=420,
        legend=False,
    )


def where_columns(frame: pd.DataFrame, sure: pd.DataFrame) -> tuple[list[tuple[int, int]], int]:
    """The experts of a map, significant ones and then those that differ most between groups; and how many are used.

    Args:
        frame: of `shrp.analysis.importance.worth_by_group`.
        sure: of `shrp.analysis.importance.beyond_chance`.
    """
    used = frame.groupby(["layer", "expert"])["uses"].sum()
    used = used[used > 0].index
    spread = frame.set_index(["layer", "expert"])["lost"].groupby(["layer", "expert"]).agg(np.ptp)
    first = zip(sure["layer"], sure["expert"], strict=True)
    most = dict.fromkeys([*first, *spread[used].sort_values(ascending=False, kind="stable").index])
    return sorted([*most][:_MOST_COLUMNS]), len(used)


def where_map(
    frame: pd.DataFrame, experts: Sequence[tuple[int, int]], title: str, subtitle: str, of: str = EXPERT
) -> go.Figure:
    """Groups x experts: what a group loses without the expert, bold where it differs significantly.

    Args:
        frame: of `shrp.analysis.importance.worth_by_group`.
        experts: layer and number of those to show.
        title, subtitle: safe in HTML.
        of: as for `effect_map`.
    """
    groups = list(dict.fromkeys(frame["group"]))
    cells = frame.set_index(["group", "layer", "expert"])
    at = pd.MultiIndex.from_tuples([(group, *expert) for group in groups for expert in experts])
    shown = cells.loc[at]
    shape = len(groups), len(experts)
    z = shown["lost"].to_numpy().reshape(shape)
    limit = float(np.abs(z).max(initial=0.0)) or 1.0
    digits = max(1, 1 - math.floor(math.log10(limit)))
    bold = (shown["q"] <= FALSE_DISCOVERIES).to_numpy()
    text = [
        f"<b>{signed(value, digits)}</b>" if sure else signed(value, digits) if uses else ""
        for value, uses, sure in zip(shown["lost"], shown["uses"], bold, strict=True)
    ]
    hover = [
        f"<b>{escape_html(slice_name(group))}</b>, n = {r.n:,}<br>layer {layer}, {of} {expert}<br>"
        f"lost without it: {r.lost:+.4f}"
        + ("" if r.elsewhere != r.elsewhere else f", elsewhere {r.elsewhere:+.4f}")
        + f"<br>used by {r.uses:,} of these inputs" * (of == EXPERT)
        + ("" if r.q != r.q else f"<br>q = {r.q:.3f}")
        for (group, layer, expert), r in zip(at, shown.itertuples(), strict=True)
    ]
    counts = frame.drop_duplicates("group").set_index("group")["n"]
    labels = axis_names(map(slice_name, groups))
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=[f"{layer}·{expert}" for layer, expert in experts],
            y=[f"{label} ({counts[name]:,})" for label, name in zip(labels, groups, strict=True)],
            text=np.array(text, dtype=object).reshape(shape),
            texttemplate="%{text}",
            hovertext=np.array(hover, dtype=object).reshape(shape),
            hovertemplate="%{hovertext}<extra></extra>",
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "lost"}, "thickness": 12},
        )
    )
    layout(
        fig,
        title,
        subtitle=subtitle,
        x=f"layer · {of}",
        height=grid_height(len(groups), 200),
    )
    fig.update_xaxes(type="category", tickangle=0, tickfont={"size": 10}, showgrid=False, zeroline=False)
    fig.update_yaxes(type="category", showgrid=False, zeroline=False, autorange="reversed")
    return fig
