"""Which words the prediction of one sentence depends on, or the expert that a layer takes for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, isnan
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.attribution import tokens, trust
from shrp.analysis.attribution.instance import LONGEST_PHRASE, MOST, UNITS, Word, fitting_unit
from shrp.analysis.attribution.tokens import METHODS, Flips, RoutesWithout, WordScores
from shrp.analysis.explore import Exploration
from shrp.data.tasks import Task
from shrp.errors import ShrpError
from shrp.phrases import counted, listed
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.pickers import always_one, one_of
from ui.routing import figures, results
from ui.routing.results import Explained, Options
from ui.routing.sentences import say_unknown
from ui.routing.verdict import named
from ui.state import Selection, show_error
from ui.text import escape, escape_html, percent, plain, shorten
from ui.theme import edged_line, layout

ASPECT, METHOD, TARGET, RIVAL, UNIT = "explain", "method", "target", "rather_than", "unit"
FREEZE, REPLACED, AGREE, TRUST, FLIPS = "freeze", "replaced_by", "agreement", "faithfulness", "flips"
"""Keys of the widgets, in the session's state and in the URL."""
PREDICTION, AUTOMATIC = "the prediction", "automatic"
REPLACEMENTS = {"mask token": "mask", "padding": "pad", "nothing": "remove"}
_SHORT = 64
"""Tokens up to which the fewest words are searched unasked, in a few seconds."""
_NAMED = 8
"""Words that a sentence names at most."""
FEW_WORDS = 10
"""Below this a rank correlation over words is mostly chance."""
_ABOUT = {
    METHODS[0]: "the gradient at the input, times the embedding. Instant, but only valid for small changes",
    METHODS[1]: "gradients summed from padding to the input. The scores add up to the difference in output",
    METHODS[2]: "how much the output drops when the word is left out. Routes are computed again",
}


@dataclass(frozen=True)
class Question:
    """What is explained of one sentence."""

    one: Explained
    output: int
    what: str
    """What the output is called, as plain text."""


def section(selection: Selection, one: Explained, e: Exploration, number: int) -> None:
    """Draw the tab for a sentence in words and as routed, and its number on the page."""
    name = f"{selection.name}-{number}"
    layer = _aspect(e) if selection.is_routed else None
    above = st.container()
    with st.expander("Options", icon=":material/tune:"):
        method, options, one = _options(one)
        asked = _question(one) if layer is None else None
    try:
        asked = asked or _preference(one, e, layer)
        with above:
            _words(asked, method, options, name)
            if layer is None:
                _fewest(one, options.replacement, name)
            elif not e.by_token:
                _decisive(one, layer, options.replacement, name)
        _agreement(asked, options)
        _faithfulness(asked, options, name)
    except ShrpError as error:
        show_error(error)


def _aspect(e: Exploration) -> int | None:
    """The control for what is explained: None for the prediction, else the layer whose route is explained."""
    layers = {f"layer {layer}'s expert": layer for layer in e.layers}
    say_unknown(ASPECT, "question", layers)
    fall_back(ASPECT, (PREDICTION, *layers), PREDICTION)
    picked = st.selectbox("Explain", [PREDICTION, *layers], key=ASPECT, bind="query-params", width=220)
    return layers.get(picked)


def _options(one: Explained) -> tuple[str, Options, Explained]:
    """The controls for how words are scored."""
    say_unknown(METHOD, "method", METHODS)
    about = "  \n".join(f"**{name}**: {text}." for name, text in _ABOUT.items())
    method = always_one("Method", METHODS[::-1], METHOD, help=about)
    left, right = st.columns(2, gap="medium")
    with left:
        unit = always_one(
            "Score",
            (AUTOMATIC, *UNITS),
            UNIT,
            help=f"**{AUTOMATIC}**: words, or the shortest pieces of which there are at most {MOST}. **phrase**: up to "
            f"a comma, dash, bracket or full stop, at most {LONGEST_PHRASE} words.",
        )
    there = {"remove", *one.instance.replacements}
    with right:
        known = [label for label, name in REPLACEMENTS.items() if name in there]
        replaced = always_one("A word left out becomes", known, REPLACED)
    frozen = True
    if method == METHODS[1] and one.instance.reroutes:
        why = "Gradients cannot see a change of route. With the route frozen the scores add up."
        frozen = st.toggle("Freeze the route", value=True, key=FREEZE, bind="query-params", help=why)
    if unit == AUTOMATIC:
        unit = one.quick_unit() or fitting_unit(one.instance)
    return method, Options(frozen, REPLACEMENTS[replaced]), one.by(unit)


def _question(one: Explained) -> Question:
    """The controls for the class, and for the class that it is compared with."""
    task = one.instance.task
    if task.is_regression:
        return Question(one, 0, "the output")
    say_unknown(TARGET, "class", task.label_names)
    fall_back(TARGET, (None, *task.label_names), None)
    fall_back(RIVAL, (None, *task.label_names), None)
    left, right = st.columns(2, gap="medium")
    with left:
        name = one_of("Class (default: predicted)", task.label_names, key=TARGET)
    with right:
        difference = "Explains the difference of the two classes' logits."
        rival = one_of("Compared with", task.label_names, key=RIVAL, help=difference)
    output = task.label_names.index(name) if name in task.label_names else one.prediction
    what = f"the logit of {task.label_names[output]}"
    if rival not in task.label_names or rival == task.label_names[output]:
        return Question(one, output, what)
    contrast = one.against(output, task.label_names.index(rival))
    return Question(contrast, 0, f"{what} minus that of {rival}")


def _preference(one: Explained, e: Exploration, layer: int) -> Question:
    """Why a layer takes its expert rather than the one with the next largest probability."""
    expert, rival = e.choice(layer), e.runner_up(layer)
    what = f"layer {layer}'s log-odds of expert {expert} over expert {rival}"
    return Question(one.preferring(layer, expert, rival), 0, what)


def _words(asked: Question, method: str, options: Options, name: str) -> None:
    """Coloured words and bars of one method."""
    one = asked.one
    result = results.word_scores(one, asked.output, method, options)
    parts = [column.replace("_", " ") for column in one.instance.task.text_columns]
    st.html(figures.colored_words(result, parts))
    st.caption(
        f"Orange: raises {escape(asked.what)}. Blue: lowers it. Method: {method}, {_ABOUT[method]}."
        + _completeness(result)
    )
    if one.instance.unknown:
        unknown = listed(escape(shorten(word, 24)) for word in one.instance.unknown[:_NAMED])
        st.caption(f":material/question_mark: Not in the vocabulary, read as an unknown token: {unknown}.")
    unit = one.instance.unit
    x = "change of the log-odds (nats)" if one.instance.preference else "change of the output"
    labels = [f"{place}. {word.text}" for place, word in enumerate(result.words, 1)]
    title = f"What each {unit} adds to {escape_html(asked.what)}"
    fig, shown = figures.bars(result.scores, labels, title, f"n = {counted(len(labels), unit)}; {method}", x)
    best = int(np.abs(result.scores).argmax())
    alt = f"Bars of {shown} {unit}s. Largest: {result.words[best].text} {result.scores[best]:+.3f}."
    chart(fig, tokens.to_frame([result]), "word-bars", f"{name}-words", alt)


def _completeness(result: WordScores) -> str:
    """Whether integrated gradients add up, as a further sentence."""
    if result.reference is None:
        return ""
    difference = result.full - result.reference
    said = f" Sum {result.total:+.3f}, expected {difference:+.3f} ({percent(result.error_part)} off)."
    if result.error_part > tokens.LARGE_ERROR:
        said += " **Do not trust these scores**: the sum is too far off."
    return said


def _fewest(one: Explained, replacement: str, name: str) -> None:
    """The fewest words without which the prediction is another one."""
    task, unit = one.instance.task, one.instance.unit
    if task.is_regression:
        return
    slow, search = len(one.instance.tokens) > _SHORT and len(one.instance.words) > 6, "Search the fewest"
    if slow and not st.toggle(f"{search} {unit}s that change the prediction", key=FLIPS, bind="query-params"):
        return
    found = results.fewest_words(one, replacement)
    st.markdown(fewest_in_words(found, task))
    if len(found.found) > 1:
        with st.expander(f"All {len(found.found)} sets, and how they were searched"):
            frame = found.to_frame(task.label_names)
            percents = {"probability": st.column_config.NumberColumn(format="percent")}
            height = "content" if len(frame) < 11 else 390
            st.dataframe(frame, hide_index=True, column_config=percents, height=height)
            downloads(frame, "flips-table", f"{name}-flips")
            st.caption(searched(found))


def fewest_in_words(found: Flips, task: Task) -> str:
    """What was found, as Markdown."""
    own, unit = escape(task.label_names[found.answer]), found.unit
    if not found.found:
        return (
            f"Fewest {unit}s that change the prediction: none found. Without {found.size:,} of its "
            f"{len(found.words):,} {unit}s it is still **{own}**."
        )
    best = found.found[0]
    words = listed([named(found.words, place, task) for place in best.places])
    then = f"**{escape(task.label_names[best.answer])}** ({percent(best.probability)})"
    more = len(found.found) - 1
    others = f" {more:,} other {'set does' if more == 1 else 'sets do'} so too." if more else ""
    proven = "" if found.smallest or found.size == 1 else " Smaller sets may exist."
    return f"Fewest {unit}s that change the prediction: without {words} it is {then} instead of {own}.{others}{proven}"


def searched(found: Flips) -> str:
    """How sets were searched, with the control."""
    flipped, of = found.random
    unit, size = found.unit, found.size
    control = f"Of {of:,} random sets of {size:,} {unit}s, {flipped:,} change it."
    if size == 1 or of == comb(len(found.words), size):
        control = f"Of all {of:,} sets of {size:,}, {flipped:,} change it."
    if size == 1:
        return control
    how = f"Single {unit}s first, then larger sets of the {min(tokens.AMONG, len(found.words))} that matter most alone"
    return f"{how}; {found.tried:,} sets tried. {control}"


def _decisive(one: Explained, layer: int, replacement: str, name: str) -> None:
    """Which words decide where the sentence is routed, in every layer at once."""
    found = results.without_each_word(one, replacement).routes
    words, unit = one.instance.words, one.instance.unit
    said = decisive_in_words(found, words, layer, one.instance.task, unit)
    alt = f"Heatmap, layers by {unit}s: where a layer takes another expert without the {unit}. {plain(said)}"
    fig, frame = routes_without_words(found, words, unit), lambda: _routes_frame(found, words, unit)
    chart(fig, frame, "routes-without", f"{name}-routes-without-words", alt)
    st.markdown(said)


def _routes_frame(found: RoutesWithout, words: Sequence[Word], unit: str) -> pd.DataFrame:
    rows = [
        (i + 1, word.part + 1, word.text, layer, own, new[i])
        for layer, own, new in zip(found.layers, found.own, found.without, strict=True)
        for i, word in enumerate(words)
    ]
    return pd.DataFrame(rows, columns=["place", "text", unit, "layer", "expert", "without it"])


def decisive_in_words(
    found: RoutesWithout, words: Sequence[Word], layer: int, task: Task, unit: str = "word"
) -> str:
    """Which words decide the route in one layer, as Markdown."""
    row = found.layers.index(layer)
    own, without = int(found.own[row]), found.without[row]
    changed = np.flatnonzero(without != own)
    first = "first choice" if found.top_k > 1 else "expert"
    if not len(changed):
        return f"No single {unit} decides layer {layer}'s {first}: without any one of them it is still {own}."
    words_named = [named(words, i, task, f"then {without[i]}") for i in changed[:_NAMED].tolist()]
    more = f" and {len(changed) - _NAMED:,} more" if len(changed) > _NAMED else ""
    return (
        f"Layer {layer}'s {first} is {own}. It changes without {', '.join(words_named)}{more}: "
        f"{len(changed):,} of {len(words):,} {unit}s."
    )


def routes_without_words(found: RoutesWithout, words: Sequence[Word], unit: str = "word") -> go.Figure:
    """Layers x words: where a layer takes another expert without the word, with that expert's number."""
    changed = found.without != found.own[:, None]
    names = [escape_html(shorten(word.text, figures.NAME)) for word in words]
    hover = np.empty(changed.shape, dtype=object)
    for i, layer in enumerate(found.layers):
        for j, name in enumerate(names):
            then = f"expert {found.without[i, j]} instead of" if changed[i, j] else "still expert"
            hover[i, j] = f"layer {layer} without <b>{name}</b>:<br>{then} {found.own[i]}"
    written = {"text": np.where(changed, found.without.astype(str), ""), "texttemplate": "%{text}"}
    hovers = {"customdata": hover} | figures.HOVER
    fig = go.Figure(figures.cells(changed.astype(float), found.layers, 1.0, **hovers, **written))
    if second := next((place for place, word in enumerate(words) if word.part), None):
        edged_line(fig, second - 0.5)
    subtitle = f"orange: another expert, with its number; {int(changed.sum()):,} of {changed.size:,} cells"
    height = figures.grid_height(len(found.layers), 190)
    layout(fig, f"Where a layer takes another expert without a {unit}", subtitle=subtitle, height=height)
    figures.token_axes(fig, names)
    return fig


def _formats(numbers: str, *columns: str) -> dict[str, Any]:
    return {name: st.column_config.NumberColumn(format=numbers) for name in columns}


def _agreement(asked: Question, options: Options) -> None:
    """All methods next to each other, computed once the expander is opened."""
    part = st.expander("Do the methods agree?", key=AGREE, on_change="rerun", icon=":material/balance:")
    if not part.open:
        return
    with part:
        found = [results.word_scores(asked.one, asked.output, method, options) for method in METHODS]
        frame = tokens.to_frame(found).drop(columns="text")
        height = min(390, 38 + 35 * len(frame))
        st.dataframe(frame, hide_index=True, column_config=_formats("%+.3f", *METHODS), height=height)
        names = {"a": "method", "b": "and", "spearman": "Spearman ρ", "spearman p": "p of ρ"}
        names |= {"kendall": "Kendall τ", "kendall p": "p of τ"}
        pairs = tokens.agreement(found)[[*names]].rename(columns=names)
        formats = _formats("%.2f", "Spearman ρ", "Kendall τ") | _formats("%.3f", "p of ρ", "p of τ")
        st.dataframe(pairs, hide_index=True, column_config=formats)
        n = len(found[0].words)
        few = " With so few, high values are often chance." * (n < FEW_WORDS)
        st.caption(f"Rank correlation over {counted(n, asked.one.instance.unit)}: 1 is the same order.{few}")


def _faithfulness(asked: Question, options: Options, name: str) -> None:
    """Infidelity and sensitivity of all methods with two controls, computed once the expander is opened."""
    title = "Are the scores faithful to the model?"
    part = st.expander(title, key=TRUST, on_change="rerun", icon=":material/verified:")
    if not part.open:
        return
    with part:
        found = [results.word_scores(asked.one, asked.output, method, options) for method in METHODS]
        checks = results.trust_checks(asked.one, asked.output, found, options)
        unit = asked.one.instance.unit
        st.markdown(faithful_in_words(checks, unit))
        frame = trust.to_frame(checks)
        shown = pd.DataFrame(
            {
                "method": frame["method"],
                "predicted": 100 * frame["explained"],
                "permuted": 100 * frame["shuffled"],
                f"beats, of {trust.DRAWS}": [
                    None if isnan(c.shuffled) or c.few else c.beaten for c in checks
                ],
                "infidelity": frame["infidelity"],
                "sensitivity": frame["sensitivity"],
            }
        )
        formats = _formats("%.0f%%", "predicted", "permuted") | _formats("%.3f", "infidelity")
        formats |= _formats("%.2f", "sensitivity")
        st.dataframe(shown, hide_index=True, placeholder="–", column_config=formats)
        downloads(frame, "trust-table", f"{name}-trust")
        st.caption(
            f"**predicted**: share of the output's squared change that the scores predict when random sets of {unit}s "
            f"are replaced (n = {trust.SAMPLES} sets, best scale). **permuted**: the same scores on other {unit}s. "
            "**sensitivity**: largest relative change of the scores under small noise, 0 is stable. Ablation changes "
            "the text itself, as this test does, which favours it."
        )


def faithful_in_words(checks: Sequence[trust.Trust], unit: str = "word") -> str:
    """What the test found, as Markdown: the best method, those not significantly worse, and the control."""
    *real, equal, _ = checks
    if isnan(real[0].explained):
        return f"Replacing {unit}s changes nothing, so there is nothing to test."
    best = max(real, key=lambda check: check.explained)
    said = f"**{best.method.capitalize()}** predicts most: {_share(best.explained)} of what replaced {unit}s change. "
    said += f"One equal score for every {unit} predicts {_share(equal.explained)}."
    level = [check.method for check in real if check.behind_low <= 0]
    if level:
        said += f" No significant difference from it: {listed(level)}."
    if real[0].few:
        return f"{said} Fewer than {trust.FEWEST_WORDS} {unit}s are too few for the permuted scores."
    weak = [c.method for c in real if c.beaten < trust.DRAWS or c.above_equal_low <= 0]
    if weak:
        said += f" :orange-badge[Not better than a control: {', '.join(weak)}]"
    return said


def _share(part: float) -> str:
    return percent(round(part, 3) + 0.0, 0)  # + 0.0 turns -0.0 into 0.0
