"""What the Compare page shows: the verdict, the ranked table and pairwise tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.data.text_data import TextData
from shrp.evaluation.costs import TOKENS
from ui import differences
from ui.compare.sides import Side
from ui.downloads import downloads
from ui.text import (
    ALPHA,
    count,
    escape,
    interval_text,
    metric_name,
    p_text,
    percent,
    points,
    points_interval,
    score_text,
    with_interval,
)

COSTS = {
    "encoder FLOPs": "encoder_flops",
    "encoder parameters": "encoder_params",
    "all parameters": "model_params",
}


def names_of(sides: Sequence[Side]) -> list[str]:
    """A letter and what the model is, for every model."""
    return [f"{chr(ord('A') + i)}: {side.choice.text}" for i, side in enumerate(sides)]


def verdict(sides: Sequence[Side]) -> str:
    """Which model is better, as Markdown."""
    a, b = sides[0].evaluation, sides[1].evaluation
    if a.labels is None:
        first, *further = [f"{chr(ord('A') + i)} ({escape(side.choice.text)})" for i, side in enumerate(sides)]
        pairs = zip(further, sides[1:], strict=True)
        texts = [differences.agreement_text(side.evaluation, a, (first, name)) for name, side in pairs]
        return " ".join(filter(None, texts)) or "These data have no labels, so no model is better on them."
    if len(sides) == 2:
        test = differences.test(a, b)
        return differences.verdict_of(test, escape(sides[0].choice.text), escape(sides[1].choice.text))
    best, *others = sorted(sides, key=_rank)
    found = [differences.test(best.evaluation, side.evaluation) for side in others]
    # Where McNemar's test is not of the metric, the interval tells.
    apart = sum(
        one.p_value < ALPHA / len(others) if np.isfinite(one.p_value) else differences.is_clear(one.bounds)
        for one in found
    )
    one = best.evaluation
    corrected = "" if one.task.counts_examples else "not "
    return (
        f"**{escape(best.choice.text)} scores highest**: {with_interval(one.score, one.interval, one.metric, one.n)}. "
        f"{apart} of {len(others)} others score significantly lower ({corrected}corrected for {len(others)} tests)."
    )


def _rank(side: Side) -> float:
    """What models are sorted by, the best first; one without a score, such as constant answers' correlation, is last."""
    return -float(np.nan_to_num(side.evaluation.score, nan=-np.inf))


def ranked(sides: Sequence[Side], name: str) -> None:
    """Draw all models, the best first, with the difference from it, and their costs."""
    pairs = sorted(zip(names_of(sides), sides, strict=True), key=lambda pair: _rank(pair[1]))
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
            cells |= dict.fromkeys(["difference from the best", *["McNemar"] * one.task.counts_examples], "")
            if rank > 1:
                found = differences.test(best, one)
                low, high = found.bounds
                row |= {"behind": found.difference, "behind low": low, "behind high": high, "p": found.p_value}
                ends = f" ({points_interval(found.bounds, metric)})" if np.isfinite(found.bounds[0]) else ""
                cells["difference from the best"] = points(found.difference, metric) + ends
                if one.task.counts_examples:  # of which McNemar's test is
                    cells["McNemar"] = p_text(found.p_value)
        costs = side.price.relative_to(side.dense)
        rows.append(row | {"n": one.n} | costs)
        shown.append(cells | {title: f"{percent(costs[of])} · {count(getattr(side.price, of))}" for title, of in COSTS.items()})
    st.table(pd.DataFrame(shown), hide_index=True, alt="All models, the best first")
    st.caption(f"n = {best.n:,}. Costs: share of the model's own dense architecture, and in all, at {TOKENS} tokens.")
    downloads(pd.DataFrame(rows).assign(data=best.data, metric=metric), "ranked", f"{name}-ranked")


def tests(sides: Sequence[Side], data: TextData) -> None:
    """Draw who of A and B is right where, with McNemar's test, and of further models a row a pair."""
    if data.labels is None:
        st.info("These data have no labels, so nothing is right or wrong.")
        return
    pairs = list(combinations(zip(names_of(sides), sides, strict=True), 2))
    if len(pairs) > 1:
        rows = []
        for (first, a), (second, b) in pairs:
            found = differences.test(a.evaluation, b.evaluation)
            row = {
                "pair": f"{second[0]} − {first[0]}",
                "difference": points(found.difference, found.metric),
                "95% CI": points_interval(found.bounds, found.metric),
            }
            if data.task.counts_examples:
                row |= {"McNemar": p_text(found.p_value), "corrected": p_text(found.p_value * len(pairs))}
            rows.append(row)
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="content", alt="Paired tests of all pairs")
    counts = differences.test(sides[0].evaluation, sides[1].evaluation).counts
    if counts is not None:
        cells = [[counts.both, counts.only_a], [counts.only_b, counts.neither]]
        frame = pd.DataFrame(cells, index=["A right", "A wrong"], columns=["B right", "B wrong"])
        st.table(frame.map(lambda n: f"{n:,} ({percent(n / counts.n)})"), width="content")
        st.caption(
            f"McNemar's exact test of accuracy: {p_text(counts.p_value)}, on the {counts.only_a + counts.only_b:,} of "
            f"{counts.n:,} examples that only one model predicts correctly."
        )
    st.caption("If you pick the best model here, its score is too optimistic: confirm it on other data.")
