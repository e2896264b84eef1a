"""Links within the app. One may begin a session, in a new tab, so each carries the sidebar's picks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ui.state import CHECKPOINT, SOURCE


def page_link(page: str, label: str, icon: str | None = None, asked: Mapping[str, Any] | None = None) -> None:
    """Draw a link to a page of the app, with the parameters that it asks for and the sidebar's picks.

    What a widget of the page has at first is best left out: it would be taken out, by a step of the browser's history.
    """
    picked = {key: st.session_state.get(key) for key in (CHECKPOINT, SOURCE)}
    params = {key: value for key, value in picked.items() if value} | {key: str(one) for key, one in (asked or {}).items()}
    st.page_link(page, label=label, icon=icon, query_params=params, width="content")
