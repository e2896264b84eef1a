"""What the GLUE table shows: SHRP's best pruned model of each recipe and depth against the best control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from shrp.phrases import in_points, in_words, kept_share
from shrp.studies.leads import MEAN, Lead, held_against, lead_frame, lead_over
from shrp.studies.studies import CONTROLS, NAMES, STANDARD, average, trained_controls

HOW_FOUND = (
    "In brackets 95% intervals. “Best” is the highest mean of several models on these very data, on SHRP's side and on "
    "the controls'."
)
"""To stand once beside the findings."""
ABOVE_CONSTANT = (
    "What is left of that part of the teacher's score which a constant answer does not have (no intervals; below 0: "
    "less than a constant answer has):"
)
"""To stand before the sentences of `above_constant`."""


@dataclass(frozen=True)
class Contest:
    """SHRP's best pruned model of a recipe and depth, and the best control, as means over the same tasks."""

    rows: pd.DataFrame
    """Those of `glue_frame`, of these tasks alone."""
    best: pd.Series
    """A row of `average`."""
    rival: pd.Series | None
    """Another one; None where no control was measured on all of the tasks."""
    lacking: str
    """Standard controls that were not trained and measured on all of the tasks, in words, with what they keep on those
    where they were, beside SHRP's best there; empty for none."""

    @property
    def verdict(self) -> str:
        """Whether the best control ties, in words; empty where there is none."""
        return "" if self.rival is None else _said(_leads(self.rows, self.best, self.rival))

    @property
    def lead(self) -> str:
        """The same for a cell of a table."""
        return "" if self.rival is None else _short(_leads(self.rows, self.best, self.rival))

    @property
    def over(self) -> str:
        """What the intervals are over, in words; empty where there are none to tell by."""
        if self.rival is None or not pd.notna([self.best["low"], self.rival["low"]]).any():
            return ""
        return _over(self.rows, self.best, self.rival)

    @property
    def rival_name(self) -> str:
        """The best control in words."""
        return "" if self.rival is None else str(self.rival["name"]).removeprefix("control: ")


def contest(rows: pd.DataFrame) -> Contest | None:
    """Who is to be compared in one recipe and depth of `glue_frame`; None where nothing was pruned.

    The tasks are those of the pruned model that was measured on the most, of models that were trained on if there are
    any. Best is the highest mean over them, on either side.
    """
    mine = rows[rows["model"] == "static"]
    if mine.empty:
        return None
    trained = mine[mine["recovered"].astype(bool)]
    candidates = average(mine if trained.empty else trained)
    tasks = set(max(candidates["tasks"], key=lambda names: names.count(",")).split(", "))
    rows = rows[rows["task"].isin(tasks)]
    named = ", ".join(sorted(tasks))
    whole = average(rows)
    whole = whole[whole["tasks"] == named].sort_values("retained")
    controls = whole[whole["model"].isin(CONTROLS)]
    known = average(trained_controls(rows)) if len(trained_controls(rows)) else whole[:0]
    measured = set(known.loc[known["tasks"] == named, "model"])
    best = whole[whole["model"] == "static"].iloc[-1]
    mine = rows[rows["name"] == best["name"]]
    lacking = ", ".join(_lacking(model, known, mine) for model in STANDARD if model not in measured)
    return Contest(rows, best, controls.iloc[-1] if len(controls) else None, lacking)


def _lacking(model: str, known: pd.DataFrame, best: pd.DataFrame) -> str:
    """A control that lacks tasks, in words, and what it keeps on those that it has.

    Args:
        known: `average` of trained controls.
        best: rows of SHRP's best model.
    """
    name = "trained " * (model == "random") + NAMES[model].removeprefix("control: ")
    found = known[known["model"] == model].sort_values("retained")
    if found.empty:
        return name
    there = found.iloc[-1]
    mine = average(best[best["task"].isin(there["tasks"].split(", "))])["retained"].iloc[0]
    return f"{name}, which on {there['tasks']} has {there['retained']:.1%} where SHRP has {mine:.1%}"


def findings(frame: pd.DataFrame) -> list[str]:
    """A sentence for each recipe and depth of `glue_frame`, `retain` and few layers first, then one on the trained
    controls that are ahead of SHRP, one for each task where the best control is above the best pruned model and is not
    shown to tie with it, or with the recovered one, and one for all where it ties.
    """
    higher = not_below(frame).to_dict("records")
    said = [_sentence(one) for one in contests(frame)] + ahead_said(frame)
    said += [
        f"On {one['task']} at {one['converted']} ({one['recipe']}) a control is not below: {one['control']} keeps "
        f"{one['control keeps']}, the best pruned model, {one['model']}, {one['model keeps']}: {one['verdict']} "
        f"(n = {one['n']:,}, seeds: {both_seeds(one)})."
        for one in higher
        if not one["ties"]
    ]
    tied = [f"{in_setting(one)}, {one['lead'].replace('a tie: ', '')}" for one in higher if one["ties"]]
    if tied:
        said.append(
            f"A control has as much or more, and ties, with SHRP's lead in points: {'; '.join(tied)}."
        )
    return said


def ahead(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Where a trained control is above SHRP's recovered model (`held_against`) beyond chance.

    Args:
        frame: `glue_frame`.

    Returns:
        Those rows of `lead_frame` whose interval ends below 0, with their recipe and converted layers; None where there
        are no leads at all.
    """
    groups = sorted(frame.groupby(["recipe", "depth"]), key=lambda group: _place(*group[0]))
    found = [
        lead_frame(rows).assign(recipe=recipe, converted=in_words(depth)) for (recipe, depth), rows in groups
    ]
    leads = pd.concat([one for one in found if len(one)]) if any(map(len, found)) else frame[:0]
    return leads[leads["high"] < 0] if len(leads) else None


def ahead_said(frame: pd.DataFrame) -> list[str]:
    """What `ahead` has in a sentence; none where there are no leads at all."""
    rows = ahead(frame)
    if rows is None:
        return []
    if rows.empty:
        return ["No trained control is ahead of SHRP's recovered model beyond chance."]
    each = [_ahead(one) for one in rows.rename(columns={"name": "control"}).to_dict("records")]
    return [f"Ahead of SHRP's recovered model beyond chance, with SHRP's lead in points: {'; '.join(each)}."]


def _ahead(one: Mapping[str, Any]) -> str:
    """A row of `ahead` in words."""
    where = in_setting(one).replace(f" on {MEAN} ", " on average ")
    return f"{where}, {in_points(one['lead'], one['low'], one['high'])}{', not paired' * (not one['paired'])}"


def in_setting(one: Mapping[str, Any]) -> str:
    """A row of `not_below`, or of `ahead`, in words: the control, and where."""
    return f"{one['control']} on {one['task']} at {one['converted']} ({one['recipe']})"


def above_constant(frame: pd.DataFrame) -> list[str]:
    """A sentence for each recipe and depth of `glue_frame`: what is left of that part of the teacher's score which a
    constant answer does not have, of SHRP's best pruned model and of the trained controls measured on the same tasks.

    Where a constant answer has most of the teacher's score, a retained share says little.
    """
    said = []
    for one in contests(frame):
        tasks = one.rows["task"].nunique()
        known = trained_controls(one.rows)
        names = [one.best["name"], *dict.fromkeys(known.get("name", []))]
        parts = []
        for name in names:
            rows = one.rows[one.rows["name"] == name].drop_duplicates("task")
            if len(rows) < tasks:
                continue
            floor = rows["floor"].fillna(0.0)  # none is defined for a correlation with numbers, nor needed
            left = (rows["retained"] - floor) / (1 - floor)
            each = ", ".join(f"{task} {share:.0%}" for task, share in zip(rows["task"], left, strict=True))
            mean = f"{left.mean():.0%} on average ({each})" if tasks > 1 else f"{left.iloc[0]:.0%}"
            parts.append(f"{str(name).removeprefix('control: ')} {mean}")
        said.append(f"{one.best['recipe']}, {in_words(one.best['depth'])}: {'; '.join(parts)}.")
    return said


def contests(frame: pd.DataFrame) -> list[Contest]:
    """Those of each recipe and depth of `glue_frame`, `retain` and few layers first."""
    groups = sorted(frame.groupby(["recipe", "depth"]), key=lambda group: _place(*group[0]))
    found = [contest(rows) for _, rows in groups]
    return [one for one in found if one is not None]


def _place(recipe: str, depth: str) -> tuple[bool, int, str]:
    """Where a recipe and depth is told of: what keeps the most first, `retain` and few layers."""
    return recipe != "retain", int(depth.split("of")[0]), recipe


def _sentence(found: Contest) -> str:
    best, rival = found.best, found.rival
    text = (
        f"{best['recipe']}, {in_words(best['depth'])}: the best pruned model ({best['name']}) keeps "
        f"{_with_ends(best)} of the teacher's score at {best['encoder_params']:.1%} of the encoder's "
        f"parameters, {'mean over' if ', ' in best['tasks'] else 'on'} {best['tasks']}"
    )
    if rival is None:
        return f"{text}; no control was measured {'on all of these' if ', ' in best['tasks'] else 'there'}."
    on_all = " on all of these" if ", " in best["tasks"] else ""
    lacking = f"; not measured{on_all}: {found.lacking}" if found.lacking else ""
    text += (
        f"; the best control ({found.rival_name}{lacking}) keeps {_with_ends(rival)} at "
        f"{rival['encoder_params']:.1%}: {found.verdict}"
    )
    return f"{text} (intervals {found.over})." if found.over else f"{text}."


def _over(rows: pd.DataFrame, best: pd.Series, rival: pd.Series) -> str:
    """What the intervals of two models are over, of which `rows` has one for each task."""
    mine, theirs = (_over_trainings(rows[rows["name"] == one["name"]]) for one in (best, rival))
    if mine == theirs:
        return f"over inputs, and over {mine}" if mine else "over inputs and not over trainings"
    of = (("SHRP's", mine), ("the control's", theirs))
    return "over inputs, " + ", ".join(f"{whose} also over {told}" for whose, told in of if told)


def _over_trainings(rows: pd.DataFrame) -> str:
    """Over which trainings the interval of a model's mean over tasks is, in words; empty for none."""
    seeds = rows.groupby("task")["seeds"].min()
    several = seeds[seeds > 1]
    if several.empty:
        return ""
    if len(several) == len(seeds):
        return "the trainings"
    return f"the trainings of {', '.join(sorted(several.index))}, single ones taken to vary alike"


def _leads(rows: pd.DataFrame, best: pd.Series, rival: pd.Series) -> list[Lead]:
    """The lead of SHRP's best model over a control, and behind it, where this is another one, that of its recovered
    model that the control's leads are over.
    """
    mine, control = (
        rows[(rows["name"] == one["name"]) & (rows["texts"] == one["texts"])] for one in (best, rival)
    )
    reference = held_against(rows, rival)
    found = [lead_over(rows, mine, control)]
    if reference["name"].eq(best["name"]).any() or set(reference["task"]) != set(control["task"]):
        return found
    return [*found, lead_over(rows, reference, control)]


def _said(leads: list[Lead]) -> str:
    return "; the recovered model: ".join(one.said for one in leads)


def _short(leads: list[Lead]) -> str:
    return "; recovered: ".join(one.short for one in leads)


def _with_ends(row: pd.Series) -> str:
    if row["model"] == "random" and not row["recovered"]:  # the ends of one task's row are the range of draws
        return f"{row['retained']:.1%} (mean of draws)"
    return kept_share(row)


def both_seeds(one: Mapping[str, Any]) -> str:
    """Of both sides of a row of `not_below`."""
    mine, theirs = one["seeds"], one["control seeds"]
    return str(mine) if mine == theirs else f"{mine}, of the control {theirs}"


def not_below(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each task, recipe and depth of `glue_frame` where a control keeps at least as much as the best pruned
    model: task, converted, recipe, control, control keeps, model, model keeps, verdict, lead (the verdict in short),
    ties (whether the intervals of all that was compared hold 0), n, seeds, control seeds.
    """
    rows = []
    for (task, recipe, depth), group in frame.groupby(["task", "recipe", "depth"], sort=False):
        mine = group.loc[group["model"] == "static"].sort_values("retained")
        controls = group.loc[group["model"].isin(CONTROLS)].sort_values("retained")
        if mine.empty or controls.empty or controls["retained"].iloc[-1] < mine["retained"].iloc[-1]:
            continue
        best, rival = mine.iloc[-1], controls.iloc[-1]
        leads = _leads(group, best, rival)
        rows.append(
            {
                "task": task,
                "converted": in_words(depth),
                "recipe": recipe,
                "control": rival["name"].removeprefix("control: "),
                "control keeps": _with_ends(rival),
                "model": best["name"],
                "model keeps": _with_ends(best),
                "verdict": _said(leads),
                "lead": _short(leads),
                "ties": all(lead.is_tie for lead in leads),
                "n": best["n"],
                "seeds": best["seeds"],
                "control seeds": rival["seeds"],
            }
        )
    return pd.DataFrame(rows)
