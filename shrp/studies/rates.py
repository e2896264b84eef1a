"""What controls keep at learning rates of their own: the rows of `studies.experiments rates`, and in sentences."""

from __future__ import annotations

import pandas as pd

from shrp.evaluation.intervals import Mean, difference
from shrp.phrases import counted, ends_in_points, in_words, kept_share, signed
from shrp.studies.experiments import Experiment
from shrp.studies.studies import bounds, stored_intervals

NAMES = {
    "static": "SHRP, recovered",
    "random": "random experts, recovered",
    "dropped": "layers dropped",
    "taught": "layers dropped from the task's teacher, without texts",
    "uniform": "no router",
    "narrow": "heads and neurons pruned",
    "dense": "the dense teacher trained on for as long",
}
"""Kinds of models, in the order in which they are told of; all but SHRP's and the last are controls."""


def rates_frame(found: Experiment) -> pd.DataFrame:
    """One row a task, depth, model and multiple of the GLUE table's learning rates, means over seeds.

    Columns: task, depth, model (a key of `NAMES`, or another), `name`, times, learning_rate, new_learning_rate, seeds,
    metric, n, teacher, score, `retained` with `low` and `high` (of several seeds the lowest and the highest, of one the
    95% interval over inputs; nan for none), `floor` (the share of the teacher's score that the best constant answer
    has; nan where that is not known).
    """
    result = []
    keys = ["task", "depth", "model", "times"]
    for key, group in pd.DataFrame(found.rows).groupby(keys, sort=False):
        row, first = dict(zip(keys, key, strict=True)), group.iloc[0]
        ends = [(low / first["teacher"], high / first["teacher"]) for low, high in stored_intervals(group)]
        low, high = bounds(group["retained"], ends)
        shared = ("learning_rate", "new_learning_rate", "metric", "n", "teacher")
        row |= {name: first[name] for name in shared} | {"seeds": group["seed"].nunique()}
        row |= {name: group[name].mean() for name in ("score", "retained")} | {"low": low, "high": high}
        constant = found.data.get(row["task"], {}).get("constant")
        row["floor"] = float("nan") if constant is None else constant / first["teacher"]
        result.append(row | {"name": NAMES.get(row["model"], row["model"])})
    frame = pd.DataFrame(result)
    order = list(NAMES)
    places = [order.index(model) if model in order else len(order) for model in frame["model"]]
    frame = frame.assign(place=places).sort_values(["task", "depth", "place", "times"], kind="stable")
    return frame.drop(columns="place").reset_index(drop=True)


def rates_findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a task: each model at the table's rates and at its best ones, then SHRP beside the best control."""
    sentences = []
    for (task, depth), rows in frame.groupby(["task", "depth"], sort=False):
        # Means over other numbers of trainings would not be compared like with like.
        rows = rows[rows["seeds"] == rows["seeds"].max()]
        parts, best = [], {}
        for model, part in rows.groupby("model", sort=False):
            top = best[model] = part.loc[part["retained"].idxmax()]
            own = part[part["times"] == 1]
            text = f"{top['name']} {kept_share(top)} at {_rates(top)}"
            if len(part) > 1:
                text += f", the most of {len(part)} tried"
            if len(own) and top["times"] != 1:
                text += f", and {kept_share(own.iloc[0])} at {_rates(own.iloc[0])}"
            parts.append(text)
        if (floor := rows["floor"].iloc[0]) == floor:
            parts.append(f"a constant answer {floor:.1%}")
        text = f"On {task} ({in_words(depth)}, {counted(int(rows['seeds'].iloc[0]), 'seed')}) what is kept of the "
        text += f"teacher's score: {'; '.join(parts)}."
        controls = [row for model, row in best.items() if model not in ("static", "dense")]
        if "static" in best and controls:
            rival = max(controls, key=lambda row: row["retained"])
            several = rows["times"].nunique() > 1
            found = _lead(best["static"], rival)
            about = [ends_in_points(*found.ends)] if rows["seeds"].iloc[0] == 1 else []
            about += ["not paired"] + ["the best of several on the data that score them"] * several
            text += (
                f" {'Each at its best, ' * several}SHRP's lead over {rival['name']} is "
                f"{signed(100 * found.value)} points ({'; '.join(about)})."
            )
        sentences.append(text)
    return sentences


def _lead(mine: pd.Series, rival: pd.Series) -> Mean:
    """Its ends are an interval's where those of the two are, and not of several seeds."""
    return difference(*(Mean.of_ends(row["retained"], row["low"], row["high"]) for row in (mine, rival)))


def _rates(row: pd.Series) -> str:
    return "the table's rates" if row["times"] == 1 else f"{row['times']:g} times the table's rates"
