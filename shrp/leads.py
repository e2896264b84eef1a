"""By how much SHRP's models lead the controls of the GLUE table: on the same inputs where that was measured, else by
what each of the two leaves open by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from shrp.intervals import Mean, difference, over_tasks
from shrp.phrases import ends_in_points, listed, signed
from shrp.studies import means_in, trained_controls

MEAN = "mean"
"""What `lead_frame` has as the task of a mean over all of them."""


@dataclass(frozen=True)
class Lead:
    """One model's lead over another, as a share of the teacher's score: a mean over tasks, or of one."""

    mean: Mean
    paired: tuple[str, ...]
    """The tasks on which it was measured on the same inputs."""
    apart: tuple[str, ...]
    """Those on which it is the difference of two scores, each with what it leaves open: errors that both share, as on
    inputs that are hard for any model, are counted twice, so that the interval is rather too wide."""

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


def lead_over(mine: pd.DataFrame, control: pd.DataFrame, *, is_of_mine: bool) -> Lead:
    """By how much a model leads a control.

    Args:
        mine: rows of `glue_frame`, one a task.
        control: rows of the same tasks.
        is_of_mine: whether the leads that the control's rows have are over this model (`held_against`).
    """
    mine, control = (rows.drop_duplicates("task").set_index("task", drop=False) for rows in (mine, control))
    control = control.loc[mine.index]
    measured = control["lead"].notna() & is_of_mine
    pairs = zip(means_in(mine, "", "retained"), means_in(control, "", "retained"), strict=True)
    found = [
        known if paired else difference(*pair)
        for pair, known, paired in zip(pairs, means_in(control, "lead ", "lead"), measured, strict=True)
    ]
    return Lead(over_tasks(found), tuple(mine.index[measured]), tuple(mine.index[~measured]))


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
        score; nan for no interval), paired (whether on the same inputs), seeds (those of the lead; where the models are
        apart SHRP's and the control's, if they differ).
    """
    rows: list[dict[str, Any]] = []
    tasks = frame["task"].unique()
    for name, control in trained_controls(frame).groupby("name", sort=False):
        mine = held_against(frame, control.iloc[0])
        shared = [task for task in tasks if task in set(mine["task"]) & set(control["task"])]
        groups = [[task] for task in shared] + ([shared] if len(shared) == len(tasks) > 1 else [])
        for group in groups:
            theirs = control[control["task"].isin(group)]
            found = lead_over(mine[mine["task"].isin(group)], theirs, is_of_mine=True)
            low, high = found.mean.ends
            rows.append(
                {
                    "name": name.removeprefix("control: "),
                    "model": theirs["model"].iloc[0],
                    "task": group[0] if len(group) == 1 else MEAN,
                    "lead": found.mean.value,
                    "low": low,
                    "high": high,
                    "paired": not found.apart,
                    "seeds": _seeds(mine[mine["task"] == group[0]], theirs) if len(group) == 1 else "",
                }
            )
    return pd.DataFrame(rows, columns=["name", "model", "task", "lead", "low", "high", "paired", "seeds"])


def _seeds(mine: pd.DataFrame, control: pd.DataFrame) -> str:
    of, theirs = int(mine["seeds"].iloc[0]), control.iloc[0]
    if theirs["lead_seeds"]:
        known, seeds = int(theirs["lead_seeds"]), int(theirs["seeds"])
        return f"{known}" if known == seeds else f"{known} of {seeds}"
    return f"{of}" if of == theirs["seeds"] else f"{of} and {int(theirs['seeds'])}"


def leads_measured(frame: pd.DataFrame) -> int:
    """How many intervals of tasks `lead_frame` has, of which some exclude 0 by chance (`shrp.phrases.by_chance`)."""
    return int((frame["low"].notna() & (frame["task"] != MEAN)).sum())
