"""Which experts the sides of the Compare page keep, where one of them or both are pruned."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from shrp.analysis.usage import UsageStats
from shrp.model.convert import num_experts_of
from shrp.pruning.overlap import covered, kept_alike
from ui.compare.maps import Map, side_by_side, usage_map
from ui.compare.sides import LETTERS, Side
from ui.compare.views import bases_of, numbering, same_base
from ui.downloads import downloads
from ui.lab.figures import kept_map
from ui.lab.outputs import plan_frame
from ui.text import escape, percent


def section(sides: Sequence[Side], stats: Sequence[UsageStats | None], name: str) -> None:
    """A map of each side, and a table of what both keep, or of how much of the routed side's choices the other keeps.

    Args:
        stats: of the side that routes; None for a pruned one.
    """
    bases = bases_of(sides)
    two = sides[0].choice.checkpoint.fingerprint != sides[1].choice.checkpoint.fingerprint
    if two and same_base(bases):
        st.info(numbering(bases), icon=":material/tag:")
    layers = sorted({layer for side, one in zip(sides, stats, strict=True) for layer in _layers(side, one)})
    maps = []
    for letter, side, one in zip(LETTERS, sides, stats, strict=True):
        if one is not None:
            largest = max(float(one.share(layer).max()) for layer in one.layers)
            maps.append(usage_map(letter, side, one, layers, largest))
        else:
            maps.append(_map(letter, side, layers))
    side_by_side(maps, len(layers), name)
    if two and not same_base(bases):
        st.caption(
            ":material/info: The bases differ or are not known, so expert numbers do not mean the same thing on both "
            "sides, and what is kept can't be held side by side."
        )
        return
    counts = [num_experts_of(side.choice.checkpoint.model) for side in sides]
    if counts[0] != counts[1]:
        st.caption(
            f":material/info: {counts[0]} and {counts[1]} experts a layer: what is kept can't be held side by side."
        )
        return
    if not set(_layers(sides[0], stats[0])) & set(_layers(sides[1], stats[1])):
        st.caption(":material/info: No layer has experts on both sides.")
        return
    if None not in (sides[0].plan, sides[1].plan):
        _both_pruned(sides, counts[0], name)
    else:
        _one_routed(sides, stats, name)


def _layers(side: Side, stats: UsageStats | None) -> list[int]:
    return stats.layers if stats is not None else [layer for layer, _ in side.plan.layers]


def _map(letter: str, side: Side, layers: Sequence[int]) -> Map:
    """One side's kept experts; rows are the layers of either side, so that both maps line up."""
    plan, experts = side.plan, num_experts_of(side.choice.checkpoint.model)
    fig = kept_map(plan, experts, measured=side.choice.text, further=layers, columns=2)
    fig.update_traces(textfont_size=9, selector={"type": "heatmap"})  # two maps beside each other are narrow
    names = [f"layer {layer}" for layer in layers]
    fig.update_yaxes(tickvals=names, ticktext=[str(layer) for layer in layers], title_text="layer")
    fig.data[1].colorbar.title.side = "right"
    fig.update_layout(title_text=fig.layout.title.text.replace("Kept experts", f"{letter}: kept experts", 1))
    kept = (f"layer {layer} keeps {', '.join(map(str, one.experts))}" for layer, one in plan.layers)
    return Map(fig, plan_frame(plan), "kept", f"{letter}: {'; '.join(kept)}")


def _both_pruned(sides: Sequence[Side], experts: int, name: str) -> None:
    frame = kept_alike(sides[0].plan, sides[1].plan, experts)
    total = frame.iloc[-1]
    st.markdown(
        f"A keeps {int(total['a'])} experts, B {int(total['b'])}, **{int(total['both'])}** of them both: an overlap "
        f"(Jaccard) of **{total['jaccard']:.2f}**, where random sets of these sizes have {total['chance']:.2f}. "
        "Experts of weight 0 are left out."
    )
    shown = pd.DataFrame(
        {
            "layer": frame["layer"],
            "A keeps": frame["a"],
            "B keeps": frame["b"],
            "both": frame["both"],
            "overlap (Jaccard)": frame["jaccard"].map("{:.2f}".format),
            "random sets": frame["chance"].map("{:.2f}".format),
            "distance of the weights": ["" if d != d else f"{d:.2f}" for d in frame["distance"]],
        }
    )
    st.dataframe(shown, hide_index=True, width="content", alt="Kept experts of both sides, layer by layer")
    st.caption(
        "Distance of the weights: total variation, 0 where both weigh the same experts alike, 1 where they have none "
        "in common. Sets are of the layers that both sides pruned."
    )
    downloads(frame, "kept-alike", f"{name}-kept")


def _one_routed(sides: Sequence[Side], stats: Sequence[UsageStats | None], name: str) -> None:
    place = next(i for i, one in enumerate(stats) if one is not None)
    routed, plan = stats[place], sides[1 - place].plan
    frame = covered(routed.shares(), plan)
    least = frame.loc[frame["covered"].idxmin()]
    ours, theirs = LETTERS[place], LETTERS[1 - place]
    st.markdown(
        f"**{percent(frame['covered'].mean())}** of {ours}'s Top-1 choices fall on experts that {theirs} keeps, as a "
        f"mean over layers; least in layer {int(least['layer'])} ({percent(least['covered'])}). {escape(routed.data)}, "
        f"n = {routed.n:,}."
    )
    shown = pd.DataFrame(
        {
            "layer": frame["layer"].astype(str),
            f"kept by {theirs}": frame["kept"],
            f"of {ours}'s choices": frame["covered"].map(percent),
            "if all experts were used equally": frame["even"].map(percent),
            "distance of weights and usage": frame["distance"].map("{:.2f}".format),
        }
    )
    st.dataframe(shown, hide_index=True, width="content", alt="How much of the usage the kept experts have")
    st.caption(
        f"Distance of weights and usage: total variation between {theirs}'s weights and {ours}'s usage, 0 where they "
        "are the same, 1 where they have no expert in common."
    )
    downloads(frame.assign(data=routed.data, n=routed.n), "covered", f"{name}-covered")
