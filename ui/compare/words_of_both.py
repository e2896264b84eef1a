"""One input by two models: what each answers, and which words move the one, and not the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.analysis.attribution.beside import Question, beside, question
from shrp.analysis.attribution.tokens import LARGE_ERROR, METHODS, WordScores
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.statistics import spearman
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from ui import state
from ui.attribution.figures import CHANGE, name_rows
from ui.attribution.results import Explained, Options, explained, word_scores
from ui.downloads import chart
from ui.lab.sides import model_key
from ui.pickers import always_one
from ui.text import capital, escape, escape_html, p_text, percent, shorten, signed
from ui.theme import BLUE, GREEN, layout

METHOD = "words_by"
"""Key of the picker below a flip, in the session's state and in the URL alike."""
_MOST = 30
"""Words in the figure; the CSV has all."""
_LINE = 30  # pixels of a word's two bars
_FEW = 10  # words, of which a rank correlation says little


@dataclass(frozen=True)
class Model:
    """One of the two."""

    name: str
    """Short, as tables head it; plain text."""
    opened: Callable[[], Checkpoint] | None
    """Gives the model, None where its answers alone are at hand."""


def pruned_to(checkpoint: Checkpoint, plan: PruningPlan) -> Checkpoint:
    """The checkpoint with its model pruned, which shares its weights, and with a fingerprint of its own."""
    static = prune(checkpoint.model, plan, share_weights=True)
    return replace(checkpoint, model=static, fingerprint=model_key(checkpoint, plan))


def of_flip(models: tuple[Model, Model], data: TextData, number: int, file: str) -> None:
    """The words of an input of the data, by its number; else as `section`."""
    st.markdown("**Which words move which of the two**")
    name = f"{file}-words-of-input-{number}"
    section(models, data.task, data.texts[number], f"input {number} of {data.name}", METHOD, name)


def section(
    models: tuple[Model, Model], task: Task, text: tuple[str, ...], which: str, key: str, file: str
) -> None:
    """The answers of both models to one input, and their words; a sentence where one model is not there.

    Args:
        which: what input it is, in plain text.
        key: of the picker of the method.
        file: name of what is downloaded.
    """
    if missing := [model.name for model in models if model.opened is None]:
        st.caption(
            f":material/info: Of {escape(' and '.join(missing))} only answers that were stored are at hand, not the "
            "model, which could be asked; pick its own checkpoint where you have it."
        )
        return
    method = always_one("By", (METHODS[2], METHODS[1]), key)
    names = (models[0].name, models[1].name)
    try:
        both = [explained(model.opened(), text) for model in models]
        asked = question([one.instance for one in both], [one.logits for one in both])
        options = Options(methods=(method,), replacement=asked.replacement)
        found = [_scores(one, asked, method, options) for one in both]
        frame = beside(*found)
    except ShrpError as error:
        state.show_error(error)
        return
    labels, unit = task.label_names, asked.unit
    what = asked.what(labels)
    wrong = [
        name
        for name, one in zip(names, found, strict=True)
        if one.error_part is not None and one.error_part > LARGE_ERROR
    ]
    said = _said(frame, found, names, what, unit, told=not wrong)
    st.markdown(escape(capital(_answers(both, names, labels)) + said))
    if wrong:
        st.warning(
            f"Of {escape(' and '.join(wrong))} the scores don't add up to what they share out, even after "
            f"{max(one.steps for one in found)} steps. Do not trust them, nor their signs: the output is too steep on "
            "the way from the baseline, or the difference too small.",
            icon=":material/functions:",
        )
    drawn = _most_moving(frame)
    some = f"; the {len(drawn)} of {len(frame)} {unit}s that count most in either" * (len(drawn) < len(frame))
    chart(
        bars(drawn, unit, names, what, f"{method}, {which}{some}"),
        frame.rename(columns=lambda name: name.replace("one", names[0]).replace("other", names[1])),
        f"{key}-chart",
        file,
        f"Bars, two for each {unit}: how much it adds to {what} in {names[0]} and in {names[1]}. {said}",
    )
    st.caption(escape(_read(both, names, method, asked.replacement)))


def _scores(one: Explained, asked: Question, method: str, options: Options) -> WordScores:
    """The words of one model, kept as those of the Attribution page are."""
    one, output = one.by(asked.unit), asked.output
    if asked.rather_than is not None:
        one, output = one.against(asked.output, asked.rather_than), 0
    return word_scores(one, output, method, options)


def _answers(both: Sequence[Explained], names: tuple[str, str], labels: Sequence[str]) -> str:
    """What both answer, in plain text."""
    if not labels:
        said = [f"{one.logits[0]:.3f}" for one in both]
    else:
        shares = [np.exp(one.logits - one.logits.max()) for one in both]
        said = [
            f"{labels[one.prediction]} ({percent(share.max() / share.sum())})"
            for one, share in zip(both, shares, strict=True)
        ]
    return f"{names[0]} answers {said[0]}, {names[1]} {said[1]}. "


def _said(
    frame: pd.DataFrame,
    found: Sequence[WordScores],
    names: tuple[str, str],
    what: str,
    unit: str,
    *,
    told: bool,
) -> str:
    """What both have, the word that counts most differently, and how alike they rank the words, in plain text.

    Args:
        told: whether scores can be trusted, and so more is told than what both have.
    """
    values = " and ".join(f"{signed(one.full, 2)} by {name}" for one, name in zip(found, names, strict=True))
    said = f"Explained is {what}: {values}."
    known = frame.dropna(subset=["apart"])
    if known.empty:
        return f"{said} No {unit} is read by both."
    if not told:
        return said
    most = known.loc[known["apart"].abs().idxmax()]
    parts = [
        f"{signed(most[column], 2)} for {name} ({_percent(most[f'{column} part'])})"
        for column, name in zip(("one", "other"), names, strict=True)
    ]
    said += (
        f" Most differently counts “{shorten(most[unit], 24)}”: {' and '.join(parts)}, in brackets as parts of each "
        "one's largest."
    )
    if len(known) < _FEW or min(np.ptp(known["one"]), np.ptp(known["other"])) == 0:
        return said
    rho, p = spearman(known["one"], known["other"])
    return (
        f"{said} Over {len(known)} {unit}s their scores have a rank correlation of {rho:.2f} ({p_text(p)})."
    )


def _read(both: Sequence[Explained], names: tuple[str, str], method: str, replaced: str) -> str:
    """How scores were made, and what of the input was read, in plain text."""
    stands = {"mask": "the mask token stands", "pad": "the padding token stands", "remove": "nothing stands"}
    how = (
        f"What a word adds is what is lost when {stands[replaced]} in its place, one word at a time; a model that "
        "routes does so anew."
        if method == METHODS[2]
        else "Gradients are summed on the way from padding to the input, along the input's own route."
    )
    cut = [
        f"{name} reads {len(one.instance.tokens):,} tokens here, {one.checkpoint.info.max_length:,} where it is scored"
        for one, name in zip(both, names, strict=True)
        if len(one.instance.tokens) > one.checkpoint.info.max_length
    ]
    return (
        f"{how} One input, so there is no interval. Logits of two models need not be on one scale: which words count "
        "in each says more than how long its bars are." + f" {'; '.join(cut)}." * bool(cut)
    )


def _percent(value: float) -> str:
    return f"{signed(100 * value, 0)}%"


def _most_moving(frame: pd.DataFrame) -> pd.DataFrame:
    """The words that move either model most, each as a part of that model's largest; in the order of the text."""
    parts = frame[["one part", "other part"]].abs().max(axis=1).fillna(0)
    return frame.loc[parts.sort_values(ascending=False, kind="stable").index[:_MOST].sort_values()]


def bars(frame: pd.DataFrame, unit: str, names: tuple[str, str], what: str, subtitle: str) -> go.Figure:
    """Two bars a word, the first model's above the second's.

    Args:
        frame: of `shrp.analysis.attribution.beside.beside`.
        what: what is explained; plain text, as `names` and `subtitle` are.
    """
    labels = [
        f"{row.place}. {escape_html(shorten(getattr(row, unit), 24 if unit == 'word' else 40))}"
        for row in frame.itertuples()
    ]
    fig = go.Figure()
    for column, name, color in (("one", names[0], BLUE), ("other", names[1], GREEN)):
        fig.add_trace(
            go.Bar(
                x=frame[column],
                y=np.arange(len(frame)),
                orientation="h",
                name=escape_html(name),
                marker={"color": color},
                customdata=labels,
                hovertemplate="%{customdata}<br>%{x:+.4f}<extra>" + escape_html(name) + "</extra>",
            )
        )
    name_rows(fig, labels, CHANGE)
    layout(
        fig,
        f"What each {unit} adds to {escape_html(what)}",
        subtitle=escape_html(subtitle),
        height=170 + _LINE * max(len(labels), 3),
    )
    return fig
