"""The file that `studies.routes` writes, read as tables: what routes go by, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.analysis.routes import ALIKE, ALL, MIXTURE
from shrp.errors import DataError
from shrp.evaluation.intervals import NO_INTERVAL, stored_interval
from shrp.phrases import counted, listed, metric_name, signed
from shrp.studies.studies import command_of

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
    "draws",
    "change_range",
    "matched_range",
    "flipped_range",
    "told",
}
_LAST = {ALL: 1e9, ALIKE: 2e9, MIXTURE: 3e9}
"""Where these rows stand among layers."""


def frames_of(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What routes are worth, and what they go by.

    Returns:
        A row a checkpoint and layer, one of all its layers together, one of all among inputs answered alike, and one of
        the mixture in their place: checkpoint, distilled, metric, n, routed, layer (a number, `all`, `alike` or
        `mixture`), draws, moved (nan for the mixture), score, change with low and high (95%; nan for none), matched,
        matched_change, matched_low, matched_high (the same with answer shares matched; nan for regression), kept,
        kept_low, kept_high (of the routed model's score), flipped (nan for regression), and the least and the most of
        the draws: change_min, change_max, matched_min, matched_max (of the matched change), flipped_min, flipped_max;
        and a row a checkpoint, layer and grouping: checkpoint, n, layer, by, explained, ceiling, p, beyond_length,
        p_beyond (nan for none), effective_experts.

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
            whole = routed if routed > 0 else float("nan")  # nothing is kept of a score of 0 or less
            common = {name: row[name] for name in ("checkpoint", "n")} | {"layer": layer}
            worth.append(
                common
                | {"distilled": bool(row.get("distilled")), "metric": row["metric"], "routed": routed}
                | {name: _number(row[name]) for name in ("score", "change")}
                | {"low": low, "high": high, "kept": _number(row["score"]) / whole}
                | {"kept_low": 1 + low / whole, "kept_high": 1 + high / whole}
                | {"draws": int(row["draws"])}
                | {"flipped": _number(row["flipped"]), "moved": _number(row["moved"])}
                | {name: _number(row[name]) for name in ("matched", "matched_change")}
                | _pair(row["matched_interval"], "matched_low", "matched_high")
                | _pair(row["change_range"], "change_min", "change_max")
                | _pair(row["matched_range"], "matched_min", "matched_max")
                | _pair(row["flipped_range"], "flipped_min", "flipped_max")
            )
            for by, found in row["told"].items():
                names = ("explained", "ceiling", "p", "beyond_length", "p_beyond", "effective_experts")
                told.append(common | {"by": str(by)} | {name: _number(found[name]) for name in names})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"the study of routes has a row that can't be read; {mend}") from error
    frames = pd.DataFrame(worth), pd.DataFrame(told)
    return tuple(_in_order(frame) if len(frame) else frame for frame in frames)


def _pair(values: Sequence[float] | None, *names: str) -> dict[str, float]:
    return dict(zip(names, values or NO_INTERVAL, strict=True))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """By task and depth, then by layer, those of all layers last."""
    depth = frame["checkpoint"].str.extract(r"(\d+)of")[0].astype(float)
    task = frame["checkpoint"].str.split("-").str[0]
    place = frame["layer"].map(lambda layer: _LAST.get(layer, layer))
    order = frame.assign(_task=task, _depth=depth, _place=place)
    order = order.sort_values(["_task", "_depth", "_place"], kind="stable")
    return order[frame.columns].reset_index(drop=True)


def findings(worth: pd.DataFrame) -> list[str]:
    """On how many checkpoints there is a loss beyond chance, classifiers with answer shares matched and as they are."""
    said = []
    for layer, what in (
        (MIXTURE, "Without routes (the mixture)"),
        (ALL, "With wrong routes (all exchanged, the mean of {} draws)"),
        (ALIKE, "With other routes of the same answer (likewise, among inputs answered alike)"),
    ):
        rows = worth[worth["layer"] == layer] if len(worth) else worth
        if len(rows) < 2:
            return []
        classes = rows["matched"].notna()
        parts = []
        if classes.any():
            found, raw = (_losers(rows[classes], end) for end in ("matched_high", "high"))
            parts.append(
                f"of classifiers, with answer shares matched, {found} lose by more than chance; unmatched, {raw}"
            )
        if not classes.all():
            parts.append(f"of models that predict a number, {_losers(rows[~classes], 'high')}")
        said.append(f"{what.format(rows['draws'].max())}: {'; '.join(parts)}.")
    return said


def _losers(rows: pd.DataFrame, end: str) -> str:
    """How many rows have a change whose interval's upper `end` is below 0, and which."""
    lost = rows.loc[rows[end] < 0, "checkpoint"].tolist()
    return f"{len(lost)} of {len(rows)}{f' ({listed(lost)})' if lost else ''}"


def summary(worth: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A row a checkpoint that was measured whole, in words.

    Columns: checkpoint, as routed (metric, score and n), no routes (the score with the mixture and its change with the
    interval, of a classifier with answer shares matched, its score without that, answers that changed), wrong routes
    and routes of the same answer (likewise, with all exchanged, and exchanged among inputs answered alike: means over
    draws, and how many choices fell on another expert), layers that change it alone (in how many exchanging it changes
    the score beyond chance, of classifiers with shares matched), explained at most (by each grouping, of how much that
    is possible, and in which layer).
    """
    lines = []
    for name, rows in worth.groupby("checkpoint", sort=False) if len(worth) else ():
        of = {row["layer"]: row for _, row in rows.iterrows()}
        if not {*_LAST} <= of.keys():
            continue
        one, single = of[ALL], rows[~rows["layer"].isin([*_LAST])]
        low, high = (
            single[f"matched_{end}"].where(single["matched"].notna(), single[end]) for end in ("low", "high")
        )
        beyond = int(((low > 0) | (high < 0)).sum())
        tops = []
        for by, found in told[told["checkpoint"] == name].groupby("by", sort=False) if len(told) else ():
            if found["explained"].notna().any():
                top = found.loc[found["explained"].idxmax()]
                possible = "" if top["ceiling"] > 0.995 else f" of {top['ceiling']:.0%}"
                tops.append(f"{by} {top['explained']:.0%}{possible} (layer {top['layer']})")
        lines.append(
            {
                "checkpoint": f"{name}{'' if one['distilled'] else ' (not distilled)'}",
                "as routed": f"{metric_name(one['metric'])} {one['routed']:.3f}, n = {one['n']:,}",
                "no routes": _changed(of[MIXTURE]),
                "wrong routes": _changed(one),
                "routes of the same answer": _changed(of[ALIKE]),
                "layers that change it alone": f"{beyond} of {len(single)}",
                "explained at most": ", ".join(tops),
            }
        )
    return pd.DataFrame(lines)


def _changed(row: pd.Series) -> str:
    """A score and its change, of classifiers with answer shares matched and without."""
    matched = pd.notna(row["matched"])
    score, *ends = (
        row[f"matched{name}"] if matched else row[plain]
        for name, plain in (("", "score"), ("_change", "change"), ("_low", "low"), ("_high", "high"))
    )
    parts = [f"{score:.3f} ({in_thousandths(*ends)})"]
    if matched:
        parts.append(f"unmatched {row['score']:.3f}")
    if pd.notna(row["flipped"]):
        least, most = int(row["flipped_min"]), int(row["flipped_max"])
        parts.append(
            f"{counted(most, 'answer') if least == most else f'{least:,} to {most:,} answers'} changed"
        )
    if pd.notna(row["moved"]):
        parts.append(f"{row['moved']:.0%} of choices moved")
    return "; ".join(parts)


def in_thousandths(change: float, low: float, high: float) -> str:
    """A change of a score with its interval, where it has one."""
    return signed(change, 3) + ("" if low != low else f", {signed(low, 3)} to {signed(high, 3)}")
