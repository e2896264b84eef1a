"""Overview: how much of its dense model a checkpoint keeps, at what cost, and what it answers."""

import streamlit as st

from ui import data_sources, loaders, state
from ui.describe import shape, summary_line
from ui.overview import first
from ui.own import guide
from ui.text import escape, verdict

picked = state.described()
name, info = picked
st.title(escape(name), anchor=False)
headline, actions = st.empty(), st.container(horizontal=True, vertical_alignment="center")
with actions:
    guide.offer(st.session_state.get(state.SOURCE))
config = loaders.config_of(name)
if st.session_state.get(state.SOURCE) == data_sources.OWN:
    headline.markdown(f"Scoring **{escape(name)}** on your data …")  # the verdict comes with the score
else:
    with headline:
        verdict(first.verdict_text(name, info, config))
st.caption(first.ABOUT)
st.caption(summary_line(info, *shape(config)[:2]))
left, right = st.columns(2, gap="medium")
with left:
    first.layer_map(name, info, config)
with right:
    next_to = st.container()
score, stored = st.columns([2, 3], gap="large")

selection = state.current(picked, needs_data=False)
from ui.overview import answers_table, details  # torch is imported by now, in one thread for all sessions

if info.plan is None and not info.config.layers:
    from ui.own import convert

    with actions:
        if convert.button(selection):
            st.stop()  # the dialog answers only once the page is done
        state.page_link("pages/expert_usage.py", "Which heads matter", ":material/grid_on:")
with next_to:
    details.costs(selection)
with score:
    found = details.measured(selection, headline)
with stored:
    details.scores(selection)
if found is not None:
    answers_table.section(selection, found)
elif selection.source == data_sources.OWN:
    with headline:
        verdict(first.verdict_text(name, info, config))
details.expanders(selection)
