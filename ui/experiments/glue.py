"""The GLUE part of the Experiments page: claims, the table and the chart of sizes; and the same on other encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from shrp.errors import DataError
from shrp.phrases import by_chance, counted, in_words, listed
from shrp.studies import studies
from shrp.studies.claims import claims
from shrp.studies.findings import (
    ABOVE_CONSTANT,
    HOW_FOUND,
    above_constant,
    ahead_said,
    both_seeds,
    findings,
    not_below,
)
from shrp.studies.leads import HOW_APART, HOW_OPEN, MEAN, lead_frame, leads_measured
from shrp.studies.published import PUBLISHED
from ui.downloads import chart, downloads
from ui.experiments import figures
from ui.experiments.parts import Drawn, headed, not_run, say
from ui.pickers import always_one
from ui.stamps import Stamp, stamp_of
from ui.state import show_error
from ui.tables import row_height
from ui.text import escape, metric_name

RECIPE, DEPTH, OVER = "recipe", "depth", "over"
"""Keys of the pickers, in the session's state and in the URL."""
ROW = 66
"""Pixels of a row of three lines."""
MODEL = 158
"""Pixels of the column of models' names."""
AXES = {
    "Parameters": "encoder_params",
    "FLOPs": "encoder_flops",
    "Whole-model parameters": "model_params",
    "Whole-model FLOPs": "model_flops",
}


@dataclass(frozen=True, eq=False)
class _Standing:
    """The table, and what it shows; shared by all sessions, so never changed."""

    glue: pd.DataFrame
    claims: pd.DataFrame
    above: list[str]
    ahead: list[str]
    higher: pd.DataFrame


@st.cache_resource(max_entries=2, show_spinner=False)
def _standing(folder: Path, stamp: Stamp) -> _Standing | None:
    """All of the file's that takes more than a moment; None where there are no rows. Raises as `studies.glue_frame`."""
    glue = studies.glue_frame(studies.read_rows("glue", folder))
    if glue.empty:
        return None
    return _Standing(glue, claims(glue), above_constant(glue), ahead_said(glue), not_below(glue))


def benchmark() -> Drawn:
    """The GLUE table and the chart of score against size, or how to make them."""
    try:
        found = _standing(studies.FILES, stamp_of(studies.FILES, ["glue.json"]))
    except DataError as error:
        show_error(error)
        return []
    if found is None:
        not_run("glue")
        return []
    heading = standing(found)
    st.caption(
        "These models were trained for this table. Checkpoints of the same names on other pages may be of other "
        "trainings, with teachers of their own: their scores are those that Overview shows."
    )
    return [*heading, table(found.glue), size(found.glue)]


def standing(shown: _Standing) -> Drawn:
    """What each recipe and depth keeps, beside its best control and the paper's claim; then where a control wins."""
    found, glue = shown.claims, shown.glue
    if found.empty:
        return []
    heading = headed("What was measured, beside controls and the paper", "claims")
    st.dataframe(
        found.assign(
            converted=found["recipe"] + ", " + found["converted"],
            measured=[_kept(row) for row in found.itertuples()],
        )[["converted", "measured", "best control", "lead", "over", "reported"]],
        hide_index=True,
        width="stretch",
        height="content",
        row_height=ROW + 40,  # five lines
        column_config={
            "converted": st.column_config.TextColumn("setting", width=88),
            "measured": st.column_config.TextColumn("keeps, at size", width=112),
            "best control": st.column_config.TextColumn("best control", width=160),
            "lead": st.column_config.TextColumn(
                "lead, points",
                width=140,
                help="SHRP's over that control, in percentage points of the teacher's score",
            ),
            "reported": st.column_config.TextColumn("the paper reports", width=150),
            "over": st.column_config.TextColumn("tasks", width=90),
        },
        alt="The best static model of each recipe and depth beside the best control and the paper's claim",
        placeholder="–",
    )
    for row in found[found["lacking"] != ""].itertuples():
        on_all = " on all of these" * (", " in row.over)
        st.markdown(f"- {row.recipe}, {row.converted}: not measured{on_all}: {escape(row.lacking)}.")
    st.caption(
        "Keeps: the best static (pruned) model's share of the dense teacher's score, with its 95% interval over "
        "validation inputs and, where tasks have several seeds, over trainings, single ones taken to vary alike; size: "
        "encoder parameters left. Rows over different tasks are not comparable. “A tie”: the interval of the lead "
        "contains 0; not paired: it follows from both scores and their intervals, the answers not compared input by "
        "input. Both sides are the best of several models on these same data. The paper used another base and other "
        "teachers, so compare only roughly. Speed: docs/results.md."
    )
    with st.expander("What is left above a constant answer", icon=":material/horizontal_rule:"):
        st.markdown(ABOVE_CONSTANT + "\n\n" + "\n".join(f"- {escape(one)}" for one in shown.above))
    for sentence in shown.ahead:
        st.markdown(escape(sentence))
    higher = shown.higher
    if len(higher):
        st.markdown(
            f"**On {len(higher)} of {len(glue.groupby(['task', 'recipe', 'depth']))}** settings of task, recipe and "
            "layers a control keeps at least as much as the best pruned model."
        )
        with st.expander(f"All {len(higher)}" if len(higher) > 1 else "Which", icon=":material/table_rows:"):
            _higher(higher)
    return [heading]


def _kept(row: Any) -> str:
    """A row of `claims` in words: what is kept, at what size, over how many tasks."""
    return f"{row.measured} at {row.size:.1%}, over {counted(row.over.count(',') + 1, 'task')}"


def _higher(rows: pd.DataFrame) -> None:
    """The table of `not_below`."""
    st.dataframe(
        pd.DataFrame(
            {
                "setting": rows["task"] + ", " + rows["recipe"] + ", " + rows["converted"],
                "control": rows["control"] + ": " + rows["control keeps"],
                "model": rows["model"] + ": " + rows["model keeps"],
                "lead": rows["lead"],
                "over": [f"n = {row['n']:,}; seeds: {both_seeds(row)}" for row in rows.to_dict("records")],
            }
        )[["setting", "control", "model", "lead", "over"]],
        hide_index=True,
        width="stretch",
        height="content",
        row_height=ROW + 19,  # four lines
        column_config={
            "setting": st.column_config.TextColumn(width=100),
            "control": st.column_config.TextColumn("the control", width=180),
            "model": st.column_config.TextColumn("the best pruned model", width=180),
            "lead": st.column_config.TextColumn("SHRP's lead, points", width=160),
            "over": st.column_config.TextColumn(width=80),
        },
        alt="Tasks where a control keeps at least as much as the best pruned model",
    )


def table(glue: pd.DataFrame) -> tuple[str, str]:
    """The GLUE table of one recipe and depth."""
    heading = headed("Kept score by task", "glue")
    left, right = st.columns(2)
    with left:
        measured = glue.groupby("recipe", sort=False)["task"].nunique()
        recipes = list(measured.sort_values(ascending=False, kind="stable").index)
        recipe = always_one("Recipe", recipes, RECIPE)
    with right:
        depths = glue.loc[glue["recipe"] == recipe, "depth"].unique()
        depths = sorted(depths, key=lambda name: int(name.split("of")[0]))
        depth = always_one("Converted layers", depths, DEPTH)
    rows = glue[(glue["recipe"] == recipe) & (glue["depth"] == depth)]
    note = "percent of the dense teacher's score (dashed) on GLUE validation sets; each panel has its own axis<br>"
    note += _bars(rows)
    retained(
        rows,
        f"{recipe}, {in_words(depth)} converted",
        note,
        "glue",
        f"glue-{recipe}-{depth}",
    )
    return heading


def retained(rows: pd.DataFrame, title: str, note: str, key: str, file: str) -> None:
    """The chart and the table of one recipe and depth.

    Args:
        rows: of `studies.glue_frame`.
        note: what the bars are.
        key: of the elements on the page.
        file: what downloads are called.
    """
    best = rows.sort_values("retained").iloc[-1]
    chart(
        figures.retained_panels(rows, title, note),
        rows,
        key,
        file,
        f"Retained share of the teacher's score by task and model; highest: {best['name']} on {best['task']}, "
        f"{best['retained']:.1%}",
    )
    cells = rows.assign(
        size=[_sizes(row) for row in rows.itertuples()], cell=[_with_ends(row) for row in rows.itertuples()]
    )
    places = {"index": ["name", "size"], "columns": "task", "sort": False}
    wide = cells.pivot_table(values="retained", **places)
    shown = cells.pivot_table(values="cell", aggfunc=" / ".join, **places)
    tasks, floors = rows.drop_duplicates("task"), studies.floors(rows)
    # Only where every task is known do averages compare like with like.
    if len(tasks) > 1:
        shown["mean"] = 100 * wide.mean(axis=1).where(wide.notna().all(axis=1))
    shown = shown.reset_index().rename(columns={"name": "model"})
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height="content",
        row_height=max(ROW, row_height(int(rows["name"].str.len().max()), MODEL))
        if len(tasks) > 1
        else None,  # of one task, every cell has room in a line
        column_config={
            # Narrow enough for six tasks in a small window.
            "model": st.column_config.TextColumn(width=MODEL),
            "size": st.column_config.TextColumn(
                width=60,
                help="Percent of the dense encoder's parameters / of the whole dense model's, with embeddings and head",
            ),
            **{task: st.column_config.TextColumn(task, width=76) for task in tasks["task"]},
            "mean": st.column_config.NumberColumn(format="%.1f%%", width=58),
        },
        alt="Retained share by model and task, with its interval",
        placeholder="–",
    )
    leads = lead_frame(rows)
    if len(leads):
        _leads(leads, title, key, file)
    if about := studies.about_controls(rows):
        st.caption(escape(about))
    if missing := studies.not_measured(rows):
        st.caption(f"Controls not measured: {escape(missing)}.")
    if len(lent := rows[rows["copies"] > 0]):
        st.caption(
            f"On {escape(', '.join(lent['task'].unique()))} what was recovered, and its controls, learned from "
            f"{lent['copies'].max()} changed copies of each training example too (docs/method.md)."
        )
    only = "; –: not measured, and the mean only where every task is" if len(tasks) > 1 else ""
    st.caption(
        f"Percent of the dense teacher's score kept, in brackets {_ends(rows)}; {_seeds(rows)}{only}. Teacher: "
        + "; ".join(
            f"{r.task} {metric_name(r.metric)} {r.teacher:.3f} (n = {r.n:,}{studies.floor_text(floors[r.task])})"
            for r in tasks.itertuples()
        )
        + ". Size: percent of the dense encoder's parameters, without embeddings / of the whole dense model's."
    )
    downloads(rows, f"{key}-table", f"{file}-table")


def _leads(leads: pd.DataFrame, title: str, key: str, file: str) -> None:
    """The chart of leads over controls."""
    above, below = leads[leads["low"] > 0], leads[leads["high"] < 0]
    ends = "; ".join(
        f"beyond chance {where} {listed(f'{row.name} {_where(row.task)}' for row in part.itertuples())}"
        for where, part in (("ahead of", above), ("behind", below))
        if len(part)
    )
    chart(
        figures.lead_panels(
            leads,
            f"SHRP's lead over its controls: {title}",
            "percentage points of the dense teacher's score by which the recovered pruned model is ahead (right of 0) "
            "or behind; each panel has its own axis<br>bars: 95% intervals, on the same inputs; hollow: not paired",
        ),
        leads,
        f"{key}-leads",
        f"{file}-leads",
        f"SHRP's lead over each trained control by task; {ends or 'none beyond chance'}",
    )
    apart = f" Hollow is what {HOW_APART}" * (not leads["paired"].all())
    st.caption(f"{HOW_OPEN}{apart}{by_chance(leads_measured(leads))}")


def _where(task: str) -> str:
    return "on average" if task == MEAN else f"on {task}"


def size_check() -> Drawn:
    """The same on other encoders."""
    try:
        frames = studies.size_frames(studies.read_rows("size"))
    except DataError as error:
        show_error(error)
        return []
    if not frames:
        not_run("size")
    drawn = []
    for number, (name, frame) in enumerate(frames.items()):
        drawn.append(headed(f"Another size: {name}", f"size-check-{number}"))
        say(findings(frame))
        st.caption(HOW_FOUND)
        for place, ((recipe, depth), rows) in enumerate(frame.groupby(["recipe", "depth"])):
            title = f"{in_words(depth)} converted"
            key = f"size-check-{number}-{place}"
            retained(
                rows,
                title,
                f"{recipe}; percent of the dense teacher's score (dashed)<br>{_bars(rows)}",
                key,
                f"{key}-{depth}",
            )
    return drawn


def _bars(rows: pd.DataFrame) -> str:
    return (
        f"bars: {_ends(rows)}; {_seeds(rows)}; hollow: pruned without training on; dotted: a constant answer"
    )


def _ends(rows: pd.DataFrame) -> str:
    """What the low and the high end of the shares are, in words."""
    over = (
        "over inputs"
        if rows["seeds"].max() == 1
        else "over inputs, and over trainings where there are several seeds"
    )
    return f"the 95% interval {over}, of random experts without recovery the range of draws"


def _seeds(rows: pd.DataFrame) -> str:
    fewest, most = rows["seeds"].min(), rows["seeds"].max()
    if most == 1:
        return "seeds: 1"
    shared = " and one conversion on texts" if rows["recipe"].eq("retain").all() else ""
    return f"seeds: {'' if fewest == most else f'{fewest} to '}{most}, from one teacher{shared}"


def _sizes(row: Any) -> str:
    """What is left of the encoder's parameters, and of the model's, in percent."""
    of_model = "" if pd.isna(row.model_params) else f" / {100 * row.model_params:.1f}"
    return f"{100 * row.encoder_params:.1f}{of_model}"


def _with_ends(row: Any) -> str:
    """A retained share in percent with its ends in brackets, which stay whole where a cell wraps."""
    share = f"{100 * row.retained:.1f}"
    if pd.isna([row.low, row.high]).any():
        return share
    between = "–" if row.low >= 0 else "\u00a0to\u00a0"  # a dash is short, but beside a minus sign it is none
    return f"{share} ({100 * row.low:.0f}{between}{100 * row.high:.0f})"


def size(glue: pd.DataFrame) -> tuple[str, str]:
    """The Pareto chart."""
    heading = headed("Score against size", "size")
    over = AXES[always_one("Size counted in", list(AXES), OVER)]
    mean = studies.average(glue)
    note = "mean retained share over the tasks measured, which differ between marks: hover names them; "
    note += "hollow: pruned without training on; small: the paper's plain recipe<br>"
    if figures.published_over(over):
        note += "stars: as reported of BERT-base, each with its own denominators and tasks"
        if over == "encoder_flops":
            note += "; those that tell nothing of encoder FLOPs are on the chart over parameters only"
    else:
        note += "embeddings and head counted in; what others report is of encoders, so it is not here"
    top = mean.sort_values("retained").iloc[-1]
    chart(
        figures.pareto(mean, over, note),
        mean,
        "size",
        "glue-size",
        f"Mean retained share against {over.replace('_', ' ')}; highest: {top['name']}, {top['retained']:.1%}",
    )
    with st.expander("Published figures, as reported, and their sources"):
        st.dataframe(
            pd.DataFrame(
                [
                    {
                        "method": p.name,
                        "retained": 100 * p.retained,
                        "encoder parameters left": _percent(p.encoder_params),
                        "encoder FLOPs left": _percent(p.encoder_flops),
                        "as reported": p.denominator,
                        "source": p.source,
                    }
                    for p in PUBLISHED
                ]
            ),
            hide_index=True,
            column_config={
                name: st.column_config.NumberColumn(format="%.1f%%")
                for name in ("retained", "encoder parameters left", "encoder FLOPs left")
            },
            alt="Published figures with source and denominator",
            placeholder="not reported",
        )
    return heading


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
