"""A chart or a table together with a "..." menu of what can be exported: its data as CSV, the chart as HTML."""

from __future__ import annotations

from collections.abc import Callable
from mimetypes import guess_type
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.data.tabular import csv_options
from ui.text import escape_html, file_name
from ui.theme import BACKGROUND, BLACK, FOREGROUND, WHITE

Frame = pd.DataFrame | Callable[[], pd.DataFrame]
"""A table, or a function that makes it when it is asked for."""
_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["autoScale2d", "zoomIn2d", "zoomOut2d", "select2d", "lasso2d"],
}


def chart(
    fig: go.Figure,
    frame: Frame,
    key: str,
    name: str,
    alt: str,
    on_select: Callable[[], None] | None = None,
    hint: str = "",
) -> None:
    """Show a chart with its menu in the upper right corner.

    Args:
        key: unique on the page.
        name: of the files, without extension.
        alt: what the chart shows, in words, for those who can't see it.
        on_select: called when a point is clicked, and when that changes; `clicked(key)` returns which.
        hint: where the page has the same without the chart, for those who can't use it.
    """
    options: dict[str, Any] = {"on_select": on_select, "selection_mode": "points"} if on_select else {}
    config = _CONFIG | {"toImageButtonOptions": {"filename": file_name(name), "scale": 2}}
    with st.container(key=f"chart-{key}"):  # `ui.theme.STYLE` lays the menu over the chart's corner
        st.plotly_chart(fig, width="stretch", key=key, alt=f"{alt} {hint}".strip(), config=config, **options)
        downloads(frame, key, name, fig=fig, alt=alt)


def clicked(key: str) -> list[Any]:
    """The `customdata`, a list, of the clicked point of the chart `key`; empty for a click next to all, or a redrawn chart."""
    state = st.session_state.get(key)
    points = state["selection"]["points"] if state else []
    found = points[0].get("customdata") if points else None
    # Streamlit turns a list into an object whose keys are its places.
    return [found[at] for at in sorted(found, key=int)] if isinstance(found, dict) else list(found or ())


def downloads(frame: Frame, key: str, name: str, *, fig: go.Figure | None = None, alt: str = "") -> None:
    """The "..." menu of data and, if there is one, their chart; files are made on the click only."""
    stem = file_name(name)
    with (
        st.container(key=f"menu-{key}", horizontal=True, horizontal_alignment="right"),
        st.popover("Export", icon=":material/more_horiz:", type="tertiary"),
    ):
        file_button("CSV, the data", lambda: _csv(frame), f"{stem}.csv", f"{key}-csv", type="tertiary")
        if fig is not None:
            look = {"type": "tertiary", "help": "One file of about 5 MB that works without a network"}
            file_button("HTML, interactive", lambda: standalone(fig, alt, name), f"{stem}.html", f"{key}-html", **look)
            st.caption("PNG: the camera of the chart. SVG: the camera in the HTML file.")


def file_button(label: str, made: Any, file: str, key: str, icon: str = ":material/download:", **options: Any) -> None:
    """Draw a button that downloads a file; `made`: its content, or a function that makes it on the click."""
    options = {"on_click": "ignore"} | options
    st.download_button(label, made, file, guess_type(file)[0], key=key, icon=icon, **options)


def standalone(fig: go.Figure, alt: str, name: str) -> bytes:
    """A figure as one HTML file that needs no network and no app, with its words (`alt`) below."""
    copy = go.Figure(fig).update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white")
    saved = {"format": "svg", "filename": file_name(name)}
    made = copy.to_html(full_html=False, config={"displaylogo": False, "toImageButtonOptions": saved})
    made = made.replace(BACKGROUND, WHITE).replace(FOREGROUND, BLACK)
    title, words = escape_html(name), escape_html(alt)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · SHRP</title></head>'
        f'<body style="font-family:sans-serif"><main><div role="img" aria-label="{words}">{made}</div>'
        f"<p>{words}</p></main></body></html>"
    ).encode()


def _csv(frame: Frame) -> bytes:
    made = frame() if callable(frame) else frame
    return made.to_csv(index=False, **csv_options(made)).encode("utf-8")
