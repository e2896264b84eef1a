"""Of an input that two models answer differently: which words move the one, and not the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.attribution.beside import beside, parting, same_replacement, same_unit
from shrp.attribution.tokens import METHODS, WordScores
from shrp.checkpoint import Checkpoint
from shrp.data import TextData
from shrp.errors import ShrpError
from shrp.phrases import signed
from shrp.plan import PruningPlan
from shrp.prune import prune
from shrp.ranks import spearman
from ui import state
from ui.attribution_figures import CHANGE
from ui.attribution_results import Explained, Options, explained, word_scores
from ui.downloads import chart
from ui.lab_sides import model_key
from ui.pickers import always_one
from ui.text import escape, escape_html, p_text, shorten
from ui.theme import BLUE, GREEN, GREY, layout

METHOD = "words_by"
"""Key of the picker, in the session's state and in the URL alike."""
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


def section(models: tuple[Model, Model], data: TextData, number: int, file: str) -> None:
    """The words of one input by both models; a sentence where one is not there.

    Args:
        number: the input's in the data.
        file: name that downloads begin with.
    """
    st.markdown("**Which words move which of the two**")
    if missing := [model.name for model in models if model.opened is None]:
        st.caption(
            f":material/info: Of {escape(' and '.join(missing))} answers alone are at hand, which no words explain; a "
            "checkpoint of its own would be."
        )
        return
    method = always_one("By", (METHODS[2], METHODS[1]), METHOD)
    names = (models[0].name, models[1].name)
    try:
        both = [explained(model.opened(), data.texts[number]) for model in models]
        unit = same_unit([one.instance for one in both])
        replaced = same_replacement([one.instance for one in both])
        classes = parting(both[0].logits, both[1].logits)
        both = [one.by(unit) for one in both]
        if classes is not None:
            both = [one.against(*classes) for one in both]
        options = Options(methods=(method,), replacement=replaced)
        found = [word_scores(one, 0, method, options) for one in both]
        frame = beside(*found)
    except ShrpError as error:
        state.show_error(error)
        return
    labels = data.task.label_names
    what = (
        "the output" if classes is None else f"the logit of {labels[classes[0]]} less {labels[classes[1]]}'s"
    )
    said = _said(frame, found, names, what, unit)
    st.markdown(escape(said))
    drawn = _most_moving(frame)
    some = f"; the {len(drawn)} of {len(frame)} {unit}s that move either most" * (len(drawn) < len(frame))
    chart(
        bars(drawn, unit, names, what, f"{method}, input {number} of {data.name}{some}"),
        frame.rename(columns={"one": names[0], "other": names[1]}),
        "words-of-both",
        f"{file}-words-of-input-{number}",
        f"Bars, two for each {unit}: how much it moves {what} in {names[0]} and in {names[1]}. {said}",
    )
    st.caption(escape(_read(both, names, method, replaced)))


def _said(
    frame: pd.DataFrame, found: Sequence[WordScores], names: tuple[str, str], what: str, unit: str
) -> str:
    """The outputs, the word over which the models part most, and how alike they rank the words, in plain text."""
    values = " and ".join(f"{_number(one.full)} by {name}" for one, name in zip(found, names, strict=True))
    said = f"Explained is {what}: {values}."
    known = frame.dropna(subset=["difference"])
    if known.empty:
        return f"{said} No {unit} is read by both."
    most = known.loc[known["difference"].abs().idxmax()]
    said += (
        f" Furthest apart they are at “{shorten(most[unit], 24)}”, which adds {_number(most['one'])} for {names[0]} "
        f"and {_number(most['other'])} for {names[1]}."
    )
    if len(known) < _FEW or min(np.ptp(known["one"]), np.ptp(known["other"])) == 0:
        return said
    rho, p = spearman(known["one"], known["other"])
    return (
        f"{said} Over {len(known)} {unit}s their scores have a rank correlation of {rho:.2f} ({p_text(p)})."
    )


def _read(both: Sequence[Explained], names: tuple[str, str], method: str, replaced: str) -> str:
    """How scores were made, and what of the input was read, in plain text."""
    stands = {"mask": "the mask token stands", "pad": "the padding token stands", "remove": "nothing stands"}[
        replaced
    ]
    how = (
        f"What a word adds is what is lost when {stands} in its place, one word at a time; a model that routes does so "
        "anew."
        if method == METHODS[2]
        else "Gradients are summed on the way from padding to the input, along the input's own route."
    )
    cut = [
        f"{name} reads {len(one.instance.tokens):,} tokens here, scores {one.checkpoint.info.max_length:,}"
        for one, name in zip(both, names, strict=True)
        if len(one.instance.tokens) > one.checkpoint.info.max_length
    ]
    return (
        f"{how} One input, so there is no interval. Logits of two models need not be on one scale: which words count "
        "in each says more than how long its bars are." + f" {'; '.join(cut)}." * bool(cut)
    )


def _number(value: float) -> str:
    return signed(value, 2).replace("-", "−")


def _most_moving(frame: pd.DataFrame) -> pd.DataFrame:
    """The words that move either model most, each as a part of that model's largest; in the order of the text."""
    sizes = frame[["one", "other"]].abs()
    parts = (sizes / sizes.max().replace(0, 1)).max(axis=1).fillna(0)
    return frame.loc[parts.sort_values(ascending=False, kind="stable").index[:_MOST].sort_values()]


def bars(frame: pd.DataFrame, unit: str, names: tuple[str, str], what: str, subtitle: str) -> go.Figure:
    """Two bars a word, the first model's above the second's.

    Args:
        frame: of `shrp.attribution.beside.beside`.
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
    fig.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[len(labels) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    fig.update_xaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1, nticks=8, title_text=CHANGE)
    layout(
        fig,
        f"What each {unit} adds to {escape_html(what)}",
        subtitle=escape_html(subtitle),
        height=170 + _LINE * max(len(labels), 3),
    )
    return fig
