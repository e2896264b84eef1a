"""Whether routers tell the two inputs of a minimal pair apart: a map by layer and slice, and the pairs themselves."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.data.columns import distinct
from shrp.data.text_data import TextData
from shrp.evaluation.minimal_pairs import ALL, PairOutcomes, pair_outcomes, route_changes, taken
from ui import closer, measurements, pair_views
from ui.downloads import chart, downloads
from ui.state import Selection
from ui.tables import row_height
from ui.text import axis_names, escape, escape_html, percent
from ui.theme import SEQUENTIAL, layout

_STRANGERS = "two inputs at random"
_TEXT_WIDTH = 230  # pixels of a text's column


def section(selection: Selection, stats: UsageStats, layer: int) -> None:
    """The section, where the data have minimal pairs; nothing elsewhere.

    Args:
        stats: of the selection's data.
        layer: whose pairs are listed.
    """
    data = selection.data
    if not pair_views.has_pairs(data):
        return
    st.header("Routes within minimal pairs", anchor="pairs")
    st.caption(
        "The two inputs of a minimal pair are alike but for what gives them different labels. Where they take "
        "different experts, the router saw the difference, or what it did to the layers below."
        + (
            " Tokens pick experts each for themselves here: compared is the one of most tokens."
            * (stats.unit == "tokens")
        )
    )
    frame = route_changes(stats, data)
    chart(
        parted_map(frame, data.name),
        frame,
        "pair-routes",
        f"{selection.name}-routes-within-pairs",
        "Heatmap: a row a slice, a column a layer, each cell the share of minimal pairs whose routes part there. "
        + in_words(frame),
    )
    st.markdown(in_words(frame))
    evaluation = measurements.routed_evaluation(selection.checkpoint, data, stats, with_interval=False)
    _listed(selection, stats, layer, pair_outcomes(data, evaluation))


def parted_map(frame: pd.DataFrame, data: str) -> go.Figure:
    """Slices x layers: how often the routes of a pair part, below all pairs what strangers would do.

    Args:
        frame: of `shrp.evaluation.minimal_pairs.route_changes`.
        data: its name.
    """
    layers, slices = list(dict.fromkeys(frame["layer"])), list(dict.fromkeys(frame["slice"]))
    by = frame.set_index(["slice", "layer"])
    whole = by.loc[ALL]
    rows = [f"{ALL} (n = {int(whole['n'].iloc[0]):,})", _STRANGERS]
    values, hover = [whole["share"].tolist(), whole["unpaired"].tolist()], [_hover(whole), [""] * len(layers)]
    hover[1] = [
        f"<b>Layer {at}</b><br>{percent(v)} of all couples of these inputs part"
        for at, v in whole["unpaired"].items()
    ]
    for name, short in zip(
        slices[1:], axis_names(name.replace("_", " ") for name in slices[1:]), strict=True
    ):
        part = by.loc[name]
        rows.append(f"{short} (n = {int(part['n'].iloc[0]):,})")
        values.append(part["share"].tolist())
        hover.append(_hover(part))
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=[str(layer) for layer in layers],
            y=rows,
            text=[[f"{100 * value:.0f}" for value in row] for row in values],
            texttemplate="%{text}",
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            xgap=2,
            ygap=2,
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=max(0.2, float(np.max(values))),
            colorbar={
                "title": {"text": "share of pairs", "side": "right"},
                "tickformat": ".0%",
                "thickness": 12,
            },
        )
    )
    fig.update_xaxes(type="category", showgrid=False, zeroline=False)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False, zeroline=False)
    return layout(
        fig,
        "Minimal pairs whose routes part",
        subtitle=f"percent of the pairs whose two inputs take different experts; {escape_html(data)}, pairs as said at "
        "each row",
        x="layer",
        height=165 + 26 * len(rows),
        legend=False,
    )


def _hover(part: pd.DataFrame) -> list[str]:
    return [
        f"<b>Layer {layer}</b><br>{row['parted']:.0f} of {row['n']:.0f} pairs part<br>{percent(row['share'])}, 95% "
        f"interval {percent(row['low'])} to {percent(row['high'])}<br>{_STRANGERS}: {percent(row['unpaired'])}"
        for layer, row in part.iterrows()
    ]


def in_words(frame: pd.DataFrame) -> str:
    """What the map shows of all pairs, as Markdown: where the difference within a pair turns routes about as often as
    any other difference does, and where least.
    """
    whole = frame[frame["slice"] == ALL]
    ratio = np.divide(
        whole["share"], whole["unpaired"], out=np.full(len(whole), np.nan), where=whole["unpaired"] > 0
    )
    if np.isnan(ratio).all():
        return "The inputs of all pairs take the same expert in every layer, so no routes part."
    most, least = whole.iloc[int(np.nanargmax(ratio))], whole.iloc[int(np.nanargmin(ratio))]

    def said(row: pd.Series) -> str:
        return (
            f"layer {row['layer']}, where {row['parted']:,} of {row['n']:,} part ({percent(row['share'])}, 95% "
            f"interval {100 * row['low']:.1f}–{100 * row['high']:.1f}%), {_STRANGERS} {percent(row['unpaired'])}"
        )

    text = f"Against {_STRANGERS}, pairs part most often in {said(most)}"
    return f"{text}." if most["layer"] == least["layer"] else f"{text}; least often in {said(least)}."


def pair_table(
    stats: UsageStats, layer: int, found: PairOutcomes, data: TextData
) -> tuple[pd.DataFrame, np.ndarray]:
    """The pairs whose routes part in a layer, one a row: slice, both texts, both experts, whether in order.

    Returns:
        The table, and of each row the numbers of both inputs in the data, `(rows, 2)`, in the texts' order.
    """
    low, high = found.pairs.T
    chosen = taken(stats, layer)
    apart = np.flatnonzero(chosen[low] != chosen[high])
    columns: dict[str, list] = {}
    if found.slices is not None:
        columns["slice"] = [found.slices[i].replace("_", " ") for i in apart]
    names = data.task.label_names if data.task.num_labels == 2 else ("smaller label", "greater label")
    heads = distinct(names[::-1], ("slice", "experts", "in order"))
    for which, head in zip((high, low), heads, strict=True):
        columns[head] = [" / ".join(data.texts[which[i]]) for i in apart]
    columns["experts"] = [f"{chosen[high[i]]}, {chosen[low[i]]}" for i in apart]
    columns["in order"] = ["yes" if found.ahead[i] else "no" for i in apart]
    return pd.DataFrame(columns), found.pairs[apart, ::-1]


def _listed(selection: Selection, stats: UsageStats, layer: int, found: PairOutcomes) -> None:
    data = selection.data
    table, numbers = pair_table(stats, layer, found, data)
    apart = len(table)
    if not apart:
        st.info(f"In layer {layer} the two inputs of every pair take the same expert.")
        return
    hits = int((table["in order"] == "yes").sum())
    rest, others = found.n - apart, found.in_order - hits
    beside = f"; of the other {rest:,}, {others:,}" if rest else ""
    st.markdown(
        f"**Layer {layer}**, the one picked above: routes part in {apart:,} of {found.n:,} pairs of "
        f"{escape(data.name)}. The model has {hits:,} of these {apart:,} in order{beside}. "
        "Pick a row to see both routes."
    )
    texts = [name for name in table.columns if name not in ("slice", "experts", "in order")]
    longest = max(int(table[name].str.len().max()) for name in texts)
    event = st.dataframe(
        table,
        key=f"pairs-{selection.checkpoint.fingerprint}-{data.fingerprint}-{layer}-{crc32(numbers.tobytes())}",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        width="stretch",
        height="content" if apart <= 8 else 420,
        row_height=row_height(longest, _TEXT_WIDTH, most=88),
        column_config={
            "slice": st.column_config.TextColumn(width=110),
            **{name: st.column_config.TextColumn(width=_TEXT_WIDTH) for name in texts},
            "experts": st.column_config.TextColumn(
                width=75, help=f"Of the two inputs, as they stand here; in layer {layer}"
            ),
            "in order": st.column_config.TextColumn(width=65, help=pair_views.what_they_are(data.task)),
        },
        alt=f"Minimal pairs whose routes part in layer {layer}",
    )
    if rows := [row for row in event.selection.rows if row < apart]:
        closer.links(data, numbers[rows[0]].tolist(), routed=True)
    downloads(table, "pair-list", f"{selection.name}-layer{layer}-pairs")
