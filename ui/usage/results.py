"""What Expert usage computes, when a part is opened; kept for all sessions, so nobody may change a result.

Each function raises as the function of `shrp.analysis` that it calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from shrp.analysis import importance
from shrp.analysis.attention import AttentionRoles
from shrp.analysis.attention import attention_roles as roles_of
from shrp.analysis.importance import KnockOut, KnockOuts, Prefix, knock_out_effect
from shrp.analysis.routes import ShuffledRoutes, shuffle_routes
from shrp.analysis.specialisation import Grouping, specialisation
from shrp.analysis.usage import UsageStats
from shrp.analysis.words import TokenCounts, WordCounts, count_tokens, count_words
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData, pairs_of
from shrp.evaluation.statistics import mix_frame
from shrp.model.convert import expert_layers
from ui import measurements
from ui.store import Progress, kept, once, results


@dataclass(frozen=True)
class Expert:
    """One expert of a checkpoint, and the data that its usage was measured on."""

    checkpoint: Checkpoint
    data: TextData
    stats: UsageStats
    layer: int
    expert: int
    name: str
    """Beginning of the names of files."""

    @property
    def cell(self) -> tuple[int, int]:
        """Layer and number."""
        return self.layer, self.expert

    @property
    def top_k(self) -> int:
        """Experts of the layer that an example, or a token, takes."""
        return expert_layers(self.checkpoint.model)[self.layer].top_k


def words(data: TextData) -> WordCounts:
    """Words of every example."""
    work = lambda progress: count_words(data.texts)  # noqa: E731
    return once("words", 6, data.source_fingerprint, "Counting words", work)


def tokens(checkpoint: Checkpoint, data: TextData) -> TokenCounts:
    """Tokens of every expert, for a checkpoint that routes tokens."""
    parts, cut = (checkpoint.model, checkpoint.tokenizer, data), checkpoint.info.max_length
    key = (checkpoint.fingerprint, data.source_fingerprint)
    work = lambda progress: count_tokens(*parts, max_length=cut, progress=progress)  # noqa: E731
    return once("expert-tokens", 3, key, "Counting tokens", work)


def attention_roles(checkpoint: Checkpoint, data: TextData) -> AttentionRoles:
    """Where all experts attend to, on a sample."""
    parts, cut = (checkpoint.model, checkpoint.tokenizer, data), checkpoint.info.max_length
    key = (checkpoint.fingerprint, data.source_fingerprint, data.name, data.pairs)
    work = lambda progress: roles_of(*parts, max_length=cut, progress=progress)  # noqa: E731
    return once("attention-roles", 6, key, "Measuring where every expert attends to", work)


def mix(one: Expert, by: str) -> pd.DataFrame:
    """The expert's examples by a grouping of `measurements.groups` (`shrp.evaluation.statistics.mix_frame`)."""

    def work(_: Progress) -> pd.DataFrame:
        top1 = one.stats.top1[one.layer]
        groups = measurements.groups(one.checkpoint, one.data, one.stats)[by]
        return mix_frame(top1[:, one.expert], top1.sum(1), groups, pairs=pairs_of(one.data))

    key = (one.checkpoint.fingerprint, one.data.fingerprint, one.data.pairs, one.cell, by)
    return once("mixes", 256, key, "Comparing its examples with all others", work)


def knocked_out(one: Expert) -> KnockOut:
    """The model without one expert, on all of the data."""
    checkpoint, data, stats = one.checkpoint, one.data, one.stats

    def work(progress: Progress) -> KnockOut:
        return knock_out_effect(
            checkpoint.model,
            checkpoint.tokenizer,
            data,
            measurements.routed_evaluation(checkpoint, data, stats, with_interval=False),
            (one.cell,),
            chosen=stats.top1[one.layer][:, one.expert] > 0 if one.top_k == 1 else None,
            prefix=_prefix(checkpoint, data),
            max_length=checkpoint.info.max_length,
            progress=progress,
        )

    key = (checkpoint.fingerprint, data.fingerprint, one.cell)
    return once("knock-out", 128, key, f"Running examples without expert {one.expert} of layer {one.layer}", work)


def score_lost(checkpoint: Checkpoint, data: TextData, found: KnockOut) -> tuple[float, tuple[float, float]]:
    """What a knock-out costs of the score, negative where it gains, and the 95% interval; nan without labels."""
    key = (checkpoint.fingerprint, data.fingerprint, found.experts)
    change, (low, high) = kept("knock-out scores", 256, key, found.score_change)
    return -change, (-high, -low)


def losses(checkpoint: Checkpoint, data: TextData, found: KnockOut) -> pd.DataFrame:
    """What a knock-out costs in each slice: `KnockOut.by_slice`."""
    key = (checkpoint.fingerprint, data.fingerprint, data.pairs, found.experts)
    label = "Testing the change in each slice"
    return once("knock-out losses", 128, key, label, lambda _: found.by_slice(pairs_of(data)))


def groupings(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> list[Grouping]:
    """Mutual information of class, answer, slice and length with routes (`shrp.analysis.specialisation`)."""
    lengths = measurements.read_lengths(checkpoint, data)
    work = partial(specialisation, stats, data, lengths, measurements.answers(checkpoint, data, stats))
    key = (checkpoint.fingerprint, data.fingerprint, data.name, data.pairs)
    return once("specialisation", 16, key, "Permuting groups", lambda progress: work(progress=progress))


def shuffled(checkpoint: Checkpoint, data: TextData, stats: UsageStats) -> ShuffledRoutes:
    """The model with its routes exchanged among examples."""

    def work(progress: Progress) -> ShuffledRoutes:
        options = {"prefix": _prefix(checkpoint, data), "max_length": checkpoint.info.max_length}
        found = shuffle_routes(
            checkpoint.model, checkpoint.tokenizer, data, stats, **options, progress=progress
        )
        _ = found.frame  # its intervals take seconds too: computed here, once
        return found

    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    return once("exchanged routes", 16, key, "Exchanging routes", work)


def _prefix(checkpoint: Checkpoint, data: TextData) -> Prefix:
    """Two are kept, as each may hold hundreds of megabytes."""
    key = (checkpoint.fingerprint, data.source_fingerprint)
    return kept("prefixes", 2, key, lambda: Prefix(checkpoint.model))


def knocked_out_in_turn(checkpoint: Checkpoint, data: TextData, n: int, of: str) -> KnockOuts:
    """Every expert, or every head of the dense layers, knocked out in turn on `n` examples; `of` is `expert` or `head`."""
    parts, heads, cut = (checkpoint.model, checkpoint.tokenizer, data), of == "head", checkpoint.info.max_length
    key = (checkpoint.fingerprint, data.source_fingerprint)
    # Blocks are kept, for a larger `n`. Room for QQP's 1,264; with fewer, a second look would start again.
    store = results(f"{of}s knocked out", 1300)

    def keep(block: tuple[int, int], make: Callable[[], KnockOuts]) -> KnockOuts:
        if (found := store.get((*key, block))) is None:
            store.put((*key, block), found := make())
        return found

    def work(progress: Progress) -> KnockOuts:
        return importance.in_turn(*parts, n, heads=heads, max_length=cut, progress=progress, keep=keep)

    return once("knocked out in turn", 16, (*key, n, of), f"Knocking out {of}s, examples", work)
