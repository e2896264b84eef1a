"""The table of the Routing page: sentences with their prediction, and the route of each as a strip of boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.explore import Exploration
from shrp.analysis.usage import NOISY_MARGIN
from shrp.data.tabular import distinct
from shrp.data.tasks import TEXTS
from shrp.phrases import numbered
from ui.downloads import downloads
from ui.routing.sentences import kind_of
from ui.text import escape_html, percent, shorten

SAME, OTHER = (31, 95, 168), (196, 90, 0)
"""Blue: the expert that the picked sentence takes in that layer. Orange: another one. Mixed with white by share."""
_LONGEST = 160
_CELL = "padding:3px 5px;text-align:left;vertical-align:middle"


def sentence_table(found: Sequence[Exploration], picked: int, name: str, scored: int) -> None:
    """Draw the table of all sentences."""
    rows = [
        (str(i), " / ".join(shorten(text, _LONGEST) for text in e.text), e) for i, e in enumerate(found, 1)
    ]
    st.html(routes_html(rows, found[picked], first="", alt="Sentences with predictions and routes"))
    notes = reading_notes(found, scored)
    if found[0].layers:
        notes.insert(0, legend(found[0], of=f"{kind_of(found[0].task)} {picked + 1}" * (len(found) > 1)))
    row = st.container(horizontal=True, vertical_alignment="top")
    with row:
        st.caption(" ".join(notes) or " ", width="stretch")
        downloads(frame(found), "predictions", f"{name}-predictions")


def legend(e: Exploration, of: str) -> str:
    """How a strip is read, in one line; `of` is what the colours compare with, empty for nothing."""
    several = max(map(e.several, e.layers)) > 1
    if e.by_token:
        what, dark = "the expert that most tokens take in a layer", "more tokens take it"
    elif several:
        what, dark = "the experts that a layer takes, largest gate first", "the router is surer of the first"
    else:
        what, dark = "the expert that a layer takes", "the router is surer"
    orange = f" Orange: not the same as {of}." if of else ""
    return f"Boxes: {what}; darker: {dark}.{orange}"


def routes_html(
    rows: Sequence[tuple[str, str, Exploration]],
    compared: Exploration,
    *,
    first: str,
    alt: str,
    forced: Sequence[int] = (),
) -> str:
    """A table as HTML; everything typed is escaped. `compared`: The exploration that the strips' colours compare with."""
    task, layers = compared.task, compared.layers
    texts = any(text for _, text, _ in rows)
    answers = task.name != TEXTS.name
    heads = [first, *[kind_of(task)] * (texts and not task.on_tokens)]
    heads += ["prediction"] * answers
    span = ' rowspan="2"' if layers else ""
    head = "".join(f'<th{span} scope="col" style="{_CELL}">{name}</th>' for name in heads)
    if layers:
        head += f'<th colspan="{len(layers)}" style="{_CELL};text-align:center">expert in layer</th></tr><tr>'
        mark = lambda layer: f"<b title='forced'>{layer} ◆</b>" if layer in forced else f"{layer}"  # noqa: E731
        head += "".join(
            f'<th scope="col" style="text-align:center;font-weight:400">{mark(n)}</th>' for n in layers
        )
    body = ""
    for short, text, e in rows:
        cells = [f'<td style="{_CELL};opacity:.7">{escape_html(short)}</td>']
        width = "min-width:100px;overflow-wrap:anywhere"
        if texts and not task.on_tokens:
            cells.append(f'<td dir="auto" style="{_CELL};{width}">{escape_html(text)}</td>')
        if task.on_tokens:
            cells.append(f'<td dir="auto" style="{_CELL};{width}">{marked(e)}</td>')
        elif answers:
            sure = "" if task.is_regression else percent(float(e.probabilities[e.prediction]))
            cells.append(f'<td style="{_CELL}"><b>{escape_html(e.answer)}</b> {sure}</td>')
        cells += [_box(e, compared, layer) for layer in layers]
        body += f"<tr>{''.join(cells)}</tr>"
    return (
        f'<div style="overflow:auto;max-height:340px" tabindex="0" role="region" aria-label="{escape_html(alt)}">'
        '<table class="routes" style="border-collapse:separate;border-spacing:1px;font-size:.9rem;width:100%">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def marked(e: Exploration) -> str:
    """A sentence as HTML, each word that has another class than `O` marked with it; the darker, the surer.

    Or a question, and the answer marked in the text around it.
    """
    if e.task.on_spans:
        (question, text), (start, end) = e.text, e.span
        before, after = text[max(start - _LONGEST, 0) : start], text[end : end + _LONGEST]
        before, after = "…" * (start > _LONGEST) + before, after + "…" * (end + _LONGEST < len(text))
        look = f"background:rgba({','.join(map(str, SAME))},.3);border-radius:3px;padding:0 2px"
        answer = f'<mark style="{look};color:inherit">{escape_html(e.answer)}</mark>'
        return f"<b>{escape_html(shorten(question, _LONGEST))}</b><br>{escape_html(before)}{answer}{escape_html(after)}"
    parts = []
    for word, name, share in e.labelled_words:
        text = escape_html(word)
        if name == "-":
            text = f'<span title="not read" style="opacity:.5">{text}</span>'
        elif name != "O":
            look = f"background:rgba({','.join(map(str, SAME))},{0.35 * share:.2f});border-radius:3px;padding:0 2px"
            label = f'<small style="opacity:.8"> {escape_html(name)}</small>'
            text = f'<span title="{escape_html(name)} {percent(share)}" style="{look}"><b>{text}</b>{label}</span>'
        parts.append(text)
    return " ".join(parts)


def taken(e: Exploration, layer: int) -> frozenset[int]:
    """The experts that a sentence takes in a layer; under token routing the one that most tokens take."""
    if e.by_token:
        return frozenset([e.choice(layer)])
    return frozenset(np.flatnonzero(e.fires(layer)[0]).tolist())


def _box(e: Exploration, compared: Exploration, layer: int) -> str:
    choice = e.choice(layer)
    share = float(e.shares(layer)[choice] if e.by_token else e.mean_probs(layer)[choice])
    same = taken(e, layer) == taken(compared, layer)
    strength = 0.15 + 0.85 * share
    red, green, blue = (round(255 - (255 - part) * strength) for part in (SAME if same else OTHER))
    experts = ", ".join(map(str, [choice, *([] if e.by_token else e.with_it(layer))]))
    unit = "of tokens" if e.by_token else "router probability"
    ink = "#fff" if same and strength > 0.84 else "#000"  # each at least 4.5:1
    return (
        f'<td title="layer {layer}: expert {experts}, {percent(share)} {unit}" style="background:rgb'
        f"({red},{green},{blue});color:{ink};font-weight:{400 if same else 700};text-align:center;"
        f'min-width:24px;padding:3px 2px;border-radius:3px">{experts}</td>'
    )


def frame(found: Sequence[Exploration]) -> pd.DataFrame:
    """One row a sentence: its texts, prediction, class probabilities, expert of each layer, tokens read."""
    task = found[0].task
    classes = [] if task.on_tokens else [f"p({name})" for name in task.label_names]
    experts = [f"expert in layer {layer}" for layer in found[0].layers]
    texts = distinct(task.text_columns, [number := f"{kind_of(task)} no.", "prediction", "tokens", *classes, *experts])
    rows = []
    for i, e in enumerate(found, 1):
        row = {number: i} | dict(zip(texts, e.text, strict=True)) | {"prediction": e.answer}
        row |= dict(zip(classes, e.probabilities.tolist(), strict=False)) if classes else {}
        row |= {name: e.choice(layer) for name, layer in zip(experts, e.layers, strict=True)}
        rows.append(row | {"tokens": len(e.tokens)})
    return pd.DataFrame(rows)


def reading_notes(found: Sequence[Exploration], scored: int) -> list[str]:
    """Sentences on what the model does not read as it was typed, here or in scores.

    `scored`: Tokens of a sentence that scores and usage read.
    """
    notes, kind = [], kind_of(found[0].task)
    if cut := [i for i, e in enumerate(found, 1) if e.truncated]:
        most = max(len(e.tokens) for e in found)
        notes.append(f":material/content_cut: Only the first {most:,} tokens of {numbered(kind, cut)} are read.")
    if longer := [i for i, e in enumerate(found, 1) if len(e.tokens) > scored]:
        notes.append(f"Other pages read only the first {scored:,} tokens of {numbered(kind, longer)}.")
    if unknown := [i for i, e in enumerate(found, 1) if e.unknown]:
        notes.append(f":material/question_mark: The vocabulary lacks words of {numbered(kind, unknown)}.")
    return notes


def agreement(found: Sequence[Exploration]) -> str:
    """In which layers the routes of two inputs differ, and where that was close, in words."""
    layers = found[0].layers
    differ = [layer for layer in layers if len({taken(e, layer) for e in found}) > 1]
    most = " (by the expert that most tokens take)" * found[0].by_token
    if not differ:
        return f"Both take the same experts in all {len(layers)} routed layers{most}."
    near = [layer for layer in differ if min(e.margin(layer) for e in found) < NOISY_MARGIN]
    close = f" Close calls, with router probabilities less than {percent(NOISY_MARGIN, 0)} apart: {numbered('layer', near)}."
    close *= bool(near)
    return f"The routes differ in {len(differ)} of {len(layers)} layers{most}: {numbered('layer', differ)}.{close}"
