"""What the model loses without an expert, alone or with others, on all of the data."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.analysis.knock_out import FEWEST, KnockOut
from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.statistics import FALSE_DISCOVERIES
from shrp.model.convert import router_layers
from ui.downloads import downloads
from ui.expert import results as made
from ui.expert import together
from ui.text import (
    capital,
    escape,
    metric_name,
    points,
    points_interval,
    score_text,
    signed,
    worth_meaning,
    worth_name,
)

_IN_NAME = 3
"""Experts beside the first that a file's name tells."""


def knocked_out(
    checkpoint: Checkpoint, stats: UsageStats, data: TextData, layer: int, expert: int, name: str
) -> None:
    """The change of the score, of predictions, and of each class's mean logit. Raises as `knock_out_effect`."""
    st.subheader("Without this expert", anchor=False)
    others = together.pick(stats, (layer, expert))
    mine = sorted({expert, *(other for at, other in others if at == layer)})
    if len(mine) < stats.num_experts:
        top_k = router_layers(checkpoint.model)[layer].top_k
        below = any(at < layer for at, _ in others)
        st.caption(together.successors(stats, layer, mine, top_k, as_now=below))
    found = made.knocked_out(checkpoint, data, stats, ((layer, expert), *others))
    name += "".join(f"-layer{at}-expert{other}" for at, other in others[:_IN_NAME])
    name += f"-and-{len(others) - _IN_NAME}-more" if len(others) > _IN_NAME else ""
    n, affected, it = found.before.n, len(found.affected), _it(found)
    if not affected:
        what = "any of these experts, so without them" if others else "this expert, so without it"
        st.info(
            f"None of the n = {n:,} inputs of {escape(data.name)} uses {what} every output is the same.",
            icon=":material/bedtime:",
        )
        return
    losses = made.losses(checkpoint, data, found)
    one, two, three = st.columns(3, border=True)
    with one:
        _score(found, losses.score)
    with two:
        st.metric(f"Inputs that use {'any of them' if others else 'it'}", f"{affected:,}")
        st.caption(f"of n = {n:,} of {escape(data.name)}; only these were run, since no other can change")
    with three:
        if data.task.is_regression:
            st.metric("Predictions that change", f"{affected:,}")
            st.caption(f"of n = {n:,}, by however little")
        else:
            st.metric("Predictions that change", f"{found.flipped:,}")
            st.caption(f"of {affected:,} inputs that can, and of n = {n:,} in all{_sides(found)}")
    if others:
        together.beyond_the_sum(checkpoint, data, stats, found, worth_name(data.task))
    frame = losses.logits
    as_one = " (both of a minimal pair count as one)" if len(pairs_of(data)) else ""
    noun = "output" if found.before.task.is_regression else "logit"
    st.dataframe(
        _readable(frame, noun, it),
        hide_index=True,
        width="stretch",
        height="content",
        alt=f"Mean {noun} of each class with and without {it}, and the change with its interval",
    )
    st.caption(
        f"Mean {noun}s over all n = {n:,} inputs, of which {n - affected:,} can't change; 95% intervals of the change "
        f"over all inputs{as_one}, rough where under some 20 are affected. The last column is the mean over the "
        f"{affected:,} affected inputs alone."
    )
    downloads(frame, "knock-out", f"{name}-knocked-out")
    _slices(losses.slices, data, name, "these experts" if others else "the expert")


def _it(found: KnockOut) -> str:
    return "it" if len(found.experts) == 1 else "them"


def _slices(frame: pd.DataFrame, data: TextData, name: str, what: str) -> None:
    """What is lost in each slice without `what`, against all other inputs; nothing where there are not several."""
    if len(frame) < 2:  # there is no elsewhere
        return
    regression, paired = data.task.is_regression, len(pairs_of(data)) > 0
    worth = worth_name(data.task)
    sure = frame[frame["q"] <= FALSE_DISCOVERIES].sort_values("difference")
    if len(frame) == 2:  # each is the other's rest: one finding
        sure = sure.head(1)
    lower = [escape(one) for one in sure.loc[sure["difference"] < 0, "slice"]]
    higher = [escape(one) for one in sure.loc[sure["difference"] > 0, "slice"]][::-1]
    said = [
        f"{how} than elsewhere in **{', '.join(names)}**"
        for how, names in (("falls more, or rises less,", lower), ("falls less, or rises more,", higher))
        if names
    ]
    st.markdown(
        f"**By slice**: without {what} the {worth} "
        + ("; it ".join(said) if said else "changes in no slice beyond chance differently from elsewhere")
        + "."
    )
    shown = frame.assign(
        slice=frame["slice"].str.replace("_", " "),
        interval=[
            "–" if low != low else f"{_signed(low)} to {_signed(high)}"
            for low, high in zip(frame["low"], frame["high"], strict=True)
        ],
        **{key: frame[key].map(_signed) for key in ("change", "elsewhere", "difference")},
    )
    turned = zip(frame["become wrong"], frame["become right"], strict=True)
    shown["wrong / right"] = [f"{wrong} / {right}" for wrong, right in turned]
    columns = ["slice", "n", "affected"] + ([] if regression else ["wrong / right"])
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown[[*columns, "change", "interval", "elsewhere", "difference", "q"]],
        hide_index=True,
        width="stretch",
        height="content" if len(frame) <= 12 else 460,
        column_config={
            # Narrow enough for all of them in a small window.
            "slice": text(width=142),
            "n": number(width=38),
            "affected": number(
                width=60,
                help=f"Inputs of the slice from which {what} can be taken.",
            ),
            "wrong / right": text(
                width=80, help=f"Predictions that become wrong without {what}, and that become right."
            ),
            "change": text(width=62, help=f"Mean change of the {worth}, over all inputs of the slice."),
            "elsewhere": text(width=75, help="The same over all other inputs: the control."),
            "difference": text(width=75, help="Change in the slice less the change elsewhere."),
            "interval": text(
                "95% interval",
                width=118,
                help=f"Of the change; none where fewer than {FEWEST} are affected{', a pair being one' * paired}.",
            ),
            "q": number(
                width=45,
                format="%.3f",
                help="p of a permutation test (inputs' changes shuffled over the slices), corrected for all slices "
                f"looked at (Benjamini and Hochberg). Of the slices with q ≤ {FALSE_DISCOVERIES:g}, so large a part "
                "may be chance.",
            ),
        },
        placeholder="–",
        alt=f"Change of the {worth} without {what} in each slice, elsewhere, and their difference",
    )
    as_one = " (both of a minimal pair count, and for q are shuffled, as one)" if paired else ""
    st.caption(
        f"The {worth} is {worth_meaning(data.task)}; negative: {what} had helped. "
        f"Means over all n inputs of a slice of {escape(data.name)}, those included that can't change; "
        f"95% intervals over these{as_one}, rough where under some 20 are affected. Looking at many experts finds more."
    )
    downloads(frame, "knock-out-slices", f"{name}-knocked-out-by-slice")


def _signed(value: float) -> str:
    return signed(value, 3)


def _score(found: KnockOut, lost: tuple[float, tuple[float, float]]) -> None:
    metric = found.before.metric
    name = metric_name(metric)
    if found.before.labels is None:
        st.metric(capital(name), "not known")
        st.caption("These data have no labels; predictions and logits below can still be compared.")
        return
    change, bounds = lost
    st.metric(f"Change of {name}", points(change, metric))
    interval = f"95% interval {points_interval(bounds, metric)}, paired; " if bounds[0] == bounds[0] else ""
    st.caption(
        f"{interval}{score_text(found.before.score, metric)} with {_it(found)}, "
        f"{score_text(found.after.score, metric)} without, n = {found.before.n:,}"
    )


def _sides(found: KnockOut) -> str:
    if found.before.labels is None:
        return ""
    counts = found.agreement()
    return f"; {counts.only_b:,} become wrong, {counts.only_a:,} become right"


def _readable(frame: pd.DataFrame, noun: str, it: str) -> pd.DataFrame:
    """The table of a mean `noun` with numbers as they are read: signed changes, the interval in one column."""

    def plain(value: float) -> str:
        return f"{value:.4f}".replace("-", "−")

    def change(value: float) -> str:
        return signed(value, 4)

    return pd.DataFrame(
        {
            "class": frame["class"],
            f"mean {noun}": frame["before"].map(plain),
            f"without {it}": frame["after"].map(plain),
            "change": frame["change"].map(change),
            "95% interval": [
                f"{change(low)} to {change(high)}" if low == low else "–"
                for low, high in zip(frame["low"], frame["high"])
            ],
            f"change among {'its' if it == 'it' else 'their'} inputs": frame["among its inputs"].map(change),
        }
    )
