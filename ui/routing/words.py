"""Which words the prediction of one sentence depends on."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np
import streamlit as st

from shrp.analysis.attribution import tokens, trust
from shrp.analysis.attribution.tokens import METHODS, WordScores
from shrp.phrases import counted, listed
from ui import state
from ui.bound import always_one
from ui.downloads import chart
from ui.routing import figures, results
from ui.routing.results import Explained
from ui.routing.sentences import class_box, output_name
from ui.state import Selection
from ui.text import escape, escape_html, percent, shorten, signed, with_signs

METHOD, TARGET, AGREE, TRUST = "method", "target", "agreement", "faithfulness"
"""Keys of the widgets, in the session's state and in the URL."""
_NAMED = 8
"""Unknown words that are named at most."""
FEW_WORDS = 10
"""Below this a rank correlation over words is mostly chance."""
_ABOUT = {
    METHODS[0]: "the gradient at the input, times the embedding. Instant, but only valid for small changes",
    METHODS[1]: "gradients summed from padding to the input. The scores add up to the difference in output",
    METHODS[2]: "how much the output drops when a mask token (or padding) takes the place of the word",
}


def section(selection: Selection, one: Explained, number: int) -> None:
    """Draw the tab for a sentence in words, and its number on the page."""
    name, one, above = f"{selection.name}-{number}", one.in_pieces(), st.container()
    task = one.instance.task
    with st.expander("Options", icon=":material/tune:"):
        about = "  \n".join(f"**{method}**: {text}." for method, text in _ABOUT.items())
        method = always_one("Method", METHODS[::-1], METHOD, help=about)
        output = class_box(task, TARGET, one.prediction)
    with above:
        _words(one, output, output_name(task, output), method, name)
    state.lazy_expander("Do the methods agree?", lambda: _agreement(one, output), AGREE, ":material/balance:")
    state.lazy_expander("Are the scores faithful to the model?", lambda: _faithfulness(one, output), TRUST, ":material/verified:")


def _words(one: Explained, output: int, what: str, method: str, name: str) -> None:
    """Coloured words and bars of one method."""
    result = results.word_scores(one, output, method)
    parts = [column.replace("_", " ") for column in one.instance.task.text_columns]
    st.html(figures.colored_words(result, parts))
    st.caption(
        f"Orange, underlined: raises {escape(what)}. Blue, dotted line: lowers it. No line: little. "
        f"Method: {method}, {_ABOUT[method]}."
        + _completeness(result)
    )
    if one.instance.unknown:
        unknown = listed(escape(shorten(word, 24)) for word in one.instance.unknown[:_NAMED])
        st.caption(f":material/question_mark: Not in the vocabulary, read as an unknown token: {unknown}.")
    unit = one.instance.unit
    labels = [f"{place}. {word.text}" for place, word in enumerate(result.words, 1)]
    title = f"What each {unit} adds to {escape_html(what)}"
    about = f"n = {counted(len(labels), unit)}; {method}"
    fig, shown = figures.bars(result.scores, labels, title, about)
    best = int(np.abs(result.scores).argmax())
    alt = f"Bars of {shown} {unit}s. Largest: {result.words[best].text} {signed(result.scores[best], 3)}."
    chart(fig, tokens.to_frame([result]), "word-bars", f"{name}-words", alt)


def _completeness(result: WordScores) -> str:
    """Whether integrated gradients add up, as a further sentence."""
    if result.reference is None:
        return ""
    difference = result.full - result.reference
    said = f" Sum {signed(result.total, 3)}, expected {signed(difference, 3)} ({percent(result.error_part)} off)."
    if result.error_part > tokens.LARGE_ERROR:
        said += " **Do not trust these scores**: the sum is too far off."
    return said


def _agreement(one: Explained, output: int) -> None:
    """All methods next to each other."""
    found = [results.word_scores(one, output, method) for method in METHODS]
    frame = tokens.to_frame(found).drop(columns="text")
    height = min(390, 38 + 35 * len(frame))
    st.dataframe(with_signs(frame, METHODS, 3), hide_index=True, height=height)
    names = {"a": "method", "b": "and", "spearman": "Spearman ρ"}
    pairs = tokens.agreement(found).rename(columns=names)
    st.dataframe(with_signs(pairs, ["Spearman ρ"], 2), hide_index=True)
    n = len(found[0].words)
    few = " With so few, high values are often chance." * (n < FEW_WORDS)
    st.caption(f"Rank correlation over {counted(n, one.instance.unit)}: 1 is the same order.{few}")


def _faithfulness(one: Explained, output: int) -> None:
    """Infidelity and sensitivity of all methods with two controls."""
    found = [results.word_scores(one, output, method) for method in METHODS]
    checks = results.trust_checks(one, output, found)
    unit = one.instance.unit
    st.markdown(faithful_in_words(checks, unit))
    frame = trust.to_frame(checks)
    frame["beaten"] = frame["beaten"].where(frame["shuffled"].notna() & ~frame["few"])
    number = st.column_config.NumberColumn
    columns = {
        "method": "method",
        "explained": number("predicted", format="percent"),
        "shuffled": number("permuted", format="percent"),
        "beaten": number(f"beats, of {trust.DRAWS}"),
        "infidelity": number(format="%.3f"),
        "sensitivity": number(format="%.2f"),
    }
    shown = {"column_order": [*columns], "column_config": columns}
    st.dataframe(frame, hide_index=True, placeholder="–", **shown)
    st.caption(
        f"**predicted**: share of the output's squared change that the scores predict when random sets of {unit}s "
        f"are replaced (n = {trust.SAMPLES} sets, best scale). **permuted**: the same scores on other {unit}s. "
        "**sensitivity**: largest relative change of the scores under small noise, 0 is stable. Ablation changes "
        "the text itself, as this test does, which favours it."
    )


def faithful_in_words(checks: Sequence[trust.Trust], unit: str) -> str:
    """What the test found, as Markdown: the best method, those not significantly worse, and the control."""
    *real, equal, _ = checks
    if isnan(real[0].explained):
        return f"Replacing {unit}s changes nothing, so there is nothing to test."
    best = max(real, key=lambda check: check.explained)
    said = f"**{best.method.capitalize()}** predicts most: {percent(best.explained, 0)} of what replaced {unit}s change. "
    said += f"One equal score for every {unit} predicts {percent(equal.explained, 0)}."
    level = [check.method for check in real if check.behind_low <= 0]
    if level:
        said += f" No significant difference from it: {listed(level)}."
    if real[0].few:
        return f"{said} Fewer than {trust.FEWEST_WORDS} {unit}s are too few for the permuted scores."
    weak = [c.method for c in real if c.beaten < trust.DRAWS or c.above_equal_low <= 0]
    if weak:
        said += f" :orange-badge[Not better than a control: {', '.join(weak)}]"
    return said
