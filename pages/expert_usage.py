"""Expert usage: which experts a routed model uses, for what, and what each is worth."""

from __future__ import annotations

import streamlit as st

from ui import measurements, state

# Key of the session's state: it is there once this page has measured usage; from then on the last map stays meanwhile.
MEASURED = "usage-measured"
picked = state.described("Expert usage", named=False)
meanwhile = st.empty()
if MEASURED not in st.session_state and picked[1].usage and state.is_routed(picked[1]):
    from ui.usage import map as usage_map

    with meanwhile.container():
        usage_map.stored_map(*picked)
# Before what imports torch and transformers: one thread does that for all sessions.
selection, stats = state.current(picked), None
if selection.is_routed:
    stats = state.shows_errors(measurements.usage_stats)(selection.checkpoint, selection.data)
    st.session_state[MEASURED] = True
meanwhile.empty()

# isort: split

from streamlit.delta_generator import DeltaGenerator

from shrp.analysis.importance import dense_layers
from shrp.analysis.usage import UsageStats
from shrp.checkpoints.card import kept_experts
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.phrases import counted
from ui.describe import summary_line
from ui.differences import floor_of
from ui.own import convert
from ui.text import escape, shorten_texts, slice_name, verdict
from ui.usage import attention, driving, importance, profile, results, training
from ui.usage import map as usage_map
from ui.usage.headline import facts, headline, mixes, without_it

USAGE, DRIVING, TRAINING, IMPORTANCE = "Usage", "What drives routing", "Over training", "Importance"
# Key of the page's tabs, in the session's state and in the URL.
TABS = "view"
# Keys of widgets in tabs, whose values Streamlit would drop while the tab is closed.
KEPT = (
    *(usage_map.GROUP, attention.EXAMPLE, attention.HIDE, driving.BY, driving.EXCHANGE),
    *(importance.KIND, importance.ON, importance.BY, *importance.INPUTS.values()),
)
# Examples up to which the headline's knock-out runs by itself.
QUICK = 5_000
# Slices that are shown by an example.
MOST_SLICES = 30


@state.shows_errors
def main(selection: state.Selection, stats: UsageStats) -> None:
    st.session_state.update({key: st.session_state[key] for key in KEPT if key in st.session_state})
    if not selection.is_routed:
        no_routers(selection)
        return
    top = stats.layers[-1]
    state.follow_cell(stats.layers, range(stats.num_experts), (top, int(stats.share(top).argmax())))
    cell = st.session_state[state.LAYER], st.session_state[state.EXPERT]
    place, about = st.empty(), st.empty()
    draw = {
        USAGE: lambda: usage(selection, stats, cell, place),
        DRIVING: lambda: driving.section(selection, stats),
        TRAINING: lambda: training.section(selection),
        IMPORTANCE: lambda: importance.section(selection),
    }
    tab, below = state.open_tab([*draw], TABS)
    if tab != TRAINING:  # which is about other data
        shares = [*stats.shares().values()]
        used = f"{sum(int((share > 0).sum()) for share in shares)} of {counted(sum(map(len, shares)), 'expert')} are used"
        about.caption(f"{escape(selection.name)} on {escape(stats.data)}, n = {stats.n:,}: {used}")
    with below:
        said = state.shows_errors(draw[tab])()
    if said:
        with place.container():
            verdict(said)
    else:  # nothing is measured any more, after an error
        place.empty()


def without(one: results.Expert) -> str:
    """What the model loses without an expert, in words; last, as everything else is quicker."""
    if (one.stats.top1[one.layer][:, one.expert] > 0).sum() > QUICK:
        return f"without it: see {profile.KNOCK_OUT}"
    try:
        found = results.knocked_out(one)
        said = without_it(found, results.score_lost(one.checkpoint, one.data, found))
        low = bool(found.before.score <= floor_of(one.data))
        return said + "; the model itself is not above the majority-class baseline" * low
    except ShrpError:  # outputs that are no finite numbers, which the Knock-out tab says
        return "without it: no result"


def usage(selection: state.Selection, stats: UsageStats, cell: tuple[int, int], place: DeltaGenerator) -> str:
    """Draw the map, the picked expert's numbers next to it, and its profile below; returns the page's headline.

    `place` is the headline's, which shows its first part until the knock-out is done.
    """
    name = f"{selection.name}-layer{cell[0]}-expert{cell[1]}"
    one = results.Expert(selection.checkpoint, selection.data, stats, *cell, name)
    found = mixes(one)
    with place.container(key="verdict-in-part"):
        st.markdown(headline(one, found, "without it: *measuring …*"))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        usage_map.usage_map(selection, stats, cell)
    with right:
        facts(one, found)
        slices(selection.data)
    profile.profile(one, found)
    return headline(one, found, without(one))


def slices(data: TextData) -> None:
    """An example of each slice, since their names come with the data."""
    first = {name: i for i, name in reversed([*enumerate(data.slices or ())])}
    if len(first) < 2:
        return
    with st.expander(f"What the {counted(len(first), 'slice')} are", icon=":material/help:"):
        st.caption("A slice is a group of examples that the data name. One example of each:")
        named = (
            f"- **{escape(slice_name(name))}**: {escape(shorten_texts(data.texts[i], 160))}"
            for name, i in first.items()
        )
        st.markdown("\n".join(sorted(named)[:MOST_SLICES]))


def no_routers(selection: state.Selection) -> None:
    """What there is to see of a model without routers: the heads' importance, and what a pruned model keeps."""
    info, model = selection.checkpoint.info, selection.checkpoint.model
    dense = not info.config.layers
    place = st.empty()
    if dense:
        said = "This model is dense: it has heads, no experts. Below you can measure which heads matter."
        with place.container(key="verdict-in-part"):
            st.markdown(said)
    else:
        verdict("This model has no routers: every example uses the same experts.")
    st.markdown(summary_line(info, model.config.num_hidden_layers, model.config.num_attention_heads))
    if info.plan is not None:
        alt = "Kept experts and weights of every static layer"
        st.dataframe(kept_experts(info.plan), hide_index=True, width="content", alt=alt)
    with st.container(horizontal=True):
        state.page_link("pages/routing.py", "Words and attention of a sentence", ":material/alt_route:")
        state.page_link("pages/compare.py", "Compare with a routed model", ":material/compare:")
    if dense:
        convert.button(selection)
    if dense_layers(model):
        st.subheader("Importance of heads", anchor="data")
        measured = importance.section(selection)
        if dense:
            with place.container():
                verdict(measured or said)


if stats is not None or not selection.is_routed:  # else the page has said why
    main(selection, stats)
