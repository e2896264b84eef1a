"""When answers change: from how many experts on is an input answered as by the routed model, and how many are not"""

from __future__ import annotations

import math
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from shrp.data.slices import SLICE, input_groups
from shrp.data.tabular import distinct
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import far_apart
from shrp.phrases import counted
from shrp.pruning import breaking
from shrp.pruning.breaking import Breaking
from ui import closer
from ui.downloads import chart, downloads
from ui.lab import work as lab
from ui.lab.sweep import Section
from ui.lab.work import SELECTIONS, Setting
from ui.tables import class_width, row_height
from ui.text import axis_names, escape, escape_html, percent, plain, share_text
from ui.theme import SEQUENTIAL, layout

FEWEST = 3
"""Sizes below which there is little to tell."""
_MOST = 24
"""Sizes that have a column in the map."""
_MOST_ANSWERS = 0.95
_LABELLED = 16  # columns up to which a cell has room for its number
_NUMBERS, _PAGE, _LEAST = 80, 740, 140  # pixels: a column of numbers, the table, a column of texts at least


@st.fragment
def section(curve: Section) -> None:
    """Draw the section from what was tried with the curve's selection, combination and kind of budget.

    Args:
        curve: of the page; with answer shares matched where its are.
    """
    st.header("When answers change", anchor="breaking")
    tried = _series(curve)
    if len(tried) < FEWEST:
        run = "*Run a sweep* above, or t" if curve.data.labels is not None else "T"
        st.info(
            "From how many experts on is each input answered as the routed model answers it? "
            f"{run}ry at least {FEWEST} sizes with one selection, to see.",
            icon=":material/broken_image:",
        )
        return
    found = breaking.breaking(curve.routed, tried)
    data, name, how = curve.data, curve.selection.name, _how(curve)
    said = in_words(found, data.name, how)
    st.markdown(said)
    slices = input_groups(data, by=(SLICE,)).get(SLICE, {})
    frame = found.by_group(slices)
    chart(
        changed_map(_thinned(frame), f"{escape_html(data.name)}; {escape_html(how)}"),
        frame,
        "breaking-map",
        f"{name}-changed-answers",
        "Heatmap: a row a slice, a column a number of experts kept, each cell the share of answers that are not the "
        f"routed model's. {plain(said)}",
    )
    if data.labels is not None:
        st.caption(_how_to_read(curve))
    _listed(found, data, curve)


def _how_to_read(curve: Section) -> str:
    """What the map does not say, of data with labels."""
    text = "Whether a change is a loss, *Where it hurts* says of one size."
    if curve.matched is None:  # of numbers there is no threshold
        return text
    matched = " *Answer shares matched*, above, leaves out what is the threshold's alone." * (
        not curve.matched
    )
    return f"An answer near the threshold may change and change back. {text}{matched}"


def _series(curve: Section) -> list[tuple[int, Evaluation]]:
    """How many experts each pruning keeps that was tried like the present one but for its size, and what was found."""
    wanted, found = _kind(curve.setting), []
    for one in lab.tried(curve.checkpoint, curve.data).values():
        if one.setting.edited or _kind(one.setting) != wanted:
            continue
        if (evaluation := curve.evaluation_of(one.plan)) is not None:
            found.append((one.plan.budget, evaluation))
    return found


def _kind(setting: Setting) -> tuple[str, str, str, int | None]:
    """What settings have in common that differ in their size alone; edits by hand have no part in it."""
    drawn = SELECTIONS.get(setting.selection) == "random"
    return setting.allocation, setting.selection, setting.combination, setting.seed if drawn else None


def _how(curve: Section) -> str:
    """How the experts of the sizes were chosen, in words."""
    setting = curve.setting
    each = "as many a layer" if setting.allocation == lab.PER_LAYER else "spread over the layers"
    seed = f" {setting.seed}" if SELECTIONS.get(setting.selection) == "random" else ""
    matched = ", answer shares matched" if curve.matched else ""
    return f"{setting.selection.lower()}{seed}, {setting.combination.lower()}, {each}{matched}"


def in_words(found: Breaking, data: str, how: str) -> str:
    """What is found of all inputs, as Markdown."""
    n, sizes = len(found.changed), found.sizes
    held, lost = int((found.changes == 0).sum()), int(np.isnan(found.holds_from).sum())
    apart = far_apart(found.reference)
    number = found.reference.task.is_regression
    same = f"within {apart:g} of the routed model's answer" if number else "as by the routed model"
    text = (
        f"**{share_text(held, n)}** of n = {n:,} inputs of {escape(data)} are answered {same} at "
        f"each of {len(sizes)} sizes, from {counted(int(sizes[0]), 'expert')} to {sizes[-1]} ({escape(how)})"
    )
    enough = np.sort(np.nan_to_num(found.holds_from, nan=np.inf))[math.ceil(_MOST_ANSWERS * n) - 1]
    if sizes[0] < enough < np.inf:
        text += f"; with **{enough:.0f}** or more, {percent(_MOST_ANSWERS, 0)} are"
    text += "."
    if lost:
        text += f" {counted(lost, 'input')} {'is' if lost == 1 else 'are'} answered otherwise even with {sizes[-1]}."
    return text


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of as many sizes as the map has columns for, evenly taken, both ends among them."""
    sizes = frame["kept"].unique()
    places = np.unique(np.linspace(0, len(sizes) - 1, min(_MOST, len(sizes))).round().astype(int))
    return frame[frame["kept"].isin(sizes[places])]


def changed_map(frame: pd.DataFrame, subtitle: str) -> go.Figure:
    """Groups x sizes: which share of the answers is not the routed model's.

    Args:
        frame: of `shrp.pruning.breaking.Breaking.by_group`.
        subtitle: what it is of, safe in HTML.
    """
    sizes = list(dict.fromkeys(frame["kept"]))
    # By place: a slice may have any name, that of all inputs too.
    parts = [frame.iloc[start : start + len(sizes)] for start in range(0, len(frame), len(sizes))]
    groups = [part["group"].iloc[0].replace("_", " ") for part in parts]
    rows = [
        f"{short} (n = {part['n'].iloc[0]:,})" for part, short in zip(parts, axis_names(groups), strict=True)
    ]
    values = [part["share"].tolist() for part in parts]
    hovers = [
        [
            f"<b>{escape_html(name)}, {counted(row.kept, 'expert')} kept</b><br>{row.changed:,} of {row.n:,} answers "
            f"are others<br>{percent(row.share)}, 95% interval {percent(row.low)} to {percent(row.high)}"
            for row in part.itertuples()
        ]
        for name, part in zip(groups, parts, strict=True)
    ]
    labelled = len(sizes) <= _LABELLED
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=[str(size) for size in sizes],
            y=rows,
            text=[[f"{100 * value:.0f}" for value in row] for row in values] if labelled else None,
            texttemplate="%{text}" if labelled else None,
            hovertext=hovers,
            hovertemplate="%{hovertext}<extra></extra>",
            xgap=1,
            ygap=1,
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=max(0.1, float(np.max(values))),
            colorbar={"title": {"text": "changed", "side": "right"}, "tickformat": ".0%", "thickness": 12},
        )
    )
    fig.update_xaxes(type="category", showgrid=False, zeroline=False)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False, zeroline=False)
    return layout(
        fig,
        "Answers that are not the routed model's",
        subtitle=f"percent of each slice's inputs; {subtitle}",
        x="experts kept",
        height=165 + 26 * len(rows),
        legend=False,
    )


def _listed(found: Breaking, data: TextData, curve: Section) -> None:
    """The inputs whose answers change, what breaks first on top; a picked one is looked at closer."""
    whole = found.to_frame(data)
    frame = whole[whole["changes"] > 0]
    if frame.empty:
        return
    last = counted(len(found.sizes), "size")
    st.markdown(
        f"**{counted(len(frame), 'answer')} that change{'s' if len(frame) == 1 else ''}**, what breaks first on top. "
        "Pick a row to look closer at it."
    )
    task = data.task
    arrow = "routed → first other answer"
    ours = distinct(task.text_columns, breaking.COLUMNS)
    texts = distinct(task.text_columns, (*breaking.COLUMNS, "routed", "changes at", arrow))
    shown = frame[ours].set_axis(texts, axis=1)
    wide = class_width(task.label_names) if task.label_names else _NUMBERS
    if "label" in frame:
        shown["label"] = _spaced(frame["label"], task.is_regression)
    if task.is_regression:
        shown["routed"], shown["becomes"] = frame["answer"], frame["becomes"].astype(float)
    else:
        shown[arrow] = [
            f"{a} → {b}".replace("_", " ") for a, b in zip(frame["answer"], frame["becomes"], strict=True)
        ]
    shown["holds from"], shown["changes at"] = frame["holds from"], frame["changes"]
    others = 35 + 2 * _NUMBERS + (wide if "label" in frame else 0) + 2 * wide
    width = max(_LEAST, (_PAGE - others) // len(texts))
    number = st.column_config.NumberColumn
    event = st.dataframe(
        shown,
        key=f"breaking-{data.fingerprint}-{crc32(frame['index'].to_numpy().tobytes())}",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        row_height=row_height(int(max(shown[name].str.len().max() for name in texts)), width),
        height=min(
            460, 40 + row_height(int(max(shown[name].str.len().max() for name in texts)), width) * len(shown)
        ),
        column_config={
            **{name: st.column_config.TextColumn(width=width) for name in texts},
            "label": number(format="%.2f", width=_NUMBERS)
            if task.is_regression
            else st.column_config.TextColumn(width=wide),
            arrow: st.column_config.TextColumn("routed → other", width=2 * wide),
            "routed": number(format="%.2f", width=_NUMBERS),
            "becomes": number(format="%.2f", width=_NUMBERS, help="At the largest size that changes it"),
            "holds from": number(
                width=_NUMBERS,
                help="The fewest experts from which on, at every larger size tried, the answer is the routed model's; "
                "never: even the largest size changes it",
            ),
            "changes at": number(width=_NUMBERS, help=f"At how many of {last} the answer is another one"),
        },
        placeholder="never",
        alt="Inputs whose answer changes with the number of experts kept",
    )
    if rows := [row for row in event.selection.rows if row < len(frame)]:
        whose = f"by {curve.selection.name} as it is"
        closer.links(data, frame["index"].iloc[rows].tolist(), routed=True, whose=whose)
    downloads(whole, "breaking", f"{curve.selection.name}-when-answers-change")


def _spaced(labels: pd.Series, are_numbers: bool) -> pd.Series | Sequence[str]:
    return labels if are_numbers else labels.str.replace("_", " ")
