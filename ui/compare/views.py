"""What the Compare page shows: the verdict, the ranked table, pairwise tests, and which experts both sides use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.routes import usage_distances
from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData, pairs_of
from shrp.errors import DataError
from shrp.evaluation.costs import TOKENS
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.model.convert import num_experts_of
from shrp.phrases import listed
from shrp.pruning.overlap import covered, kept_alike
from shrp.pruning.plan import PruningPlan
from ui import differences, measurements
from ui.compare.sides import LETTERS, Side
from ui.differences import Test
from ui.downloads import chart, downloads
from ui.expert_map import expert_map, plan_frame, weights_of
from ui.store import Progress, once
from ui.text import (
    ALPHA,
    escape,
    escape_html,
    interval_text,
    metric_name,
    p_text,
    percent,
    points,
    points_interval,
    score_text,
)

COSTS = {
    "encoder FLOPs": "encoder_flops",
    "encoder parameters": "encoder_params",
    "all parameters": "model_params",
}
DRAWS = 1000


def names_of(sides: Sequence[Side]) -> list[str]:
    """A letter and what the model is, for every model."""
    return [f"{chr(ord('A') + i)}: {side.choice.text}" for i, side in enumerate(sides)]


def verdict(sides: Sequence[Side]) -> str:
    """Which model is better, as Markdown."""
    a, b = sides[0].evaluation, sides[1].evaluation
    if a.labels is None:
        names = [f"{letter} ({escape(s.choice.text)})" for letter, s in zip(LETTERS, sides)]
        text = differences.agreement_text(b, a, names)
        return text or "These data have no labels, so no model is better on them."
    if len(sides) == 2:
        test = differences.test(a, b)
        return differences.verdict_of(test, escape(sides[0].choice.text), escape(sides[1].choice.text))
    best, *others = sorted(sides, key=lambda side: -side.evaluation.score)
    found = [differences.test(best.evaluation, side.evaluation) for side in others]
    # Where McNemar's test is not of the metric, the interval tells.
    apart = sum(
        one.p_value < ALPHA / len(others) if np.isfinite(one.p_value) else differences.is_clear(one.bounds)
        for one in found
    )
    one = best.evaluation
    return (
        f"**{escape(best.choice.text)} scores highest**: {metric_name(one.metric)} {score_text(one.score, one.metric)} "
        f"(95% CI {interval_text(one.interval, one.metric)}, n = {one.n:,}). {apart} of {len(others)} others score "
        f"significantly lower (corrected for {len(others)} tests)."
    )


def ranked(sides: Sequence[Side], name: str) -> None:
    """Draw all models, the best first, with the difference from it, and their costs.

    Args:
        name: of the file.
    """
    pairs = sorted(
        zip(names_of(sides), sides, strict=True),
        key=lambda pair: -np.nan_to_num(pair[1].evaluation.score, nan=-np.inf),
    )
    best, rows, shown = pairs[0][1].evaluation, [], []
    metric = best.metric
    for rank, (model, side) in enumerate(pairs, 1):
        one = side.evaluation
        row, cells = {"rank": rank, "model": model}, {"model": escape(model)}
        if one.labels is not None:
            row |= {"score": one.score, "low": one.interval[0], "high": one.interval[1]}
            cells |= {
                metric_name(metric): score_text(one.score, metric),
                "95% CI": interval_text(one.interval, metric),
            }
            cells |= {"minus the best": "", "McNemar": ""}
            if rank > 1:
                found = differences.test(best, one)
                row |= {
                    "behind": found.difference,
                    "behind low": found.bounds[0],
                    "behind high": found.bounds[1],
                }
                row["p"] = found.p_value
                cells |= {"minus the best": _change(found, metric), "McNemar": p_text(found.p_value)}
        rows.append(row | {"n": one.n} | side.costs)
        shown.append(cells | {title: percent(side.costs[column]) for title, column in COSTS.items()})
    st.table(pd.DataFrame(shown), hide_index=True, alt="All models, the best first")
    st.caption(
        f"n = {best.n:,}. Costs are shares of each model's own dense architecture, at {TOKENS} tokens."
    )
    downloads(pd.DataFrame(rows).assign(data=best.data, metric=metric), "ranked", f"{name}-ranked")


def _change(found: Test, metric: str) -> str:
    """A difference with its interval, where it has one."""
    ends = f" ({points_interval(found.bounds, metric)})" if np.isfinite(found.bounds[0]) else ""
    return points(found.difference, metric) + ends


def tests(sides: Sequence[Side], data: TextData) -> None:
    """Draw who of A and B is right where, with McNemar's test, and of further models a row a pair."""
    if data.labels is None:
        st.info("These data have no labels, so nothing is right or wrong.")
        return
    looked = st.session_state.setdefault("compared", {}).setdefault(data.source_fingerprint, set())
    looked |= {frozenset((a.key, b.key)) for a, b in combinations(sides, 2)}
    pairs = list(combinations(zip(names_of(sides), sides, strict=True), 2))
    if len(pairs) > 1:
        rows = []
        for (first, a), (second, b) in pairs:
            found = differences.test(a.evaluation, b.evaluation)
            rows.append(
                {
                    "pair": f"{second[0]} − {first[0]}",
                    "difference": points(found.difference, found.metric),
                    "95% CI": points_interval(found.bounds, found.metric),
                    "McNemar": p_text(found.p_value),
                    "corrected": p_text(min(1.0, found.p_value * len(pairs))),
                }
            )
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="content", alt="Paired tests of all pairs")
    counts = differences.test(sides[0].evaluation, sides[1].evaluation).counts
    if counts is not None:
        cells = [[counts.both, counts.only_a], [counts.only_b, counts.neither]]
        frame = pd.DataFrame(cells, index=["A right", "A wrong"], columns=["B right", "B wrong"])
        st.table(frame.map(lambda n: f"{n:,} ({percent(n / counts.n)})"), width="content")
        st.caption(
            f"McNemar's exact test: {p_text(counts.p_value)}, on the {counts.only_a + counts.only_b:,} of "
            f"{counts.n:,} examples that only one model predicts correctly."
        )
    many = len(looked)
    limit = f" Count only p < {ALPHA / many:.2g} as a difference (Bonferroni)." if many > 1 else ""
    st.caption(
        f"{many} comparison{'s' * (many > 1)} so far in this session on these data.{limit} A model picked because it "
        "scored best here is flattered by these data: confirm it on others."
    )


# Which experts both sides use


def experts(sides: Sequence[Side], data: TextData, name: str) -> None:
    """Draw what A and B route to or keep, and how far that is the same, layer by layer."""
    without = [letter for letter, s in zip(LETTERS, sides) if not s.choice.routes and s.plan is None]
    if without:
        have = "has" if len(without) == 1 else "have"
        st.info(f"{listed(without)} {have} no experts: pick a routed checkpoint as it is, or a pruning.")
        return
    a, b = sides[:2]
    usage = [measurements.usage_stats(side.read, data) if side.plan is None else None for side in (a, b)]
    same = _numbering(a, b)
    layers = [
        one.layers if one is not None else list(side.plan.keep_counts()) for side, one in zip(sides, usage)
    ]
    for place, letter, side, one in zip(st.columns(2, gap="medium"), LETTERS, sides, usage):
        with place:
            _map(letter, side, one, sorted({*layers[0], *layers[1]}), name)
    counts = [num_experts_of(side.choice.checkpoint.model) for side in (a, b)]
    if counts[0] != counts[1] or not set(layers[0]) & set(layers[1]):
        st.caption(
            "The two have no layer with equally many experts, so experts cannot be compared by number."
        )
    elif None not in usage:
        _distances(a, b, usage, data, name)
    elif same and a.plan is not None and b.plan is not None:
        _both_pruned(a.plan, b.plan, counts[0], name)
    elif same:
        routed = 0 if a.plan is None else 1
        _one_routed(LETTERS[routed], LETTERS[1 - routed], usage[routed], sides[1 - routed].plan, name)


def _numbering(a: Side, b: Side) -> bool:
    """Say what expert numbers mean between the two; returns whether they mean the same."""
    first, second = (side.choice.checkpoint.info.base_model for side in (a, b))
    one_checkpoint = a.choice.checkpoint.fingerprint == b.choice.checkpoint.fingerprint
    if first and first == second:
        if not one_checkpoint:
            st.caption(
                f"Both were converted from {escape(first)}: expert *h* starts as attention head *h* in both, as far as "
                "their dense teachers have the same weights."
            )
        return True
    named = " and ".join(escape(base) if base else "an unnamed model" for base in (first, second))
    text = f"Converted from {named}: the same expert number does not mean the same thing."
    st.warning(text, icon=":material/tag:")
    return one_checkpoint


def _map(letter: str, side: Side, stats: UsageStats | None, layers: Sequence[int], name: str) -> None:
    count = num_experts_of(side.choice.checkpoint.model)
    if stats is None:
        values, frame, top = weights_of(side.plan, count), plan_frame(side.plan), 1.0
        title, unit, under = "kept experts", "weight", f"{side.plan.budget} experts; grey: not kept"
    else:
        values, frame = stats.shares(), stats.to_frame()
        title, unit, top = "Top-1 share", "share", max(float(share.max()) for share in values.values())
        under = f"{escape_html(stats.data)}, n = {stats.n:,}; equal use would be {percent(1 / count)}"
    under, title = f"{escape_html(side.choice.text)}<br>{under}", f"{letter}: {title}"
    fig = expert_map(values, count, title, under, unit, further=layers, top=top, columns=2)
    words = "; ".join(
        f"layer {layer}: expert {int(np.nanargmax(row))} has {percent(float(np.nanmax(row)))}"
        for layer, row in values.items()
    )
    chart(fig, frame, f"experts-{letter}", f"{name}-experts-{letter}", f"{title}. Largest: {words}")


def _both_pruned(a: PruningPlan, b: PruningPlan, count: int, name: str) -> None:
    frame = kept_alike(a, b, count)
    total = frame.iloc[-1]
    st.markdown(
        f"A keeps {int(total['a'])} experts, B {int(total['b'])}, both **{int(total['both'])}**: an overlap (Jaccard) of "
        f"**{total['jaccard']:.2f}**, random sets {total['chance']:.2f}."
    )
    heads = {"a": "A keeps", "b": "B keeps", "jaccard": "overlap", "chance": "random sets"}
    _layers_table(frame, heads, "Kept experts of both, layer by layer")
    st.caption("Distance: total variation of the weights. Experts of weight 0 are left out.")
    downloads(frame, "kept-alike", f"{name}-kept")


def _one_routed(routed: str, pruned: str, usage: UsageStats, plan: PruningPlan, name: str) -> None:
    frame = covered(usage.shares(), plan)
    least = frame.loc[frame["covered"].idxmin()]
    st.markdown(
        f"**{percent(frame['covered'].mean())}** of {routed}'s Top-1 choices fall on experts that {pruned} keeps (mean "
        f"over layers); least in layer {int(least['layer'])}, {percent(least['covered'])}."
    )
    heads = {"covered": f"of {routed}'s choices", "even": "at equal use"}
    _layers_table(frame, heads, "How much of the usage the kept experts have")
    downloads(frame.assign(data=usage.data, n=usage.n), "covered", f"{name}-covered")


def _distances(a: Side, b: Side, usage: Sequence[UsageStats], data: TextData, name: str) -> None:
    """The total-variation distance of usage a layer, with its permutation test."""
    key = (a.read.fingerprint, b.read.fingerprint, data.fingerprint, data.pairs)

    def work(progress: Progress) -> pd.DataFrame:
        return usage_distances(*usage, pairs=pairs_of(data), draws=DRAWS, progress=progress)

    try:
        frame = once("usage distances", 16, key, "Comparing usage", work)
    except DataError as error:
        st.caption(f":material/info: {escape(str(error))}")
        return
    furthest = frame.loc[frame["distance"].idxmax()]
    clear = frame.loc[frame["q"] <= FALSE_DISCOVERIES, "layer"].astype(str).tolist()
    tested = f" Significant in layer{'s' * (len(clear) > 1)} {listed(clear)}." if clear else ""
    if usage[0].unit == usage[1].unit and not clear:
        tested = " No significant difference in any layer."
    st.markdown(
        f"Usage differs most in layer {int(furthest['layer'])}: total-variation distance "
        f"**{furthest['distance']:.2f}**.{tested}"
    )
    heads = {"chance": "by chance", "renumbered": "at the best renumbering"}
    _layers_table(frame.drop(columns="p"), heads, "Distance of usage in each layer")
    st.caption(
        f"0: the same usage, 1: no expert in common. By chance: mean of {DRAWS:,} draws of a permutation test; "
        f"q: its p-value adjusted for all layers (Benjamini-Hochberg), significant at {FALSE_DISCOVERIES:g} or less."
    )
    downloads(frame.assign(data=usage[0].data, n=usage[0].n), "distances", f"{name}-usage-distance")


def _layers_table(frame: pd.DataFrame, heads: dict[str, str], alt: str) -> None:
    st.dataframe(frame.rename(columns=heads).round(3), hide_index=True, width="content", alt=alt)
