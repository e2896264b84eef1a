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
        (nan for regression), of all layers exchanged other_answer and flipped_by_other (inputs whose route is of one
        with another answer, and how many of them changed theirs); and a row a checkpoint, layer and grouping:
        checkpoint, n, layer, by, explained, ceiling, p, beyond_length, p_beyond (nan for none), effective_experts.

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
                | {name: _number(row.get(name)) for name in ("other_answer", "flipped_by_other")}
                | {"flipped": _number(row["flipped"]), "moved": _number(row["moved"])}
                | {name: _number(row[name]) for name in ("matched", "matched_change")}
                | dict(
                    zip(("matched_low", "matched_high"), row["matched_interval"] or NO_INTERVAL, strict=True)
                )
            )
            for by, found in row["told"].items():
                names = ("explained", "ceiling", "p", "beyond_length", "p_beyond", "effective_experts")
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
    """On how many checkpoints there is a loss beyond chance, classifiers with answer shares matched, and numbers."""
    said = []
    for layer, what in (
        (MIXTURE, "Without routes (the mixture)"),
        (ALL, "With wrong routes (all exchanged, one draw)"),
    ):
        rows = worth[worth["layer"] == layer] if len(worth) else worth
        if len(rows) < 2:
            return []
        classifiers, numbers = rows[rows["matched"].notna()], rows[rows["matched"].isna()]
        parts = []
        if len(classifiers):
            lost = classifiers.loc[classifiers["matched_high"] < 0, "checkpoint"].tolist()
            raw = int((classifiers["high"] < 0).sum())
            parts.append(
                f"{_of(lost, classifiers)} lose by more than chance with answer shares matched, {raw} as they are"
            )
        if len(numbers):
            lost = numbers.loc[numbers["high"] < 0, "checkpoint"].tolist()
            parts.append(f"of those that predict a number, {_of(lost, numbers)}")
        said.append(f"{what}: {'; '.join(parts)}.")
    return said


def _of(names: list[str], rows: pd.DataFrame) -> str:
    return f"{len(names)} of {len(rows)}{f' ({listed(names)})' if names else ''}"


def summary(worth: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A row a checkpoint that was measured whole, in words.

    Columns: checkpoint, as routed (metric, score and n), no routes (the score with the mixture, its change with the
    interval, answers that changed, the same with answer shares matched), wrong routes (likewise, with all exchanged),
    what was exchanged (how many choices moved, and whose route it was where answers changed), layers that change it
    alone (in how many exchanging it changes the score beyond chance, of classifiers with shares matched), explained at
    most (by each grouping, of how much that is possible, and in which layer).
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
                "checkpoint": f"{name}{'' if one['distilled'] else ', not distilled'}",
                "as routed": f"{one['metric']} {one['routed']:.3f}, n = {one['n']:,}",
                "no routes": _changed(of[MIXTURE]),
                "wrong routes": _changed(one),
                "what was exchanged": f"{one['moved']:.0%} of choices moved{_whose(one)}",
                "layers that change it alone": f"{beyond} of {len(single)}",
                "explained at most": ", ".join(tops),
            }
        )
    return pd.DataFrame(lines)


def _whose(row: pd.Series) -> str:
    if pd.isna(row["other_answer"]):
        return ""
    of = f"{int(row['flipped_by_other']):,} of {int(row['flipped']):,}"
    return f"; another answer's route in {of} that changed"


def _changed(row: pd.Series) -> str:
    text = f"{row['score']:.3f} ({in_thousandths(row['change'], row['low'], row['high'])}"
    if pd.notna(row["flipped"]):
        text += f"; {counted(int(row['flipped']), 'answer')} changed"
    if pd.isna(row["matched"]):
        return f"{text})"
    ends = row["matched_change"], row["matched_low"], row["matched_high"]
    return f"{text}); shares matched {row['matched']:.3f} ({in_thousandths(*ends)})"


def in_thousandths(change: float, low: float, high: float) -> str:
    """A change of a score with its interval, where it has one."""
    return signed(change, 3) + ("" if low != low else f", {signed(low, 3)} to {signed(high, 3)}")
