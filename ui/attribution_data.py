"""The part of the attribution page about a whole data set: what each expert does, for whom, and whether usage tells."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st

from shrp.attribution import importance
from shrp.attribution.importance import MEANINGS, MEASURES, KnockOuts
from shrp.config import ShrpConfig
from shrp.errors import ShrpError
from shrp.phrases import counted
from ui import attribution_figures as figures
from ui import state
from ui.attribution_results import effect_table
from ui.attribution_where import where_part
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.knock_outs import knocked_out
from ui.pickers import always_one
from ui.text import escape, escape_html, is_percentage, metric_name, percent

ON, INPUTS, MEANING, MEASURE = "on_data", "data_inputs", "knocked_out", "rank_by"
"""Keys of the widgets, in the session's state and in the URL alike."""
_SIZES = (32, 64, 128, 256, 512)
_DEFAULT = 128
STRONG = 0.7
"""A rank correlation from which one order may stand for another, as a rule of thumb."""

_LABELS = {"effect": "effect, all inputs", "effect_per_use": "effect where used", "score_lost": "score lost"}


def data_part(selection: state.Selection, output: int | None) -> None:
    """Draw the section.

    Args:
        output: the picked class; None takes each input's predicted one.
    """
    data = selection.data
    st.header("Experts over many inputs", anchor="data")
    if not selection.is_routed:
        st.caption("This checkpoint has no routers, so no expert can be knocked out: pick a routed one.")
        return
    if data is None:
        st.caption(f"Experts can't be measured on data here. {escape(selection.no_data)}")
        return
    st.markdown(
        "Every expert is knocked out in turn: what it does, for which inputs it matters, and whether the experts that "
        "are used most, which pruning keeps, are also those that matter."
    )
    if not st.toggle(f"Measure on {escape(data.name)}", key=ON, bind="query-params"):
        return
    n, meaning = _controls(len(data))
    try:
        found = knocked_out(selection.checkpoint, data, n, meaning)
        key = selection.checkpoint.fingerprint, data.fingerprint, n, meaning
        table = effect_table(found, key, data, output)
    except ShrpError as error:
        state.show_error(error)
        return
    what = _what(found, output)
    where = f"n = {found.n:,} of {len(data):,} inputs of {data.name}"
    name = f"{selection.name}-{meaning.replace(' ', '-')}-{found.n}"
    _map(table, what, where, meaning, name)
    where_part(selection, found, key, where, name)
    st.subheader("Is usage a good signal?", anchor="usage")
    config = selection.checkpoint.info.config
    _scatter(table, _measure(), where, meaning, name, found, labelled=data.labels is not None, config=config)
    with st.expander("All experts as a table, with intervals", icon=":material/table:"):
        _table(table, found, name, labelled=data.labels is not None)


def _controls(total: int) -> tuple[int, str]:
    left, right = st.columns([2, 3], gap="medium")
    sizes = [size for size in _SIZES if size < total] + [total]
    default = _DEFAULT if _DEFAULT in sizes else total
    n = total
    if len(sizes) == 1:  # a slider needs two ends
        left.markdown(f"On all of the {counted(total, 'input')}")
    else:
        fall_back(INPUTS, sizes, default)
        n = left.select_slider(
            "Inputs",
            sizes,
            value=default,
            key=INPUTS,
            bind="query-params",
            help="The first so many of a random order that keeps the data's share of each class. More inputs go on "
            "from what was measured already.",
        )
    with right:
        meaning = always_one(
            "A knocked-out expert",
            MEANINGS,
            MEANING,
            help="**router picks the next**: the best of the other experts takes over, and the layers above route as "
            "they then would. **zeroed**: the gate, by which the expert's output is multiplied, is 0, and all "
            "others stay as they are.",
        )
    return (n if n in sizes else default), meaning


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


def _what(found: KnockOuts, output: int | None) -> str:
    if found.task.is_regression:
        return "the output"
    if output is None:
        return "the logit of the predicted class"
    return f"the logit of {found.task.label_names[output]}"


def _map(table: pd.DataFrame, what: str, where: str, meaning: str, name: str) -> None:
    unused = int((table["uses"] == 0).sum())
    top = table.loc[table["signed"].abs().idxmax()]
    chart(
        figures.effect_map(
            table,
            escape_html(what),
            f"{escape_html(where)}; knocked out: {meaning}<br>mean over all n inputs, positive: the expert raises it; "
            "empty: never used",
        ),
        table,
        "effect-map",
        f"{name}-effects",
        f"Heatmap, layers by experts: mean effect of each expert on {what}, {where}. {unused} of {len(table)} experts "
        f"are never used. Largest: layer {top['layer']:.0f} expert {top['expert']:.0f} with {top['signed']:+.3f}.",
    )


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


def _table(table: pd.DataFrame, found: KnockOuts, name: str, *, labelled: bool) -> None:
    shown = pd.DataFrame(
        {
            "layer": table["layer"],
            "expert": table["expert"],
            "usage": 100 * table["usage"],
            "used by": table["uses"],
            "mean effect": table["signed"],
            "95% interval": _intervals(table, "signed"),
            "mean size": table["effect"],
            "its 95% interval": _intervals(table, "effect"),
            "mean size where used": table["effect_per_use"],
            "its 95% interval where used": _intervals(table, "effect_per_use"),
        }
    )
    formats = {"usage": "%.1f%%", "mean effect": "%+.4f", "mean size": "%.4f", "mean size where used": "%.4f"}
    if labelled:
        scale, digits, unit = (100, 2, " (points)") if is_percentage(found.task.metric) else (1, 4, "")
        lost = f"{metric_name(found.task.metric)} lost{unit}"
        shown[lost] = scale * table["score_lost"]
        shown[f"its interval{unit}"] = _intervals(table, "score_lost", scale, digits)
        formats[lost] = f"%+.{digits}f"
    if "flips" in table:
        shown["flips"] = table["flips"]
    st.dataframe(
        shown,
        hide_index=True,
        column_config={key: st.column_config.NumberColumn(format=form) for key, form in formats.items()},
        height=420,
        alt="Effect of every expert with its interval",
    )
    st.caption(
        f"All over n = {found.n:,} inputs, but *mean size where used*, which is over those in *used by*. Intervals of "
        "means: 95%, Student's t over inputs, rough for experts that few inputs use. Intervals of the score lost "
        f"are paired ones, {percent(0.95, 0)}. *flips*: predictions that change."
    )
    downloads(table, "effect-table", f"{name}-expert-effects")


def _intervals(table: pd.DataFrame, column: str, scale: float = 1, digits: int = 3) -> list[str]:
    def words(low: float, high: float) -> str:
        return f"{low:+.{digits}f} to {high:+.{digits}f}" if math.isfinite(low) else "not known"

    lows, highs = scale * table[f"{column}_low"], scale * table[f"{column}_high"]
    return [words(low, high) for low, high in zip(lows, highs, strict=True)]
