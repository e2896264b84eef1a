"""The file that `studies.selection` writes, read as a table: which experts to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.errors import DataError
from shrp.evaluation.intervals import stored_interval
from shrp.phrases import ends_in_points, metric_name, signed
from shrp.studies.studies import command_of

NAMES = {
    "usage": "usage",
    "gate_norm": "gate × norm",
    "ablation": "ablation",
    "fitted": "fitted gates",
    "random": "random experts",
    "random_mean": "random experts, weighed alike",
}
_ELSEWHERE = {NAMES["ablation"]: [NAMES["usage"]], NAMES["random_mean"]: [NAMES["random"]]}
"""Selections that were not measured on all checkpoints -> what they are told beside."""
_NEEDED = {
    "checkpoint",
    "task",
    "depth",
    "routed",
    "per_layer",
    "selection",
    "metric",
    "score",
    "n",
    "interval",
}


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a checkpoint, size and selection: its share of the routed model's score.

    Columns: checkpoint, task, metric, n, routed, per_layer, selection (in words), score, retained, low, high (of the
    score's 95% interval, nan where there is none, or of the draws), lead, lead_low, lead_high (over usage, both matched
    in a matched row, paired, as shares of the routed model's score; nan for usage itself and for random draws),
    encoder_params, matched (whether the output bias was shifted to match the routed model's answer shares; such rows
    come after the others of their size), gain, gain_low, gain_high (of a matched row over the same plan without the
    shift, as lead), ranking (area under the ROC curve; nan where there are not two classes, or it was not measured).

    Raises:
        DataError: a row lacks something.
    """
    mend = f"write it anew with {command_of('selection')}."
    found = []
    for row in rows:
        if missing := sorted(_NEEDED - set(row)):
            raise DataError(f"the study of selections lacks {', '.join(missing)}; {mend}")
        try:
            routed, (low, high) = float(row["routed"]), stored_interval(row)
            if not routed > 0:
                raise ValueError("nothing is retained of a score of 0 or less")
            lead_low, lead_high = row.get("lead_interval") or (float("nan"),) * 2
            gain_low, gain_high = row.get("gain_interval") or (float("nan"),) * 2
            found.append(
                {
                    **{
                        name: row[name]
                        for name in ("checkpoint", "task", "metric", "n", "per_layer", "score")
                    },
                    **{"routed": routed, "selection": NAMES[row["selection"]]},
                    **{"retained": row["score"] / routed, "low": low / routed, "high": high / routed},
                    **{"lead": float(row.get("lead", "nan")), "lead_low": lead_low, "lead_high": lead_high},
                    **{"gain": float(row.get("gain", "nan")), "gain_low": gain_low, "gain_high": gain_high},
                    "encoder_params": row.get("encoder_params"),
                    "matched": bool(row.get("matched", False)),
                    "ranking": float(row.get("ranking", "nan")),
                }
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"the study of selections has a row that can't be read; {mend}") from error
    if not found:
        return pd.DataFrame()
    frame, order = pd.DataFrame(found), list(NAMES.values())
    frame["selection"] = pd.Categorical(frame["selection"], order, ordered=True)
    depth = frame["checkpoint"].str.extract(r"(\d+)of")[0].astype(float)
    frame = frame.assign(_depth=depth).sort_values(
        ["_depth", "checkpoint", "per_layer", "matched", "selection"]
    )
    return frame.drop(columns="_depth").reset_index(drop=True)


def findings(frame: pd.DataFrame) -> list[str]:
    """Those of `overall`, `matched` and `by_checkpoint`."""
    return [*overall(frame), *matched(frame), *by_checkpoint(frame)]


def overall(frame: pd.DataFrame) -> list[str]:
    """What the fit is worth over all checkpoints at each size, without what matched answer shares change."""
    sentences = []
    frame = frame[~frame["matched"]] if len(frame) else frame
    for size, rows in frame.groupby("per_layer"):
        fitted = rows[rows["selection"] == NAMES["fitted"]]
        if fitted.empty:
            continue
        counts, all_of = rows["selection"].value_counts(), rows["checkpoint"].nunique()
        everywhere = rows[rows["selection"].map(counts).astype(int) == all_of]
        said = _medians(everywhere)
        ahead = [f"{r.checkpoint}" for r in fitted.itertuples() if r.lead_low > 0]
        behind = [f"{r.checkpoint}" for r in fitted.itertuples() if r.lead_high < 0]
        sentences.append(
            f"With {size} a layer and no training on, the share of the routed model's score, as the median over "
            f"{all_of} checkpoints and in brackets the lowest: {said}. Fitted gates are ahead of "
            f"usage by more than chance on {_listed(ahead)}, behind on {_listed(behind)}."
        )
        sentences += [
            f"With {size} a layer, on the {counts[name]} of these where {name} was measured: "
            f"{_medians(rows[rows['checkpoint'].isin(part['checkpoint']) & rows['selection'].isin([*like, name])])}"
            f"{_against_usage(part)}."
            for name, like in _ELSEWHERE.items()
            if 0 < len(part := rows[rows["selection"] == name]) < all_of
        ]
    return sentences


def by_checkpoint(frame: pd.DataFrame) -> list[str]:
    """A sentence for each checkpoint at the smallest size: what usage keeps, and fitted gates."""
    sentences = []
    frame = frame[~frame["matched"]] if len(frame) else frame
    smallest = frame[frame["per_layer"] == frame["per_layer"].min()] if len(frame) else frame
    for checkpoint, rows in smallest.groupby("checkpoint", sort=False):
        of = rows.set_index("selection")
        if NAMES["fitted"] not in of.index or NAMES["usage"] not in of.index:
            continue
        fit, usage = of.loc[NAMES["fitted"]], of.loc[NAMES["usage"]]
        lead = f"{signed(100 * fit['lead'])} points"
        if pd.notna(fit["lead_low"]):
            lead += f", {ends_in_points(fit['lead_low'], fit['lead_high'])}"
        sentences.append(
            f"{checkpoint} with {fit['per_layer']} a layer: usage keeps {usage['retained']:.1%} of the routed model's "
            f"{metric_name(fit['metric'])} of {fit['routed']:.3f}, fitted gates {fit['retained']:.1%} ({lead}; "
            f"n = {fit['n']:,})."
        )
    return sentences


def _medians(rows: pd.DataFrame) -> str:
    """Each selection's median share over checkpoints, and in brackets the lowest."""
    shares = rows.groupby("selection", observed=True)["retained"].agg(["median", "min"])
    return ", ".join(f"{name} {r['median']:.1%} ({r['min']:.1%})" for name, r in shares.iterrows())


def _against_usage(rows: pd.DataFrame) -> str:
    """Where one selection is ahead of usage or behind it by more than chance; empty where it was not paired."""
    if rows["lead"].isna().all():
        return ""
    ahead = _listed(rows.loc[rows["lead_low"] > 0, "checkpoint"].tolist())
    behind = _listed(rows.loc[rows["lead_high"] < 0, "checkpoint"].tolist())
    return f"; ahead of usage by more than chance on {ahead}, behind on {behind}"


def matched(frame: pd.DataFrame) -> list[str]:
    """What matched answer shares change, a sentence for each checkpoint at its smallest size."""
    said = []
    for checkpoint, rows in frame[frame["matched"]].groupby("checkpoint", sort=False) if len(frame) else ():
        size = rows["per_layer"].min()
        before = frame[(frame["checkpoint"] == checkpoint) & (frame["per_layer"] == size) & ~frame["matched"]]
        before = before.set_index("selection")
        parts = [
            f"{r.selection} {r.retained:.1%} instead of {before.loc[r.selection, 'retained']:.1%}{_gained(r)}"
            for r in rows[rows["per_layer"] == size].itertuples()
            if r.selection in before.index
        ]
        said.append(
            f"{checkpoint} with {size} a layer and the output bias shifted so that each class is given as often as by "
            "the routed model on texts of the training split, whose labels only mix the classes: "
            f"{', '.join(parts)} of its score."
        )
    return said


def _gained(row: Any) -> str:
    """The paired interval of what a matched row gains, in points; empty where there is none."""
    return "" if pd.isna(row.gain_low) else f" ({ends_in_points(row.gain_low, row.gain_high)} points)"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
