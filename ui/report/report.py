"""The report of a checkpoint: what the app shows of it, as one HTML file to keep, send or print."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import streamlit as st
from plotly.offline import get_plotlyjs

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.evaluation import Evaluation
from ui import measurements
from ui.report.checkpoint import facts_part, scores_part
from ui.report.examples import examples_part
from ui.report.page import body, file_size, page
from ui.report.parts import Section
from ui.report.reproduce import limits_part, reproduce_part
from ui.report.usage import curve_part, usage_part
from ui.state import Selection
from ui.text import escape, file_name

_KEPT = "report"


@dataclass(frozen=True)
class Report:
    """A report as made, without plotly.js, which `to_html` adds."""

    checkpoint: str
    """Fingerprint of what it is of."""
    data: Hashable
    """What tells its data from others; None where there are none."""
    title: str
    made: str
    content: str

    @property
    def size(self) -> int:
        """Bytes of the file, to a percent."""
        return len(self.content.encode()) + len(get_plotlyjs().encode())

    def to_html(self) -> bytes:
        """The whole file."""
        return page(self.title, self.content)


def _of(data: TextData | None) -> Hashable:
    """What tells the data of a report from others."""
    return None if data is None else (data.fingerprint, data.name, data.slice_words, data.pairs)


def section(selection: Selection) -> None:
    """A button that makes the report, and once it is made its download; the report stays in the person's session."""
    data = selection.data
    key = (selection.checkpoint.fingerprint, _of(data))
    place = st.container(horizontal=True, vertical_alignment="center", gap="small")
    busy = st.empty()
    kept: Report | None = st.session_state.get(_KEPT)
    has_one = kept is not None and (kept.checkpoint, kept.data) == key
    asked = place.button(
        "Make it again" if has_one else "Make a report",
        key="make-report",
        icon=":material/description:",
        help="All of this checkpoint in one HTML file that works offline: overview, usage, score against cost, "
        "examples of the data picked in the sidebar with their texts, and how to reproduce it. Takes a pass over "
        "the data where they have not been measured yet.",
    )
    if asked:
        with busy.container():
            bar = st.progress(0.0, text="Making the report …")
            kept = build(selection, lambda share, text: bar.progress(share, f"Report: {text} …"))
        st.session_state[_KEPT] = kept
        st.rerun()  # the button says what it does now
    if not has_one:
        return
    place.download_button(
        f"Download the report ({file_size(kept.size)})",
        data=kept.to_html,
        file_name=f"{file_name(selection.name)}-report.html",
        mime="text/html",
        key="download-report",
        on_click="ignore",
        icon=":material/download:",
    )
    place.caption(
        f"Made {kept.made}; it holds texts of the data." if data is not None else f"Made {kept.made}."
    )


def build(selection: Selection, progress: Callable[[float, str], None] = lambda share, text: None) -> Report:
    """Make the report, measuring what has not been measured yet.

    A part that can't be made says why in its place; the others are made all the same.

    Args:
        progress: called with a share of 1 and what is being made.
    """
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    evaluation: Evaluation | None = None
    data = selection.data
    sections: list[Section] = []

    def add(id: str, title: str, share: float, work: Callable[[Section], Any]) -> Any:
        progress(share, title[0].lower() + title[1:])
        part = Section(id, title)
        sections.append(part)
        try:
            return work(part)
        except ShrpError as error:
            part.words(f"This part could not be made: {error}")

    add("facts", "What it is", 0.0, lambda part: facts_part(part, selection, made))
    add("overview", "Costs and scores", 0.1, lambda part: scores_part(part, selection))
    usage: UsageStats | None = add("usage", "Expert usage", 0.2, lambda part: usage_part(part, selection))
    if data is not None:
        progress(0.4, f"evaluating on {escape(data.name)}")
        with suppress(ShrpError):  # the parts that need it say so
            evaluation = measurements.evaluation(selection.checkpoint, data, usage)
    add("curve", "Score against cost", 0.6, lambda part: curve_part(part, selection, usage, evaluation))
    add("examples", "Examples", 0.8, lambda part: examples_part(part, selection, usage, evaluation))
    add("reproduce", "How to reproduce", 0.95, lambda part: reproduce_part(part, selection))
    add("limits", "Limits", 0.98, lambda part: limits_part(part, selection))
    title = f"{selection.name}: SHRP report"
    about = f"Made {made} of the checkpoint with the fingerprint {selection.checkpoint.fingerprint[:12]}."
    return Report(selection.checkpoint.fingerprint, _of(data), title, made, body(title, about, sections))
