"""What Expert usage computes, when a part is opened; kept for all sessions, so nobody may change a result."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis import importance
from shrp.analysis.attention import AttentionRoles, LayerAttention, layer_attention
from shrp.analysis.attention import attention_roles as roles_of
from shrp.analysis.importance import KnockOuts
from shrp.analysis.knock_out import KnockOut, Prefix, knock_out_effect
from shrp.analysis.routes import ShuffledRoutes, shuffle_routes, usage_difference
from shrp.analysis.specialisation import Grouping, specialisation
from shrp.analysis.usage import UsageStats
from shrp.analysis.words import TokenCounts, WordCounts, count_tokens, count_words
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.statistics import mix_frame
from shrp.model.convert import expert_layers
from ui import measurements
from ui.store import Progress, Remaining, kept, once, results


def words(data: TextData) -> WordCounts:
    """Words of every example."""
    return _words(data, data.source_fingerprint)


@st.cache_resource(max_entries=6, show_spinner="Counting words …")
def _words(_data: TextData, fingerprint: str) -> WordCounts:
    return count_words(_data.texts)


def tokens(checkpoint: Checkpoint, data: TextData) -> TokenCounts:
    """Tokens of every expert, for a checkpoint that routes tokens."""

    def work(progress: Progress) -> TokenCounts:
        cut = checkpoint.info.max_length
        return count_tokens(checkpoint.model, checkpoint.tokenizer, data, max_length=cut, progress=progress)

    key = (checkpoint.fingerprint, data.source_fingerprint)
    return once("expert-tokens", 3, key, "Counting tokens", work)


def attention(checkpoint: Checkpoint, text: tuple[str, ...], layer: int) -> LayerAttention:
    """Attention of one layer in one text, cut as for usage. Raises as `shrp.analysis.attention.layer_attention`."""
    cut = checkpoint.info.max_length
    parts = checkpoint.model, checkpoint.tokenizer
    key = (checkpoint.fingerprint, text, layer, cut)
    return kept("attention", 16, key, lambda: layer_attention(*parts, text, layer, max_length=cut))


def attention_roles(checkpoint: Checkpoint, data: TextData) -> AttentionRoles:
    """Where all experts attend to, on a sample. Raises as `shrp.analysis.attention.attention_roles`."""

    def work(progress: Progress) -> AttentionRoles:
        cut = checkpoint.info.max_length
        return roles_of(checkpoint.model, checkpoint.tokenizer, data, max_length=cut, progress=progress)

    key = (checkpoint.fingerprint, data.source_fingerprint, data.name, data.pairs)
    return once("attention-roles", 6, key, "Measuring where every expert attends to", work)


def mix(
    checkpoint: Checkpoint, data: TextData, stats: UsageStats, layer: int, expert: int, by: str
) -> pd.DataFrame:
    """The expert's examples by a grouping of `measurements.groups` (`shrp.evaluation.statistics.mix_frame`)."""

    def work(_: Progress) -> pd.DataFrame:
        top1 = stats.top1[layer]
        groups = measurements.groups(checkpoint, data, stats)[by]
        return mix_frame(top1[:, expert], top1.sum(1), groups, pairs=pairs_of(data))

    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, layer, expert, by)
    return once("mixes", 256, key, "Comparing its examples with all others", work)


def difference(
    checkpoint: Checkpoint,
    data: TextData,
    stats: UsageStats,
    of: str,
    group: tuple[str, np.ndarray],
    against: tuple[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`shrp.analysis.routes.usage_difference` of two groups.

    Args:
        of: `share` or `mean_probs`.
        group, against: name and mask `(N,)`.
    """
    return once(
        "usage differences",
        32,
        (checkpoint.fingerprint, data.fingerprint, data.pairs, of, group[0], against[0]),
        "Comparing the two groups",
        lambda progress: usage_difference(
            stats, group[1], against[1], of, pairs=pairs_of(data), progress=progress
        ),
    )


def knocked_out(checkpoint: Checkpoint, data: TextData, stats: UsageStats, cell: tuple[int, int]) -> KnockOut:
    """The model without one expert, on all of the data. Raises as `shrp.analysis.knock_out.knock_out_effect`."""
    layer, expert = cell

    def work(progress: Progress) -> KnockOut:
        single = expert_layers(checkpoint.model)[layer].top_k == 1
        return knock_out_effect(
            checkpoint.model,
            checkpoint.tokenizer,
            data,
            measurements.routed_evaluation(checkpoint, data, stats, with_interval=False),
            (cell,),
            chosen=stats.top1[layer][:, expert] > 0 if single else None,
            prefix=_prefix(checkpoint, data),
            max_length=checkpoint.info.max_length,
            progress=progress,
        )

    key = (checkpoint.fingerprint, data.fingerprint, cell)
    return once("knock-out", 128, key, f"Running examples without expert {expert} of layer {layer}", work)


def score_change(
    checkpoint: Checkpoint, data: TextData, found: KnockOut
) -> tuple[float, tuple[float, float]]:
    """By how much the score changes in a knock-out, and its 95% interval; nan without labels."""
    key = (checkpoint.fingerprint, data.fingerprint, found.experts)
    return kept("knock-out scores", 256, key, found.score_change)


class Losses(NamedTuple):
    """What a knock-out changes, with intervals and tests, which take seconds on many examples."""

    logits: pd.DataFrame
    slices: pd.DataFrame


def losses(checkpoint: Checkpoint, data: TextData, found: KnockOut) -> Losses:
    """The tables of a knock-out on the data."""

    def work(progress: Progress) -> Losses:
        pairs = pairs_of(data)
        return Losses(found.logit_changes(pairs=pairs), found.by_slice(pairs, progress))

    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, found.experts)
    return once("knock-out losses", 128, key, "Testing the change in each slice", work)


def groupings(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> list[Grouping]:
    """How much class, answer, slice and length tell about routes (`shrp.analysis.specialisation`)."""
    lengths = measurements.read_lengths(checkpoint, data)
    answers = measurements.answers(checkpoint, data, stats)
    return once(
        "specialisation",
        16,
        (checkpoint.fingerprint, data.fingerprint, data.name, data.pairs),
        "Permuting groups",
        lambda progress: specialisation(stats, data, lengths, answers, progress=progress),
    )


def shuffled(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> ShuffledRoutes:
    """The model with its routes exchanged among examples. Raises as `shrp.analysis.routes.shuffle_routes`."""

    def work(progress: Progress) -> ShuffledRoutes:
        found = shuffle_routes(
            checkpoint.model,
            checkpoint.tokenizer,
            data,
            stats,
            prefix=_prefix(checkpoint, data),
            max_length=checkpoint.info.max_length,
            progress=progress,
        )
        _ = found.frame  # its intervals take seconds too: computed here, once
        return found

    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    return once("exchanged routes", 16, key, "Exchanging routes", work)


def _prefix(checkpoint: Checkpoint, data: TextData) -> Prefix:
    """Two are kept, as each may hold hundreds of megabytes."""
    key = (checkpoint.fingerprint, data.source_fingerprint)
    return kept("prefixes", 2, key, lambda: Prefix(checkpoint.model))


def experts_knocked_out(checkpoint: Checkpoint, data: TextData, n: int, meaning: str) -> KnockOuts:
    """Every expert knocked out in turn on `n` examples; blocks that are done already cost nothing.

    Raises as `shrp.analysis.importance.knock_outs`.
    """
    run = partial(importance.knock_outs, meaning=meaning)
    return _in_blocks(checkpoint, data, n, meaning, "experts", run)


def heads_knocked_out(checkpoint: Checkpoint, data: TextData, n: int) -> KnockOuts:
    """Every head of every dense layer knocked out in turn, as `experts_knocked_out`."""
    return _in_blocks(checkpoint, data, n, "heads", "heads", partial(importance.knock_outs, heads=True))


def _in_blocks(
    checkpoint: Checkpoint, data: TextData, n: int, kind: Hashable, what: str, run: Callable[..., KnockOuts]
) -> KnockOuts:
    """The blocks' results as one: from the store, or computed now under a progress bar and kept there.

    Args:
        kind: of knock-out, for the store.
        what: is knocked out, in words.
        run: computes a block's result.
    """
    # Room for QQP's 1,264 blocks, the largest validation data; with fewer, a second look would start again.
    store, parts, bar, left = results(f"{what} knocked out", 1300), [], st.empty(), Remaining()
    try:
        for i, rows in enumerate(importance.blocks(data, n)):
            key = (checkpoint.fingerprint, data.source_fingerprint, kind, i, len(rows))
            if (found := store.get(key)) is None:
                done = sum(part.n for part in parts)

                def show(steps: int, of: int, done: int = done, size: int = len(rows)) -> None:
                    examples = done + size * steps / of
                    share = min(examples / n, 1.0)
                    bar.progress(
                        share, f"Knocking out {what}: {examples:,.0f} of {n:,} examples{left.said(share)}"
                    )

                show(0, 1)
                cut = checkpoint.info.max_length
                found = run(checkpoint.model, checkpoint.tokenizer, data, rows, max_length=cut, progress=show)
                store.put(key, found)
            parts.append(found)
    finally:
        bar.empty()
    return importance.merge(parts)
