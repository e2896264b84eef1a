"""What measured scores say about SHRP against its controls: which is above, ties with or is below which model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from shrp.evaluation.statistics import Mean, difference, stored_interval
from shrp.phrases import listed

SHRP_KINDS = ("routed", "static")
NO_CONTROL = "No control was measured on these data, so nothing here shows that SHRP itself is what helps."
NONE_COMPARED = (
    "Controls were measured on these data, but no SHRP model of their size that has an interval, so nothing is "
    "compared."
)
NONE_CLOSE = "Every control that was measured is below SHRP on these data."
KINDS_OF_CONTROL = ("layers dropped", "random experts", "no router")
"""What the names of controls begin with; all three belong beside an SHRP model (docs/method.md, "Controls")."""
HEADS_PRUNED = "heads and neurons pruned"
"""What the name of a further one begins with: dense layers pruned to the size of SHRP's."""
HOW_COMPARED = (
    "A tie: the 95% interval of the two scores' difference holds 0. It follows from the scores' own intervals, not "
    "from pairs of answers, and so is too wide as to inputs; of random draws the range stands for an interval, and a "
    "score without any, as where all inputs get one answer, is taken as exact. Random experts, and pruned heads "
    "and neurons, are compared with the static model of the same size and recovery (training after pruning), the other "
    "controls with every SHRP model."
)
_MOST_NAMED = 3
_NEEDED = ("model", "data", "metric", "n")
_COLUMNS = (
    *("model", "kind", "data", "metric", "score", "low", "high", "interval_is", "n"),
    *("retained", "constant", "per_layer", "budget", "recovered", "seeds"),
)

Outcome = Literal["wins", "ties", "trails"]


@dataclass(frozen=True)
class Verdict:
    """How one control compares with the SHRP models that it is a control of."""

    control: str
    wins: tuple[str, ...]
    """SHRP models that the control is above."""
    ties: tuple[str, ...]
    """Those that it can't be told apart from: the interval of the difference holds 0."""
    trails: tuple[str, ...]
    """Those that it is below."""
    score: str
    """The control's own score, as text."""

    @property
    def outcome(self) -> Outcome:
        """The best that the control does against any of them."""
        return "wins" if self.wins else "ties" if self.ties else "trails"

    @property
    def text(self) -> str:
        """The comparison in one plain sentence."""
        everything = len(self.wins) + len(self.ties) + len(self.trails)
        parts = [
            f"{verb} {_listed(models, everything)}"
            for verb, models in (
                ("is above", self.wins),
                ("ties with", self.ties),
                ("is below", self.trails),
            )
            if models
        ]
        return f"The control “{self.control}” ({self.score}) {', '.join(parts)}."


def score_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of a checkpoint's `scores`, with the interval split into `low` and `high`, nan where there is none.

    Rows without a number for a score, or without what it is of (model, data, metric, n), are left out: they say nothing
    and can't be drawn.
    """
    found = []
    for row in rows:
        if math.isnan(_finite(row.get("score"))) or any(row.get(name) is None for name in _NEEDED):
            continue
        low, high = stored_interval(row)
        known = {name: row.get(name) for name in _COLUMNS} | {"constant": _finite(row.get("constant"))}
        found.append(
            known
            | {"low": low, "high": high, "interval_is": row.get("interval_is") or "95%"}
            | {"recovered": bool(row.get("recovered"))}
        )
    return pd.DataFrame(found, columns=list(_COLUMNS))


def verdicts(scores: pd.DataFrame, score_text: Callable[[float, str], str]) -> list[Verdict]:
    """Compare each control with the SHRP models on the same data.

    A control with a size (random experts, heads and neurons pruned) stands against the static models of the same size
    and the same recovery; one without (dropped layers, no router) against every SHRP model. A model without an interval
    stands against none: nothing says which difference would be chance.

    Args:
        scores: `score_frame`'s table, or one data set's part of it.
        score_text: writes a score of a metric.
    """
    result = []
    for control in scores[scores["kind"] == "control"].itertuples():
        ours = scores[scores["kind"].isin(SHRP_KINDS) & (scores["data"] == control.data)]
        known = [name for name in ("budget", "per_layer") if not pd.isna(getattr(control, name))]
        if known:
            same = (ours[known[0]] == getattr(control, known[0])) & (ours["recovered"] == control.recovered)
            ours = ours[same & (ours["kind"] == "static")]
        ours = ours[ours["low"].notna() & ours["high"].notna()]
        if ours.empty:
            continue
        sides: dict[str, list[str]] = {"wins": [], "ties": [], "trails": []}
        for model in ours.itertuples():
            sides[_side(control, model)].append(model.model)
        result.append(
            Verdict(
                control=control.model,
                **{side: tuple(models) for side, models in sides.items()},
                score=score_text(control.score, control.metric),
            )
        )
    return result


def summary(found: Sequence[Verdict], scores: pd.DataFrame) -> str:
    """All verdicts on one data set in one sentence, which also says so when there is none.

    Args:
        scores: the data set's part of `score_frame`'s table, which they were found in.
    """
    controls = scores.loc[scores["kind"] == "control", "model"]
    alone = uncompared(found, scores)
    if controls.empty:
        return NO_CONTROL
    missing = [kind for kind in KINDS_OF_CONTROL if not controls.str.startswith(kind).any()]
    lacking = f" Not measured with this checkpoint: {listed(missing)}." if missing else ""
    if not found:
        return NONE_COMPARED + lacking
    if alone:
        quoted = [f"“{name}”" for name in alone[:_MOST_NAMED]]
        more = len(alone) - len(quoted)
        lacking = (
            f" Not compared, since no SHRP model of the same size has an interval: "
            f"{listed([*quoted, f'{more} more'] if more else quoted)}.{lacking}"
        )
    strong = [v for v in found if v.outcome != "trails"]
    if not strong and alone:
        are = "are" if len(found) > 1 else "is"
        compared = f"{len(found)} of {len(controls)} controls could be compared"
        return f"{compared} and {are} below SHRP on these data.{lacking}"
    if not strong:
        return NONE_CLOSE + lacking
    said = []
    for outcome, one, several in (("wins", "is above", "are above"), ("ties", "ties with", "tie with")):
        if n := sum(v.outcome == outcome for v in strong):
            said.append(f"{n} {one if n == 1 else several}")
    whom = "an SHRP model it is" if len(strong) == 1 else "at least one SHRP model they are"
    which = f"control{'s' * (len(found) > 1)}{' that could be compared' if alone else ''}"
    return f"Of {len(found)} {which}, {' and '.join(said)} {whom} compared with.{lacking}"


def uncompared(found: Sequence[Verdict], scores: pd.DataFrame) -> list[str]:
    """The controls that `verdicts` holds against none, since no SHRP model that they belong to has an interval.

    Args:
        found, scores: as for `summary`.
    """
    compared = {verdict.control for verdict in found}
    controls = scores.loc[scores["kind"] == "control", "model"]
    return [name for name in dict.fromkeys(controls) if name not in compared]


def _finite(value: Any) -> float:
    """A stored number, nan where there is none."""
    try:
        return value if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


def _side(control: Any, model: Any) -> Outcome:
    theirs = _mean(control) if control.low == control.low else Mean(control.score, 0.0, 0.0)
    found = difference(_mean(model), theirs)
    low, high = found.ends
    if low <= 0 <= high:
        return "ties"
    return "wins" if found.value < 0 else "trails"


def _mean(row: Any) -> Mean:
    return Mean.of_ends(row.score, row.low, row.high)


def _listed(models: tuple[str, ...], everything: int) -> str:
    if len(models) > _MOST_NAMED:
        return f"{len(models)} of {everything} SHRP models"
    quoted = [f"“{name}”" for name in models]
    return listed(quoted)
