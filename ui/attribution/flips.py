"""The part of the attribution page about the fewest words without which the answer is another one."""

from __future__ import annotations

from math import comb
from urllib.parse import quote

import streamlit as st

from shrp.analysis.attribution import flips
from shrp.analysis.attribution.flips import Flip, Flips
from shrp.data.tasks import Task
from shrp.errors import ShrpError
from shrp.model.convert import router_layers
from shrp.phrases import listed
from ui import arrival
from ui.attribution.results import Explained, fewest_words
from ui.attribution.words import named, replaced_by
from ui.downloads import downloads
from ui.routing.sentences import BESIDE, INPUT, LONGEST_LINK, URL, as_lines
from ui.state import show_error
from ui.text import escape, percent

FLIPS = "flips"
"""Key of the widget, in the session's state and in the URL alike."""
_SHORT = 64
"""Inputs of at most so many tokens are searched unasked, in some seconds; longer ones may take minutes."""
_FEW = 6
"""Words, or longer pieces: they have so few sets that any input is soon searched."""
_ROWS = 10


def flips_part(one: Explained, replacement: str, name: str) -> None:
    """The section; none for a regression, whose output has nothing to flip to.

    Args:
        replacement: what stands for a word, of `shrp.analysis.attribution.tokens.REPLACEMENTS`.
        name: what downloads are called.
    """
    if one.instance.task.is_regression:
        return
    st.header(f"Fewest {one.instance.unit}s that change the answer", anchor="flips")
    slow = len(one.instance.tokens) > _SHORT and len(one.instance.words) > _FEW
    if slow and not st.toggle(
        "Search", key=FLIPS, bind="query-params", help="Of a long input it may take minutes."
    ):
        return
    try:
        found = fewest_words(one, replacement)
    except ShrpError as error:
        show_error(error)
        return
    task, routed = one.instance.task, bool(router_layers(one.instance.model))
    st.markdown(sentence(found, task))
    if len(found.found) > 1:
        _table(found, task, routed, name)
    st.caption(tried(found, replacement, routed=routed))
    if found.found and routed:
        _both_routes(one, found.found[0], replacement)


def _both_routes(one: Explained, best: Flip, replacement: str) -> None:
    """A link to the routes of the input and of what is left of it, where that can be typed."""
    left = flips.left_text(one.instance, one.checkpoint.tokenizer, best.places, replacement)
    if left is None or len(quote(lines := as_lines([one.instance.text, left]))) > LONGEST_LINK:
        return
    arrival.page_link(
        "pages/routing.py",
        f"Both routes, with these {one.instance.unit}s and without",
        ":material/alt_route:",
        {URL: lines} | arrival.link({INPUT: 1, BESIDE: 2}),
    )


def sentence(found: Flips, task: Task) -> str:
    """What was found, as Markdown."""
    own, unit = escape(task.label_names[found.answer]), found.unit
    if not found.found and len(found.words) == 1:
        return f"Without its one {unit} the answer is still **{own}**."
    alone = "" if found.size == 1 else f"No {unit} alone changes the answer. "
    if not found.found:
        what = f"even without {found.size:,} of its {len(found.words):,} {unit}s it is still **{own}**"
        if not found.random[0]:
            return f"{alone}Nothing that was tried does: {what}."
        return f"{alone}The search found nothing that does: {what}. Random sets say that there is something (below)."
    best = found.found[0]
    then = f"the answer is **{escape(task.label_names[best.answer])}** ({percent(best.probability)}) instead of {own}"
    together = " together" if found.size > 1 else ""
    others = len(found.found) - 1
    more = ""
    if others and found.size == 1:
        more = f" {others:,} other {f'{unit} changes' if others == 1 else f'{unit}s change'} it too."
    elif others:
        more = f" {others:,} other {'set' if others == 1 else 'sets'} of as many, of those tried, also "
        more += "does." if others == 1 else "do."
    return f"{alone}Without {_named(found, best, task)}{together} {then}.{more}"


def _named(found: Flips, one: Flip, task: Task) -> str:
    """The words of a set."""
    longest = {} if found.unit == "word" else {"longest": 120}
    return listed([named(found.words, place, task, **longest) for place in one.places])


def tried(found: Flips, replacement: str, *, routed: bool) -> str:
    """How the sets were looked for, and the control.

    Args:
        routed: whether the model has routers.
    """
    sets = "1 set was" if found.tried == 1 else f"{found.tried:,} sets were"
    anew = ", and the model routes anew" if routed else ""
    unit = found.unit
    parts = [
        f"{unit.capitalize()}s are replaced by {replaced_by(replacement)}, as set above{anew}; {sets} tried."
    ]
    if found.size > 1:
        parts.append(_how(found))
    flipped, of = found.random
    changes = "changes" if flipped == 1 else "change"
    if found.size == 1:
        parts.append(f"Of n = {of:,} {unit if of == 1 else f'{unit}s'}, {flipped:,} {changes} it alone.")
    elif of == comb(len(found.words), found.size):
        parts.append(f"Of all n = {of:,} sets of {found.size:,} {unit}s, {flipped:,} {changes} it.")
    else:
        parts.append(
            f"Control: of n = {of:,} random sets of {found.size:,} {unit}s, {flipped:,} {changes} it."
        )
    return " ".join(parts)


def _how(found: Flips) -> str:
    """How sets of several words were looked for."""
    count, size, unit = len(found.words), found.size, found.unit
    among = f", of the {flips.AMONG} {unit}s whose loss alone leaves the smallest margins" * (
        count > flips.AMONG
    )
    text = f"All single {unit}s were tried, then all pairs"
    if count > flips.AMONG and comb(count, 2) <= flips.RANDOM:  # of 13 and 14 words there are few enough
        text += f", then all triples{among}" * (size > 2)
    else:
        text += f"{' and triples' * (size > 2)}{among}"
    if size > flips.ALL_OF:
        text += f"; larger sets, where there are too many to try all, grew from the best one before, a {unit} at a time"
    if found.found and not found.smallest:
        text += ". A smaller set may exist"
    return f"{text}."


def _table(found: Flips, task: Task, routed: bool, name: str) -> None:
    frame = found.to_frame(task.label_names)
    if not routed:
        frame = frame.drop(columns="layers routed anew")
    st.dataframe(
        frame.assign(probability=100 * frame["probability"]),
        hide_index=True,
        width="content",
        height="content" if len(frame) <= _ROWS else 390,
        column_config={
            "places": st.column_config.TextColumn(help=f"Which {found.unit}s of the input they are, from 1"),
            "answer": st.column_config.TextColumn(help="The class that is predicted without them"),
            "probability": st.column_config.NumberColumn(format="%.1f%%", help="Of that class"),
            "margin": st.column_config.NumberColumn(
                format="%+.3f",
                help="Logit of the input's own answer less the largest other one: the lower, the clearer the change",
            ),
            "layers routed anew": st.column_config.NumberColumn(
                help="Routed layers in which what is left takes other experts"
            ),
        },
        alt=f"The sets of {found.unit}s without which the answer is another one",
    )
    downloads(frame, "flips-table", f"{name}-flips")
