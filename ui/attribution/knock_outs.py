"""Every expert or head knocked out in turn on a data set, a block of inputs at a time, shared by all sessions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

import numpy as np
import streamlit as st

from shrp.analysis import importance
from shrp.analysis.importance import ABLATED, MEANINGS, KnockOuts
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from ui.remaining import Remaining
from ui.store import ResultStore, results


def knocked_out(checkpoint: Checkpoint, data: TextData, n: int, meaning: str) -> KnockOuts:
    """Every expert knocked out on `n` inputs of the data; blocks done before cost nothing.

    Raises as `shrp.analysis.importance.knock_outs`.
    """
    run = partial(importance.knock_outs, meaning=meaning)
    return _in_blocks(checkpoint, data, _blocks(checkpoint, data, n, meaning), _store(), "experts", run)


def heads_knocked_out(checkpoint: Checkpoint, data: TextData, n: int) -> KnockOuts:
    """Every head of every dense layer knocked out on `n` inputs of the data, as `knocked_out`.

    Raises as `shrp.analysis.importance.head_knock_outs`.
    """
    parts, store = _blocks(checkpoint, data, n, "heads"), results("head knock-outs", 1300)
    return _in_blocks(checkpoint, data, parts, store, "heads", importance.head_knock_outs)


def ablation(checkpoint: Checkpoint, data: TextData) -> dict[int, np.ndarray]:
    """Layer -> by how much the answer changes without each expert `(H,)`, as `shrp.analysis.importance.ablation`.

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


def _in_blocks(
    checkpoint: Checkpoint,
    data: TextData,
    blocks: list[tuple[Hashable, np.ndarray]],
    store: ResultStore,
    what: str,
    run: Callable[..., KnockOuts],
) -> KnockOuts:
    """The blocks' results as one: from the store, or made now under a progress bar and kept there.

    Args:
        what: is knocked out, in words.
        run: makes a block's result.
    """
    parts, bar, left = [], st.empty(), Remaining()
    n = sum(len(rows) for _, rows in blocks)
    try:
        for key, rows in blocks:
            if (found := store.get(key)) is None:
                done = sum(part.n for part in parts)

                def show(steps: int, of: int, done: int = done, size: int = len(rows)) -> None:
                    inputs = done + size * steps / of
                    share = min(inputs / n, 1.0)
                    text = f"Knocking {what} out: {inputs:,.0f} of {n:,} inputs{left.said(share)}"
                    bar.progress(share, text)

                show(0, 1)
                found = run(
                    checkpoint.model,
                    checkpoint.tokenizer,
                    data,
                    rows,
                    max_length=checkpoint.info.max_length,
                    progress=show,
                )
                store.put(key, found)
            parts.append(found)
    finally:
        bar.empty()
    return importance.merge(parts)
