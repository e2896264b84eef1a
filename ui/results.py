"""The Results page: what the studies measured, read from docs/data and docs/results.md, and the chart of score against size."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from shrp.errors import DataError
from ui.text import interval_text
from ui.theme import BLUE, GREY, ORANGE, whiskers

DOCS = Path(__file__).parents[1] / "docs"
TASKS = {"cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B", "sst2": "SST-2", "qnli": "QNLI"}
DEPTHS = {"6of12": "6 of 12 layers", "11of12": "11 of 12 layers"}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file in docs/data; none if it is missing; a `DataError` if the file is not a list of rows."""
    path = DOCS / "data" / f"{name}.json"
    try:
        return [dict(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path.name} cannot be read; `python -m studies.results` writes it.") from error


def compared(recipe: str, depth: str) -> list[dict[str, Any]]:
    """The models of one recipe and depth that stand next to each other, SHRP's first."""
    found = [r for r in rows("summary") if (r["recipe"], r["depth"]) == (recipe, depth) and r["compared"]]
    return sorted(found, key=lambda r: (r["model"] != "shrp", -r["fine_tuned_after_pruning"], -r["share"]))


def table(models: list[dict[str, Any]]) -> pd.DataFrame:
    """Percent of the dense model's score by task, one row per model."""
    lines = []
    for row in models:
        plain = ", not fine-tuned" * (not row["fine_tuned_after_pruning"] and not row["routed"])
        line = {"model": row["name"] + plain, "mean": 100 * row["share"], "95% CI": ""}
        if row["interval"]:
            line["95% CI"] = interval_text(row["interval"], "accuracy").removesuffix("%")
        of = row["by_task"]
        line |= {words: 100 * of[task]["share"] for task, words in TASKS.items() if task in of}
        lines.append(line | {"encoder": 100 * row["encoder_params_share"]})
    return pd.DataFrame(lines)


def questions() -> dict[str, str]:
    """The sections of docs/results.md: question -> Markdown, without the markers of tables."""
    try:
        text = (DOCS / "results.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    text = re.sub(r"<!--.*?-->", "", text)
    # Links into the repository lead nowhere here.
    text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


AIM = 95.0
"""Percent of the dense model's score at which a line is drawn."""
LITERATURE, PAPER = "literature (BERT-base)", "SHRP paper (BERT-base, not fine-tuned)"


def points(summary: list[dict[str, Any]], published: list[dict[str, Any]], recipe: str) -> pd.DataFrame:
    """One row per model: ours of one recipe, fine-tuned after pruning, and the published ones; in percent."""
    found = [
        (f"{row['name']}, {DEPTHS[row['depth']]}", "SHRP" if row["model"] == "shrp" else "controls", row)
        for row in summary
        if row["recipe"] == recipe and row["fine_tuned_after_pruning"]
    ]
    found += [
        (row["name"], PAPER if row["name"].startswith("SHRP paper") else LITERATURE, row) for row in published
    ]
    rows = []
    for name, group, row in found:
        numbers = (row["encoder_params_share"], row["share"], *(row.get("interval") or (math.nan, math.nan)))
        rows.append((name, group, row.get("depth"), *(100 * number for number in numbers)))
    return pd.DataFrame(rows, columns=["model", "group", "depth", "encoder", "share", "low", "high"])


def score_against_size(frame: pd.DataFrame, depth: str) -> go.Figure:
    """Mean share of the dense model's score over the encoder's parameters; our models of other depths are pale."""
    looks = {
        "SHRP": {"color": BLUE, "symbol": "circle", "size": 12},
        "controls": {"color": ORANGE, "symbol": "x", "size": 9},
        LITERATURE: {"color": GREY, "symbol": "diamond-open", "size": 10},
        PAPER: {"color": GREY, "symbol": "diamond", "size": 10},
    }
    fig = go.Figure()
    for name, part in frame.groupby("group", sort=False):
        fig.add_scatter(
            x=part["encoder"],
            y=part["share"],
            mode="markers",
            name=name,
            marker=looks[name] | {"opacity": part["depth"].isin([depth, None]).map({True: 1, False: 0.3})},
            customdata=part[["model"]],
            error_y=whiskers(part["share"], part["low"], part["high"], thickness=1),
            hovertemplate="%{customdata[0]}<br>%{y:.1f}% kept with %{x:.1f}% of the encoder<extra></extra>",
        )
    fig.add_hline(AIM, line={"color": GREY, "dash": "dot", "width": 1}, name="95% of the dense model", showlegend=True)
    fig.update_layout(
        height=330,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": "encoder parameters, % of dense", "type": "log"},
        yaxis={"title": "score, % of dense"},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0},
    )
    fig.update_xaxes(tickvals=[5, 10, 20, 50, 100])
    return fig
