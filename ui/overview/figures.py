"""Figures of the Overview page: what the layers are, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from shrp.checkpoints.info import CheckpointInfo
from ui.text import count, escape_html, percent
from ui.theme import BLUE, GREEN, GREY, HOVER, MUTED, layout

if TYPE_CHECKING:
    from shrp.evaluation.costs import Cost

_STATES = {  # state -> (legend, fill, outline)
    "dense": ("dense layer, not converted", GREY, GREY),
    "expert": ("expert behind a router", BLUE, BLUE),
    "kept": ("expert kept", GREEN, GREEN),
    "removed": ("expert removed", "rgba(0,0,0,0)", GREY),
}


def layer_frame(info: CheckpointInfo, num_layers: int, num_experts: int) -> pd.DataFrame:
    """What each layer is made of: a row an expert (a row a layer for dense ones).

    Columns layer, state, expert, share (Top-1 share on validation data, where known), weight (in a pruned layer).
    """
    plans = dict(info.plan.layers) if info.plan else {}
    rows = [
        (layer, "dense", None, None, None) for layer in range(num_layers) if layer not in info.config.layers
    ]
    for layer in info.config.layers:
        shares, plan = info.usage.get(str(layer)) or [None] * num_experts, plans.get(layer)
        weights = dict(zip(plan.experts, plan.weights)) if plan else {}
        for expert in range(num_experts):
            state = "expert" if not plan else "kept" if expert in weights else "removed"
            rows.append((layer, state, expert, shares[expert], weights.get(expert)))
    rows.sort(key=lambda row: row[0])
    return pd.DataFrame(rows, columns=["layer", "state", "expert", "share", "weight"])


def layer_strip(frame: pd.DataFrame, num_experts: int, *, validation: str) -> go.Figure:
    """The encoder from its input (left) to its output: one column a layer, one block an expert."""
    fig = go.Figure()
    for state, (legend, fill, outline) in _STATES.items():
        part = frame[frame["state"] == state]
        if part.empty:
            continue
        whole = state == "dense"
        fig.add_bar(
            x=part["layer"].tolist(),
            base=[0] * len(part) if whole else part["expert"].astype(int).tolist(),
            y=[num_experts if whole else 0.86] * len(part),
            width=0.82,
            name=legend,
            marker={"color": fill, "line": {"color": outline, "width": 1}, "cornerradius": 2},
            hovertext=[_block_text(row, num_experts, validation) for row in part.itertuples()],
            **HOVER,
        )
    fig.update_layout(barmode="overlay")
    last = int(frame["layer"].max())
    fig.update_xaxes(tickvals=list(range(last + 1)), range=[-0.6, last + 0.6], showgrid=False, zeroline=False)
    ticks = sorted({0, num_experts // 2, num_experts - 1})
    fig.update_yaxes(tickvals=[t + 0.43 for t in ticks], ticktext=ticks, showgrid=False, zeroline=False)
    return layout(
        fig,
        "The encoder, layer by layer",
        subtitle=f"{last + 1} layers of {num_experts} heads; each an expert where converted",
        x="layer, from the input (0) to the output",
        y="expert (head)",
        height=330,
        legend=True,
    )


def layer_alt(frame: pd.DataFrame) -> str:
    """What `layer_strip` shows, in words."""
    layers = (f"{layer} {rows['state'].iloc[0]}" for layer, rows in frame.groupby("layer"))
    return f"The layers from input to output: {', '.join(layers)}"


def _block_text(row: Any, num_experts: int, validation: str) -> str:
    if row.state == "dense":
        return f"<b>Layer {row.layer}</b>: dense<br>{num_experts} heads and a feed-forward network"
    known = [f"<b>Layer {row.layer}, expert {int(row.expert)}</b>: {_STATES[row.state][0]}"]
    if not pd.isna(row.share):
        known.append(f"Top-1 share {percent(row.share)} on {escape_html(validation)}")
    if not pd.isna(row.weight):
        known.append(f"weight {row.weight:.3f} in the pruned layer")
    return "<br>".join(known)


def cost_frame(cost: Cost, dense: Cost, tokens: int) -> pd.DataFrame:
    """Four figures against the dense model: columns what, denominator, value, dense, kept (a share of 1), tokens."""
    rows = []
    for what, name in (("parameters", "params"), ("FLOPs", "flops")):
        for of, part in (("encoder", "encoder"), ("whole model", "model")):
            rows.append((what, of, getattr(cost, f"{part}_{name}"), getattr(dense, f"{part}_{name}")))
    frame = pd.DataFrame(rows, columns=["what", "denominator", "value", "dense"])
    return frame.assign(kept=frame["value"] / frame["dense"], tokens=tokens)


def cost_alt(frame: pd.DataFrame) -> str:
    """The shares that `cost_bars` shows, in words."""
    return "; ".join(f"{row.what}, {row.denominator}: {percent(row.kept)}" for row in frame.itertuples())


def cost_bars(frame: pd.DataFrame) -> go.Figure:
    """How much of the dense model is left, by denominator."""
    names = [f"{row.what}, {row.denominator}" for row in frame.itertuples()]
    texts = [f"{percent(row.kept)}  ·  {count(row.value)} of {count(row.dense)}" for row in frame.itertuples()]
    fig, bar = go.Figure(), {"y": names, "orientation": "h", "width": 0.46}
    fig.add_bar(
        **bar,
        x=[100] * len(frame),
        marker={"color": MUTED},
        customdata=frame["dense"],
        hovertemplate="%{y}: %{customdata:,} in the dense model<extra></extra>",
    )
    fig.add_bar(
        **bar,
        x=100 * frame["kept"],
        marker={"color": BLUE},
        customdata=frame["value"],
        hovertemplate="%{y}: %{customdata:,}, %{x:.1f}% of the dense model<extra></extra>",
    )
    for name, text in zip(names, texts):
        place = {"x": 0, "y": name, "xanchor": "left", "yshift": 20}
        fig.add_annotation(text=text, showarrow=False, font={"size": 13}, **place)
    fig.update_layout(barmode="overlay")
    top = max(105.0, 104 * float(frame["kept"].max()))
    fig.update_xaxes(range=[0, top], ticksuffix="%", zeroline=False)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    tokens = int(frame["tokens"].iloc[0])
    return layout(
        fig,
        "Cost against the dense model",
        subtitle=f"grey: the dense model; FLOPs of matrix products,<br>one example of {tokens} tokens",
        x="share of the dense model",
        height=330,
        legend=False,
    )
