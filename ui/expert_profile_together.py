"""Several experts knocked out at once: which others go along with one, and what is lost beyond the sum."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.checkpoint import Checkpoint
from shrp.data import TextData
from shrp.knockout import Joint, KnockOut
from shrp.usage import UsageStats
from ui import expert_profile_results as made
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
    if WITH in st.session_state:  # another expert, checkpoint or data may have been picked
        st.session_state[WITH] = [name for name in st.session_state[WITH] if name in known]
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


def successors(stats: UsageStats, cell: Cell) -> str:
    """Where an expert's inputs go without it, in a sentence; only that it is told, where more than one expert is taken
    or every token has its own.
    """
    layer, expert = cell
    mine = stats.top1[layer][:, expert] > 0
    if stats.unit == "tokens" or not mine.any():
        return "The router picks the next one in its layer."
    left = stats.probs[layer][mine].copy()
    left[:, expert] = -1.0
    counts = pd.Series(left.argmax(1)).value_counts()
    named = ", ".join(f"{e} ({n / mine.sum():.0%})" for e, n in counts.head(_NAMED).items())
    rest = f" and {len(counts) - _NAMED} others" if len(counts) > _NAMED else ""
    return (
        f"The router picks the next one in its layer: of its {int(mine.sum()):,} inputs' first choices that is expert "
        f"{named}{rest}."
    )


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
            "affected": st.column_config.NumberColumn(help="Inputs that an expert is taken from."),
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
        return f"{text}."
    text += f" (95% interval {signed(low, 3)} to {signed(high, 3)}, over inputs)"
    if high < 0:
        return f"{text}. **More is lost together**: while one is left, it does in part what the others would have done."
    if low > 0:
        return f"{text}. **Less is lost together** than one by one: in part it is the same loss."
    return f"{text}, no more than chance may be."
