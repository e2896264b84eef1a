"""What each expert on a sentence's route adds to its prediction: left out, replaced by the next one, Shapley values."""

from __future__ import annotations

import numpy as np
import streamlit as st

from shrp.analysis.attribution import experts
from shrp.analysis.attribution.experts import METHODS, ExpertScores
from ui.bound import always_one
from ui.downloads import chart
from ui.routing import figures, results
from ui.routing.results import Explained
from ui.routing.sentences import kind_of, output_name
from ui.state import Selection
from ui.text import escape_html, signed

METHOD = "expert_method"
"""Key of the widget, in the session's state and in the URL."""
_TEXTS = (
    "the output minus the output with the expert's gate set to 0. All other gates stay as they are.",
    "the output minus the output when the router has to take the next best expert. Layers above route again. "
    "Positive: better than its runner-up.",
    "the expert's fair share of the difference between all experts and none, over groups of experts.",
)
_ABOUT = dict(zip(METHODS, _TEXTS, strict=True))


def section(selection: Selection, one: Explained, number: int) -> None:
    """Draw the tab: bars of one method."""
    methods = [name for name in METHODS if name != METHODS[1] or results.can_pick_next(selection.checkpoint)]
    about = "  \n".join(f"**{name}**: {_ABOUT[name]}" for name in methods)
    method = always_one("Method", methods, METHOD, help=about)
    output = one.prediction
    what = output_name(one.instance.task, output)
    found = results.expert_scores(one, output, method)
    rows, numbers = np.nonzero(found.fires)
    values = found.values[found.fires]
    names = [f"layer {found.layers[row]}, expert {expert}" for row, expert in zip(rows, numbers, strict=True)]
    fig, shown = figures.bars(
        values,
        names,
        f"What each expert adds to {escape_html(what)}",
        f"{len(values)} of {found.fires.size} experts compute for this {kind_of(one.instance.task)}; {method}",
        None if found.errors is None else found.errors[found.fires],
    )
    best = int(np.abs(values).argmax())
    alt = f"Bars of {shown} experts. Largest: {names[best]} {signed(values[best], 3)}."
    chart(fig, found.to_frame(), "expert-bars", f"{selection.name}-{number}-experts", alt)
    st.caption(f"**{method}**: {_ABOUT[method]}{shapley_note(found)}")


def shapley_note(found: ExpertScores) -> str:
    """How exact Shapley values are, as a further sentence; empty for the other methods."""
    if found.method != METHODS[2]:
        return ""
    if found.errors is None:
        return f" Exact, from all {found.evaluations:,} groups."
    said = f" Mean over {found.permutations:,} random orders; whiskers: standard error."
    if found.permutations < experts.ENOUGH_ORDERS:
        said += " **Too few orders** for exact values."
    return said
