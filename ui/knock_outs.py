"""Every expert knocked out in turn on a data set, a block of inputs at a time, shared by all sessions."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import streamlit as st

from shrp.attribution import importance
from shrp.attribution.importance import ABLATED, MEANINGS, KnockOuts
from shrp.checkpoint import Checkpoint
from shrp.data import TextData
from ui.remaining import Remaining
from ui.store import results


def knocked_out(checkpoint: Checkpoint, data: TextData, n: int, meaning: str) -> KnockOuts:
    """Every expert knocked out on `n` inputs of the data; blocks done before cost nothing.

    Raises as `shrp.attribution.importance.knock_outs`.
    """
    parts, bar, left = [], st.empty(), Remaining()
    try:
        for key, rows in _blocks(checkpoint, data, n, meaning):
            if (found := _store().get(key)) is None:
                done = sum(part.n for part in parts)

                def show(layers: int, of: int, done: int = done, size: int = len(rows)) -> None:
                    inputs = done + size * layers / of
                    share = min(inputs / n, 1.0)
                    text = f"Knocking experts out: {inputs:,.0f} of {n:,} inputs{left.said(share)}"
                    bar.progress(share, text)

                show(0, 1)
                found = importance.knock_outs(
                    checkpoint.model,
                    checkpoint.tokenizer,
                    data,
                    rows,
                    meaning=meaning,
                    max_length=checkpoint.info.max_length,
                    progress=show,
                )
                _store().put(key, found)
            parts.append(found)
    finally:
        bar.empty()
    return importance.merge(parts)


def ablation(checkpoint: Checkpoint, data: TextData) -> dict[int, np.ndarray]:
    """Layer -> by how much the answer changes without each expert `(H,)`, as `shrp.attribution.importance.ablation`.

    Raises as that.
    """
    return knocked_out(checkpoint, data, min(ABLATED, len(data)), MEANINGS[0]).sizes()


def ablation_known(checkpoint: Checkpoint, data: TextData) -> dict[int, np.ndarray] | None:
    """What `ablation` would give, where nothing must be measured for it first."""
    keys = [key for key, _ in _blocks(checkpoint, data, min(ABLATED, len(data)), MEANINGS[0])]
    parts = [_store().get(key) for key in keys]
    return None if None in parts or not parts else importance.merge(parts).sizes()


def _store():
    """Of blocks; the largest validation data at hand, QQP's, make 1,264, or a second look at them would begin anew."""
    return results("expert knock-outs", 1300)


def _blocks(
    checkpoint: Checkpoint, data: TextData, n: int, meaning: str
) -> list[tuple[Hashable, np.ndarray]]:
    """Each block's place in the store, and its rows of the data."""
    of = checkpoint.fingerprint, data.source_fingerprint, meaning
    return [((*of, i, len(rows)), rows) for i, rows in enumerate(importance.blocks(data, n))]
