"""The file that `studies.ablation` writes, read as a table: what each part of a recipe is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.errors import DataError
from shrp.evaluation.intervals import NO_INTERVAL, UNKNOWN, Mean, over_trainings, stored_interval
from shrp.phrases import by_chance, ends_in_points, in_words, signed, with_ends
from shrp.studies.studies import bounds, command_of


def frame_of(rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a task and variant: the scores routed, static (one expert a layer) and recovered, and their shares.

    Columns: task, variant, seeds, metric, n, teacher; for each model its mean score over seeds, `<model> retained`,
    and `<model> low`, `<model> high`: the ends of that share (`bounds`). `change`, `change low`, `change high`: by
    what share of the teacher's score the recovered model is ahead of `retain`'s on the same inputs, with its 95%
    interval, over inputs and, of several seeds, over trainings; nan where that was not kept.

    Raises:
        DataError: a row lacks something.
    """
    needed = {"task", "variant", "seed", "metric", "n", "teacher", "routed", "static", "recovered"}
    mend = f"write it anew with {command_of('ablation')}."
    for row in rows:
        if missing := sorted(needed - set(row)):
            raise DataError(f"the ablation lacks {', '.join(missing)}; {mend}")
    found = []
    try:
        for (task, variant), group in _grouped(rows, ["task", "variant"]):
            teacher = float(group["teacher"].mean())
            if not teacher > 0:
                raise ValueError("nothing is retained of a score of 0 or less")
            line = {"task": task, "variant": variant, "seeds": group["seed"].nunique()}
            line |= {"metric": group["metric"].iloc[0], "n": int(group["n"].iloc[0]), "teacher": teacher}
            for model in ("routed", "static", "recovered"):
                scores = pd.Series([float(cell["score"]) for cell in group[model]])
                low, high = bounds(scores, [stored_interval(cell) for cell in group[model]])
                line |= {model: scores.mean(), f"{model} retained": scores.mean() / teacher}
                line |= {f"{model} low": low / teacher, f"{model} high": high / teacher}
            change = _change(group.to_dict("records"), rows)
            line |= {"change": change.value, "change low": change.ends[0], "change high": change.ends[1]}
            found.append(line)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"the ablation has scores that can't be read; {mend}") from error
    return pd.DataFrame(found)


def _change(rows: Sequence[Mapping[str, Any]], everything: Sequence[Mapping[str, Any]]) -> Mean:
    """Of the seeds for which it was kept, against `retain` as it stands in the file; unknown where it was for none."""
    retain = {
        (row["task"], row["seed"]): row.get("stage") for row in everything if row["variant"] == "retain"
    }
    known = [
        row
        for row in rows
        if pd.notna(row.get("change")) and row.get("against") == retain.get((row["task"], row["seed"]), "")
    ]
    if not known:
        return UNKNOWN
    given = [row["change_interval"] for row in known]
    ends = [tuple(one) if isinstance(one, list) else NO_INTERVAL for one in given]
    return over_trainings([row["change"] for row in known], ends)


def about(rows: Sequence[Mapping[str, Any]]) -> str:
    """The schedule that the ablation's variants share, for a subtitle or a caption."""
    names = ("depth", "conversion_size", "stage2_epochs", "recovery_epochs")
    schedules = {tuple(row.get(name) for name in names) for row in rows}
    if not schedules:
        return "Nothing was measured"
    if len(schedules) > 1:
        return "Converted on the task, on schedules that differ"
    depth, size, after, recovery = schedules.pop()
    text = "Converted on the task"
    if depth is not None:
        text = f"{in_words(depth)}, converted on the task"
    if None not in (size, after, recovery):
        text += f", {size:,} examples a layer, {after} epoch{'s' * (after != 1)} after the last; "
        text += f"{recovery} more to recover"
    return text + "; all variants alike"


def findings(frame: pd.DataFrame) -> list[str]:
    """A sentence a task: the two recipes once one expert a layer has recovered, and what one change moves most."""
    sentences = []
    for task, rows in frame.groupby("task", sort=False):
        found = rows.set_index("variant")
        ends = [f"recovered {end}" for end in ("retained", "low", "high")]
        both = [
            f"{recipe} keeps {_share(*found.loc[recipe, ends])}"
            for recipe in ("paper", "retain")
            if recipe in found.index
        ]
        text = f"On {task}, one expert a layer, recovered, all on this study's short schedule"
        text = f"{text}: {', '.join(both)}" if both else f"On {task}"
        n, seeds = int(rows["n"].iloc[0]), int(rows["seeds"].max())
        sentences.append(f"{text}{_single_changes(found)} (n = {n:,}, seeds: {seeds}).")
        sentences += _paired_changes(task, found)
    return sentences


def _single_changes(found: pd.DataFrame) -> str:
    """The changes to `retain` that were not measured input by input, in points: those that move it most."""
    changes = _changes(found)
    paired, changes = int(changes["change"].notna().sum()), changes[changes["change"].isna()]
    if changes.empty or "retain" not in found.index:
        return ""
    moved = 100 * (changes["recovered retained"] - found.loc["retain", "recovered retained"])
    unpaired = " and not paired" if paired else ""
    if len(moved) == 1:
        return (
            f"; the one change to retain that was measured{unpaired} is “{moved.index[0]}” "
            f"({signed(moved.iloc[0])} points)"
        )
    return (
        f"; of {len(moved)} single changes to retain{' that were not paired' * bool(paired)} the worst is "
        f"“{moved.idxmin()}” ({signed(moved.min())} points) and the best “{moved.idxmax()}” ({signed(moved.max())})"
    )


def _paired_changes(task: str, found: pd.DataFrame) -> list[str]:
    """A sentence on the changes to `retain` that were measured input by input, sorted into what is beyond chance."""
    changes = _changes(found).dropna(subset="change").sort_values("change")
    if changes.empty:
        return []
    # One without an interval has every answer alike (of a bootstrapped metric).
    worse, better = changes["change high"] < 0, changes["change low"] > 0
    kinds = {"worse": changes[worse], "better": changes[better], "within chance": changes[~worse & ~better]}
    said = [
        f"{kind}: "
        + (
            ", ".join(f"{name} {signed(100 * row['change'])} ({_ends(row)})" for name, row in part.iterrows())
            or "none"
        )
        for kind, part in kinds.items()
    ]
    return [
        f"On {task}, single changes to retain, recovered, in points of the teacher's score on the same inputs, each "
        f"with its 95% interval; {'; '.join(said)}.{by_chance(changes['change low'].notna().sum())}"
    ]


def _share(share: float, low: float, high: float) -> str:
    return with_ends(share, low, high) + " (no interval)" * (low != low)


def _ends(row: Mapping[str, Any]) -> str:
    return ends_in_points(row["change low"], row["change high"])


def _changes(found: pd.DataFrame) -> pd.DataFrame:
    """The variants that change one thing of `retain`, by what they change."""
    changes = found[found.index.str.startswith("retain") & (found.index != "retain")]
    return changes.set_axis(changes.index.str.removeprefix("retain").str.strip(", "))


def _grouped(rows: list[Mapping[str, Any]], keys: list[str]) -> Iterable[tuple[Any, pd.DataFrame]]:
    return pd.DataFrame(rows).groupby(keys, sort=False) if rows else ()
