"""What is said first about one expert: how often it is used, for what, and what the model loses without it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.analysis.importance import KnockOut
from shrp.data.slices import ANSWER, CLASS, LENGTH, SLICE
from shrp.data.text_data import pairs_of, units_of
from shrp.evaluation.statistics import differing, share_interval
from ui import measurements
from ui.text import escape, interval_text, metric_name, percent, points, points_interval, slice_name
from ui.usage import results

GROUPINGS = (SLICE, CLASS, ANSWER, LENGTH)
"""An expert's examples are compared with all others by the first two of these that there are."""
_NAMED = 4
"""Groups that are named at most on each side."""


def mixes(one: results.Expert) -> dict[str, pd.DataFrame]:
    """Grouping -> how one expert's examples split over its groups (`shrp.evaluation.statistics.mix_frame`)."""
    known = measurements.groups(one.checkpoint, one.data, one.stats)
    drawn = [by for by in GROUPINGS if by in known][:2]
    return {by: results.mix(one, by) for by in drawn}


def headline(one: results.Expert, found: dict[str, pd.DataFrame], without: str) -> str:
    """The verdict on one expert, as Markdown. `found`: of `mixes`."""
    stats, layer, expert = one.stats, one.layer, one.expert
    name = f"**Layer {layer}, expert {expert}**"
    took, total = stats.top1[layer][:, expert], int(stats.counts(layer).sum())
    mine, unit = int(took.sum()), stats.unit
    if not mine:
        never = "takes none" if one.top_k == 1 else "is the first choice for none"
        return f"{name} {never} of {total:,} {unit}; {without}."
    takes = "takes" if one.top_k == 1 else "is the first choice for"
    where = f" (in {int((took > 0).sum()):,} of {stats.n:,} examples)" if stats.unit == "tokens" else ""
    parts = [f"{name} {takes} **{mine:,} of {total:,}** {unit}{where}"]
    if most := most_typical(found):
        group, lift = most
        parts.append(f"**{escape(slice_name(group))}** {lift:.1f}× as often as average")
    return "; ".join([*parts, without]) + "."


def most_typical(found: dict[str, pd.DataFrame]) -> tuple[str, float] | None:
    """The group that an expert takes significantly more often than the others do, and how many times its base rate."""
    for frame in found.values():
        more, _ = differing(frame)
        if more:
            lifts = frame.set_index("group")["lift"]
            group = max(more, key=lambda one: lifts[one])
            return str(group), float(lifts[group])
    return None


def without_it(found: KnockOut, lost: tuple[float, tuple[float, float]]) -> str:
    """What the model loses without the expert, as Markdown; `lost` is that of `results.score_lost`."""
    before = found.before
    if not len(found.affected):
        return "without it nothing changes"
    value, bounds = lost
    if not before.task.is_regression and not found.flipped:
        return "without it no prediction changes"
    if before.labels is None or value != value:
        if before.task.is_regression:
            return f"without it {len(found.affected):,} of {before.n:,} outputs change"
        return f"without it {found.flipped:,} of {before.n:,} predictions change"
    said = f"removing it costs **{points(value, before.metric).removeprefix('+')}** of {metric_name(before.metric)}"
    if bounds[0] != bounds[0]:
        return said
    same = ", no significant difference" if bounds[0] <= 0 <= bounds[1] else ""
    return f"{said} (95% CI {points_interval(bounds, before.metric)}{same})"


def facts(one: results.Expert, found: dict[str, pd.DataFrame]) -> None:
    """Draw one expert's numbers, and the groups it takes more and less often than the other experts of its layer."""
    stats, layer, expert = one.stats, one.layer, one.expert
    counts, units = stats.counts(layer), units_of(stats.n, pairs_of(one.data))
    took, of_all = stats.top1[layer][:, expert], stats.top1[layer].sum(1)
    mine, total = int(took.sum()), int(of_all.sum())
    st.subheader(f"Layer {layer}, expert {expert}", anchor=False)
    bounds = interval_text(share_interval(took, units, of_all), "accuracy")
    lines = [
        f"**Top-1 share** {percent(mine / total)} (95% CI {bounds}, n = {total:,} {stats.unit})",
        f"**Mean router probability** {percent(stats.mean_probs(layer)[expert])}; even use: "
        f"{percent(1 / stats.num_experts)}",
    ]
    rank = 1 + int((counts > counts[expert]).sum())
    lines.append(
        (f"**Rank** {rank} of {stats.num_experts} by share; " if mine else "")
        + f"the layer effectively uses {stats.effective_experts(layer):.1f} experts"
    )
    if one.top_k > 1:
        lines.append(f"**Top-{one.top_k}**: shares count first choices; the expert also computes for others")
    for by, frame in found.items():
        lines += _differing(by, frame, stats.unit) if mine else []
    st.markdown("\n".join(f"- {line}" for line in lines))
    if not mine:
        unused = "No example is routed to this expert. Its examples are those that come closest."
        st.info(unused, icon=":material/bedtime:")


def _differing(by: str, frame: pd.DataFrame, unit: str) -> list[str]:
    """The groups of one grouping that differ significantly, as lines of Markdown; `unit` is what is routed."""
    rows = frame.set_index("group")
    lines = []
    for word, groups in zip(("More", "Less"), differing(frame), strict=True):
        if groups and not (lines and len(frame) == 2):  # of two groups the other one follows
            named = ", ".join(
                f"{escape(slice_name(str(group)))} {rows.loc[group, 'lift']:.1f}× ({percent(rows.loc[group, 'here'], 0)} "
                f"of its {unit}, {percent(rows.loc[group, 'base'], 0)} of all)"
                for group in groups[:_NAMED]
            )
            rest = f" and {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
            lines.append(f"**{word} often, by {by}**: {named}{rest}")
    return lines
