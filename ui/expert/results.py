"""What the parts of an expert's profile are made of, computed when a part is opened and kept for all sessions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.attention import AttentionRoles, LayerAttention, layer_attention, model_attention
from shrp.analysis.attention import attention_roles as roles_of
from shrp.analysis.knock_out import Joint, KnockOut, Prefix, joint, knock_out_effect
from shrp.analysis.routes import ShuffledRoutes, shuffle_routes
from shrp.analysis.usage import UsageStats
from shrp.analysis.words import TokenCounts, WordCounts, count_tokens, count_words
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.batching import longest_input
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.statistics import mix_frame
from shrp.model.convert import router_layers
from ui import measurements
from ui.store import Progress, kept, once


def words(data: TextData) -> WordCounts:
    """Words of every input."""
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


def attention(
    checkpoint: Checkpoint, text: tuple[str, ...], layer: int, *, whole: bool = False
) -> LayerAttention:
    """Attention of one layer in one input. Raises as `shrp.analysis.attention.layer_attention`.

    Args:
        whole: reads as much as the model can, as for typed texts; else as usage and scores do.
    """
    cut = longest_input(checkpoint.model, checkpoint.tokenizer) if whole else checkpoint.info.max_length
    parts = checkpoint.model, checkpoint.tokenizer
    key = (checkpoint.fingerprint, text, layer, cut)
    return kept("attention", 16, key, lambda: layer_attention(*parts, text, layer, max_length=cut))


def attention_everywhere(checkpoint: Checkpoint, text: tuple[str, ...]) -> list[LayerAttention]:
    """Attention of all layers in one input, read as a typed text. Raises as
    `shrp.analysis.attention.model_attention`.
    """
    parts = checkpoint.model, checkpoint.tokenizer
    key = (checkpoint.fingerprint, text)
    return kept(
        "attention-everywhere",
        4,
        key,
        lambda: model_attention(*parts, text, max_length=longest_input(*parts)),
    )


def attention_roles(checkpoint: Checkpoint, data: TextData) -> AttentionRoles:
    """Where all experts attend to, on a sample. Raises as `shrp.analysis.attention.attention_roles`."""

    def work(progress: Progress) -> AttentionRoles:
        cut = checkpoint.info.max_length
        return roles_of(checkpoint.model, checkpoint.tokenizer, data, max_length=cut, progress=progress)

    key = (checkpoint.fingerprint, data.source_fingerprint, data.name, data.pairs)
    return once("attention-roles", 6, key, "Seeing where every expert attends to", work)


def knocked_out(
    checkpoint: Checkpoint, data: TextData, stats: UsageStats, experts: Collection[tuple[int, int]]
) -> KnockOut:
    """The model without some experts, on all of the data. Raises as `shrp.analysis.knock_out.knock_out_effect`."""
    experts = tuple(sorted(experts))

    def work(progress: Progress) -> KnockOut:
        routed = router_layers(checkpoint.model)
        single = all(routed[layer].top_k == 1 for layer, _ in experts)
        uses = [stats.top1[layer][:, expert] > 0 for layer, expert in experts]
        return knock_out_effect(
            checkpoint.model,
            checkpoint.tokenizer,
            data,
            measurements.routed_evaluation(checkpoint, data, stats, with_interval=False),
            experts,
            chosen=np.any(uses, axis=0) if single else None,
            prefix=_prefix(checkpoint, data),
            max_length=checkpoint.info.max_length,
            progress=progress,
        )

    key = (checkpoint.fingerprint, data.fingerprint, experts)
    return once("knock-out", 128, key, f"Running inputs without {_named(experts)}", work)


def _named(experts: Sequence[tuple[int, int]]) -> str:
    """One expert, or how many, in words."""
    if len(experts) > 1:
        return f"{len(experts)} experts"
    return f"expert {experts[0][1]} of layer {experts[0][0]}"


def joint_worth(
    checkpoint: Checkpoint, data: TextData, together: KnockOut, alone: Sequence[KnockOut]
) -> Joint:
    """`shrp.analysis.knock_out.joint` of labelled data, kept."""
    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, together.experts)
    label = "Weighing what is lost together"
    return once("joint worth", 64, key, label, lambda progress: joint(together, alone, pairs_of(data)))


class Losses(NamedTuple):
    """What a knock-out costs, with intervals and tests, which take seconds of many inputs."""

    score: tuple[float, tuple[float, float]]
    logits: pd.DataFrame
    slices: pd.DataFrame


def losses(checkpoint: Checkpoint, data: TextData, found: KnockOut) -> Losses:
    """The tables of a knock-out on the data."""

    def work(progress: Progress) -> Losses:
        pairs = pairs_of(data)
        score, logits = found.score_change(), found.logit_changes(pairs=pairs)
        return Losses(score, logits, found.by_slice(pairs, progress))

    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, found.experts)
    return once("knock-out losses", 128, key, "Weighing what is lost against chance", work)


def mix(
    checkpoint: Checkpoint, data: TextData, stats: UsageStats, layer: int, expert: int, by: str
) -> pd.DataFrame:
    """The expert's inputs by a grouping of `measurements.groups`."""

    def work(_: Progress) -> pd.DataFrame:
        top1 = stats.top1[layer]
        groups = measurements.groups(checkpoint, data, stats)[by]
        return mix_frame(top1[:, expert], top1.sum(1), groups, pairs=pairs_of(data))

    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, layer, expert, by)
    return once("mixes", 256, key, "Comparing its inputs with all others", work)


def shuffled(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> ShuffledRoutes:
    """The model with its routes exchanged among inputs. Raises as `shrp.analysis.routes.shuffle_routes`."""

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
        _ = found.frame  # whose intervals take seconds too: now, while others wait for it
        return found

    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    return once("exchanged routes", 16, key, "Exchanging routes", work)


def _prefix(checkpoint: Checkpoint, data: TextData) -> Prefix:
    """Two are kept, as each may hold hundreds of megabytes."""
    key = (checkpoint.fingerprint, data.source_fingerprint)
    return kept("prefixes", 2, key, lambda: Prefix(checkpoint.model))
