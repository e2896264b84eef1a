"""The part of the attribution page about the fewest words without which the answer is another one."""

from __future__ import annotations

from urllib.parse import quote

import streamlit as st

from shrp.attribution import flips
from shrp.attribution.flips import Flip, Flips
from shrp.convert import expert_layers
from shrp.errors import ShrpError
from shrp.phrases import listed
from ui.attribution_results import Explained, fewest_words
from ui.attribution_words import replaced_by
from ui.downloads import downloads
from ui.sentences import LONGEST_LINK, URL, as_lines
from ui.state import Selection, show_error
from ui.text import escape, percent, shorten

NAMED = 12
"""Words that a sentence names at most."""
_ROWS = 10


def flips_part(one: Explained, replacement: str, selection: Selection) -> None:
    """The section; none for a regression, whose output has nothing to flip to.

    Args:
        replacement: what stands for a word, of `shrp.attribution.tokens.REPLACEMENTS`.
    """
    if one.instance.task.is_regression:
        return
    st.header("Fewest words that change the answer", anchor="flips")
    try:
        found = fewest_words(one, replacement)
    except ShrpError as error:
        show_error(error)
        return
    labels = one.instance.task.label_names
    st.markdown(sentence(found, labels))
    if len(found.found) > 1:
        _table(found, one, selection.name)
    st.caption(tried(found, replacement))
    if found.found and selection.is_routed:
        _both_routes(one, found.found[0], replacement)


def _both_routes(one: Explained, best: Flip, replacement: str) -> None:
    """A link to the routes of the input and of what is left of it."""
    tokenizer = one.checkpoint.tokenizer
    instead = {"mask": tokenizer.mask_token, "pad": tokenizer.pad_token}.get(replacement, "")
    left = one.instance.text_without(best.places, instead)
    lines = as_lines([one.instance.text, left])
    if all(part.strip() for part in left) and len(quote(lines)) <= LONGEST_LINK:
        st.page_link(
            "pages/routing.py",
            label="Both routes, with these words and without",
            icon=":material/alt_route:",
            query_params={URL: lines},
        )


def sentence(found: Flips, labels: tuple[str, ...]) -> str:
    """What was found, as Markdown."""
    own = escape(labels[found.answer])
    alone = "" if found.size == 1 else "No word alone changes the answer. "
    if not found.found and len(found.words) == 1:
        return f"Without its one word the answer is still **{own}**."
    if not found.found:
        return (
            f"{alone}Nothing that was tried does: even without {found.size:,} of its {len(found.words):,} words it is "
            f"still **{own}**."
        )
    best = found.found[0]
    then = f"the answer is **{escape(labels[best.answer])}** ({percent(best.probability)}) instead of {own}"
    together = " together" if found.size > 1 else ""
    others = len(found.found) - 1
    more = (
        f" {others:,} other word{'s do' if others > 1 else ' does'} so too."
        if found.size == 1
        else f" {others:,} other set{'s' if others > 1 else ''} of as many {'do' if others > 1 else 'does'} too."
    )
    return f"{alone}Without {_named(found, best)}{together} {then}.{more if others else ''}"


def _named(found: Flips, one: Flip) -> str:
    words = [f"**{escape(shorten(found.words[place].text, 24))}**" for place in one.places[:NAMED]]
    if len(one.places) > NAMED:
        words.append(f"{len(one.places) - NAMED:,} more")
    return listed(words)


def tried(found: Flips, replacement: str) -> str:
    """How the sets were looked for, and the control."""
    parts = [
        f"Words are replaced by {replaced_by(replacement)}, as set above, and the model routes anew; {found.tried:,} "
        "sets were tried."
    ]
    among = min(flips.AMONG, len(found.words))
    if found.size > 1:
        parts.append(
            f"Single words were all tried, larger sets among the {among} that lower the answer's margin most alone."
        )
        if found.found:
            parts.append("No smaller set does it." if found.smallest else "A smaller set may exist.")
    flipped, of = found.random
    changes = "changes" if flipped == 1 else "change"
    if found.size == 1:
        parts.append(f"Of n = {of:,} words, {flipped:,} {changes} it alone.")
    else:
        parts.append(f"Control: of n = {of:,} random sets of {found.size:,} words, {flipped:,} {changes} it.")
    return " ".join(parts)


def _table(found: Flips, one: Explained, name: str) -> None:
    frame = found.to_frame(one.instance.task.label_names)
    if not expert_layers(one.instance.model):
        frame = frame.drop(columns="layers routed anew")
    st.dataframe(
        frame.assign(probability=100 * frame["probability"]),
        hide_index=True,
        width="content",
        height="content" if len(frame) <= _ROWS else 390,
        column_config={
            "places": st.column_config.TextColumn(help="Which words of the input they are, from 1"),
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
        alt="The sets of words without which the answer is another one",
    )
    downloads(frame, "flips-table", f"{name}-flips")
