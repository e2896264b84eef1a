"""SHRP against its controls, by their stored scores: above, below, or no significant difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from shrp.evaluation.statistics import stored_interval
from shrp.phrases import listed

KINDS_OF_CONTROL = ("layers dropped", "random experts", "no router")
"""How the names of the main controls begin (docs/method.md, "Controls")."""
HEADS_PRUNED = "heads and neurons pruned"
"""How the name of a further control begins: dense layers under width pruning."""
NO_CONTROL = "No control was measured on these data."
NONE_COMPARED = "No control can be compared: no SHRP model of its size has an interval."
HOW_COMPARED = (
    "No significant difference: the 95% CI of the difference includes 0. It is computed from the two scores' intervals, "
    "as independent, which is conservative. Random experts and width pruning are compared with static models of the same "
    "size and fine-tuning, other controls with every SHRP model."
)
_MOST_NAMED = 3
_NEEDED = ("model", "data", "metric", "n")
_COLUMNS = (
    *("model", "kind", "data", "metric", "score", "low", "high", "interval_is", "n"),
    *("retained", "constant", "per_layer", "budget", "recovered", "seeds"),
)
_WORDS = {"wins": "scores above", "ties": "shows no significant difference from", "trails": "scores below"}

Outcome = Literal["wins", "ties", "trails"]


@dataclass(frozen=True)
class Verdict:
    """The SHRP models that a control is significantly above (`wins`) or below (`trails`), and the others (`ties`)."""

    control: str
    score: str
    """The control's own score, as text."""
    wins: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    trails: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The best that the control does against any of them."""
        return "wins" if self.wins else "ties" if self.ties else "trails"

    @property
    def text(self) -> str:
        """The comparison in one sentence."""
        sides = {words: getattr(self, side) for side, words in _WORDS.items()}
        total = sum(map(len, sides.values()))
        parts = [f"{words} {_listed(models, total)}" for words, models in sides.items() if models]
        return f"“{self.control}” ({self.score}) {', '.join(parts)}."


def score_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A checkpoint's `scores`, with the interval as `low` and `high`, nan where there is none.

    Rows without a finite score, model, data, metric or n are left out.
    """
    found = []
    for row in rows:
        if math.isnan(_finite(row.get("score"))) or any(row.get(name) is None for name in _NEEDED):
            continue
        low, high = stored_interval(row)
        known = {name: row.get(name) for name in _COLUMNS} | {"constant": _finite(row.get("constant"))}
        own = {"low": low, "high": high, "interval_is": row.get("interval_is") or "95%"}
        found.append(known | own | {"recovered": bool(row.get("recovered"))})
    return pd.DataFrame(found, columns=list(_COLUMNS))


def verdicts(scores: pd.DataFrame, score_text: Callable[[float, str], str]) -> list[Verdict]:
    """Compare each control with the SHRP models on the same data.

    A control with a size (random experts, width pruning) is compared with static models of the same size and
    fine-tuning, others with every SHRP model. Models without an interval are left out. `scores` is `score_frame`'s table,
    or one data set's part of it; `score_text` formats a score of a metric.
    """
    result = []
    for control in scores[scores["kind"] == "control"].itertuples():
        ours = scores[scores["kind"].isin(("routed", "static")) & (scores["data"] == control.data)]
        known = [name for name in ("budget", "per_layer") if not pd.isna(getattr(control, name))]
        if known:
            same = (ours[known[0]] == getattr(control, known[0])) & (ours["recovered"] == control.recovered)
            ours = ours[same & (ours["kind"] == "static")]
        ours = ours[ours["low"].notna() & ours["high"].notna()]
        if ours.empty:
            continue
        sides: dict[Outcome, tuple[str, ...]] = {}
        for model in ours.itertuples():
            side = _side(control, model)
            sides[side] = (*sides.get(side, ()), model.model)
        result.append(Verdict(control.model, score_text(control.score, control.metric), **sides))
    return result


def summary(found: Sequence[Verdict], scores: pd.DataFrame) -> str:
    """All verdicts on one data set, found in its part of `score_frame`'s table, in a sentence or two."""
    controls = scores.loc[scores["kind"] == "control", "model"]
    if controls.empty:
        return NO_CONTROL
    if not found:
        parts = [NONE_COMPARED]
    else:
        counts = {words: sum(v.outcome == side for v in found) for side, words in _WORDS.items()}
        plural = {words: words.replace("scores", "score").replace("shows", "show") for words in counts}
        outcomes = [f"{n} {words if n == 1 else plural[words]}" for words, n in counts.items() if n]
        parts = [f"Of {len(found)} control{'s' * (len(found) > 1)}, {listed(outcomes)} SHRP on these data."]
        if alone := uncompared(found, scores):
            parts.append(f"Not compared: {_named(alone)}.")
    missing = [kind for kind in KINDS_OF_CONTROL if not controls.str.startswith(kind).any()]
    if missing:
        parts.append(f"Not measured with this checkpoint: {listed(missing)}.")
    return " ".join(parts)


def uncompared(found: Sequence[Verdict], scores: pd.DataFrame) -> list[str]:
    """The controls without a verdict, as no SHRP model of their size has an interval."""
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
    """How a control's score compares with a model's, by their intervals; a control without one counts as exact."""
    low, high = (control.low, control.high) if control.low == control.low else (control.score, control.score)
    gap = control.score - model.score
    below = math.hypot(control.score - low, model.high - model.score)
    above = math.hypot(high - control.score, model.score - model.low)
    if gap - below <= 0 <= gap + above:
        return "ties"
    return "wins" if gap > 0 else "trails"


def _named(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names[:_MOST_NAMED]]
    more = len(names) - len(quoted)
    return listed([*quoted, f"{more} more"] if more else quoted)


def _listed(models: tuple[str, ...], total: int) -> str:
    return f"{len(models)} of {total} SHRP models" if len(models) > _MOST_NAMED else _named(models)
