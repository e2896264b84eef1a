"""The part of the attribution page about the words of one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.instance import Word
from shrp.analysis.attribution.tokens import WordScores
from shrp.data.tasks import Task
from shrp.errors import ShrpError
from shrp.phrases import counted
from ui import state
from ui.attribution import figures
from ui.attribution.results import Explained, Options, answer_as_scored, word_scores
from ui.attribution.trust import trust_part
from ui.bound import fall_back
from ui.downloads import chart
from ui.pickers import one_of
from ui.text import escape, escape_html, percent, shorten

TARGET, RIVAL, METHODS, STEPS, FREEZE, REPLACED = (
    "target",
    "rather_than",
    "methods",
    "ig_steps",
    "freeze",
    "replaced_by",
)
"""Keys of the widgets, in the session's state and in the URL alike."""

_STEPS = (16, 32, 50, 100, 200)
REPLACEMENTS = {"mask token": "mask", "padding": "pad", "nothing": "remove"}
_LITTLE = 0.25
"""Below this part of the output, what integrated gradients share out is little of it."""
FEW_WORDS = 10
"""Below this a rank correlation over words is mostly chance."""
_LONGEST = 24
"""Characters of a word that are named in a sentence."""

_ABOUT = {
    tokens.METHODS[
        0
    ]: "one gradient at the input, times the embedding; instant, and right only for tiny changes",
    tokens.METHODS[
        1
    ]: "gradients summed along the way from padding to the input; they add up to the difference",
    tokens.METHODS[
        2
    ]: "the drop when a word is replaced, the model routing anew if it routes; counts only that one change",
}


@dataclass(frozen=True)
class Picked:
    """What is to be explained of one input."""

    one: Explained
    """The input, with a difference of logits as its output where one is picked."""
    output: int
    """Which of its outputs."""
    what: str
    """What that is called, as plain text."""
    on_data: int | None
    """The class that was picked, to be measured on many inputs too; None: of each the predicted one."""


def pick_output(one: Explained) -> Picked:
    """The controls for the class and for the one that it is explained against."""
    task = one.instance.task
    if task.is_regression:
        st.markdown(f"**Output {one.logits[0]:.3f}.** The task is a regression: its one output is explained.")
        return Picked(one, 0, "the output", None)
    fall_back(TARGET, (None, *task.label_names), None)
    left, right = st.columns(2, gap="medium")
    with left:
        name = one_of(
            "Class whose logit is explained, where not the predicted one", task.label_names, key=TARGET
        )
    output = task.label_names.index(name) if name in task.label_names else one.prediction
    fall_back(RIVAL, (None, *task.label_names), None)
    with right:
        rival = one_of(
            "Rather than",
            task.label_names,
            key=RIVAL,
            help="Explains by how much the class's logit leads this one's: what raises both alike, and so moves no "
            "answer, has no part in it. Nothing picked: the class's logit alone.",
        )
    shares = np.exp(one.logits - one.logits.max())
    shares /= shares.sum()
    listed = ", ".join(
        f"{escape(label)} {logit:+.3f} ({percent(share)})"
        for label, logit, share in zip(task.label_names, one.logits, shares, strict=True)
    )
    predicted = escape(task.label_names[one.prediction])
    picked = "" if name in task.label_names else " No class is picked, so the predicted one is explained."
    on_data = output if name in task.label_names else None
    mine = task.label_names[output]
    what = f"the logit of {mine}"
    if rival not in task.label_names or rival == mine:
        alone = f" {escape(mine)} has no lead over itself, so its logit alone is explained." * (rival == mine)
        st.caption(f"Predicted: **{predicted}**. Logits (probabilities): {listed}.{picked}{alone}")
        return Picked(one, output, what, on_data)
    other = task.label_names.index(rival)
    lead = one.logits[output] - one.logits[other]
    st.caption(
        f"Predicted: **{predicted}**. Logits (probabilities): {listed}.{picked} Explained is by how much the "
        f"logit of {escape(mine)} leads that of {escape(rival)}: **{lead:+.3f}**."
    )
    return Picked(one.against(output, other), 0, f"{what} less that of {rival}", on_data)


def reading_notes(one: Explained) -> None:
    """What of the input the model does not read as it was typed."""
    instance = one.instance
    if instance.truncated:
        st.caption(
            f":material/content_cut: The text has {instance.full_length:,} tokens and the model reads at most "
            f"{len(instance.tokens):,}; only the beginning, "
            f"{counted(len(instance.words), instance.unit)}, is explained."
        )
    if len(instance.tokens) > (evaluated := one.checkpoint.info.max_length):
        whole = "" if instance.truncated else "all "
        st.caption(
            f":material/content_cut: This page reads {whole}{len(instance.tokens):,} tokens of the text; usage and "
            f"scores, and the answers on Overview, read {evaluated:,} of them, which give "
            f"**{escape(answer_as_scored(one))}**."
        )
    if instance.unknown:
        shown = ", ".join(escape(shorten(word, _LONGEST)) for word in instance.unknown[:8])
        more = " and more" if len(instance.unknown) > 8 else ""
        st.caption(
            f":material/question_mark: Not in the model's vocabulary, and read as its one unknown token: "
            f"{shown}{more}."
        )


def options(one: Explained) -> Options:
    """The controls of the words' attributions."""
    methods = st.pills(
        "Methods",
        tokens.METHODS,
        selection_mode="multi",
        default=tokens.METHODS,
        key=METHODS,
        bind="query-params",
        help="  \n".join(f"**{name}**: {about}." for name, about in _ABOUT.items()),
    )
    widths = [3, 3, 5] if one.instance.reroutes else [3, 5]
    *left, middle, right = st.columns(widths, gap="medium", vertical_alignment="bottom")
    steps = middle.select_slider(
        "Integration steps, at least",
        _STEPS,
        value=32,
        key=STEPS,
        bind="query-params",
        help="Of integrated gradients, at least: points on the way from the baseline to the input. Where the sum still "
        f"misses by more than {percent(tokens.LARGE_ERROR, 0)}, they are doubled, up to {tokens.ENOUGH_STEPS}"
        f"{'; with a route that is not frozen they stay as set' * one.instance.reroutes}.",
    )
    known = [
        label for label, name in REPLACEMENTS.items() if name == "remove" or name in one.instance.replacements
    ]
    fall_back(REPLACED, known, known[0])
    replaced = right.segmented_control(
        f"An ablated {one.instance.unit} is replaced by",
        known,
        default=known[0],
        required=True,
        key=REPLACED,
        bind="query-params",
        help="**mask token**: the token that stands for a hidden word, once for each token of it. "
        "**padding**: the padding token, which the model attends to here; the baseline of integrated gradients. "
        "**nothing**: it is taken out and the others move up.",
    )
    frozen = True
    if one.instance.reroutes:
        frozen = left[0].toggle(
            "Freeze the route",
            value=True,
            key=FREEZE,
            bind="query-params",
            help="For integrated gradients. The output jumps where the route changes, which no gradient sees. Frozen "
            "at the input's own experts, the scores add up; turn it off to see by how much they miss otherwise.",
        )
    return Options(
        tuple(name for name in tokens.METHODS if name in (methods or ())),
        steps if steps in _STEPS else 32,
        frozen,
        REPLACEMENTS.get(replaced, REPLACEMENTS[known[0]]),
    )


def words(one: Explained, output: int, what: str, name: str) -> Options:
    """The attribution to words: coloured text, completeness, bars, table, agreement, and the check.

    Returns:
        The options that it was made with.
    """
    st.header(f"{one.instance.unit.capitalize()}s", anchor="words")
    chosen = options(one)
    if chosen.methods:
        _attributions(one, output, what, name, chosen)
    else:
        st.info("Pick at least one method above.", icon=":material/checklist:")
    return chosen


def _attributions(one: Explained, output: int, what: str, name: str, chosen: Options) -> None:
    found, verdicts = [], []
    parts, unit = [column.replace("_", " ") for column in one.instance.task.text_columns], one.instance.unit
    try:
        # Each is drawn before the next, since one may take a minute on a long text.
        for method in chosen.methods:
            result = word_scores(one, output, method, chosen)
            st.html(figures.colored_words(result, parts, escape_html(result.method.capitalize())))
            st.caption(_about(result, chosen, one.preference))
            _completeness(result, chosen, one.instance.reroutes)
            found.append(result)
            verdicts.append(st.empty())
    except ShrpError as error:
        state.show_error(error)
        return
    st.caption(
        f"Orange with a solid line: the {unit} raises {escape(what)}. Blue with a dotted line: it lowers it. Each "
        f"method has its own scale, the strongest colour for its largest score; hover over a {unit} for its value, or "
        "read the table. Whether to trust them is checked below."
    )
    subtitle = f"n = {counted(len(one.instance.words), unit)}; each panel has its own scale"
    x = "change of the log-odds (nats)" if one.preference else figures.CHANGE
    fig, shown = figures.word_bars(found, escape_html(what), subtitle, x)
    frame = tokens.to_frame(found)
    chart(
        fig,
        frame,
        "word-bars",
        f"{name}-words",
        f"Bars of {len(found)} attribution(s) of {what} to {shown} {unit}s. "
        + " ".join(f"Largest by {result.method}: {_largest(result)}." for result in found)
        + " The table under it has all values.",
    )
    if shown < len(frame):
        st.caption(
            f"The chart shows the {shown} of {len(frame):,} {unit}s with the largest scores; the CSV has all."
        )
    with st.expander("All values as a table", icon=":material/table:"):
        _table(frame, unit, pair=len(parts) == 2, preference=one.preference)
    if len(found) > 1 and len(found[0].words) > 2:  # two are in the same order or the reverse
        _agreement(found)
    for place, said in zip(verdicts, trust_part(one, output, found, chosen, name), strict=False):
        place.markdown(said)


def _about(result: WordScores, chosen: Options, preference: tuple[int, int, int] | None) -> str:
    if result.method == tokens.METHODS[0]:
        return (
            "Preview: a first-order estimate from one gradient, valid for small changes of the embeddings. Scores need "
            "not add up; of a model that routes the route is fixed, since a gradient can't see it change."
        )
    if result.method == tokens.METHODS[1]:
        return (
            f"From a baseline of padding tokens (the special tokens at the ends and between texts kept), in "
            f"{result.steps} steps. "
        )
    unit = result.unit
    text = f"Each {unit} in turn is replaced by {replaced_by(chosen.replacement)}"
    if result.rerouted is None:
        return f"{text}. These need not add up: {unit}s act together."
    some = int((result.rerouted > 0).sum())
    where = "some layer" if preference is None else f"some layer up to {preference[0]}"
    return (
        f"{text}, and the model routes anew; {some} of {len(result.words)} {unit}s change the route of what is left "
        f"in {where}. These need not add up: {unit}s act together."
    )


def replaced_by(replacement: str) -> str:
    """What words are replaced by, in a sentence; one of `shrp.analysis.attribution.tokens.REPLACEMENTS`."""
    label = next(label for label, value in REPLACEMENTS.items() if value == replacement)
    return f"the {label}" if replacement == "mask" else label


def named(words: Sequence[Word], place: int, task: Task, *more: str, longest: int = _LONGEST) -> str:
    """A word, or longer piece, as Markdown, with what tells it from others in brackets: the text of a pair that it is
    in, and its place where another one there reads the same.

    Args:
        more: what else is said of it there, as Markdown.
        longest: characters that are shown.
    """
    word, said = words[place], list(more)
    text = shorten(word.text, longest)
    if sum(one.part == word.part and shorten(one.text, longest) == text for one in words) > 1:
        said.insert(0, f"place {place + 1}")
    if len(task.text_columns) == 2:
        said.insert(0, escape(task.text_columns[word.part]))
    return f"**{escape(text)}**" + (f" ({', '.join(said)})" if said else "")


def _completeness(result: WordScores, chosen: Options, routed: bool) -> None:
    """Both sides of the sum that integrated gradients claim, and how far they are apart."""
    if result.reference is None:
        return
    difference = result.full - result.reference
    part = result.error_part
    sums = (
        f"{result.unit}s sum to **{result.total:+.4f}**; output {result.full:+.4f} less baseline "
        f"{result.reference:+.4f} is **{difference:+.4f}**; completeness error "
        f"**{result.error:+.4f}** ({percent(part)} of the "
        "difference)"
    )
    if part <= tokens.LARGE_ERROR:
        st.markdown(f":material/check: Completeness: {sums}, after {result.steps} steps.")
        if abs(difference) < _LITTLE * abs(result.full):
            st.warning(little_explained(result, chosen.frozen and routed), icon=":material/balance:")
    elif chosen.frozen:
        st.warning(
            f"Completeness: {sums}, even after {result.steps} steps. Do not trust these scores, nor their signs: the "
            "output is too steep on the way from the baseline, or the difference too small.",
            icon=":material/functions:",
        )
    else:
        st.warning(
            f"Completeness: {sums}. The route is not frozen: where it changes on the way from the baseline, the "
            "output jumps, and no number of steps makes gradients see a jump.",
            icon=":material/functions:",
        )


def little_explained(result: WordScores, frozen: bool) -> str:
    """What it means that the baseline has most of the output already, as Markdown."""
    text = (
        f"Padding alone has {result.reference:+.3f} of the output's {result.full:+.3f}: these scores share out what is "
        f"left, {result.full - result.reference:+.3f}, however strong their colours. They can foresee what replacing "
        f"a {result.unit} changes, which [the check](#trust) tests, but not say why the output is as high as it is. "
        "Word ablation compares with the text itself."
    )
    if frozen:
        text += (
            " The route is frozen at this input's experts, and they may give this answer whatever the words are: turn "
            "*Freeze the route* off to let padding choose its own."
        )
    return text


def _largest(result: WordScores) -> str:
    place = int(np.abs(result.scores).argmax())
    return f"{result.words[place].text} {result.scores[place]:+.3f}"


def _table(frame: pd.DataFrame, unit: str, *, pair: bool, preference: tuple[int, int, int] | None) -> None:
    columns = {name: st.column_config.NumberColumn(format="%+.4f") for name in tokens.METHODS}
    columns["tokens"] = st.column_config.NumberColumn(help=f"How many tokens the {unit} is made of")
    columns["layers routed anew"] = st.column_config.NumberColumn(
        help=f"In how many routed layers replacing the {unit} changes the route of what is left"
        + ("" if preference is None else f", up to layer {preference[0]}")
    )
    st.dataframe(
        frame if pair else frame.drop(columns="text"),
        hide_index=True,
        column_config=columns,
        height="content" if len(frame) <= 15 else 420,
        alt=f"Every {unit}'s score by every method",
    )


def _agreement(found: list[WordScores]) -> None:
    frame, unit = tokens.agreement(found), found[0].unit
    st.subheader("Do the methods agree?", anchor=False)
    st.caption(f"Rank correlation over {unit}s: 1 the same order, −1 the reverse.")
    st.dataframe(
        frame.rename(
            columns={
                "a": "method",
                "b": "and",
                "n": f"n {unit}s",
                "spearman": "Spearman ρ",
                "spearman p": "p of ρ",
                "kendall": "Kendall τ",
                "kendall p": "p of τ",
            }
        ),
        hide_index=True,
        width="content",
        column_config={
            name: st.column_config.NumberColumn(format="%.2f") for name in ("Spearman ρ", "Kendall τ")
        }
        | {
            name: st.column_config.NumberColumn(
                format="%.3f", help=f"Two-sided: how often {unit}s in a random order would correlate so much"
            )
            for name in ("p of ρ", "p of τ")
        },
        alt="Rank correlations between the methods",
    )
    n = len(found[0].words)
    if n < FEW_WORDS:
        st.caption(
            f":material/warning: {n} {unit}s are few: large correlations arise by chance. Read the p-values, or take "
            "a longer text."
        )
