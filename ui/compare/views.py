"""What the Compare page shows of its two sides: scores, costs, and expert usage."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from shrp.analysis.routes import usage_distances
from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData, pairs_of
from shrp.errors import DataError
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.phrases import listed
from ui.compare.maps import side_by_side, usage_map
from ui.compare.own import Model, pruned_to
from ui.compare.sides import LETTERS, PRUNED, TEACHER, Side
from ui.downloads import downloads
from ui.store import once
from ui.text import count, escape, interval_text, metric_name, other_metrics, percent, score_text

COSTS = {
    "encoder parameters": "encoder_params",
    "encoder FLOPs": "encoder_flops",
    "whole-model parameters": "model_params",
    "whole-model FLOPs": "model_flops",
}
DRAWS = 1000


def score_card(letter: str, side: Side, floor: str) -> None:
    """A side's score with its interval, n and data, and what a constant answer has there, in words."""
    one = side.evaluation
    name = metric_name(one.metric)
    st.metric(f"{letter}: {name}", score_text(one.score, one.metric))
    bounds = interval_text(one.interval, one.metric)
    seen = f"n = {one.n:,}, {escape(one.data)}"
    without = "no labels, so no score; " if one.labels is None else ""
    also = "" if one.labels is None else other_metrics(one.metrics, one.metric)
    st.caption(
        f"{f'95% interval {bounds}, ' if bounds else without}{seen}"
        f"{f'; {floor}' * bool(floor)}{f'; {also}' * bool(also)}<br>{escape(side.choice.text)}",
        unsafe_allow_html=True,
    )


def model_of(letter: str, side: Side) -> Model:
    """What explains a side's answers: its model, or nothing of a dense teacher whose outputs came along."""
    if side.choice.kind == TEACHER:
        return Model(letter, None)
    if side.choice.kind == PRUNED:
        return Model(letter, lambda: pruned_to(side.read, side.plan))
    return Model(letter, lambda: side.read)


def costs_frame(sides: Sequence[Side]) -> pd.DataFrame:
    """One row a cost: columns cost, and of A and B the value, its dense denominator and the share; B over A."""
    rows = []
    for name, field in COSTS.items():
        row: dict[str, object] = {"cost": name}
        for letter, side in zip(LETTERS, sides, strict=True):
            value, dense = getattr(side.cost, field), getattr(side.dense, field)
            row |= {letter: value, f"{letter} dense": dense, f"{letter} share of dense": value / dense}
        rows.append(row | {"B / A": row["B"] / row["A"] if row["A"] else float("nan")})  # all layers dropped
    return pd.DataFrame(rows)


def costs(sides: Sequence[Side], name: str) -> None:
    """Sizes and work of both sides, each as a share of its own dense model."""
    st.header("What they cost")
    frame = costs_frame(sides)
    shown = pd.DataFrame({"cost": frame["cost"]})
    for letter in LETTERS:
        shown[letter] = [
            f"{count(row[letter])}, {percent(row[f'{letter} share of dense'])} of {count(row[f'{letter} dense'])}"
            for _, row in frame.iterrows()
        ]
    shown["B ÷ A"] = frame["B / A"].map(percent)
    st.dataframe(shown, hide_index=True, width="stretch", alt="Parameters and FLOPs of both sides")
    st.caption(
        "Each share is of the same architecture with every layer dense. FLOPs are for one input of "
        f"{sides[0].cost.tokens} tokens, 2 for each multiply-accumulate of a matrix product; the encoder is the "
        "stack of layers without embeddings and head. A routed layer counts the experts that it computes for an input, "
        "so a pruning that keeps several can do more work than one expert by routing."
    )
    downloads(frame, "costs", f"{name}-costs")


def no_experts(sides: Sequence[Side]) -> str:
    """Why there are no experts to hold side by side, as Markdown; empty where there are."""
    without = [
        letter
        for letter, side in zip(LETTERS, sides, strict=True)
        if not side.choice.routes and side.plan is None
    ]
    if not without:
        return ""
    who = " and ".join(without) + (" have" if len(without) == 2 else " has")
    return (
        f"{who} no experts that are picked or kept, so there are none to hold side by side. Set both sides to a routed "
        "checkpoint as it is, or to a pruning, to see which experts each uses."
    )


def bases_of(sides: Sequence[Side]) -> tuple[str, str]:
    """What the sides' models were converted from; empty where that is not known."""
    a, b = (side.choice.checkpoint.info.base_model for side in sides)
    return a, b


def same_base(bases: tuple[str, str]) -> bool:
    """Whether both were converted from the same model, as far as that is known."""
    return bool(bases[0]) and bases[0] == bases[1]


def numbering(bases: tuple[str, str]) -> str:
    """What the experts' numbers mean between two models, as Markdown."""
    if same_base(bases):
        return (
            f"Both were converted from {escape(bases[0])}, where expert *h* of a layer starts as attention head *h*. "
            "The same number means the same thing as far as both start from the same weights and training left it so; "
            "two dense teachers fine-tuned apart, or retrained experts, weaken that."
        )
    named = " and ".join(escape(base) if base else "an unnamed base" for base in bases)
    return (
        f"The bases differ or are not known ({named}), so **expert numbers do not mean the same thing** on "
        "both sides, and neither need layer numbers: read the distances by number as arbitrary, and those at the best "
        "renumbering as how unlike the shapes of usage are."
    )


def usage(sides: Sequence[Side], stats: Sequence[UsageStats], data: TextData, name: str) -> None:
    """Both usage maps on one scale, and the distance of each layer.

    Args:
        stats: of both sides, on `data`.
    """
    a, b = stats
    bases = bases_of(sides)
    (st.info if same_base(bases) else st.warning)(numbering(bases), icon=":material/tag:")
    layers = sorted({*a.layers, *b.layers})
    top = max(*(float(one.share(layer).max()) for one in stats for layer in one.layers), 2 / a.num_experts)
    maps = [
        usage_map(letter, side, one, layers, top)
        for letter, side, one in zip(LETTERS, sides, stats, strict=True)
    ]
    side_by_side(maps, len(layers), name)
    distances(sides, stats, data, bases, name)


def distances(
    sides: Sequence[Side], stats: Sequence[UsageStats], data: TextData, bases: tuple[str, str], name: str
) -> None:
    """The total-variation distance a layer, beside what chance makes of it, as a table and a sentence."""
    a, b = stats
    pairs = pairs_of(data)
    key = (*(side.read.fingerprint for side in sides), data.fingerprint, data.pairs)
    try:
        frame = once(
            "usage distances",
            16,
            key,
            "Comparing usage",
            lambda progress: usage_distances(a, b, pairs=pairs, draws=DRAWS, progress=progress),
        )
    except DataError as error:
        st.caption(f":material/info: {escape(str(error))}")
        return
    if frame.empty:
        st.caption(":material/info: No layer is routed on both sides, so there is no distance to give.")
        return
    furthest, mixed = frame.loc[frame["distance"].idxmax()], a.unit != b.unit
    beyond = frame.loc[frame["q"] <= FALSE_DISCOVERIES, "layer"].astype(str).tolist()
    said = (
        f"Beyond chance in layer{'s' * (len(beyond) > 1)} {listed(beyond)}"
        if beyond
        else "Nowhere beyond chance"
    )
    st.markdown(
        f"Furthest apart of {len(frame)} in layer {int(furthest['layer'])}: a total-variation distance of "
        f"**{furthest['distance']:.2f}**, where {percent(furthest['distance'])} of the Top-1 choices would have to "
        f"fall on other experts for the shares to be equal"
        + ("" if mixed else f" (by chance {furthest['chance']:.2f}, q {furthest['q']:.3f}). {said}")
        + f". {escape(a.data)}, n = {a.n:,}."
    )
    shown = pd.DataFrame(
        {
            "layer": frame["layer"].astype(str),
            "distance": frame["distance"].map("{:.3f}".format),
            "by chance": ["–" if value != value else f"{value:.3f}" for value in frame["chance"]],
            "q": ["–" if value != value else f"{value:.3f}" for value in frame["q"]],
            "at the best renumbering": frame["renumbered"].map("{:.3f}".format),
        }
    )
    st.dataframe(
        shown, hide_index=True, width="content", alt="Total-variation distance of usage in each layer"
    )
    together = ", both of a minimal pair together" if len(pairs) else ""
    how = (
        " One side counts inputs and the other tokens: the distance is between shares of different things, and what "
        "chance makes of it can't be said."
        if mixed
        else f" By chance: its mean in {DRAWS:,} draws in which each input's two choices change sides at random"
        f"{together}, since a distance is above 0 of equal models too; q: how often it is as large, adjusted for all "
        f"layers (Benjamini and Hochberg), beyond chance at {FALSE_DISCOVERIES:g} or less."
    )
    st.caption(
        "Total-variation distance of the Top-1 shares: 0 is the same usage, 1 is no expert in common. The last column "
        f"ignores the numbers of experts.{how}"
    )
    downloads(
        frame.assign(a_base=bases[0], b_base=bases[1], data=a.data, n=a.n),
        "distances",
        f"{name}-usage-distance",
    )
