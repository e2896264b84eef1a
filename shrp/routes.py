"""The file that `benchmarks.routes` writes, read as tables: what routes go by, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.errors import DataError
from shrp.intervals import NO_INTERVAL, stored_interval
from shrp.phrases import counted, listed, signed
from shrp.shuffled import ALL, MIXTURE
from shrp.studies import command_of

_NEEDED = {
    "checkpoint",
    "metric",
    "n",
    "routed",
    "layer",
    "moved",
    "score",
    "change",
    "flipped",
    "interval",
    "matched",
    "matched_change",
    "matched_interval",
    "told",
}
_LAST = {ALL: 1e9, MIXTURE: 2e9}
"""Where these rows stand among layers."""


def frames_of(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What routes are worth, and what they go by.

    Returns:
        A row a checkpoint and layer, one of all its layers together and one of the mixture in their place: checkpoint,
        distilled, metric, n, routed, layer (a number, `all` or `mixture`), moved (nan for the mixture), score, change
        with low and high (95%, paired; nan for none), matched, matched_change, matched_low, matched_high (the same with
        answer shares matched; nan for regression), kept, kept_low, kept_high (of the routed model's score), flipped
        (nan for regression); and a row a checkpoint, layer and grouping: checkpoint, n, layer, by, explained, p,
        beyond_length, p_beyond (nan for none).

    Raises:
        DataError: a row lacks something or can't be read.
    """
    mend = f"write it anew with {command_of('routes')}."
    worth, told = [], []
    for row in rows:
        if missing := sorted(_NEEDED - set(row)):
            raise DataError(f"the study of routes lacks {', '.join(missing)}; {mend}")
        try:
            low, high = stored_interval(row)
            routed, layer = float(row["routed"]), row["layer"]
            layer = layer if layer in _LAST else int(layer)
            if not routed > 0:
                raise ValueError("nothing is kept of a score of 0 or less")
            common = {name: row[name] for name in ("checkpoint", "n")} | {"layer": layer}
            worth.append(
                common
                | {"distilled": bool(row.get("distilled")), "metric": row["metric"], "routed": routed}
                | {"score": float(row["score"]), "change": float(row["change"]), "low": low, "high": high}
                | {
                    "kept": row["score"] / routed,
                    "kept_low": 1 + low / routed,
                    "kept_high": 1 + high / routed,
                }
                | {"flipped": _number(row["flipped"]), "moved": _number(row["moved"])}
                | {name: _number(row[name]) for name in ("matched", "matched_change")}
                | dict(
                    zip(("matched_low", "matched_high"), row["matched_interval"] or NO_INTERVAL, strict=True)
                )
            )
            for by, found in row["told"].items():
                names = ("explained", "p", "beyond_length", "p_beyond")
                told.append(common | {"by": str(by)} | {name: _number(found[name]) for name in names})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"the study of routes has a row that can't be read; {mend}") from error
    frames = pd.DataFrame(worth), pd.DataFrame(told)
    return tuple(_in_order(frame) if len(frame) else frame for frame in frames)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """By task and depth, then by layer, all layers and the mixture last."""
    depth = frame["checkpoint"].str.extract(r"(\d+)of")[0].astype(float)
    task = frame["checkpoint"].str.split("-").str[0]
    place = frame["layer"].map(lambda layer: _LAST.get(layer, layer))
    order = frame.assign(_task=task, _depth=depth, _place=place)
    order = order.sort_values(["_task", "_depth", "_place"], kind="stable")
    return order[frame.columns].reset_index(drop=True)


def findings(worth: pd.DataFrame) -> list[str]:
    """On how many checkpoints there is a difference beyond chance; nothing of a single one."""
    said = []
    for layer, what in (
        (MIXTURE, "Without routes (the mixture)"),
        (ALL, "With wrong routes (all exchanged)"),
    ):
        rows = worth[worth["layer"] == layer] if len(worth) else worth
        if len(rows) < 2:
            return []
        # Of a regression there are no answers to be matched.
        low, high = (
            rows[f"matched_{end}"].where(rows["matched"].notna(), rows[end]) for end in ("low", "high")
        )
        lost, matched = (rows.loc[one < 0, "checkpoint"].tolist() for one in (rows["high"], high))
        won = rows.loc[low > 0, "checkpoint"].tolist()
        text = f"{what}, {len(lost)} of {len(rows)} routed checkpoints lose by more than chance"
        text += (
            f", with answer shares matched {len(matched)} ({listed(matched)})"
            if matched
            else ", matched none"
        )
        said.append(f"{text}{f'; more have {listed(won)}' if won else ''}.")
    return said


def summary(worth: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A row a checkpoint that was measured whole, in words.

    Columns: checkpoint, as routed (metric, score and n), no routes (the score with the mixture, its change with the
    interval, answers that changed, the score with answer shares matched), wrong routes (the same with all exchanged,
    and how many choices moved), layers that change it alone (in how many exchanging it changes the score beyond
    chance), explained at most (by each grouping, and in which layer).
    """
    lines = []
    for name, rows in worth.groupby("checkpoint", sort=False) if len(worth) else ():
        of = {row["layer"]: row for _, row in rows.iterrows()}
        if not {*_LAST} <= of.keys():
            continue
        one, single = of[ALL], rows[~rows["layer"].isin([*_LAST])]
        beyond = int(((single["low"] > 0) | (single["high"] < 0)).sum())
        tops = []
        for by, found in told[told["checkpoint"] == name].groupby("by", sort=False) if len(told) else ():
            if found["explained"].notna().any():
                top = found.loc[found["explained"].idxmax()]
                tops.append(f"{by} {top['explained']:.0%} (layer {top['layer']})")
        lines.append(
            {
                "checkpoint": f"{name}{'' if one['distilled'] else ', not distilled'}",
                "as routed": f"{one['metric']} {one['routed']:.3f}, n = {one['n']:,}",
                "no routes": _changed(of[MIXTURE]),
                "wrong routes": f"{_changed(one)}; {one['moved']:.0%} of choices moved",
                "layers that change it alone": f"{beyond} of {len(single)}",
                "explained at most": ", ".join(tops),
            }
        )
    return pd.DataFrame(lines)


def _changed(row: pd.Series) -> str:
    text = f"{row['score']:.3f} ({signed(row['change'], 3)}"
    if pd.notna(row["low"]):
        text += f", {signed(row['low'], 3)} to {signed(row['high'], 3)}"
    if pd.notna(row["flipped"]):
        text += f"; {counted(int(row['flipped']), 'answer')} changed"
    return f"{text})" + ("" if pd.isna(row["matched"]) else f", shares matched {row['matched']:.3f}")
