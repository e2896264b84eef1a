"""Links that take examples of a table along to the pages that look closer at them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import streamlit as st

from shrp.data.text_data import TextData
from shrp.data.typed import split_sentences
from ui import state
from ui.routing.sentences import LONGEST_LINK, TAB, URL, as_lines
from ui.routing.sentences import WORDS as WORDS_TAB
from ui.text import escape

ROUTE, WORDS = "its route", "which words moved the answer"


def links(data: TextData, rows: Sequence[int], *, routed: bool, whose: str = "") -> None:
    """Draw the links. `whose`: the model that is looked at, where the table is about another one; plain text."""
    texts = [data.texts[row] for row in rows]
    asked = {URL: as_lines(texts)}
    name = f"Row{'s' * (len(rows) > 1)} {' and '.join(map(str, rows))}"
    if len(quote(asked[URL])) > LONGEST_LINK:
        st.caption(f":material/info: {name}: too long for a link. Copy the text into *Routing*.")
        return
    if len(split_sentences(asked[URL], data.task)[0]) < len(texts):
        st.caption(f":material/info: {name}: cannot be typed as one line, so there is no link.")
        return
    pages = [(ROUTE, ":material/alt_route:", {})] * routed
    if not data.task.on_tokens:
        pages.append((WORDS, ":material/troubleshoot:", {TAB: WORDS_TAB}))
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        st.markdown(f"{name}{f' ({escape(whose)})' * bool(whose)}:", width="content")
        for label, icon, further in pages:
            state.page_link("pages/routing.py", label, icon, asked | further)
