"""The settings that no other one beats on score and cost at once, and which of them chance can't tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import agreement
from shrp.phrases import listed
from shrp.pruning.sweep import LOSSES, pareto_best
from ui import paired_results
from ui.text import interval_text, is_percentage, metric_name, p_text, percent, score_text, signed

SHARES = {
    "encoder_flops": "encoder FLOPs",
    "model_flops": "model FLOPs",
    "encoder_params": "encoder parameters",
    "model_params": "model parameters",
}
"""Costs as columns of `ui.lab.work.attempts_frame`, each a share of the dense model's, and in words."""


GAP_COLUMNS = ["minus best", "minus best low", "minus best high", "McNemar's test"]
"""A `Gap` in a file."""


def pareto(tried: pd.DataFrame, over: str) -> pd.DataFrame:
    """The Pareto-best of the tried settings, cheapest first, numbered from 1 in the column `number`.

    A setting is Pareto-best if no other scores at least as high at no more cost, with one of the two better. Random
    controls do not take part. Settings that give one and the same plan are one, their names joined. Of fewer than two
    plans there is none to be better than, and so no row.

    Args:
        tried: `ui.lab.work.attempts_frame`.
        over: the cost, one of `SHARES`.
    """
    if tried.empty:
        return tried.assign(number=[])
    own = _compared(tried)
    names = own.groupby("plan", sort=False)["setting"].agg(_joined)
    if own["plan"].nunique() < 2:  # there is none to be better than
        return own[:0].assign(number=[])
    own = own.drop_duplicates("plan").assign(setting=lambda rows: rows["plan"].map(names))
    own = own.iloc[pareto_best(own[over], own["score"])]
    return own.assign(number=np.arange(1, len(own) + 1))


def _compared(tried: pd.DataFrame) -> pd.DataFrame:
    """What takes part: all but random controls and what has no score."""
    return tried[~tried["control"] & tried["score"].notna()]


def _joined(settings: pd.Series) -> str:
    """Names of settings that are one plan: `1 a layer = 6 in all, usage, usage weights`."""
    parts = [name.partition(", ") for name in dict.fromkeys(settings)]
    if len({tail for _, _, tail in parts}) > 1:
        return " = ".join("".join(part) for part in parts)
    return " = ".join(head for head, _, _ in parts) + "".join(parts[0][1:])


@dataclass(frozen=True)
class Gap:
    """How far a setting is below the best one, on the same inputs."""

    difference: float
    """Score minus the best one's."""
    interval: tuple[float, float]
    """95%, paired."""
    p_value: float
    """McNemar's exact test; nan where there are no labelled classes."""

    @property
    def is_noise(self) -> bool:
        """Whether chance alone may explain it: the interval, which stands beside it, holds 0 or is not known."""
        return not (self.interval[0] > 0 or self.interval[1] < 0)


def gap(one: Evaluation, best: Evaluation) -> Gap:
    """The paired difference of two evaluations on the same data; for accuracy with McNemar's test."""
    difference, bounds = paired_results.difference(one, best)
    tested = one.metric == "accuracy" and one.labels is not None
    return Gap(difference, bounds, agreement(one, best).p_value if tested else np.nan)


def table(best: pd.DataFrame, gaps: Mapping[str, Gap], metric: str) -> pd.DataFrame:
    """The Pareto-best settings as the page shows them, in texts.

    Args:
        best: `pareto`'s.
        gaps: plan key -> its gap to the highest score; where a plan is missing, its two columns stay empty.
    """
    percent_points = is_percentage(metric)
    scale, digits = (100, 1) if percent_points else (1, 3)

    def change(value: float) -> str:
        return signed(scale * value, digits)

    below = "below the best" + (", points" if percent_points else "")
    rows = []
    for row in best.itertuples():
        found = gaps.get(row.plan)
        top = row.score == best["score"].max()
        apart = ""
        if found is not None and not top and np.isfinite(found.difference):
            apart = f"{change(found.difference)} ({change(found.interval[0])} to {change(found.interval[1])})"
        rows.append(
            {
                "#": row.number,
                "setting": row.setting,
                metric_name(metric): score_text(row.score, metric),
                "95% interval": interval_text((row.low, row.high), metric),
                "n": row.n,
                below: "best" if top else apart,
                "McNemar's test": "" if found is None or top else p_text(found.p_value),
                "FLOPs, encoder / model": f"{percent(row.encoder_flops)} / {percent(row.model_flops)}",
                "parameters, encoder / model": f"{percent(row.encoder_params)} / {percent(row.model_params)}",
            }
        )
    return pd.DataFrame(rows)


def in_words(best: pd.DataFrame, metric: str, over: str) -> str:
    """The Pareto-best settings as a list in one sentence, for those who can't see the chart."""
    if best.empty:
        return "Fewer than two prunings, random controls aside, have been evaluated yet"
    parts = [
        f"#{row.number} {row.setting}: {score_text(row.score, metric)} at {percent(getattr(row, over))}"
        for row in best.itertuples()
    ]
    return (
        f"Pareto-best, cheapest first, {metric_name(metric)} at {SHARES[over]} as a share of dense: "
        + "; ".join(parts)
    )


def verdict(
    best: pd.DataFrame,
    gaps: Mapping[str, Gap],
    metric: str,
    over: str,
    tried: pd.DataFrame,
    floor: float = float("nan"),
) -> str:
    """What the table means and how much of it may be chance, in plain text.

    Args:
        tried: what `best` was found in.
        floor: the score of the best constant answer; nan where there is none. What is not above it is never named as
            what to take.
    """
    dense = "the dense model's" if over.startswith("model") else "the dense encoder's"
    text = (
        f"Pareto-best: of the {_compared(tried)['plan'].nunique():,} prunings evaluated here, no other one has at "
        f"least this {metric_name(metric)} at no more {SHARES[over]} (share of {dense}), with one of the two better."
    )
    if best.empty or not gaps:
        return text + " Points within each other's interval may differ by chance alone."
    top = best.loc[best["score"].idxmax()]
    below = best[best["plan"] != top["plan"]]
    rest = below[below["plan"].isin(list(gaps))]
    untested = len(below) - len(rest)  # their outputs are no longer there
    noise = [row for row in rest.itertuples() if gaps[row.plan].is_noise]
    test = "by the paired 95% interval"
    highest = f" #{top['number']} scores highest"
    # At different costs one of the two would not be among the best.
    if len(below) == 1 and below["score"].iloc[0] == top["score"]:
        return f"{text} #{top['number']} and #{below['number'].iloc[0]} score the same at the same cost."
    if top["score"] <= floor:
        return f"{text} None of them is above a constant answer."
    if noise:
        worth = [row for row in noise if not row.score <= floor]
        if len(noise) == len(rest):
            among = "the other one can't" if len(rest) == 1 else f"none of the {len(rest)} others can"
        else:
            among = f"{len(noise)} of the {len(rest)} others can't"
        text += f"{highest}, but {among} be told from it on these {top['n']:,} inputs ({test})"
        if worth:
            first = worth[0]
            cheapest = "that is" if len(noise) == 1 else "the cheapest of these is"
            if len(worth) < len(noise):  # the cheapest of all may be no more than that
                cheapest = "above a constant answer, the cheapest of these is"
            text += (
                f"; {cheapest} #{first.number}, {first.setting}, at {percent(getattr(first, over))} of {dense} "
                f"{SHARES[over].split()[-1]}."
            )
        else:
            text += ", and of these none is above a constant answer."
    elif len(rest):
        others = "the other one is" if len(rest) == 1 else f"all {len(rest)} others are"
        text += f"{highest}, and {others} below it by more than chance ({test})."
    else:
        alone = " at the lowest cost of all" if below.empty else "; the others could not be tested against it"
        return f"{text}{highest}{alone}."
    if untested:
        text += f" {untested} more could not be tested."
    equal = " That two can't be told apart does not show that they are equal." * bool(noise)
    return (
        f"{text}{equal} The tests are one by one, and the highest was picked on these same inputs, which flatters its "
        "score, and the gaps to it, a little."
    )


def cheapest_within(
    best: pd.DataFrame,
    routed: float,
    metric: str,
    over: str,
    matched: bool | None = False,
    floor: float = float("nan"),
) -> str:
    """The cheapest setting that loses at most so much of the routed model's score, for each of
    `shrp.pruning.sweep.LOSSES`.

    Args:
        best: `pareto`'s.
        routed: the routed model's score on the same data; nan where it has none.
        matched: whether scores are with matched answer shares; None where there are none to match.
        floor: as for `verdict`.
    """
    if best.empty or not np.isfinite(routed):
        return ""
    scale, unit = (100, "points") if is_percentage(metric) else (1, metric_name(metric))
    said: dict[str, list[str]] = {}
    for loss in LOSSES:
        near = best[(best["score"] >= routed - loss - 1e-12) & ~(best["score"] <= floor)]  # cheapest first
        name = "none"
        if len(near):
            row = near.iloc[0]
            name = f"#{row['number']}, {row['setting']} ({score_text(row['score'], metric)}, {percent(row[over])})"
        said.setdefault(name, []).append(f"{scale * loss:g}")
    parts = [f"within {listed(losses)}: {name}" for name, losses in said.items()]
    return (
        f"The cheapest in {SHARES[over]} of the settings evaluated here, by allowed loss against the routed model's "
        f"{score_text(routed, metric)} ({unit} on these inputs, no interval): {'; '.join(parts)}. "
        + (
            ""
            if matched is None
            else f"Scores are {'with' if matched else 'without'} matched answer shares; "
        )
        + f"{'O' if matched is None else 'o'}ther ways to choose experts are included once evaluated."
    )
