"""How usage changed during training, epoch by epoch; needs no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.usage import effective_experts
from shrp.checkpoints.info import read_history
from shrp.phrases import counted
from ui.downloads import chart
from ui.state import Selection
from ui.text import escape_html
from ui.theme import MUTED, SELECTED, SEQUENTIAL, layout

_PANELS = 3
"""Small multiples a row."""


def section(selection: Selection) -> str:
    """Draw the tab; returns the page's headline."""
    checkpoint, training = selection.checkpoint, selection.checkpoint.info.training
    frame = training_frame(read_history(checkpoint.path))
    if frame.empty:
        missing = "This checkpoint has no training history; `python -m shrp train` writes one."
        st.info(missing, icon=":material/history:")
        return ""
    about = counted_on(frame, escape_html(str(training.get("validation_data", "validation data"))))
    if training.get("config", {}).get("balance", 1) != 0:
        st.markdown("Stage 1 converts the layers with a balance loss, which evens usage. Stage 2 drops it.")
    fig = usage_over_training(frame, subtitle=f"{about}; grey: not converted yet; line: stage 2")
    alt = "Top-1 share of every expert after each epoch, a panel for each layer."
    chart(fig, frame, "usage-history", f"{selection.name}-usage-over-training", alt)
    return headline(frame)


def headline(frame: pd.DataFrame) -> str:
    """How many experts a layer effectively uses at its conversion and at the end, as Markdown; `frame`: `training_frame`'s."""
    used = frame.groupby(["layer", "epoch"])["share"].agg(effective_experts).groupby("layer")
    last, first, layers = used.last().mean(), used.first().mean(), counted(used.ngroups, "layer")
    of = f"of {frame['expert'].max() + 1} experts"
    now, then = f"**{last:.1f}** {of} at the end of training", f"**{first:.1f}** at its conversion"
    return f"A layer effectively uses {now}, {then} (mean of {layers})."


def training_frame(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Usage over training: columns epoch, stage, layer, expert, share, texts, n; epochs without usage are left out.

    `texts`: of an epoch on unlabelled text how many it had; shares are of the last quarter of them. n: the validation
    examples of other epochs. Of an epoch that is there twice the later row counts.
    """
    rows = [
        (row["epoch"], row["stage"], int(layer), expert, share, row.get("texts"), row.get("validation_n"))
        for row in history
        for layer, shares in row.get("usage", {}).items()
        for expert, share in enumerate(shares)
    ]
    frame = pd.DataFrame(rows, columns=["epoch", "stage", "layer", "expert", "share", "texts", "n"])
    return frame.drop_duplicates(["epoch", "layer", "expert"], keep="last", ignore_index=True)


def counted_on(frame: pd.DataFrame, validation: str) -> str:
    """What the shares of `training_frame` are of; `validation` names the data that epochs on a task were validated on."""
    texts = frame["texts"].notna()
    parts = []
    if texts.any():
        sizes = sorted({int(size) for size in frame.loc[texts, "texts"]})
        size = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
        until = int(frame.loc[texts, "epoch"].max())
        parts.append(f"to epoch {until} on the last quarter of each epoch's {size} unlabelled texts")
    if not texts.all():
        counts = sorted({int(n) for n in frame.loc[~texts, "n"].dropna()})
        n = f", n = {' / '.join(f'{n:,}' for n in counts)}" if counts else ""
        parts.append(f"{'then ' if parts else ''}on {validation}{n}")
    return ", ".join(parts)


def usage_over_training(frame: pd.DataFrame, *, subtitle: str) -> go.Figure:
    """Small multiples: the Top-1 shares of each layer's experts, epoch by epoch."""
    table = frame.pivot(index=["layer", "expert"], columns="epoch", values="share")
    layers, experts = list(table.index.unique("layer")), list(range(int(frame["expert"].max()) + 1))
    table = table.reindex(pd.MultiIndex.from_product([layers, experts]))
    columns = min(_PANELS, len(layers))
    rows = math.ceil(len(layers) / columns)
    fig = px.imshow(
        table.to_numpy().reshape(len(layers), len(experts), -1),
        x=table.columns.tolist(),
        y=experts,
        facet_col=0,
        facet_col_wrap=columns,
        facet_row_spacing=0.15 / rows,
        aspect="auto",
        origin="lower",
        zmin=0,
        color_continuous_scale=SEQUENTIAL,
        labels={"x": "epoch", "y": "expert", "color": "Top-1 share"},
    )
    for trace, layer in zip(fig.data, layers, strict=True):
        trace.update(hovertemplate=f"Layer {layer}, expert %{{y}}, epoch %{{x}}: %{{z:.0%}}<extra></extra>", hoverongaps=False)
    fig.for_each_annotation(lambda note: note.update(text=f"layer {layers[int(note.text.split('=')[1])]}"))
    later = frame.loc[frame["stage"] == 2, "epoch"]
    if len(later) and (frame["stage"] == 1).any():
        for color, width in (("white", 4.5), (SELECTED, 1.5)):  # told from all colours by its white edges
            fig.add_vline(float(later.min()) - 0.5, line={"color": color, "width": width})
    margin = {"t": 113, "pad": 0}  # two lines of a subtitle, and the panels' titles
    title = "Top-1 share of every expert, epoch by epoch"
    layout(fig, title, subtitle=subtitle, height=158 + 150 * rows, margin=margin)
    fig.update_layout(coloraxis_colorbar={"tickformat": ".0%", "thickness": 12, "title": None}, plot_bgcolor=MUTED)
    fig.update_yaxes(range=[-0.5, len(experts) - 0.5])
    for column in range(len(layers) % columns or columns, columns):  # no panel below; rows count from the bottom
        fig.update_xaxes(title="epoch", showticklabels=True, row=2, col=column + 1)
    return fig.update_xaxes(dtick=max(1, len(table.columns) // 4), range=[table.columns.min() - 0.5, table.columns.max() + 0.5])
