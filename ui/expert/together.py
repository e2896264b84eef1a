"""Several experts knocked out at once: which others go along with one, and what is lost beyond the sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.knock_out import FEWEST_BEYOND, Joint, KnockOut
from shrp.analysis.usage import UsageStats
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.phrases import counted
from ui.bound import leave_known
from ui.expert import results as made
from ui.text import signed

Cell = tuple[int, int]
WITH = "along"
"""Key of the widget, in the session's state and in the URL."""
_NAMED = 3


def said_of(cell: Cell) -> str:
    """An expert in words."""
    return f"layer {cell[0]}, expert {cell[1]}"


def pick(stats: UsageStats, cell: Cell) -> tuple[Cell, ...]:
    """The experts that are to be knocked out along with one; none at first."""
    known = {
        said_of((layer, expert)): (layer, expert)
        for layer in stats.layers
        for expert in range(stats.num_experts)
        if (layer, expert) != cell
    }
    leave_known(WITH, known)
    picked = st.multiselect(
        "Knocked out along with it",
        list(known),
        key=WITH,
        bind="query-params",
        placeholder="none: this expert alone",
        help="Experts of any layer. Together they may be worth more than one by one, where each stands in for the "
        "others.",
    )
    return tuple(known[name] for name in picked if name in known)


def successors(
    stats: UsageStats, layer: int, taken: Sequence[int], top_k: int = 1, *, as_now: bool = False
) -> str:
    """Where a layer's inputs go without some of its experts, in a sentence; of tokens only that they go on.

    Args:
        as_now: experts below are taken away too, so what enters the layer will be another.
    """
    plain = "The router picks the next one in its layer."
    if stats.unit == "tokens":
        return plain
    probs = stats.probs[layer]
    left = probs.copy()
    left[:, taken] = -1.0
    before, after = _top(probs, top_k), _top(left, min(top_k, probs.shape[1] - len(taken)))
    mine = before[:, taken].any(1)
    if not mine.any():
        return plain
    counts = pd.Series((after & ~before)[mine].sum(0)).sort_values(ascending=False, kind="stable")
    counts = counts[counts > 0]
    if counts.empty:
        return "The router makes do with the experts of its layer that are left."
    named = ", ".join(f"{e} ({n / mine.sum():.0%})" for e, n in counts.head(_NAMED).items())
    rest = f" and {counted(len(counts) - _NAMED, 'other')}" if len(counts) > _NAMED else ""
    return (
        f"The router picks the next in its layer: in layer {layer}, for {int(mine.sum()):,} inputs, expert "
        f"{named}{rest}{', by what enters the layer as it is now' * as_now}."
    )


def _top(probs: np.ndarray, k: int) -> np.ndarray:
    """Which experts are among the `k` most probable of each input, bool `(N, H)`."""
    found = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(found, np.argsort(-probs, axis=1, kind="stable")[:, :k], True, axis=1)
    return found


def beyond_the_sum(
    checkpoint: Checkpoint, data: TextData, stats: UsageStats, found: KnockOut, worth: str
) -> None:
    """What several experts are worth together, beside what each is worth alone; of labelled data."""
    if data.labels is None:
        return
    alone = [made.knocked_out(checkpoint, data, stats, (cell,)) for cell in found.experts]
    whole = made.joint_worth(checkpoint, data, found, alone)
    st.markdown(f"**Together and one by one**: {verdict(whole, worth)}")
    rows = [
        (said_of(cell), len(one.affected), one.changes().mean()) for cell, one in zip(found.experts, alone)
    ]
    rows += [("the sum of these", None, whole.sum), ("together", len(found.affected), whole.together)]
    frame = pd.DataFrame(rows, columns=["without", "affected", "change"]).astype({"affected": "Int64"})
    st.dataframe(
        frame.assign(change=frame["change"].map(lambda value: signed(value, 4))),
        hide_index=True,
        width="content",
        height="content",
        column_config={
            "affected": st.column_config.NumberColumn(help="Inputs that use one of them."),
            "change": st.column_config.TextColumn(
                f"change of the {worth}", help=f"Mean over all n = {found.before.n:,} inputs."
            ),
        },
        placeholder="–",
        alt=f"Mean change of the {worth} without each expert alone, their sum, and without all of them",
    )


def verdict(found: Joint, worth: str) -> str:
    """What a joint knock-out shows, in words."""
    low, high = found.interval
    text = (
        f"the {worth} changes by {signed(found.together, 3)} without all of them, and by {signed(found.sum, 3)} as the "
        f"sum of each alone; {signed(found.beyond, 3)} beyond the sum"
    )
    if low != low:
        few = (
            ""
            if not found.beyond
            else f", by fewer than {FEWEST_BEYOND} inputs, too few to tell anything of others"
        )
        return f"{text}{few}."
    text += f" (95% interval {signed(low, 3)} to {signed(high, 3)}, over inputs)"
    if low <= 0 <= high:
        return f"{text}, no more than chance may be."
    if max(found.together, found.sum) <= 0:
        return f"{text}. " + (
            "**More is lost together**: one that is left may do in part what the others would have done."
            if high < 0
            else "**Less is lost together** than one by one: in part it may be the same loss."
        )
    if min(found.together, found.sum) >= 0:
        return f"{text}. **{'Less' if high < 0 else 'More'} is gained together** than one by one."
    return f"{text}."
