"""The check of the attribution page: infidelity and sensitivity of each attribution, beside its shuffled scores."""

from __future__ import annotations

import math

import streamlit as st

from shrp.analysis.attribution import trust
from shrp.analysis.attribution.tokens import WordScores
from shrp.phrases import listed
from ui.attribution.results import Explained, Options, trust_checks
from ui.downloads import downloads
from ui.text import escape, percent

TRUST = "trust"
"""Key of the widget, in the session's state and in the URL alike."""


def verdict(check: trust.Trust, alike: float, unit: str = "word") -> str:
    """What the check found of one attribution, as Markdown to stand beside it; empty where nothing changed.

    Args:
        alike: the part that one score for all words predicts.
        unit: what has a score, of `shrp.analysis.attribution.units.UNITS`.
    """
    if math.isnan(check.explained):
        return ""
    predicts = f"Predicts **{_share(check.explained)}** of what replaced {unit}s change"
    if check.few:
        return f"{predicts} ([the check](#trust)). :gray-badge[too few {unit}s to tell]"
    whole = check.beaten == trust.DRAWS
    missed = ["not above its shuffles"] * (not whole)
    if not check.above_alike_low > 0:
        what = "worse than" if check.above_alike_high < 0 else "not told apart from"
        missed.append(f"{what} one score for every {unit}")
    badge = ":green-badge[:material/check: above its shuffles]"
    if missed:
        badge = f":orange-badge[:material/warning: {', '.join(missed)}]"
    how_many = "all" if whole else f"{check.beaten or 'none'} of the"
    return (
        f"{predicts}; one score for every {unit} predicts {_share(alike)}, the same scores shuffled "
        f"{_share(check.shuffled)} on average, less in {how_many} {trust.DRAWS} shuffles ([the check](#trust)). {badge}"
    )


def _share(part: float) -> str:
    """A share that may be a hair below 0."""
    return percent(round(part, 3) + 0.0)  # + 0.0 turns -0.0 into 0.0


def _substitute(one: Explained, chosen: Options) -> str:
    """What the words of a set are replaced by, in a sentence."""
    return "the mask token" if trust.substitute(one.instance, chosen.replacement) == "mask" else "padding"


def trust_part(one: Explained, output: int, found: list[WordScores], chosen: Options, name: str) -> list[str]:
    """Draw the section: infidelity and sensitivity of what is shown, on request.

    Returns:
        The `verdict` on each of `found`; nothing until it is asked for.
    """
    st.header("Is this trustworthy?", anchor="trust")
    unit = one.instance.unit
    anew = " and the model routes again" * one.instance.reroutes
    how = f"They are replaced as set above (“replaced by”){anew}. Word ablation works this way too, which favours it "
    if chosen.replacement == "remove":
        how = (
            f"They are replaced by {_substitute(one, chosen)}{anew}, since sets of {unit}s are not taken out here. "
            "Word ablation changes the text itself too, which favours it "
        )
    st.markdown(
        f"Two tests: does the attribution **predict** how the output changes when {unit}s are replaced (infidelity), "
        "and does it **stay the same** under tiny changes (sensitivity)? In the first, each is held against its own "
        f"scores shuffled over the {unit}s: one that does no better does not know which {unit} matters, though it may "
        f"know which way {unit}s move the output. How much that alone predicts, one score for every {unit} shows. "
        f"{how}over gradients from padding."
    )
    if not st.toggle("Run the check", key=TRUST, bind="query-params", help="Some seconds to a minute."):
        return []
    checks = trust_checks(one, output, found, chosen)
    frame = trust.to_frame(checks)
    frame["method"] = frame["method"].str.replace("every word", f"every {unit}", regex=False)
    shown = frame.assign(
        explained=100 * frame["explained"].round(4) + 0.0,  # not -0
        shuffled=100 * frame["shuffled"].round(4) + 0.0,
        beaten=[None if math.isnan(c.shuffled) or c.few else c.beaten for c in checks],
    ).rename(columns={"scaled_infidelity": "at best scale", "explained": "predicted"})
    told = [name for name in shown if name.startswith(("behind", "above_alike"))]
    shown = shown.drop(columns=["few", *told])  # told below
    measure = "nats" if one.preference else "output" if one.instance.task.is_regression else "logits"
    st.dataframe(
        shown,
        hide_index=True,
        width="content",
        placeholder="–",
        column_config={
            "infidelity": st.column_config.NumberColumn(
                format="%.3f",
                help=f"Mean squared miss (squared {measure}) of the predicted change of the output; 0 is perfect.",
            ),
            "at best scale": st.column_config.NumberColumn(
                format="%.3f",
                help="The same with the scores times the one factor, 0 or more, that suits them best.",
            ),
            "predicted": st.column_config.NumberColumn(
                format="%.0f%%",
                help="Part of the mean squared real change that the scores, at their best scale, predict.",
            ),
            "shuffled": st.column_config.NumberColumn(
                "its shuffles",
                format="%.0f%%",
                help=f"The same of its scores, shuffled over the {unit}s in {trust.DRAWS} ways: their mean.",
            ),
            "beaten": st.column_config.NumberColumn(
                f"beats, of {trust.DRAWS}", help="How many of its shuffles predict less."
            ),
            "sensitivity": st.column_config.NumberColumn(
                format="%.2f",
                help="Largest change of the scores under small noise, as a part of their size; 0 is perfectly stable.",
            ),
        },
        alt="Infidelity and sensitivity of each attribution, of its shuffled scores and of one score for every "
        + unit,
    )
    downloads(frame, "trust-table", f"{name}-trust")
    *real, alike, control = checks
    best, steady = max(real, key=lambda c: c.explained), min(real, key=lambda c: c.sensitivity)
    level = [
        f"**{c.method}** with {_share(c.explained)} ({_points(c.behind)} points less, 95% interval "
        f"{_points(c.behind_low)} to {_points(c.behind_high)})"
        for c in real
        if c.behind_low <= 0
    ]
    no_more = [
        f"**{c.method}** ({_points(c.above_alike)} points, 95% interval {_points(c.above_alike_low)} to "
        f"{_points(c.above_alike_high)})"
        for c in real
        if c.above_alike_low <= 0 and not c.few
    ]
    no_better = [escape(c.method) for c in real if c.beaten < trust.DRAWS and not c.few]
    st.markdown(
        f"When a random set of {unit}s is replaced, **{best.method}** predicts {_share(best.explained)} of the mean "
        f"squared change of the output at its best scale, its shuffles {_share(best.shuffled)} on average; one score "
        f"for every {unit} predicts {_share(alike.explained)}. "
        + (f"Not told apart from **{best.method}** on these sets: {listed(level)}. " if level else "")
        + (
            f"Not shown to predict more than one score for every {unit}: {listed(no_more)}. "
            if no_more
            else ""
        )
        + (
            f"Not above all of its {trust.DRAWS} shuffles: **{', '.join(no_better)}**. "
            if no_better
            else f"Of fewer than {trust.FEWEST_WORDS} {unit}s shuffles tell nothing. "
            if real[0].few
            else "Each attribution shown predicts more than every one of its shuffles. "
        )
        + f"Steadiest is **{steady.method}**: small noise moves its scores by at most "
        f"{percent(steady.sensitivity, 0)} of their size (shuffled anew each time: "
        f"{percent(control.sensitivity, 0)})."
    )
    routed, substitute = one.instance.reroutes, _substitute(one, chosen)
    st.caption(
        f"Infidelity: n = {trust.SAMPLES} random sets, each {unit} in a set with a chance of "
        f"{percent(trust.SHARE_REPLACED, 0)}, replaced by {substitute}{', the model routing anew' * routed}; the "
        f"same sets for all methods. Shuffled: in {trust.DRAWS} ways. One score for every {unit}: the change by "
        f"replacing all of them, spread evenly. Sensitivity: the largest of n = {trust.NOISES} copies whose word "
        f"embeddings are moved by up to {percent(trust.NOISE, 0)} of their standard deviation in each coordinate; "
        f"each copy is explained anew{', with its own route' * routed}. Steadiness alone proves nothing: one score for "
        f"every {unit} does not move at all. Infidelity without a scale also counts how large the scores are, in which "
        "methods differ by their nature; so they are compared at their best scale."
    )
    return [verdict(check, alike.explained, unit) for check in real]


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")  # + 0.0 turns -0.0 into 0.0
