"""SHRP's app: `streamlit run app.py`. Navigation and the checkpoint picker; the rest is in `pages/`."""

from pathlib import Path

import streamlit as st

PAGES = (
    ("overview", "Overview", ":material/dashboard:"),
    ("expert_usage", "Expert usage", ":material/grid_on:"),
    ("routing", "Routing", ":material/alt_route:"),
    ("pruning_lab", "Pruning lab", ":material/content_cut:"),
    ("attribution", "Attribution", ":material/troubleshoot:"),
    ("compare", "Compare", ":material/compare:"),
    ("experiments", "Experiments", ":material/science:"),
)
FOLDER = Path(__file__).parent / "pages"

st.set_page_config(page_title="SHRP", page_icon="🧭", layout="wide")
page = st.navigation(
    [
        st.Page(FOLDER / f"{file}.py", title=title, icon=icon, url_path=file, default=file == "overview")
        for file, title, icon in PAGES
        if (FOLDER / f"{file}.py").is_file()
    ]
)
with st.sidebar:
    with st.spinner("Starting …"):  # the first import of torch takes some seconds
        from ui import state
    state.draw_picker()
page.run()
