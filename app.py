"""SHRP's app: `streamlit run app.py`. Navigation and the pickers; the rest is in `pages/`."""

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from ui import jobs, loaders, state
from ui.bound import remembered
from ui.own import dialog, guide
from ui.own.checkpoints import pick_folder

PAGES = (
    ("overview", "Overview", ":material/dashboard:"),
    ("expert_usage", "Expert usage", ":material/grid_on:"),
    ("routing", "Routing", ":material/alt_route:"),
    ("pruning_lab", "Pruning lab", ":material/content_cut:"),
    ("compare", "Compare", ":material/compare:"),
    ("results", "Results", ":material/science:"),
)
# Key of the session's state: the page whose last run came to its end.
DONE = "page-done"


def page_of(number: int, **options: str | bool) -> StreamlitPage:
    """A page by its place in `PAGES`, at an address of its own unless the options say otherwise."""
    file, title, icon = PAGES[number]
    return st.Page(Path(__file__).parent / "pages" / f"{file}.py", title=title, icon=icon, **{"url_path": file} | options)


def main() -> None:
    """A session's run."""
    # Streamlit serves a default page at the plain address alone, so the first page is there twice.
    start, *pages = page_of(0, url_path="start", default=True), *(page_of(i) for i in range(len(PAGES)))
    page = st.navigation([start, *pages], position="hidden")
    name = PAGES[0][0] if page == start else page.url_path
    st.set_page_config(page_title=f"{page.title} · SHRP", page_icon="🧭", layout="wide")
    with remembered(name, state.SHARED):
        with st.sidebar:
            menu, steps = st.container(), st.container()
            jobs.draw(pick_folder)
            info = state.draw_picker(of_data=name != PAGES[-1][0])
            with steps:
                guide.draw(name)
            with menu:  # last, as its links carry what is in the address by then
                state.draw_menu([page if page == start else pages[0], *pages[1:]], page, info)
        # A dialog answers only once the page is done; one that was not, as it was measuring, can wait for it to close.
        if st.session_state.pop(DONE, None) != name and dialog.is_open():
            st.stop()
        page.run()
        st.session_state[DONE] = name


if __name__ == "__main__":
    main()
else:  # the server, which imports this as a module
    app = st.App(__file__, lifespan=loaders.lifespan)
