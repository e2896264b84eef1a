"""Two settings of the pruning lab on the same inputs: who is right where, and could chance explain it?"""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal

import pandas as pd
import streamlit as st

from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import Agreement, agreement
from shrp.pruning.plan import PruningPlan
from ui import paired_results, state
from ui.lab import threshold as lab_threshold
from ui.lab.reference import ROUTED, TEACHER
from ui.lab.sides import CURRENT, FIRST, SECOND, follow_link, pick, sides
from ui.lab.work import Setting
from ui.state import Selection
from ui.text import ALPHA, capital, escape, metric_name, p_text, percent, points, points_interval, score_text

RESAMPLES = 2000


@st.fragment
def section(
    selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation, routed: Evaluation
) -> None:
    """Pick two and see the test; a fragment, since picking changes nothing else on the page."""
    st.header("Are two settings really different?")
    data = selection.data
    if data.labels is None:
        st.info("These data have no labels, so no setting is better than another on them.")
        return
    for key in (FIRST, SECOND):
        follow_link(key, selection, plan)
    picked = [st.session_state.get(key) for key in (FIRST, SECOND)]
    found = sides(selection, setting, plan, pruned, routed, picked)
    first, second = st.columns(2, gap="medium")
    start = TEACHER if TEACHER in found else ROUTED
    with first:
        a = pick("A", found, FIRST, start)
    with second:
        b = pick("B", found, SECOND, CURRENT)
    if found[a].key == found[b].key:
        st.info("A and B are the same; pick two different ones.")
        return
    try:
        one, other = found[a].evaluation(), found[b].evaluation()
        paired_test(one, other, (found[a].short, found[b].short), (found[a].key, found[b].key), data)
    except ShrpError as error:
        state.show_error(error)


def paired_test(
    one: Evaluation, other: Evaluation, names: tuple[str, str], keys: tuple[str, str], data: TextData
) -> None:
    """Whether two models differ on the same labelled inputs: figures, a verdict in words, and a caution.

    Args:
        one: A's evaluation, on all of `data`.
        other: B's.
        names: of A and B, plain text.
        keys: `Side.key` of both, by which comparisons are counted.

    Raises:
        DataError: the evaluations are not of the same data.
    """
    difference, bounds = paired_results.difference(other, one, resamples=RESAMPLES)
    counts = None if data.task.is_regression else agreement(one, other)
    looked = _looked_at(data, frozenset(keys))
    _result(one, other, names, difference, bounds, counts)
    st.markdown(verdict(names, one.metric, data.name, one.n, difference, bounds, counts))
    if threshold := lab_threshold.between(one, other, data):
        st.markdown(threshold)
    st.caption(many_comparisons(looked, counts is not None and one.metric == "accuracy"))


def _looked_at(data: TextData, pair: frozenset[str]) -> int:
    """How many different pairs of models this session has compared on these data, this one included."""
    pairs = st.session_state.setdefault("compared", {}).setdefault(data.source_fingerprint, set())
    pairs.add(pair)
    return len(pairs)


def _result(
    one: Evaluation,
    other: Evaluation,
    names: tuple[str, str],
    difference: float,
    bounds: tuple[float, float],
    counts: Agreement | None,
) -> None:
    """The difference, the p-value and the table of who is right where."""
    metric = one.metric
    method = "Agresti and Min's" if metric == "accuracy" else f"bootstrap of {RESAMPLES:,}"
    with st.container(horizontal=True, gap="large"):
        with st.container(width=260):
            st.metric(f"B − A, {metric_name(metric)}", points(difference, metric))
            st.caption(
                f"95% interval {points_interval(bounds, metric)}, paired, {method}<br>"
                f"A {score_text(one.score, metric)}, B {score_text(other.score, metric)}, n = {one.n:,}",
                unsafe_allow_html=True,
            )
        if counts is None:
            return
        with st.container(width=190):
            st.metric("McNemar's test", p_text(counts.p_value))
            st.caption(
                f"exact, two-sided, on the {counts.only_a + counts.only_b:,} of {counts.n:,} inputs where one is "
                "right and the other wrong"
            )
        with st.container(width="stretch"):
            st.table(two_by_two(counts), width="stretch")
            st.caption(escape(f"A: {names[0]}; B: {names[1]}. Shares are of n = {counts.n:,}, {one.data}."))


def two_by_two(counts: Agreement) -> pd.DataFrame:
    """Who is right where, as counts with shares of all inputs."""

    def cell(number: int) -> str:
        return f"{number:,} ({percent(number / counts.n)})"

    return pd.DataFrame(
        {
            "B right": [cell(counts.both), cell(counts.only_b)],
            "B wrong": [cell(counts.only_a), cell(counts.neither)],
        },
        index=["A right", "A wrong"],
    )


def verdict(
    names: tuple[str, str],
    metric: str,
    data: str,
    n: int,
    difference: float,
    bounds: tuple[float, float],
    counts: Agreement | None,
) -> str:
    """What the figures mean, as Markdown: one or two plain sentences.

    Args:
        names: of A and B, plain text.
        difference: B's score minus A's, with its interval `bounds`.
        counts: None for regression, where there is no right or wrong.
    """
    a, b = (f"**{escape(name)}**" for name in names)
    where = f"on {escape(data)} (n = {n:,})"
    if counts is None:
        if bounds[0] != bounds[0]:
            return f"{capital(where)} the difference has no interval, so nothing can be said."
        if bounds[0] <= 0 <= bounds[1]:
            return (
                f"{capital(where)} the interval of the difference holds 0: {a} and {b} can't be told "
                "apart here, which does not show that they are equal."
            )
        better = b if difference > 0 else a
        return f"{capital(where)} {better} is better: the interval of the difference excludes 0."
    split = counts.only_a + counts.only_b
    if not split:
        return (
            f"{a} and {b} are right on exactly the same inputs {where}; inputs on which they part may still be as "
            f"common as {percent(min(1.0, 3 / n))} elsewhere (the rule of three)."
        )
    head = (
        f"Only one of them is right on {split:,} of {n:,} inputs of {escape(data)}: {a} on {counts.only_a:,}, {b} on "
        f"{counts.only_b:,}."
    )
    chance = percent(counts.p_value) if counts.p_value >= 0.001 else "under 0.1%"
    test = f"were both right as often, a split at least as uneven would come in {chance} of samples (McNemar's test)"
    if bounds[0] != bounds[0]:
        return f"{head} The difference has no interval, so nothing can be said of it; {test}."
    apart = not bounds[0] <= 0 <= bounds[1]
    if apart:
        tail = "The interval of the difference excludes 0: chance alone hardly explains it"
    else:
        tail = (
            "The interval of the difference holds 0: these data don't tell them apart, which does not show that they "
            "are equal"
        )
    if metric != "accuracy":  # on which the test is not
        return f"{head} {tail}. As to right and wrong alone, which is not {metric_name(metric)}: {test}."
    if apart != (counts.p_value < ALPHA):
        return f"{head} {tail}; {test}, so it is a borderline case."
    return f"{head} {tail}; {test}."


def rounded_down(value: float) -> str:
    """A number with two digits, none of which makes it larger; for a limit that what is below it must be below."""
    return f"{Decimal(value).normalize(Context(prec=2, rounding=ROUND_DOWN)):f}"


def many_comparisons(looked: int, tested: bool) -> str:
    """The warning that belongs under every test that can be repeated at will, as Markdown."""
    which = "This is the only comparison so far" if looked == 1 else f"{looked:,} comparisons so far"
    if tested:
        limit = f"p < {rounded_down(ALPHA / looked)}"
        rule = f"count only {limit} as a difference" + f" (Bonferroni, {ALPHA} / {looked})" * (looked > 1)
    else:
        rule = "one interval in 20 excludes 0 by chance alone"
    return (
        f":material/warning: {which} in this session on these data; {rule}. Among many settings some differ by "
        "chance, and one picked because it scored best here is flattered by these data: confirm it on others."
    )
