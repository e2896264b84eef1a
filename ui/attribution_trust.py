"""The check of the attribution page: infidelity and sensitivity of each attribution, beside a random one's."""

from __future__ import annotations

import math

import streamlit as st

from shrp.attribution import trust
from shrp.attribution.tokens import WordScores
from shrp.phrases import listed
from ui.attribution_results import Explained, Options, trust_checks
from ui.downloads import downloads
from ui.text import escape, percent

TRUST = "trust"
"""Key of the widget, in the session's state and in the URL alike."""


def verdict(check: trust.Trust) -> str:
    """What the check found of one attribution, as Markdown to stand beside it; empty where nothing changed."""
    if math.isnan(check.explained):
        return ""
    whole = check.beaten == trust.DRAWS
    badge = (
        ":green-badge[:material/check: above random words]"
        if whole
        else ":orange-badge[:material/warning: not above all random words]"
    )
    how_many = "all" if whole else f"{check.beaten or 'none'} of the"
    return (
        f"{badge} predicts {percent(check.explained)} of what replaced words change, more than "
        f"{how_many} {trust.DRAWS} random attributions ([the check](#trust))."
    )


def trust_part(
    one: Explained, output: int, found: list[WordScores], chosen: Options, name: str
) -> list[trust.Trust]:
    """Draw the section: infidelity and sensitivity of what is shown, on request.

    Returns:
        What was found of each of `found`; nothing until it is asked for.
    """
    st.header("Is this trustworthy?", anchor="trust")
    st.markdown(
        "Two tests: does the attribution **predict** how the output changes when words are replaced (infidelity), and "
        "does it **stay the same** under tiny changes (sensitivity)? Random attributions are tested too; a method that "
        "does no better says nothing about replaced words. Words are replaced as set above (“replaced by”) and the "
        "model routes again. Word ablation works this way too, which favours it over gradients from padding."
    )
    if not st.toggle("Run the check", key=TRUST, bind="query-params", help="Some seconds to a minute."):
        return []
    checks = trust_checks(one, output, found, chosen)
    frame = trust.to_frame(checks)
    shown = frame.assign(
        explained=100 * frame["explained"],
        beaten=[None if c.method == trust.RANDOM else c.beaten for c in checks],
    ).rename(columns={"scaled_infidelity": "infidelity, best scale", "explained": "predicted"})
    shown = shown.drop(columns=["behind", "behind_low", "behind_high"])  # told below
    unit = "nats" if one.preference else "output" if one.instance.task.is_regression else "logits"
    st.dataframe(
        shown,
        hide_index=True,
        width="content",
        placeholder="–",
        column_config={
            "infidelity": st.column_config.NumberColumn(
                format="%.3f",
                help=f"Mean squared miss (squared {unit}) of the predicted change of the output; 0 is perfect.",
            ),
            "infidelity, best scale": st.column_config.NumberColumn(
                format="%.3f",
                help="The same with the scores times the one factor, 0 or more, that suits them best.",
            ),
            "predicted": st.column_config.NumberColumn(
                format="%.0f%%",
                help="Part of the mean squared real change that the scores, at their best scale, predict.",
            ),
            "beaten": st.column_config.NumberColumn(
                f"beats, of {trust.DRAWS} random",
                help=f"How many of {trust.DRAWS} random attributions predict less, at their best scale.",
            ),
            "sensitivity": st.column_config.NumberColumn(
                format="%.2f",
                help="Largest change of the scores under small noise, as a part of their size; 0 is perfectly stable.",
            ),
        },
        alt="Infidelity and sensitivity of each attribution and of a random one",
    )
    downloads(frame, "trust-table", f"{name}-trust")
    *real, control = checks
    best, steady = max(real, key=lambda c: c.explained), min(real, key=lambda c: c.sensitivity)
    level = [
        f"**{c.method}** with {percent(c.explained)} ({_points(c.behind)} points less, 95% interval "
        f"{_points(c.behind_low)} to {_points(c.behind_high)})"
        for c in real
        if c.behind_low <= 0
    ]
    no_better = [escape(c.method) for c in real if c.beaten < trust.DRAWS]
    st.markdown(
        f"When a random set of words is replaced, **{best.method}** predicts {percent(best.explained)} of the mean "
        f"squared change of the output at its best scale; {trust.DRAWS} random attributions predict "
        f"{percent(control.explained)} on average. "
        + (f"Not told apart from it on these sets: {listed(level)}. " if level else "")
        + (
            f"Not above all of the random ones: **{', '.join(no_better)}**. "
            if no_better
            else "Each attribution shown predicts more than every one of the random ones. "
        )
        + f"Steadiest is **{steady.method}**: small noise moves its scores by at most "
        f"{percent(steady.sensitivity, 0)} of their size (the control, drawn anew each time: "
        f"{percent(control.sensitivity, 0)})."
    )
    substitute = (
        "the mask token" if chosen.replacement != "pad" and "mask" in one.instance.replacements else "padding"
    )
    st.caption(
        f"Infidelity: n = {trust.SAMPLES} random sets, each word in a set with a chance of "
        f"{percent(trust.SHARE_REPLACED, 0)}, replaced by {substitute}, the model routing anew; the same sets for all "
        f"methods. The control is the mean of {trust.DRAWS} random "
        f"attributions. Sensitivity: the largest of n = {trust.NOISES} copies whose word embeddings are moved by up to "
        f"{percent(trust.NOISE, 0)} of their standard deviation in each coordinate; each copy is explained anew, with "
        "its own route. Steadiness alone proves nothing: a random attribution drawn once for good would score 0. "
        "Infidelity without a scale also counts how large the scores are, in which methods differ by their nature; so "
        "they are compared at their best scale."
    )
    return real


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")  # + 0.0 turns -0.0 into 0.0
