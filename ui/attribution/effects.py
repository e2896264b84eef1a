"""What knocking out does on many inputs, of experts and of heads alike: the number of inputs, the map and the table."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pandas as pd
import streamlit as st

from shrp.analysis.importance import KnockOuts, of_heads
from shrp.data.text_data import TextData, pairs_among
from shrp.phrases import counted
from ui.attribution import figures
from ui.attribution.figures import EXPERT
from ui.bound import fall_back
from ui.downloads import chart, downloads
from ui.store import once
from ui.text import escape_html, is_percentage, metric_name, percent

_SIZES = (32, 64, 128, 256, 512)


def effect_table(found: KnockOuts, key: Hashable, data: TextData, output: int | None) -> pd.DataFrame:
    """`KnockOuts.table`, kept: its intervals take a moment."""
    key = key, data.pairs, output  # of a minimal pair both inputs are drawn together
    return once("expert effects", 64, key, "Intervals", lambda progress: found.table(data, output))


def pick_inputs(total: int, key: str, start: int) -> int:
    """On how many of all inputs to measure: some sizes that blocks fit in, or all.

    Args:
        key: of the widget.
        start: what is picked at first, where there are so many.
    """
    sizes = [size for size in _SIZES if size < total] + [total]
    start = start if start in sizes else total
    if len(sizes) == 1:  # a slider needs two ends
        st.markdown(f"On all of the {counted(total, 'input')}")
        return total
    fall_back(key, sizes, start)
    n = st.select_slider(
        "Inputs",
        sizes,
        value=start,
        key=key,
        bind="query-params",
        help="The first so many of a random order that keeps the data's share of each class. More inputs go on "
        "from what was measured already.",
    )
    return n if n in sizes else start


def said_output(found: KnockOuts, output: int | None) -> str:
    """The output that effects are on, in words; `output` as for `KnockOuts.effects`."""
    if found.task.is_regression:
        return "the output"
    if output is None:
        return "the logit of the predicted class"
    return f"the logit of {found.task.label_names[output]}"


def draw_map(table: pd.DataFrame, what: str, where: str, how: str, name: str, of: str = EXPERT) -> None:
    """Draw the mean effect of each expert or head.

    Args:
        table: of `KnockOuts.table`.
        what: of `said_output`.
        where: on what it was measured, with its n.
        how: what knocking out is, in HTML-safe words.
        name: that downloads begin with.
        of: what is knocked out, `expert` or `head`.
    """
    unused = int((table["uses"] == 0).sum())
    top = table.loc[table["signed"].abs().idxmax()]
    experts = of == EXPERT
    chart(
        figures.effect_map(
            table,
            escape_html(what),
            f"{escape_html(where)}; knocked out: {how}<br>mean over all n inputs, positive: the {of} raises it"
            + "; empty: never used" * experts,
            of,
        ),
        table if experts else of_heads(table),
        "effect-map",
        f"{name}-effects",
        f"Heatmap, layers by {of}s: mean effect of each {of} on {what}, {where}. "
        + f"{unused} of {len(table)} experts are never used. " * experts
        + f"Largest: layer {top['layer']:.0f} {of} {top['expert']:.0f} with {top['signed']:+.3f}.",
    )


def draw_table(table: pd.DataFrame, found: KnockOuts, name: str, data: TextData, of: str = EXPERT) -> None:
    """Draw the effects as numbers with their intervals; heads have no usage.

    Args:
        table, name, of: as for `draw_map`.
        data: of which `found` has some inputs.
    """
    experts = of == EXPERT
    columns = {"layer": table["layer"], of: table["expert"]}
    if experts:
        columns |= {"usage": 100 * table["usage"], "used by": table["uses"]}
    columns |= {
        "mean effect": table["signed"],
        "95% interval": _intervals(table, "signed"),
        "mean size": table["effect"],
        "its 95% interval": _intervals(table, "effect"),
    }
    if experts:
        columns |= {
            "mean size where used": table["effect_per_use"],
            "its 95% interval where used": _intervals(table, "effect_per_use"),
        }
    shown = pd.DataFrame(columns)
    formats = {"usage": "%.1f%%", "mean effect": "%+.4f", "mean size": "%.4f", "mean size where used": "%.4f"}
    if data.labels is not None:
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
        column_config={
            key: st.column_config.NumberColumn(format=form) for key, form in formats.items() if key in shown
        },
        height=420,
        alt=f"Effect of every {of} with its interval",
    )
    over = ", but *mean size where used*, which is over those in *used by*" * experts
    rough = ", rough for experts that few inputs use" * experts
    once = " (a minimal pair counts once)" * (len(pairs_among(data, found.rows)) > 0)
    st.caption(
        f"All over n = {found.n:,} inputs{over}. Intervals of means: 95%, Student's t over inputs{once}{rough}. "
        f"Intervals of the score lost are paired ones, {percent(0.95, 0)}. *flips*: predictions that change."
    )
    downloads(table if experts else of_heads(table), "effect-table", f"{name}-{of}-effects")


def _intervals(table: pd.DataFrame, column: str, scale: float = 1, digits: int = 3) -> list[str]:
    def words(low: float, high: float) -> str:
        return f"{low:+.{digits}f} to {high:+.{digits}f}" if math.isfinite(low) else "not known"

    lows, highs = scale * table[f"{column}_low"], scale * table[f"{column}_high"]
    return [words(low, high) for low, high in zip(lows, highs, strict=True)]
