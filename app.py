"""SHRP's app: `streamlit run app.py`. Navigation and the checkpoint picker; the rest is in `pages/`."""

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

PAGES = (
    ("overview", "Overview", ":material/dashboard:"),
    ("expert_usage", "Expert usage", ":material/grid_on:"),
    ("routing", "Routing", ":material/alt_route:"),
    ("pruning_lab", "Pruning lab", ":material/content_cut:"),
    ("attribution", "Attribution", ":material/troubleshoot:"),
    ("compare", "Compare", ":material/compare:"),
    ("results", "Results", ":material/science:"),
)
FOLDER = Path(__file__).parent / "pages"

st.set_page_config(page_title="SHRP", page_icon="🧭", layout="wide")


def page_of(number: int, **options: str | bool) -> StreamlitPage:
    """A page by its place in `PAGES`, at an address of its own unless the options say otherwise."""
    file, title, icon = PAGES[number]
    return st.Page(FOLDER / f"{file}.py", title=title, icon=icon, **{"url_path": file} | options)


def all_pages() -> list[StreamlitPage]:
    """Every page at an address of its own, and the first one at the app's plain address too.

    Streamlit serves a default page at the plain address alone. So the first page is registered twice, and of the two
    the menu shows the one that is open.
    """
    by_name = (st.context.url or "").rstrip("/").endswith(f"/{PAGES[0][0]}")
    start = page_of(0, url_path="start", default=True, visibility="hidden" if by_name else "visible")
    first = page_of(0, visibility="visible" if by_name else "hidden")
    return [start, first, *(page_of(i) for i in range(1, len(PAGES)))]


page = st.navigation(all_pages())
st.set_page_config(page_title=f"{page.title} · SHRP")  # a title set above hides those of the pages
with st.sidebar:
    with st.spinner("Starting …"):  # the first import of torch takes some seconds
        from ui import state
    state.draw_picker(of_data=page.url_path != PAGES[-1][0])
page.run()
