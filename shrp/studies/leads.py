"""By how much SHRP's models lead the controls of the GLUE table: on the same inputs where that was measured, else by
what each of the two leaves open by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from shrp.evaluation.intervals import Mean, difference, over_tasks
from shrp.phrases import ends_in_points, listed, signed
from shrp.studies.studies import UNROUTED, means_in, trained_controls

MEAN = "mean"
"""What `lead_frame` has as the task of a mean over all of them."""
HOW_OPEN = (
    "Of one training an interval is over inputs, of several over trainings too; one beside several is taken to vary as "
    "they do, a random draw as draws do where that is more. Of two numbers of seeds the first is SHRP's: where it has "
    "more, what inputs leave open is that of the pairs."
)
"""What the intervals of `lead_frame` are over, to stand beside them."""
HOW_APART = (
    "follows from two scores and their intervals, answers not compared input by input: as to inputs its interval is "
    "too wide, since what both share counts twice."
)
"""The same of leads that are not paired; what comes before says which these are."""


@dataclass(frozen=True)
class Lead:
    """One model's lead over another, as a share of the teacher's score: a mean over tasks, or of one."""

    mean: Mean
    paired: tuple[str, ...]
    """The tasks on which it was measured on the same inputs."""
    apart: tuple[str, ...]
    """Those on which it is the difference of two scores, each with what it leaves open. As to inputs that is too wide:
    what both share, as inputs that are hard for any model, counts twice."""

    @property
    def is_tie(self) -> bool | None:
        """Whether the 95% interval holds 0; None without one."""
        low, high = self.mean.ends
        return None if low != low else low <= 0 <= high

    @property
    def said(self) -> str:
        """Whether it is a tie, and the lead in points, in words."""
        how = " on the same inputs"
        if self.apart:
            how = f", paired on {listed(self.paired)} alone," if self.paired else ", not paired,"
        verdict = {None: "", True: "a tie, ", False: "no tie, "}[self.is_tie]
        return f"{verdict}SHRP's lead{how} is {self._points(' points')}"

    @property
    def short(self) -> str:
        """The same for a cell of a table whose head says of what."""
        tasks = len(self.paired) + len(self.apart)
        how = f", paired on {len(self.paired)} of {tasks} tasks" if self.paired else ", not paired"
        verdict = {None: "", True: "a tie: ", False: "no tie: "}[self.is_tie]
        return f"{verdict}{self._points()}{how * bool(self.apart)}"

    def _points(self, unit: str = "") -> str:
        return f"{signed(100 * self.mean.value)}{unit} ({ends_in_points(*self.mean.ends)})"


def lead_over(frame: pd.DataFrame, mine: pd.DataFrame, control: pd.DataFrame) -> Lead:
    """By how much a model of SHRP's leads a control, on the tasks that the model has.

    It is paired on a task where all trainings of the control were scored beside those of this very model; where SHRP
    has more trainings, it is over the mean of all of them, and what inputs leave open is that of the pairs. One
    training beside several of the other side is taken to vary as these do, and a draw of random experts as those that
    were drawn and trained on do where that is more. Of a control that has no interval, but the range of its draws, this
    stands for one; one without either, as where all inputs get one answer, is taken as exact.

    Args:
        frame: rows of `glue_frame`, of one recipe and depth, for what these tell of trainings.
        mine: some of them, one a task.
        control: some of them, of at least the same tasks.

    Raises:
        ValueError: there are none.
    """
    if mine.empty:
        raise ValueError("no row of SHRP's to compare")
    mine, control = (rows.drop_duplicates("task").set_index("task", drop=False) for rows in (mine, control))
    control = control.loc[mine.index]
    is_of_mine = held_against(frame, control.iloc[0])["name"].eq(mine["name"].iloc[0]).any()
    measured = control["lead"].notna() & (control["lead_seeds"] == control["seeds"]) & is_of_mine
    found = []
    for task in mine.index:
        our, their = (_mean(rows.loc[[task]]) for rows in (mine, control))
        if np.isnan(their.below):
            their = replace(their, below=0.0, above=0.0)
        their = _varying(their, our, _draws(frame, control.loc[task]))
        if not measured[task]:
            found.append(difference(our, their))
            continue
        (lead,) = means_in(control.loc[[task]], "lead ", "lead")
        # Where SHRP has more trainings than were paired, pairs tell only what inputs leave open.
        more = mine.at[task, "seeds"] > control.at[task, "lead_seeds"]
        if more or not lead.freedom:
            apart = difference(our, their)
            value = apart.value if more else lead.value
            lead = replace(apart, value=value, below=lead.below, above=lead.above)
        found.append(lead)
    return Lead(over_tasks(found), tuple(mine.index[measured]), tuple(mine.index[~measured]))


def _mean(row: pd.DataFrame) -> Mean:
    """The share that a row has, with the range of draws for an interval where it has none."""
    (mean,) = means_in(row, "", "retained")
    low, high = float(row["low"].iloc[0]), float(row["high"].iloc[0])
    return replace(mean, below=mean.value - low, above=high - mean.value) if np.isnan(mean.below) else mean


def _draws(frame: pd.DataFrame, control: pd.Series) -> Mean | None:
    """Of a control that keeps a random draw, the mean of those of its task and size that were trained on; else None."""
    if control["model"] not in ("random", UNROUTED):
        return None
    drawn = frame["model"].eq("random") & frame["recovered"].astype(bool) & frame["task"].eq(control["task"])
    found = means_in(frame[drawn & frame["per_layer"].eq(control["per_layer"])], "", "retained")
    return found[0] if found else None


def _varying(control: Mean, mine: Mean, drawn: Mean | None) -> Mean:
    """A control of a single training with the variance of draws, where these vary more than SHRP's trainings."""
    if control.freedom or drawn is None or drawn.single <= mine.single:
        return control
    return replace(control, variance=drawn.single, freedom=drawn.freedom, single=drawn.single)


def held_against(rows: pd.DataFrame, control: pd.Series) -> pd.DataFrame:
    """The rows of SHRP's model that a trained control's leads are over: of its recovered ones that which keeps as many
    experts a layer, or the largest one where the control keeps none.

    Args:
        rows: of `glue_frame`, of one recipe and depth.
        control: one of them.
    """
    recovered = rows[(rows["model"] == "static") & rows["recovered"].astype(bool)]
    size = control["per_layer"] if pd.notna(control["per_layer"]) else recovered["per_layer"].max()
    return recovered[recovered["per_layer"] == size]


def lead_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """By how much SHRP's recovered model leads each trained control, by task, and on average where it has all tasks.

    Args:
        frame: rows of `glue_frame` of one recipe and depth.

    Returns:
        Columns name (the control), model (its kind), task (or `MEAN`), lead, low, high (as shares of the teacher's
        score; nan for no interval), n (inputs; of a mean those of all tasks), paired (whether on the same inputs),
        seeds (SHRP's, and the control's where these differ).
    """
    rows: list[dict[str, Any]] = []
    tasks = frame["task"].unique()
    for name, control in trained_controls(frame).groupby("name", sort=False):
        mine = held_against(frame, control.iloc[0])
        shared = [task for task in tasks if task in set(mine["task"]) & set(control["task"])]
        groups = [[task] for task in shared] + ([shared] if len(shared) == len(tasks) > 1 else [])
        for group in groups:
            theirs = control[control["task"].isin(group)]
            found = lead_over(frame, mine[mine["task"].isin(group)], theirs)
            low, high = found.mean.ends
            rows.append(
                {
                    "name": name.removeprefix("control: "),
                    "model": theirs["model"].iloc[0],
                    "task": group[0] if len(group) == 1 else MEAN,
                    "lead": found.mean.value,
                    "low": low,
                    "high": high,
                    "n": int(theirs["n"].sum()),
                    "paired": not found.apart,
                    "seeds": "" if len(group) > 1 else _seeds(mine[mine["task"] == group[0]], theirs),
                }
            )
    columns = ["name", "model", "task", "lead", "low", "high", "n", "paired", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _seeds(mine: pd.DataFrame, control: pd.DataFrame) -> str:
    of, theirs = int(mine["seeds"].iloc[0]), int(control["seeds"].iloc[0])
    return f"{of}" if of == theirs else f"{of} and {theirs}"


def leads_measured(frame: pd.DataFrame) -> int:
    """How many intervals of tasks `lead_frame` has, of which some exclude 0 by chance (`shrp.phrases.by_chance`)."""
    return int((frame["low"].notna() & (frame["task"] != MEAN)).sum())
