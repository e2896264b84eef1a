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
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.model.convert import num_experts_of
from shrp.phrases import listed
from shrp.pruning.overlap import covered, kept_alike
from ui import differences, measurements
from ui.compare.sides import LETTERS, Side
from ui.differences import Test
from ui.downloads import chart, downloads
from ui.expert_map import expert_map, weights_of
from ui.store import once
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

DRAWS = 1000


def names_of(sides: Sequence[Side]) -> list[str]:
    """A letter and what the model is, for every model."""
    return [f"{chr(ord('A') + i)}: {side.choice.text}" for i, side in enumerate(sides)]


def verdict(sides: Sequence[Side]) -> str:
    """Which model is better, as Markdown."""
    a, b = sides[0].evaluation, sides[1].evaluation
    if a.labels is None:
        said = differences.agreement_text(
            b, a, [f"{letter} ({escape(s.choice.text)})" for letter, s in zip(LETTERS, sides)]
        )
        return said or "These data have no labels, so no model is better on them."
    if len(sides) == 2:
        found = differences.test(a, b)
        return differences.verdict_of(found, escape(sides[0].choice.text), escape(sides[1].choice.text))
    ranked = sorted(sides, key=lambda side: -side.evaluation.score)
    best, others = ranked[0], ranked[1:]
    apart = sum(_differs(differences.test(best.evaluation, one.evaluation), len(others)) for one in others)
    one = best.evaluation
    return (
        f"**{escape(best.choice.text)} ranks first of {len(sides)}**, {metric_name(one.metric)} "
        f"{score_text(one.score, one.metric)} (95% CI {interval_text(one.interval, one.metric)}, n = {one.n:,}). "
        f"{apart} of {len(others)} others score significantly lower (corrected for {len(others)} tests)."
    )


def _differs(found: Test, tests: int) -> bool:
    """Whether a difference is significant: by McNemar's test, corrected, or where that is not of the metric, by the
    interval.
    """
    if np.isfinite(found.p_value):
        return found.p_value < ALPHA / tests
    return differences.is_clear(found.bounds)


def ranked(sides: Sequence[Side], name: str) -> pd.DataFrame:
    """Draw all models, the best first, with the difference from it, and their costs; returns the table.

    Args:
        name: of the file.
    """
    names = names_of(sides)
    order = sorted(range(len(sides)), key=lambda i: -np.nan_to_num(sides[i].evaluation.score, nan=-np.inf))
    best, rows = sides[order[0]].evaluation, []
    for rank, i in enumerate(order, 1):
        side, one = sides[i], sides[i].evaluation
        row: dict[str, object] = {"rank": rank, "model": names[i]}
        if one.labels is not None:
            row |= {"score": one.score, "low": one.interval[0], "high": one.interval[1]}
            found = differences.test(best, one) if i != order[0] else None
            row |= {"behind": found and found.difference, "behind low": found and found.bounds[0]}
            row |= {"behind high": found and found.bounds[1], "p": found and found.p_value}
        rows.append(row | {"n": one.n} | side.cost.relative_to(side.dense))
    frame = pd.DataFrame(rows)
    metric, shown = best.metric, pd.DataFrame({"model": frame["model"]})
    if best.labels is not None:
        shown[metric_name(metric)] = [score_text(value, metric) for value in frame["score"]]
        shown["95% CI"] = [
            interval_text(ends, metric) for ends in zip(frame["low"], frame["high"], strict=True)
        ]
        shown["minus the best"] = [_change(row, metric) for row in rows]
        shown["McNemar"] = ["" if row["p"] is None else p_text(row["p"]) for row in rows]
    for title, column in (
        ("encoder FLOPs", "encoder_flops"),
        ("encoder parameters", "encoder_params"),
        ("all parameters", "model_params"),
    ):
        shown[title] = [percent(share) for share in frame[column]]
    st.dataframe(shown, hide_index=True, width="stretch", alt="All models, the best first")
    st.caption(
        f"n = {best.n:,}. Costs are shares of each model's own dense architecture, at {sides[0].cost.tokens} tokens."
    )
    downloads(frame.assign(data=best.data, metric=metric), "ranked", f"{name}-ranked")
    return frame


def _change(row: dict, metric: str) -> str:
    if row["behind"] is None:
        return ""
    ends = row["behind low"], row["behind high"]
    return points(row["behind"], metric) + (
        f" ({points_interval(ends, metric)})" if np.isfinite(ends[0]) else ""
    )


def tests(sides: Sequence[Side], data: TextData) -> None:
    """Draw the paired test of A and B, and of further models a row a pair."""
    if data.labels is None:
        st.info("These data have no labels, so nothing is right or wrong.")
        return
    looked = st.session_state.setdefault("compared", {}).setdefault(data.source_fingerprint, set())
    looked |= {frozenset((a.key, b.key)) for a, b in combinations(sides, 2)}
    if len(sides) > 2:
        letters, rows, count = (
            [n[0] for n in names_of(sides)],
            [],
            len(list(combinations(sides, 2))),
        )
        for (i, a), (j, b) in combinations(enumerate(sides), 2):
            found = differences.test(a.evaluation, b.evaluation)
            rows.append(
                {
                    "pair": f"{letters[j]} − {letters[i]}",
                    "difference": points(found.difference, found.metric),
                    "95% CI": points_interval(found.bounds, found.metric),
                    "McNemar": p_text(found.p_value),
                    "corrected": p_text(min(1.0, found.p_value * count)),
                }
            )
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="content", alt="Paired tests of all pairs")
    a, b = sides[:2]
    differences.paired_test(differences.test(a.evaluation, b.evaluation), LETTERS, len(looked))


# Which experts both sides use


def experts(sides: Sequence[Side], data: TextData, name: str) -> None:
    """Draw what A and B route to or keep, and how far that is alike, layer by layer."""
    sides = sides[:2]
    without = [letter for letter, s in zip(LETTERS, sides) if not s.choice.routes and s.plan is None]
    if without:
        st.info(
            f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no experts: pick a routed checkpoint "
            "as it is, or a pruning."
        )
        return
    stats = [measurements.usage_stats(side.read, data) if side.plan is None else None for side in sides]
    same = _numbering(sides)
    layers = sorted({layer for side, one in zip(sides, stats) for layer in _layers(side, one)})
    for place, letter, side, one in zip(st.columns(2, gap="medium"), LETTERS, sides, stats, strict=True):
        with place:
            _map(letter, side, one, layers, name)
    counts = [num_experts_of(side.choice.checkpoint.model) for side in sides]
    shared = set(_layers(sides[0], stats[0])) & set(_layers(sides[1], stats[1]))
    if counts[0] != counts[1] or not shared:
        st.caption(
            "The two have no layer with equally many experts, so there is nothing to compare number by number."
        )
    elif None not in stats:
        _distances(sides, stats, data, name)
    elif same and stats[0] is None and stats[1] is None:
        _both_pruned(sides, counts[0], name)
    elif same:
        _one_routed(sides, stats, name)


def _layers(side: Side, stats: UsageStats | None) -> list[int]:
    return stats.layers if stats is not None else [layer for layer, _ in side.plan.layers]


def _numbering(sides: Sequence[Side]) -> bool:
    """Say what expert numbers mean between the two; returns whether they mean the same."""
    a, b = (side.choice.checkpoint.info.base_model for side in sides)
    if a and a == b:
        if sides[0].choice.checkpoint.fingerprint != sides[1].choice.checkpoint.fingerprint:
            st.caption(
                f"Both were converted from {escape(a)}: expert *h* starts as attention head *h* in both, as far as "
                "their dense teachers have the same weights."
            )
        return True
    named = " and ".join(escape(base) if base else "an unnamed model" for base in (a, b))
    st.warning(
        f"Converted from {named}: the same expert number does not mean the same thing.", icon=":material/tag:"
    )
    return sides[0].choice.checkpoint.fingerprint == sides[1].choice.checkpoint.fingerprint


def _map(letter: str, side: Side, stats: UsageStats | None, layers: Sequence[int], name: str) -> None:
    of, count = escape_html(side.choice.text), num_experts_of(side.choice.checkpoint.model)
    if stats is None:
        values, frame = weights_of(side.plan, count), None
        title, unit, top = f"{letter}: kept experts", "weight", 1.0
        under = f"{side.plan.budget} experts; grey: not kept"
    else:
        values, frame = {layer: stats.share(layer) for layer in stats.layers}, stats.to_frame()
        title, unit = f"{letter}: Top-1 share", "share"
        top = max(float(share.max()) for share in values.values())
        under = f"{escape_html(stats.data)}, n = {stats.n:,}; equal use would be {percent(1 / count)}"
    fig = expert_map(values, count, title, f"{of}<br>{under}", unit, further=layers, top=top, columns=2)
    frame = (
        pd.DataFrame(
            [(layer, e, v) for layer, row in values.items() for e, v in enumerate(row) if v == v],
            columns=["layer", "expert", unit],
        )
        if frame is None
        else frame
    )
    words = "; ".join(
        f"layer {layer}: expert {int(np.nanargmax(row))} has {percent(float(np.nanmax(row)))}"
        for layer, row in values.items()
    )
    chart(fig, frame, f"experts-{letter}", f"{name}-experts-{letter}", f"{title}. Largest: {words}")


def _both_pruned(sides: Sequence[Side], count: int, name: str) -> None:
    frame = kept_alike(sides[0].plan, sides[1].plan, count)
    total = frame.iloc[-1]
    st.markdown(
        f"A keeps {int(total['a'])} experts, B {int(total['b'])}, both **{int(total['both'])}**: an overlap (Jaccard) of "
        f"**{total['jaccard']:.2f}**, random sets {total['chance']:.2f}."
    )
    shown = frame.rename(
        columns={"a": "A keeps", "b": "B keeps", "jaccard": "overlap", "chance": "random sets"}
    )
    st.dataframe(shown.round(2), hide_index=True, width="content", alt="Kept experts of both, layer by layer")
    st.caption("Distance: total variation of the weights. Experts of weight 0 are left out.")
    downloads(frame, "kept-alike", f"{name}-kept")


def _one_routed(sides: Sequence[Side], stats: Sequence[UsageStats | None], name: str) -> None:
    place = next(i for i, one in enumerate(stats) if one is not None)
    routed, plan = stats[place], sides[1 - place].plan
    frame = covered(routed.shares(), plan)
    least = frame.loc[frame["covered"].idxmin()]
    st.markdown(
        f"**{percent(frame['covered'].mean())}** of {LETTERS[place]}'s Top-1 choices fall on experts that "
        f"{LETTERS[1 - place]} keeps (mean over layers); least in layer {int(least['layer'])}, "
        f"{percent(least['covered'])}."
    )
    shown = frame.rename(columns={"covered": f"of {LETTERS[place]}'s choices", "even": "at equal use"}).round(
        2
    )
    st.dataframe(shown, hide_index=True, width="content", alt="How much of the usage the kept experts have")
    downloads(frame.assign(data=routed.data, n=routed.n), "covered", f"{name}-covered")


def _distances(sides: Sequence[Side], stats: Sequence[UsageStats], data: TextData, name: str) -> None:
    """The total-variation distance of usage a layer, with its permutation test."""
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
    furthest = frame.loc[frame["distance"].idxmax()]
    clear = frame.loc[frame["q"] <= FALSE_DISCOVERIES, "layer"].astype(str).tolist()
    tested = f" Significant in layer{'s' * (len(clear) > 1)} {listed(clear)}." if clear else ""
    if a.unit == b.unit and not clear:
        tested = " No significant difference in any layer."
    st.markdown(
        f"Usage differs most in layer {int(furthest['layer'])}: total-variation distance "
        f"**{furthest['distance']:.2f}**.{tested}"
    )
    shown = frame.drop(columns="p").rename(
        columns={"chance": "by chance", "renumbered": "at the best renumbering"}
    )
    st.dataframe(shown.round(3), hide_index=True, width="content", alt="Distance of usage in each layer")
    st.caption(
        f"0: the same usage, 1: no expert in common. By chance: mean of {DRAWS:,} draws of a permutation test; "
        f"q: its p-value adjusted for all layers (Benjamini-Hochberg), significant at {FALSE_DISCOVERIES:g} or less."
    )
    downloads(frame.assign(data=a.data, n=a.n), "distances", f"{name}-usage-distance")
