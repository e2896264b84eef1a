"""The files that `studies.experiments` writes, read back as tables, and what they show in sentences.

Where there are several seeds a value is their mean and `low` and `high` are the lowest and the highest; where there is
one, they are the 95% interval of its own score, nan where it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shrp.errors import DataError, PlanError
from shrp.phrases import counted, in_words, listed, signed
from shrp.studies.stability import overlaps
from shrp.studies.studies import bounds, command_of, read_file, stored_intervals

_SCORED = {"task", "seed", "metric", "score", "interval", "n"}
_NEEDED = {
    "layer": _SCORED | {"layer", "stage", "examples", "distance", "mean_distance", "even_distance"}
    | {"effective", "top_share"},
    "topk": _SCORED | {"top_k", "model", "budget", "teacher", "experts", "encoder_flops", "encoder_params"},
    "sweep": _SCORED | {"model", "budget", "teacher", "interval_is", "encoder_flops", "encoder_params"},
    "balance": {"task", "seed", "balance", "metric", "n", "teacher", "experts", "per_layer"}
    | {"routed", "static", "usage"},
    "overhead": {"geometry", "depth", "batch", "tokens", "rounds", "flop_ratio", "experts_chosen"}
    | {f"{name}{end}" for name in ("routed_ms", "static_ms", "ratio") for end in ("", "_low", "_high")},
    "matching": _SCORED | {"origin", "exchange", "kept", "matching", "matching_after", "teacher", "retained"},
    "rates": _SCORED | {"depth", "model", "times", "learning_rate", "new_learning_rate", "teacher", "retained"},
}  # fmt: skip
TITLES = {
    "layer": "One converted layer, while it trains",
    "topk": "Top-1, Top-3, Top-5, and how stable what they keep is",
    "sweep": "Score against FLOPs at every budget",
    "overhead": "What routing costs",
    "balance": "The balance loss and collapse",
    "matching": "Experts that compare two texts",
    "rates": "Other rates, and other starts, for the controls",
}
QUESTIONS = {
    "layer": "Does the balance loss keep usage even, and does the layer specialise without it?",
    "topk": "What does pruning cost at each k, and would another seed keep the same experts?",
    "sweep": "How far can one prune, and is usage better than chance at saying what to keep?",
    "overhead": "How much longer does a routed model take than the static one that computes as much?",
    "balance": "Do experts collapse without the balance loss, and does that cost any score?",
    "matching": "With one expert a layer, must one be kept that looks for its token in the other text?",
    "rates": "The GLUE table's rates were found with SHRP: do controls, or SHRP, keep more at other rates, or from "
    "another start?",
}
_TEXTS = {"task", "metric", "model", "geometry", "depth", "interval_is", "origin", "exchange"}
_NESTED = {
    **dict.fromkeys(("kept", "used", "effective_by_layer", "routed", "static"), dict),
    **dict.fromkeys(("matching", "matching_after"), dict),
    **dict.fromkeys(("usage", "share", "change_interval", "layers"), list),
}
_OPTIONAL = {"budget", "mean_distance", "step", "retained", "change_interval"}


@dataclass(frozen=True)
class Experiment:
    """One experiment's file."""

    name: str
    rows: list[dict[str, Any]]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]

    def about(self, task: str) -> str:
        """What a task's rows are of and how they were made, for a subtitle or a caption."""
        data, settings = self.data.get(task, {}), self.settings.get(task, {})
        seeds = sorted({row["seed"] for row in self.rows if row["task"] == task})
        parts = [f"{data.get('validation', task)}, n = {data.get('n', 0):,}"]
        if constant := data.get("constant"):  # 0 of Matthews says nothing
            parts[0] += f", a constant answer has {constant:.3f}"
        parts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
        if settings.get("depth"):
            parts.append(
                f"{settings.get('base')}, recipe {settings.get('recipe')}, {in_words(settings['depth'])}, "
                f"experts a layer: {settings.get('per_layer')}, trained as in the GLUE table"
            )
        elif settings.get("of_table"):
            parts.append(
                f"{settings.get('base')}, recipe {settings.get('recipe')}, trained as in the GLUE table"
            )
        elif settings:
            parts.append(f"{settings.get('base')}, recipe {settings.get('recipe')}, converted on the task")
            parts.append(
                f"{settings.get('conversion_size'):,} training examples a converted layer, then "
                f"{settings.get('stage2_epochs')} epochs of up to {settings.get('epoch_size'):,}"
            )
            if settings.get("freeze_dense"):
                parts.append("dense layers frozen")
        return "; ".join(parts)


def read(name: str, folder: Path | None = None) -> Experiment | None:
    """An experiment's file; None where it has not been run.

    Raises:
        DataError: the file is broken, or a row lacks something.
    """
    found = read_file(name, folder)
    if not found.get("rows"):
        return None
    rows, mend = found["rows"], f"write it anew with {command_of(name)}."
    if missing := sorted({key for row in rows for key in _NEEDED[name] - set(row)}):
        raise DataError(f"{name}.json lacks {', '.join(missing)}; {mend}")
    if wrong := sorted({key for row in rows for key, value in row.items() if not _fits(key, value)}):
        raise DataError(f"{name}.json has a {', '.join(wrong)} that can't be read; {mend}")
    parts = [found.get(key, {}) for key in ("data", "settings", "machine")]
    if not all(isinstance(part, dict) for part in parts):
        raise DataError(f"{name}.json does not say what it is of; {mend}")
    return Experiment(name, rows, *parts)


def _fits(key: str, value: Any) -> bool:
    """Whether a cell is of the kind that its column has."""
    if key == "interval":
        return value is None or (
            isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)
        )
    if key in _TEXTS:
        return isinstance(value, str)
    if value is None and key in _OPTIONAL:
        return True
    if key in _NESTED:
        return isinstance(value, _NESTED[key])
    return isinstance(value, int | float)


def layer_frame(found: Experiment) -> pd.DataFrame:
    """One row a task, layer, stage and moment: means over seeds of usage and score.

    Columns: task, layer, stage, examples, n, seeds; `distance` (of Top-1 shares from uniform), `low` and `high` (its
    range), `mean_distance` (of mean router probabilities; nan where unknown), `even_distance` (the floor), `effective`,
    `top_share`, `score`, `metric`.
    """
    frame = pd.DataFrame(found.rows)
    frame["mean_distance"] = frame["mean_distance"].astype(float)
    keys = ["task", "layer", "stage", "examples"]
    grouped = frame.groupby(keys, sort=False)
    means = ["distance", "mean_distance", "even_distance", "effective", "top_share", "score"]
    result = grouped[means].mean()
    result["low"], result["high"] = grouped["distance"].min(), grouped["distance"].max()
    result["seeds"] = grouped["seed"].nunique()
    for column in ("n", "metric"):
        result[column] = grouped[column].last()
    return result.reset_index().sort_values(keys, ignore_index=True)


def layer_findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a task and layer."""
    sentences = []
    for (task, layer), rows in frame.groupby(["task", "layer"], sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        stage_1 = rows[rows["stage"] == 1]
        middle = stage_1.iloc[-1] if len(stage_1) else first
        peak = stage_1.loc[stage_1["distance"].idxmax()] if len(stage_1) else first
        between = ""
        if peak["distance"] > max(first["distance"], middle["distance"]):
            between = (
                f"{peak['distance']:.2f} at most within stage 1 (after {int(peak['examples']):,} examples), "
            )
        sentences.append(
            f"On {task}, layer {layer}'s usage is {first['distance']:.2f} from uniform (total variation) at the first "
            f"measurement, {between}{middle['distance']:.2f} at the end of stage 1 and {last['distance']:.2f} after "
            f"the last epoch ({_range(last)}; even picks would measure {last['even_distance']:.2f}): "
            f"{middle['effective']:.1f} effective experts, then {last['effective']:.1f}."
        )
    return sentences


def topk_scores(found: Experiment) -> pd.DataFrame:
    """One row a task, k and model (routed, or static at a budget): score and retained share over seeds."""
    return _over_seeds(found.rows, ["task", "top_k", "model", "budget"])


def topk_stability(found: Experiment) -> pd.DataFrame:
    """Overlap of the used kept experts over seeds: a row a task, k, budget and layer (`all` is over all layers).

    Columns: task, top_k, budget, seeds, then those of `shrp.studies.stability.overlaps`, and `used` (mean number of
    kept experts that anything was routed to).

    Raises:
        DataError: what is kept is not to be read.
    """
    frames = []
    table = pd.DataFrame([row for row in found.rows if row["model"] == "static"])
    if table.empty:
        return table
    try:
        for (task, k, budget), rows in table.groupby(["task", "top_k", "budget"], sort=False):
            sets = [{int(layer): experts for layer, experts in kept.items()} for kept in rows["used"]]
            frame = overlaps(sets, int(rows["experts"].iloc[0]))
            counts = [sum(len(experts) for experts in kept.values()) for kept in sets]
            frame = frame.assign(
                task=task, top_k=k, budget=int(budget), seeds=len(sets), used=np.mean(counts)
            )
            frames.append(frame)
    except (KeyError, TypeError, ValueError, AttributeError, PlanError) as error:
        raise DataError(
            f"topk.json names kept experts wrongly; write it anew with {command_of('topk')}."
        ) from error
    return pd.concat(frames, ignore_index=True)


def topk_findings(scores: pd.DataFrame, stability: pd.DataFrame) -> list[str]:
    """A sentence a task and k: overlap against chance, and the score before and after pruning."""
    sentences = []
    for (task, k), rows in scores.groupby(["task", "top_k"], sort=False):
        routed, static = (rows[rows["model"] == model] for model in ("routed", "static"))
        parts = []
        if not stability.empty:
            mine = stability[(stability["task"] == task) & (stability["top_k"] == k)]
            parts += [
                f"{row.overlap:.2f} with {row.budget} kept, {row.used:.0f} used (chance {row.chance:.2f})"
                for row in mine[mine["layer"] == "all"].sort_values("budget").itertuples()
            ]
        text = f"On {task}, Top-{k}"
        if parts:
            count = int(static["seeds"].min())
            text += f"'s used kept sets overlap (Jaccard) over {count} seeds by {'; '.join(parts)}; its score"
        else:
            text += " (one seed, so there is no overlap to speak of): the score"
        before = "unknown"
        if len(routed):
            before = f"{routed['score'].iloc[0]:.3f} at {routed['encoder_flops'].iloc[0]:.1%} of the encoder's FLOPs"
        after = [f"{row.score:.3f} with {int(row.budget)}" for row in static.itertuples()]
        sentences.append(f"{text} is {before} routed, {', '.join(after)} after pruning.")
    return sentences


def sweep_frame(found: Experiment) -> pd.DataFrame:
    """One row a task, model (routed, static, random) and budget, over seeds."""
    return _over_seeds(found.rows, ["task", "model", "budget"])


def sweep_findings(frame: pd.DataFrame, trainings: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """A sentence a task: the ends of the curve, and how often usage beats random experts.

    Args:
        frame: `sweep_frame`'s.
        trainings: rows of the experiment, to tell these apart where there are several.
    """
    sentences = []
    for task, rows in frame.groupby("task", sort=False):
        static = rows[rows["model"] == "static"].set_index("budget")["score"]
        ends = rows[rows["model"] == "static"].sort_values("budget").iloc[[0, -1]]
        text = " and ".join(
            f"{row.score:.3f} at {row.encoder_flops:.1%} of the encoder's FLOPs ({int(row.budget)} experts)"
            for row in ends.itertuples()
        )
        text = f"On {task} ({counted(int(ends['seeds'].min()), 'seed')}) the score is {text}; the dense teacher's is "
        text += f"{rows['teacher'].iloc[0]:.3f}."
        random = rows[rows["model"] == "random"].set_index("budget")["score"]
        if len(random):
            gap = static.loc[random.index] - random
            text += (
                f" The most used experts score above random ones at {(gap > 0).sum()} of {len(gap)} budgets; "
                f"the mean over all of these is {abs(gap.mean()):.3f} {'above' if gap.mean() > 0 else 'below'} theirs"
                f"{_by_seed(task, trainings)}."
            )
            if behind := runs(sorted(gap[gap < 0].index), sorted(gap.index)):
                text += f" Random ones score above at {behind} experts in all."
        flat = static.sort_index()
        same = flat[flat.eq(flat.iloc[-1])[::-1].cummin()[::-1]]
        if len(same) > 2:
            text += (
                f" From {int(same.index[0])} on the score stays, as experts that were not used get weight 0."
            )
        sentences.append(text)
    return sentences


def _by_seed(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean lead of the most used experts over random ones in each training, in brackets; empty of one training."""
    frame = pd.DataFrame([row for row in rows if row["task"] == task])
    if frame.empty or frame["seed"].nunique() < 2:
        return ""
    scores = frame[frame["budget"].notna()].pivot_table("score", ["seed", "budget"], "model")
    leads = (scores["static"] - scores["random"]).dropna().groupby("seed").mean()
    return f" ({listed([signed(lead, 3) for lead in leads])} in the {len(leads)} trainings)"


def runs(some: Sequence[int], among: Sequence[int]) -> str:
    """Members of an ascending sequence in words, those that follow each other there as ranges: `6 to 21 and 40`."""
    parts: list[list[int]] = []
    for number in some:
        place = list(among).index(number)
        if parts and place and among[place - 1] == parts[-1][-1]:
            parts[-1].append(number)
        else:
            parts.append([number])
    words = [f"{int(part[0])}" if len(part) == 1 else f"{int(part[0])} to {int(part[-1])}" for part in parts]
    return listed(words)


def overhead_frame(found: Experiment) -> pd.DataFrame:
    """The rows as they are, sorted, with a column `model` of geometry and depth."""
    frame = pd.DataFrame(found.rows)
    frame["model"] = frame["geometry"] + ", " + frame["depth"].map(in_words)
    return frame.sort_values(["model", "tokens", "batch"], ignore_index=True)


def overhead_findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a model: the range of the ratio and where it is largest."""
    sentences = []
    for model, rows in frame.groupby("model", sort=False):
        most, least = rows.loc[rows["ratio"].idxmax()], rows.loc[rows["ratio"].idxmin()]
        sentences.append(
            f"{model}: routing takes {least['ratio']:.2f} to {most['ratio']:.2f} times as long as the static model "
            f"that computes as much; the most at batch {most['batch']}, {most['tokens']} tokens (quartiles "
            f"{most['ratio_low']:.2f} to {most['ratio_high']:.2f}), the least at batch {least['batch']}, "
            f"{least['tokens']} tokens (FLOPs alone: {rows['flop_ratio'].max():.3f} times)."
        )
    return sentences


def _over_seeds(rows: Sequence[Mapping[str, Any]], keys: list[str]) -> pd.DataFrame:
    """Means over seeds, with `low` and `high`, of the score and of the retained share."""
    result = []
    for key, group in pd.DataFrame(rows).groupby(keys, dropna=False, sort=False):
        low, high = bounds(group["score"], stored_intervals(group))
        teacher = float(group["teacher"].mean())
        row = dict(zip(keys, key, strict=True)) | {"score": group["score"].mean(), "low": low, "high": high}
        row |= {"teacher": teacher, "retained": row["score"] / teacher if teacher else np.nan}
        row |= {"seeds": group["seed"].nunique(), "n": int(group["n"].iloc[0])}
        row |= {name: group[name].mean() for name in ("encoder_flops", "encoder_params")}
        result.append(row | {"metric": group["metric"].iloc[0]})
    frame = pd.DataFrame(result)
    frame["budget"] = pd.to_numeric(frame["budget"])
    return frame.sort_values([key for key in keys if key != "model"], kind="stable", ignore_index=True)


def _range(row: pd.Series) -> str:
    several = row["seeds"] > 1
    return f"{counted(row['seeds'], 'seed')}{f', {row.low:.2f} to {row.high:.2f}' if several else ''}"
