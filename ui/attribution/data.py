"""The part of the attribution page about a whole data set: what each expert does, for whom, and whether usage tells.

Or what the heads of dense layers do (`ui.attribution.heads`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis import importance
from shrp.analysis.importance import MEANINGS, MEASURES, KnockOuts, dense_layers
from shrp.errors import ShrpError
from shrp.model.config import ShrpConfig
from ui import state
from ui.attribution import figures
from ui.attribution.effects import draw_map, draw_table, effect_table, pick_inputs, said_output
from ui.attribution.heads import heads_part
from ui.attribution.knock_outs import knocked_out
from ui.attribution.where import where_part
from ui.downloads import chart
from ui.pickers import always_one
from ui.text import escape, escape_html, metric_name

KIND, ON, INPUTS, MEANING, MEASURE = "knock_out", "on_data", "data_inputs", "knocked_out", "rank_by"
"""Keys of the widgets, in the session's state and in the URL alike."""
KINDS = ("experts", "heads of dense layers")
"""What can be knocked out."""
_DEFAULT = 128
STRONG = 0.7
"""A rank correlation from which one order may stand for another, as a rule of thumb."""

_LABELS = {"effect": "effect, all inputs", "effect_per_use": "effect where used", "score_lost": "score lost"}


def data_part(selection: state.Selection, output: int | None) -> None:
    """Draw the section.

    Args:
        output: the picked class; None takes each input's predicted one.
    """
    dense = dense_layers(selection.checkpoint.model)
    title = st.container()
    of_heads = bool(dense) and not selection.is_routed
    if selection.is_routed and dense and selection.data is not None:
        of_heads = always_one("Knock out", KINDS, KIND) == KINDS[1]
    what = "Heads" if of_heads else "Experts"
    title.header(f"{what} over many inputs", anchor="data")
    if not (selection.is_routed or dense):
        st.caption("This checkpoint has no routers, so no expert can be knocked out: pick a routed one.")
        return
    if selection.data is None:
        st.caption(f"{what} can't be measured on data here. {escape(selection.no_data)}")
        return
    if of_heads:
        st.markdown(_about_heads(selection))
    else:
        st.markdown(
            "Every expert is knocked out in turn: what it does, for which inputs it matters, and whether the experts "
            "that are used most, which pruning keeps, are also those that matter."
        )
    if not st.toggle(f"Measure on {escape(selection.data.name)}", key=ON, bind="query-params"):
        return
    draw = heads_part if of_heads else _experts_part
    draw(selection, output)


def _about_heads(selection: state.Selection) -> str:
    """What is done with heads, in Markdown."""
    which, why = "", ""
    if selection.checkpoint.info.config.layers:
        which = " of the dense layers"
        if not selection.is_routed:
            why = "This checkpoint has no routers, so no expert can be knocked out, but heads of dense layers can. "
    return (
        f"{why}Every head{which} is knocked out in turn, its output set to 0 (Michel et al., 2019): what it does, and "
        "for which inputs it matters."
    )


def _experts_part(selection: state.Selection, output: int | None) -> None:
    data = selection.data
    n, meaning = _controls(len(data))
    try:
        found = knocked_out(selection.checkpoint, data, n, meaning)
        key = selection.checkpoint.fingerprint, data.fingerprint, n, meaning
        table = effect_table(found, key, data, output)
    except ShrpError as error:
        state.show_error(error)
        return
    where = f"n = {found.n:,} of {len(data):,} inputs of {data.name}"
    name = f"{selection.name}-{meaning.replace(' ', '-')}-{found.n}"
    draw_map(table, said_output(found, output), where, meaning, name)
    where_part(selection, found, key, where, name)
    st.subheader("Is usage a good signal?", anchor="usage")
    config = selection.checkpoint.info.config
    _scatter(table, _measure(), where, meaning, name, found, labelled=data.labels is not None, config=config)
    with st.expander("All experts as a table, with intervals", icon=":material/table:"):
        draw_table(table, found, name, data)


def _controls(total: int) -> tuple[int, str]:
    left, right = st.columns([2, 3], gap="medium")
    with left:
        n = pick_inputs(total, INPUTS, _DEFAULT)
    with right:
        meaning = always_one(
            "A knocked-out expert",
            MEANINGS,
            MEANING,
            help="**router picks the next**: the best of the other experts takes over, and the layers above route as "
            "they then would. **zeroed**: the gate, by which the expert's output is multiplied, is 0, and all "
            "others stay as they are.",
        )
    return n, meaning


def _measure() -> str:
    """The picked one of `MEASURES`."""
    picked = always_one(
        "Rank usage against",
        list(_LABELS.values()),
        MEASURE,
        help="**effect, all inputs**: mean size of the change of the output over all inputs, 0 for those that do not "
        "use the expert. **effect where used**: the mean over the inputs that use it. **score lost**: what "
        "the task's metric loses.",
    )
    return next(key for key, label in _LABELS.items() if label == picked)


def _scatter(
    table: pd.DataFrame,
    measure: str,
    where: str,
    meaning: str,
    name: str,
    found: KnockOuts,
    *,
    labelled: bool,
    config: ShrpConfig,
) -> None:
    if table[measure].isna().all():
        why = "The score is not defined on these inputs" if labelled else "These data have no labels"
        st.info(f"{why}, so none can be lost; rank usage against an effect instead.")
        return
    ranks = importance.correlations(table, measure)
    unit = (
        f"{MEASURES[measure]} ({metric_name(found.task.metric)})"
        if measure == "score_lost"
        else MEASURES[measure] + ("" if found.task.is_regression else ", logits")
    )
    defined = ranks["spearman"].dropna()
    chart(
        figures.usage_scatter(
            table,
            ranks,
            measure,
            escape_html(unit),
            f"vertical: {escape_html(unit)}<br>{escape_html(where)}; knocked out: {meaning}; numbers: experts, "
            "crosses: never used",
        ),
        table[["layer", "expert", "usage", "uses", measure]].merge(
            ranks.rename(columns={"n": "n experts"}), on="layer"
        ),
        "usage-scatter",
        f"{name}-usage-{measure}",
        f"Scatter of usage against {unit}, a panel a layer. Spearman correlation: "
        + "; ".join(f"layer {r.layer} {_rho(r.spearman)} (n = {r.n} experts)" for r in ranks.itertuples()),
    )
    st.markdown(_verdict(ranks, measure, _times_used(config), regression=found.task.is_regression))
    smallest, largest = int(ranks["n"].min()), int(ranks["n"].max())
    count = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    st.caption(
        f":material/warning: Each correlation is over the {count} experts that are used, which is few: over 12 "
        "experts in random order, one time in twenty |ρ| is above 0.58; over 5, nearly any value may be chance"
        + ("." if len(defined) == len(ranks) else "; no value where fewer than 3 differ.")
    )
    frame = ranks.rename(columns={"n": "n experts", "spearman": "Spearman ρ", "p": "p (two-sided)"})
    formats = {"Spearman ρ": "%.2f", "p (two-sided)": "%.3f"}
    st.dataframe(
        frame,
        hide_index=True,
        width="content",
        height="content",
        column_config={key: st.column_config.NumberColumn(format=form) for key, form in formats.items()},
        alt="Spearman correlation between usage and the measure, by layer",
    )


def _rho(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "not defined"


def _times_used(config: ShrpConfig) -> str:
    """By what an expert's mean effect where used becomes its mean over all inputs, in words: by its usage only where
    that is of inputs, and each uses one expert.
    """
    if config.routing == "token":
        return "the share of inputs in which it computes for some token"
    return "its usage" if config.top_k == 1 else "the share of inputs that use it, as one of several or not,"


def _verdict(ranks: pd.DataFrame, measure: str, often: str, *, regression: bool) -> str:
    """What the correlations say about usage, in words.

    Args:
        often: of `_times_used`.
    """
    defined = ranks["spearman"].dropna()
    if defined.empty:
        return "In no layer do enough experts differ for a correlation."
    strong = int((defined >= STRONG).sum())
    start = (
        f"Usage ranks the experts as this measure does with ρ ≥ {STRONG} in **{strong} of {len(ranks)} layers** "
        f"(median ρ {defined.median():.2f} over the {len(defined)} where it is defined). "
    )
    if measure == "effect":
        return start + (
            "This is in part so by construction: an expert changes nothing for inputs that don't use it, so its mean "
            f"over all inputs is {often} times its effect where used. It is what pruning by usage relies on; "
            "whether usage also tells how much an expert matters **when** it is used, *effect where used* shows."
        )
    if measure == "effect_per_use":
        return start + (
            "This leaves out how often an expert is used and asks only how much it matters when it is; experts that "
            "are never used have no value. A low ρ here with a high one over all inputs means: usage tells how often "
            "an expert matters, not how much."
        )
    if regression:
        return start + (
            "The score is a correlation over all inputs, to which an expert that few use adds little: the intervals in "
            "the table are wide."
        )
    return start + (
        "The score counts only flipped predictions, so many experts tie at 0 and single inputs decide the order: "
        "the intervals in the table are wide."
    )
