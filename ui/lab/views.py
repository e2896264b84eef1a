"""The headline of the pruning lab's result: score, differences and costs."""

from __future__ import annotations

import streamlit as st

from shrp.evaluation.costs import Cost
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.statistics import wilson
from ui import paired_results
from ui.lab.marks import Mark
from ui.text import (
    NOT_KNOWN,
    capital,
    count,
    escape,
    interval_text,
    metric_name,
    other_metrics,
    percent,
    points,
    points_interval,
    score_text,
)


def headline(
    evaluation: Evaluation,
    price: Cost,
    dense: Cost,
    kept: tuple[int, int],
    routed_price: Cost,
    routed: Evaluation | None,
    teacher: Mark | None,
    dense_model: Evaluation | None = None,
    floor: str = "",
) -> None:
    """The result in six figures, each with its n, interval and denominator.

    Args:
        evaluation: of the pruned model, perhaps not yet on all inputs.
        kept: experts kept, of how many.
        routed_price: of the model as it routes, where an input pays for the experts that it takes alone.
        routed: the routed model's evaluation, where it is known already.
        teacher: the dense teacher's score on the same data, where it is known.
        dense_model: the dense teacher's outputs on the same data, where they are known: a paired interval.
        floor: what a constant answer has, in words.
    """
    metric, done = evaluation.metric, evaluation.complete
    shares = price.relative_to(dense)
    # Two rows: six beside each other would cut names and values in a window of 1200 pixels.
    columns = [*st.columns(3, gap="small"), *st.columns(3, gap="small")]
    with columns[0]:
        name = metric_name(metric)
        st.metric(
            capital(name) + ("" if done else ", estimate"),
            score_text(evaluation.score, metric),
            help=f"Of the pruned model on {escape(evaluation.data)}.",
        )
        bounds = interval_text(evaluation.interval, metric)
        seen = f"n = {evaluation.n:,}" + ("" if done else f" of {evaluation.total:,}")
        if evaluation.labels is None:
            bounds, seen = "", f"no labels, so no score; {seen}"
        also = "" if evaluation.labels is None else other_metrics(evaluation.metrics, metric)
        lines = [f"95% interval {bounds}" * bool(bounds), seen, floor, also]
        st.caption("<br>".join(filter(None, lines)), unsafe_allow_html=True)
    with columns[1]:
        if routed is None:
            st.metric("vs routed model", NOT_KNOWN)
            st.caption("evaluated next")
        else:
            _difference(evaluation, routed, "vs routed model", "routed")
    with columns[2]:
        if dense_model is not None:
            _difference(evaluation, dense_model, "vs dense teacher", "teacher")
        else:
            _unpaired(evaluation, teacher)
    with columns[3]:
        st.metric(
            "Encoder FLOPs", percent(shares["encoder_flops"]), help=f"For one input of {price.tokens} tokens."
        )
        st.caption(
            f"of the dense encoder's {count(dense.encoder_flops)}<br>whole model: {percent(shares['model_flops'])} "
            f"of {count(dense.model_flops)}<br>while it routes: "
            f"{percent(routed_price.relative_to(dense)['encoder_flops'])} of the encoder's",
            unsafe_allow_html=True,
        )
    with columns[4]:
        st.metric("Encoder parameters", percent(shares["encoder_params"]))
        st.caption(
            f"of the dense encoder's {count(dense.encoder_params)}<br>whole model: "
            f"{percent(shares['model_params'])} of {count(dense.model_params)}",
            unsafe_allow_html=True,
        )
    with columns[5]:
        st.metric("Experts kept", f"{kept[0]} of {kept[1]}")
        st.caption("in the converted layers together")


def _unpaired(evaluation: Evaluation, teacher: Mark | None) -> None:
    """The difference from a teacher of which the score alone is known, and so no interval of the difference."""
    metric, gap = evaluation.metric, float("nan")
    if teacher is None:
        said = "no teacher's score for these data in the checkpoint"
    elif evaluation.labels is None:
        said = "needs labels"
    elif not evaluation.complete:  # the teacher's score is of all inputs, this estimate of some
        said = "known once all inputs are evaluated"
    else:
        gap, said = evaluation.score - teacher.score, "not paired, so without an interval of its own"
    if teacher is not None:
        said += f"<br>teacher {score_text(teacher.score, metric)}, n = {teacher.n:,}"
    st.metric("vs dense teacher", points(gap, metric))
    st.caption(said, unsafe_allow_html=True)


def _difference(evaluation: Evaluation, reference: Evaluation, title: str, name: str) -> None:
    """A paired difference, on the inputs seen so far, so that a running estimate compares like with like."""
    metric = evaluation.metric
    if evaluation.labels is None:
        _agreement(evaluation, reference, title, name)
        return
    resamples = 2000 if evaluation.complete else 0
    value, bounds = paired_results.difference(evaluation, reference, resamples=resamples)
    st.metric(title, points(value, metric))
    # Of the same inputs as the score beside it, as long as that is an estimate.
    text = f"{name} {score_text(evaluation.score - value, metric)}, n = {evaluation.n:,}"
    if bounds[0] == bounds[0]:
        text = f"95% interval {points_interval(bounds, metric)}, paired<br>{text}"
    st.caption(text, unsafe_allow_html=True)


def _agreement(evaluation: Evaluation, reference: Evaluation, title: str, name: str) -> None:
    """Without labels: on how many of the inputs seen so far both models say the same."""
    if evaluation.task.is_regression:
        st.metric(title, NOT_KNOWN)
        st.caption("needs labels")
        return
    said = dict(zip(reference.indices.tolist(), reference.predictions.tolist(), strict=True))
    same = [
        said[row] == mine
        for row, mine in zip(evaluation.indices.tolist(), evaluation.predictions.tolist(), strict=True)
        if row in said
    ]
    share, n = sum(same), len(same)
    st.metric(title, f"{percent(share / n)} alike" if n else NOT_KNOWN)
    bounds = interval_text(wilson(share, n), "accuracy")
    st.caption(
        f"says the same as the {name} model on {share:,} of n = {n:,} inputs; 95% interval {bounds}<br>no labels, "
        "so no score",
        unsafe_allow_html=True,
    )
