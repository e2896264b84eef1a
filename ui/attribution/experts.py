"""The part of the attribution page about the experts of one input."""

from __future__ import annotations

import numpy as np
import streamlit as st

from shrp.analysis.attribution import experts
from shrp.errors import ShrpError
from shrp.model.convert import expert_layers
from ui import state
from ui.attribution import figures
from ui.attribution.results import Explained, expert_scores, firing
from ui.attribution.unit import FITTING
from ui.downloads import chart
from ui.text import escape, escape_html

BUDGET = "coalitions"
"""Key of the widget, in the session's state and in the URL alike."""
LEAST = 256
"""Coalitions that are taken unasked, where they suffice."""


def expert_part(one: Explained, output: int, what: str, name: str, selection: state.Selection) -> None:
    """The attribution to experts, or why there is none."""
    st.header("Experts", anchor="experts")
    if not expert_layers(one.instance.model):
        st.info(no_experts(selection), icon=":material/alt_route:")
        return
    try:
        found, note = expert_scores(one, output, _budget(one))
    except ShrpError as error:
        state.show_error(error)
        return
    fires = found[0].fires
    k = int(fires.sum())
    subtitle = f"{k} of {fires.size} experts fire for this input; all others are exactly 0"
    fig, shown = figures.expert_bars(found, escape_html(what), subtitle)
    shares = found[-1]
    chart(
        fig,
        experts.to_frame(found),
        "expert-bars",
        f"{name}-experts",
        f"Bars of {len(found)} attributions of {what} to the {k} experts that fire. "
        + " ".join(f"Largest by {r.method}: {_largest_expert(r)}." for r in found),
    )
    if shown < k:
        st.caption(f"The chart shows the {shown} of {k} experts with the largest scores; the CSV has all.")
    how = (
        f"exact, from all {shares.evaluations:,} coalitions of the {k} experts"
        if shares.errors is None
        else f"the mean over n = {shares.permutations:,} random orders of the experts ({shares.evaluations:,} "
        f"different coalitions of 2^{k}); whiskers: standard error, at most {shares.errors.max():.4f}"
    )
    st.markdown(
        "- **zeroed**: the output less that with the expert's gate set to 0. The Expander then reads zeros in its "
        "place, and the gates of all other experts stay as they are.\n"
        + (
            "- **router picks the next**: the expert is taken away, its router picks the best of the others, and the "
            "layers above route as they then would. Positive: this expert serves "
            "the output better than its runner-up.\n"
            if not note
            else ""
        )
        + f"- **Shapley value**: the expert's fair part of the difference between all experts and none, "
        f"{how}. Sum **{shares.values.sum():+.4f}**; output {shares.full:+.4f} less output without any expert "
        f"{shares.empty:+.4f} is **{shares.full - shares.empty:+.4f}**."
    )
    if 0 < shares.permutations < experts.ENOUGH_ORDERS:
        st.warning(
            f"{shares.permutations} orders are too few for {k} experts: the values, the largest of them by chance, and "
            "the whiskers may be far off. Take a larger budget.",
            icon=":material/casino:",
        )
    if note:
        st.caption(f":material/info: 'Router picks the next' is not shown: {escape(note)}")
    with st.expander("All values as a table", icon=":material/table:"):
        frame = experts.to_frame(found)
        st.dataframe(
            frame,
            hide_index=True,
            column_config={
                column: st.column_config.NumberColumn(format="%+.4f") for column in frame.columns[2:]
            },
            height="content" if len(frame) <= 15 else 420,
            alt="Every firing expert's score by every method",
        )


def _budget(one: Explained) -> int:
    """The control for the coalitions that Shapley values may take."""
    # By its key a widget keeps its value, and would not take up a start of its own for each input.
    fitting = max(LEAST, experts.enough(firing(one)))
    picked = st.columns([2, 3])[0].select_slider(
        "Budget of Shapley values, in coalitions of experts",
        (FITTING, *experts.BUDGETS),
        value=FITTING,
        key=BUDGET,
        bind="query-params",
        help="Each coalition is one run of the model with some of the experts zeroed. With enough for all coalitions "
        f"the values are exact; with fewer they are a sample with a standard error. **{FITTING}**: {LEAST}, or more "
        f"where these give neither exact values nor {experts.ENOUGH_ORDERS} random orders; for this input {fitting:,}.",
    )
    return picked if picked in experts.BUDGETS else fitting


def no_experts(selection: state.Selection) -> str:
    """Why a checkpoint has no experts to attribute to, in a sentence."""
    info = selection.checkpoint.info
    if info.plan is not None:
        return (
            "This checkpoint is pruned: its routers are gone and its kept experts are fused, with their weights, into "
            "one product a layer, so that no expert can be taken out alone. Pick a routed checkpoint "
            "to attribute to experts; words can be explained here all the same."
        )
    return "This checkpoint's layers are all dense: there are no experts. Pick a routed checkpoint."


def _largest_expert(result: experts.ExpertScores) -> str:
    row, expert = np.unravel_index(np.abs(result.values).argmax(), result.values.shape)
    return f"layer {result.layers[row]} expert {expert} {result.values[row, expert]:+.3f}"
