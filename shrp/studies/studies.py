"""The files that `studies.glue` and `size_check` write, read back as tables (`read_file` reads any of a study's).

Retained shares are means over seeds, with a 95% interval: of one seed over inputs, of several over inputs and
trainings. Beside those of several stand the lowest and the highest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import DataError
from shrp.evaluation.intervals import NO_INTERVAL, UNKNOWN, Mean, over_tasks, over_trainings, stored_interval
from shrp.phrases import counted

FILES = Path(__file__).parents[2] / "docs" / "data"
UNROUTED = "unrouted"
"""A control that learned without a router, and was then pruned to random experts."""
NARROW = "narrow"
"""A control: the layers stay dense, pruned of heads and neurons to the size of SHRP's (`shrp.model.narrow`)."""
NAMES = {
    "routed": "SHRP, routed",
    "static": "SHRP, static",
    "random": "control: random experts",
    "dropped": "control: layers dropped",
    "uniform": "control: no router",
    UNROUTED: "control: no router, then random experts",
    NARROW: "control: heads and neurons pruned",
}
"""Kinds of models of the table."""
STANDARD = ("random", "dropped", "uniform")
"""Controls that should stand beside every model of SHRP's: where one does not, it is said."""
CONTROLS = (*STANDARD, UNROUTED, NARROW)
"""Kinds that stand beside SHRP's."""
AS_TRAINED = ("dropped", "uniform", NARROW)
"""Controls that are scored as their own training left them: nothing is pruned from these after."""
_KEYS = ["task", "recipe", "depth", "model", "per_layer", "kept", "recovered", "recovered_on_texts", "texts"]
_DEFAULTS = {
    "texts": 0,
    "copies": 0,
    "recovered_on_texts": False,
    "constant": None,
    "lead": None,
    "lead_interval": None,
    "interval_is": "95%",
    "model_params": None,
    "model_flops": None,
}
_SIZES = ("encoder_params", "encoder_flops", "model_params", "model_flops")
_NEEDED = {
    *_KEYS,
    "seed",
    "metric",
    "score",
    "interval",
    "n",
    "teacher",
    "retained",
    "encoder_params",
    "encoder_flops",
}


def read_file(name: str, folder: Path | None = None) -> dict[str, Any]:
    """A study's file, with its `rows`; empty where it has not been run.

    Args:
        name: `glue`, `ablation`, `size`, `selection`, `routes`, or an experiment's.
        folder: where the files are; the project's own by default.

    Raises:
        DataError: the file is there but is not one of ours.
    """
    path = (folder or FILES) / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["rows"], list):
            raise TypeError("rows are no list")
        return dict(found) | {"rows": [dict(row) for row in found["rows"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name} is not a file of results; write it anew with {command_of(name)}."
        ) from error


def command_of(name: str) -> str:
    """The command that writes a study's file."""
    own = {name: name for name in ("glue", "ablation", "selection", "routes")} | {"size": "size_check"}
    return f"python -m studies.{own.get(name, f'experiments {name}')}"


NEEDS = {
    **dict.fromkeys(("glue", "ablation", "size", "matching", "rates"), " --base bert-base-uncased"),
    **dict.fromkeys(("layer", "topk", "sweep", "balance"), " --base bert-base-uncased --task cola"),
    **dict.fromkeys(("selection", "routes"), " checkpoints/sst2-6of12 checkpoints/cola-6of12"),
}
"""What a study's command needs beside itself, as an example; those that are not here need nothing."""


def read_rows(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The rows of `read_file`; none where the study has not been run."""
    return read_file(name, folder).get("rows", [])


def glue_frame(rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a task, recipe, depth and model, means over seeds; SHRP's models first, then its controls, by size.

    Columns: the keys, `name` in words, `seeds`, `metric`, `n`, `teacher`, `score`, `retained`, `low` and `high` (of
    the retained share; nan for no interval; of random experts without recovery the range of draws), `lowest` and
    `highest` (seed's share), `encoder_params`, `encoder_flops`, `model_params`, `model_flops` (shares of the dense
    encoder's layers, and of the whole model with embeddings and head). Of trained controls `lead`, `lead_low`,
    `lead_high`: by what share of the teacher's score SHRP's recovered static model of the same seed is ahead on the
    same inputs, with its interval, over the `lead_seeds` whose was kept. `floor`: the share that the best constant
    answer has. `copies`: changed copies of each training example that the model learned from too. The others, and
    those of `lead `, say what leaves a mean open, as `shrp.evaluation.intervals.Mean`. nan where a file does not tell.

    Raises:
        DataError: a row lacks something.
    """
    frame = pd.DataFrame([_DEFAULTS | dict(row) | _void(row, rows) for row in rows])
    if frame.empty:
        return frame
    frame = frame.assign(texts=frame["texts"].fillna(0))
    if missing := sorted(_NEEDED - set(frame.columns)):
        raise DataError(
            f"the results lack {', '.join(missing)}; write them anew with python -m studies.glue."
        )
    found = []
    for key, group in frame[frame["model"] != "teacher"].groupby(_KEYS, dropna=False, sort=False):
        row = dict(zip(_KEYS, key, strict=True))
        teacher = group["teacher"].iloc[0]
        ends = np.array(stored_intervals(group)) / teacher
        drawn = _drawn(row)  # its range is no interval
        mean = over_trainings(
            group["retained"].tolist(), [NO_INTERVAL] * len(group) if drawn else ends.tolist()
        )
        low, high = (ends[:, 0].min(), ends[:, 1].max()) if drawn else mean.ends
        found.append(
            row
            | {
                "name": describe(row),
                "seeds": group["seed"].nunique(),
                "metric": group["metric"].iloc[0],
                "n": int(group["n"].iloc[0]),
                "teacher": teacher,
                "score": group["score"].mean(),
                "retained": mean.value,
                "low": float(low),
                "high": float(high),
                "lowest": group["retained"].min(),
                "highest": group["retained"].max(),
                **_parts(mean, ""),
                **_lead(group),
                "copies": int(group["copies"].max()),
                "floor": (group["constant"].astype(float) / group["teacher"]).mean(),
                **{size: float(group[size].astype(float).iloc[0]) for size in _SIZES},
            }
        )
    order = {model: place for place, model in enumerate(NAMES)}
    found.sort(key=lambda row: (order.get(row["model"], len(order)), row["encoder_params"], row["recovered"]))
    return pd.DataFrame(found)


def _void(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """No lead, where that of a row is over another training of SHRP's than the file has; a row may not tell."""
    if row.get("against") is None:
        return {}
    mine = {"model": "static", "recovered": True}
    mine |= {name: row.get(name) for name in ("task", "seed", "recipe", "depth")}
    known = [one.get("stage") for one in rows if mine.items() <= one.items()]
    return {} if row["against"] in known else {"lead": None, "lead_interval": None}


def _lead(group: pd.DataFrame) -> dict[str, float]:
    """Lead over a control with its interval, over the seeds that were paired, and how many these are.

    A bootstrap's lead of two models with every answer alike is 0 without an interval: beside others it counts as exact.
    """
    leads = group[["lead", "lead_interval"]].to_dict("records")  # (of all columns it takes ten times as long)
    known = [row for row in leads if pd.notna(row["lead"])]
    mean = (
        over_trainings([row["lead"] for row in known], [row["lead_interval"] or NO_INTERVAL for row in known])
        if known
        else UNKNOWN
    )
    low, high = mean.ends
    return {
        "lead": mean.value,
        "lead_low": low,
        "lead_high": high,
        "lead_seeds": len(known),
        **_parts(mean, "lead "),
    }


def _parts(mean: Mean, of: str) -> dict[str, float]:
    """What leaves a mean open, as columns of a row; `means_in` reads them back."""
    return {f"{of}{field.name}": getattr(mean, field.name) for field in fields(Mean)[1:]}


def means_in(rows: pd.DataFrame, of: str, value: str) -> list[Mean]:
    """The means that rows of `glue_frame` hold.

    Args:
        of: what the columns of their parts begin with: nothing, or `lead `.
        value: the column of their values.
    """
    parts = [rows[f"{of}{field.name}"] for field in fields(Mean)[1:]]
    return [Mean(*row) for row in zip(rows[value], *parts, strict=True)]


def _drawn(row: Mapping[str, Any]) -> bool:
    """Whether a row is of draws of random experts, which have a range and no interval."""
    return row["model"] == "random" and not row["recovered"]


def size_frames(rows: list[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """What an encoder and its size are called -> its rows in the form of `glue_frame`.

    Raises:
        DataError: a row lacks something.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in rows:
            whole = row["dense_counts"]["model_params"]
            # Its conversions are on the task, not from texts, and so are its controls.
            row = dict(row) | {"recipe": row["recipe"] and f"{row['recipe']}, converted on the task"}
            groups.setdefault(f"{row['base']}, {whole / 1e6:.0f}M parameters", []).append(row)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"size.json has rows that can't be read; write it anew with {command_of('size')}."
        ) from error
    return {name: glue_frame(group) for name, group in groups.items()}


def describe(row: Mapping[str, Any]) -> str:
    """A row's model in words."""
    text = NAMES.get(str(row["model"]), str(row["model"]))
    if row["per_layer"] == row["per_layer"] and row["per_layer"]:
        m = int(row["per_layer"])
        text += f" to the size of {counted(m, 'expert')}" if row["model"] == NARROW else f", {m} a layer"
    if untaught(str(row["model"]), row["recipe"], row["texts"]):
        text += ", not trained on texts"
    if not row["recovered"]:
        return text
    return text + (", recovered on texts and the task" if row["recovered_on_texts"] else ", recovered")


def untaught(model: str, recipe: str | None, texts: int) -> bool:
    """Whether a control lacks the pass over unlabelled texts that the `retain` models which it stands beside had."""
    return recipe == "retain" and model in (*AS_TRAINED, UNROUTED) and not texts


def average(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean retained share over tasks of each recipe, depth and model, with the tasks that it is over.

    Models that lack a task that another of the same recipe and depth has are averaged over their own; `tasks` says
    which, so that unlike averages are not taken for like. `low` and `high` are the mean's 95% interval
    (`shrp.evaluation.intervals.over_tasks`); draws of random experts without recovery have none.
    """
    keys = [key for key in _KEYS if key not in ("task", "kept")]
    found = []
    for key, group in frame.groupby(keys, dropna=False, sort=False):
        mean = over_tasks(means_in(group, "", "retained"))
        found.append(
            dict(zip(keys, key, strict=True))
            | {
                "name": group["name"].iloc[0],
                "retained": mean.value,
                **dict(zip(("low", "high"), mean.ends, strict=True)),
                "worst": group["retained"].min(),
                "best": group["retained"].max(),
                **{size: group[size].mean() for size in _SIZES},
                "tasks": ", ".join(sorted(group["task"].unique())),
            }
        )
    return pd.DataFrame(found)


def stored_intervals(rows: pd.DataFrame) -> list[tuple[float, float]]:
    """`stored_interval` of each row."""
    told = rows[
        rows.columns.intersection(["interval", "interval_is"])
    ]  # (of all columns it takes ten times as long)
    return [stored_interval(row) for row in told.to_dict("records")]


def bounds(scores: pd.Series, intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Lowest and highest of several seeds' scores; of one, its interval, nan where it has none."""
    if len(scores) > 1:
        return float(scores.min()), float(scores.max())
    low, high = intervals[0]
    return float(low), float(high)


def floors(frame: pd.DataFrame) -> pd.Series:
    """Task -> the share of the teacher's score that the best constant answer has; nan where that is not known."""
    return frame.groupby("task", sort=False)["floor"].first()


def floor_text(share: float) -> str:
    """A clause on a teacher: what share of its score the best constant answer has; empty for nan."""
    return "" if share != share else f", a constant answer has {share:.1%} of it"


def not_measured(frame: pd.DataFrame) -> str:
    """The trained controls that some of the frame's tasks lack, in words; empty where none does."""
    trained, missing = trained_controls(frame), []
    for model in STANDARD:
        measured = set(trained.loc[trained["model"] == model, "task"])
        if gaps := [task for task in frame["task"].unique() if task not in measured]:
            name = NAMES[model].removeprefix("control: ") + ", recovered" * (model == "random")
            missing.append(f"{name} on {', '.join(gaps)}")
    return "; ".join(missing)


_ABOUT = {
    UNROUTED: (
        "No router, then random experts: stage 1 with all gates alike; then a draw of random experts is kept, and "
        "trained on for as long as the other controls are."
    ),
    NARROW: (
        "Heads and neurons pruned: no layer is converted; of the same layers, one an epoch, those heads and "
        "feed-forward neurons stay that, on texts of the task, change most, from token to token, what is added: half "
        "as many heads as SHRP's static layer has experts and as many neurons as then have room, one of each at least. "
        "They train for as long as the other controls do."
    ),
}


def about_controls(frame: pd.DataFrame) -> str:
    """What those controls of a frame are whose names don't say it, for beneath a table; empty where it has none."""
    return " ".join(text for model, text in _ABOUT.items() if frame["model"].eq(model).any())


def trained_controls(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `glue_frame` whose control was trained for as long as SHRP; draws of random experts were not."""
    drawn = frame["model"].eq("random") & frame["recovered"].astype(bool)
    return frame[frame["model"].isin((*AS_TRAINED, UNROUTED)) | drawn]
