"""Every example of the picked data with the prediction: searched here, and looked at closer on other pages."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import streamlit as st

from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from ui import closer
from ui.bound import always_one
from ui.downloads import downloads
from ui.state import Selection
from ui.text import TWO_LINES, escape, share_text, shorten, slice_name, with_signs

WHICH, SEARCH = "answers", "answers_with"
"""Keys of the widgets, in the session's state and in the URL."""
ALL, WRONG, RIGHT, UNSURE, FARTHEST = "all", "wrong", "right", "least sure first", "farthest off first"
MOST = 1000
"""Rows that the table shows: a browser is slow with many more, and nobody reads them."""
SURE, OFF = "p of the answer", "off by"
_OURS = ("label", "prediction", "correct", SURE, OFF, "slice")
"""Columns next to the texts that the page shows, where they are known."""
_TEXT = "the text"


def answers_frame(found: Evaluation, data: TextData) -> tuple[pd.DataFrame, list[str]]:
    """`Evaluation.to_frame` of all of `data`, with the texts and, next to the prediction, how sure or how far off it is.

    That is `p of the answer`, the predicted class's probability, or, of numbers with labels, `off by`, prediction less label.

    Returns:
        The table, and the names of its columns with texts.
    """
    frame = found.to_frame()
    texts = distinct(data.task.text_columns, (*frame.columns, *_OURS))
    for place, name in enumerate(texts):
        frame.insert(1 + place, name, [text[place] for text in data.texts])
    place = frame.columns.get_loc("prediction") + 1
    if data.task.classifies_texts:
        frame.insert(place, SURE, frame[[f"p({name})" for name in data.task.label_names]].max(axis=1))
    elif data.task.is_regression and "label" in frame:
        frame.insert(place, OFF, frame["prediction"] - frame["label"])
    return frame, texts


def choices(frame: pd.DataFrame) -> list[str]:
    """What the table can be narrowed to, or ordered by."""
    known = {WRONG: "correct", RIGHT: "correct", FARTHEST: OFF, UNSURE: SURE}
    return [ALL, *(name for name, column in known.items() if column in frame)]


def narrowed(frame: pd.DataFrame, which: str, search: str, texts: list[str]) -> pd.DataFrame:
    """The rows that are asked for, in the order that is.

    `search`: beginnings of words in a row's texts; every one must be found, in either case.
    """
    if which in (WRONG, RIGHT):
        frame = frame[frame["correct"] == (which == RIGHT)]
    elif which == UNSURE:
        frame = frame.sort_values(SURE, kind="stable")
    elif which == FARTHEST:
        frame = frame.sort_values(OFF, key=abs, ascending=False, kind="stable")
    # Where words are written without spaces between them none has a beginning to look for.
    start = {word: r"(?<!\w)" if word[0].isascii() else "" for word in search.split()}
    wanted = [re.compile(before + re.escape(word), re.IGNORECASE) for word, before in start.items()]
    rows = frame[texts].itertuples(index=False)
    return frame.loc[np.array([all(word.search(" ".join(row)) for word in wanted) for row in rows], bool)]


@st.fragment
def section(selection: Selection, found: Evaluation) -> None:
    """The table of all of the picked data's answers, its search, and links to pages that look closer at the picked row."""
    data = selection.data
    frame, texts = answers_frame(found, data)
    left, right = st.columns([2, 1], gap="medium", vertical_alignment="bottom")
    with left:
        which = always_one("Examples", choices(frame), WHICH)
    words = {"key": SEARCH, "bind": "query-params", "help": "Examples in which each of these begins a word."}
    search = right.text_input("With these words", **words)
    shown = narrowed(frame, which, search, texts)
    st.caption(said(shown, frame, data.name))
    if len(shown):
        part = shown.head(MOST)
        # What is wrong, or least sure, is another row of another model.
        key = f"{which}-{search}-{selection.checkpoint.fingerprint}-{data.fingerprint}"
        if rows := _table(part, texts, key, data):
            closer.links(data, part["index"].iloc[rows[:1]].tolist(), routed=selection.is_routed)
    parts = [selection.name, "answers", which * (which != ALL), f"with {search}" * bool(search.strip())]
    downloads(shown, "answers-table", shorten("-".join(filter(None, parts))))


def shown_rows(part: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """The columns that the page shows, of which the first after the number is the text, or both of a pair."""
    names = [name for name in _OURS if name in part]
    rows = part[["index", *names]].copy()
    rows.insert(1, _TEXT, [" / ".join(row) for row in zip(*(part[name] for name in texts))])
    for name in {"label", "prediction", "slice"} & set(rows.select_dtypes(["object", "string"])):
        rows[name] = rows[name].map(slice_name)
    if "correct" in rows:
        rows["correct"] = np.where(rows["correct"], "✓", "✗")
    if SURE in rows:
        rows[SURE] *= 100
    return rows


def _table(part: pd.DataFrame, texts: list[str], key: str, data: TextData) -> list[int]:
    """Draw the rows; returns which of them is picked, if one is."""
    column, wide = st.column_config, "medium" if data.task.on_tokens else "small"
    event = st.dataframe(
        with_signs(shown_rows(part, texts), [OFF] if OFF in part else [], 2),
        key=f"answers-{key}",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        height=38 + min(TWO_LINES * len(part), 420),
        row_height=TWO_LINES,
        column_config={
            "index": column.NumberColumn("row", width=44, help=f"Row of {escape(data.name)}, from 0"),
            _TEXT: column.TextColumn(" / ".join(data.task.text_columns), width="large"),
            "label": column.Column(width=wide),
            "prediction": column.Column("prediction", width=wide),
            "correct": column.TextColumn("correct", width=58),
            SURE: column.NumberColumn("p", width=58, format="%.1f%%", help="The probability of the predicted class"),
            OFF: column.NumberColumn(width=70, help="The prediction less the label"),
            "slice": column.TextColumn(width=95),
        },
        alt="Examples with their labels and the model's predictions",
    )
    return [row for row in event.selection.rows if row < len(part)]


def said(shown: pd.DataFrame, frame: pd.DataFrame, data: str) -> str:
    """How many rows are shown, and how often the model is right in them, as Markdown."""
    text = f"{len(shown):,} of n = {len(frame):,} examples of {escape(data)}"
    if len(shown) and "correct" in shown and 0 < shown["correct"].mean() < 1:
        text += f", {share_text(int(shown['correct'].sum()), len(shown))} of them predicted correctly"
    if len(shown) > MOST:
        text += f"; the first {MOST:,} are listed, the CSV has them all"
    return f"{text}. Pick a row to look closer at it." if len(shown) else f"{text}."
