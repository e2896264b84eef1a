"""The part of the attribution page about a whole data set, of the heads of dense layers: what each does, for whom."""

from __future__ import annotations

import streamlit as st

from shrp.errors import ShrpError
from ui import state
from ui.attribution.effects import draw_map, draw_table, effect_table, pick_inputs, said_output
from ui.attribution.figures import HEAD
from ui.attribution.knock_outs import heads_knocked_out
from ui.attribution.where import where_part

INPUTS = "data_inputs_heads"
"""Key of the widget, in the session's state and in the URL alike: an input costs far more than with experts, of which
it uses one a layer."""
_DEFAULT = 64


def heads_part(selection: state.Selection, output: int | None) -> None:
    """Draw what is measured, of a selection with data and dense layers.

    Args:
        output: as for `ui.attribution.data.data_part`.
    """
    data = selection.data
    n = pick_inputs(len(data), INPUTS, _DEFAULT)
    try:
        found = heads_knocked_out(selection.checkpoint, data, n)
        key = selection.checkpoint.fingerprint, data.fingerprint, n, "heads"  # no way to knock an expert out
        table = effect_table(found, key, data, output)
    except ShrpError as error:
        state.show_error(error)
        return
    where = f"n = {found.n:,} of {len(data):,} inputs of {data.name}"
    name = f"{selection.name}-heads-{found.n}"
    draw_map(table, said_output(found, output), where, "its output set to 0", name, HEAD)
    where_part(selection, found, key, where, name, HEAD)
    with st.expander("All heads as a table, with intervals", icon=":material/table:"):
        draw_table(table, found, name, data, HEAD)
