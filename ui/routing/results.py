"""What the Routing page computes of a typed sentence, kept in memory for all sessions.

Each function raises as the function of `shrp.analysis` that it calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import streamlit as st
import torch

from shrp.analysis.attention import LayerAttention, layer_attention, model_attention
from shrp.analysis.attribution import experts, instance, tokens, trust
from shrp.analysis.attribution.instance import Instance, against, prefer, prepare
from shrp.analysis.attribution.tokens import METHODS, WordScores
from shrp.analysis.explore import Exploration, WhatIf, explore, what_if
from shrp.analysis.importance import check_can_pick_next
from shrp.analysis.patching import Patched, patch
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.batching import longest_input
from shrp.errors import PlanError
from shrp.evaluation.metrics import to_predictions
from shrp.model.convert import expert_layers
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from ui import loaders
from ui.store import Progress, kept, once

ABLATION = METHODS[2]
"""Leave one word out: the method that comes first, since it needs no baseline and routes live."""
QUICK = 8_192
"""Tokens that may pass the whole model unasked: a few seconds on two cores."""
_LEAST = 256
"""Groups of experts that Shapley values take at least."""


def explored(
    checkpoint: Checkpoint, inputs: Sequence[tuple[str, ...]], route: ForcedRoute = AS_ROUTED
) -> list[Exploration]:
    """Predictions and routes."""

    def work() -> list[Exploration]:
        with st.spinner("Running the model …"):
            return explore(checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, inputs, route=route)

    return kept("explored", 64, (checkpoint.fingerprint, tuple(inputs), route.text), work)


def what_if_cost(checkpoint: Checkpoint, tokens: int) -> float:
    """Tokens that pass the whole model for a what-if grid of a sentence of so many tokens."""
    depth = checkpoint.model.config.num_hidden_layers
    return sum(
        tokens * one.num_experts * (depth - i) / depth for i, one in expert_layers(checkpoint.model).items()
    )


def what_if_grid(
    checkpoint: Checkpoint, text: tuple[str, ...], route: ForcedRoute = AS_ROUTED, token: int | None = None
) -> WhatIf:
    """Every expert of every routed layer forced in turn."""
    parts = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, text
    key = checkpoint.fingerprint, text, route, token
    work = partial(what_if, *parts, route=route, token=token)
    return once("what-if", 128, key, "Forcing experts, layers done", lambda p: work(progress=p))


@dataclass(frozen=True, eq=False)
class Explained:
    """One sentence, split into words, with its outputs."""

    checkpoint: Checkpoint
    instance: Instance
    logits: np.ndarray
    """`(C,)`, in the order of the task's labels."""

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What results are kept under."""
        one = self.instance
        return self.checkpoint.fingerprint, one.text, one.unit, one.preference, one.contrast

    @property
    def prediction(self) -> int:
        """The predicted class; 0 for regression."""
        return int(self.logits.argmax())

    def by(self, unit: str) -> Explained:
        """The same sentence in longer pieces than words."""
        return replace(self, instance=instance.in_units(self.instance, unit))

    def preferring(self, layer: int, expert: int, rather_than: int) -> Explained:
        """The same sentence with a router's preference to explain."""
        return replace(self, instance=prefer(self.instance, layer, expert, rather_than))

    def against(self, output: int, rather_than: int) -> Explained:
        """The same sentence with the difference of two logits to explain."""
        return replace(self, instance=against(self.instance, output, rather_than))

    def quick_unit(self) -> str | None:
        """The shortest unit whose pieces can be left out one by one in a few seconds; None where none can."""
        most = min(QUICK // len(self.instance.tokens), instance.MOST)
        for unit in instance.UNITS:
            pieces = len(instance.in_units(self.instance, unit).words)
            if pieces <= most and (pieces > 1 or unit == instance.UNITS[0]):
                return unit
        return None


def explained(checkpoint: Checkpoint, text: tuple[str, ...]) -> Explained:
    """One sentence, encoded and run once. Raises DataError, also where the outputs are not finite."""

    def work(progress: Progress) -> Explained:
        instance = prepare(checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, text)
        with torch.inference_mode():
            logits = instance.outputs(instance.embeddings)[0].cpu().numpy()
        to_predictions(instance.task, logits[None])
        return Explained(checkpoint, instance, logits)

    # No more than there are models in memory, since each of these holds one.
    key = checkpoint.fingerprint, text
    return once("attribution inputs", loaders.MODELS, key, "Reading the sentence", work)


def without_each_word(one: Explained, replacement: str) -> tokens.Without:
    """Each word left out in turn, routed live: `replacement` stands for it (`tokens.REPLACEMENTS`)."""
    work, key = partial(tokens.without_each_word, one.instance, replacement), (*one.key, replacement)
    return once("without each word", 64, key, f"Leaving out {one.instance.unit}s", work)


def usual_replacement(one: Explained) -> str:
    """What stands for a word that is left out: the mask token, or padding where there is none."""
    return "mask" if "mask" in one.instance.replacements else "pad"


@dataclass(frozen=True)
class Options:
    """How words are scored."""

    frozen: bool = True
    replacement: str = "mask"

    def of(self, method: str) -> tuple[Hashable, ...]:
        """The options that a method depends on."""
        if method == METHODS[1]:
            return method, self.frozen
        return (method, self.replacement) if method == ABLATION else (method,)


def word_scores(one: Explained, output: int, method: str, options: Options) -> WordScores:
    """One output's attribution to the words."""
    if method == ABLATION:
        return without_each_word(one, options.replacement).scores(output)

    def work(progress: Progress) -> WordScores:
        if method == METHODS[0]:
            return tokens.input_x_gradient(one.instance, output)
        return tokens.converged_gradients(one.instance, output, frozen=options.frozen, progress=progress)

    key = (*one.key, output, *options.of(method))
    return once("attribution words", 256, key, f"{method.capitalize()}, steps", work)


def trust_checks(one: Explained, output: int, found: list[WordScores], options: Options) -> list[trust.Trust]:
    """Infidelity and sensitivity of attributions and of two controls (`shrp.analysis.attribution.trust.check`)."""

    def work(progress: Progress) -> list[trust.Trust]:
        return trust.check(
            one.instance,
            found,
            output,
            steps=max([result.steps or 1 for result in found], default=1),
            frozen=options.frozen,
            replacement=options.replacement,
            progress=progress,
        )

    key = (*one.key, output, *(options.of(result.method) for result in found), options.replacement)
    return once("attribution checks", 64, key, "Testing, parts done", work)


def fewest_words(one: Explained, replacement: str) -> tokens.Flips:
    """The fewest words whose loss changes the prediction."""
    work = partial(tokens.fewest_words, one.instance, replacement=replacement)
    label, key = f"Sets of {one.instance.unit}s tried", (*one.key, replacement)
    return once("attribution flips", 64, key, label, lambda progress: work(progress=progress))


def expert_scores(one: Explained, output: int, method: str) -> experts.ExpertScores:
    """One output's attribution to the experts that fire.

    Args:
        method: Of `shrp.analysis.attribution.experts.METHODS`.

    Raises:
        PlanError: The model has no expert layer, or no router that could pick the next expert.
    """

    def work(progress: Progress) -> experts.ExpertScores:
        if method != experts.METHODS[2]:
            return experts.knock_out_scores(one.instance, output, method)
        coalitions = experts.Coalitions(one.instance, output)
        budget = max(_LEAST, experts.enough(len(coalitions.players)))
        return experts.shapley_values(coalitions, budget=budget, progress=progress)

    key = one.checkpoint.fingerprint, one.instance.text, one.instance.contrast, output, method
    return once("attribution experts", 128, key, "Groups of experts", work)


def can_pick_next(checkpoint: Checkpoint) -> bool:
    """Whether every expert layer has a router with another expert to pick."""
    try:
        check_can_pick_next(expert_layers(checkpoint.model))
    except PlanError:
        return False
    return True


def patched(checkpoint: Checkpoint, text: tuple[str, ...], donor: tuple[str, ...]) -> Patched:
    """The donor's hidden states in the sentence."""
    parts = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, text, donor
    key, label = (checkpoint.fingerprint, text, donor), "Hidden states put in"
    return once("patching", 64, key, label, lambda progress: patch(*parts, progress=progress))


def attention(checkpoint: Checkpoint, text: tuple[str, ...], layer: int) -> LayerAttention:
    """Attention of one layer, as far as the model can read."""
    parts = checkpoint.model, checkpoint.tokenizer
    key = checkpoint.fingerprint, text, layer
    work = lambda: layer_attention(*parts, text, layer, max_length=longest_input(*parts))  # noqa: E731
    return kept("attention", 16, key, work)


def attention_everywhere(checkpoint: Checkpoint, text: tuple[str, ...]) -> list[LayerAttention]:
    """Attention of all layers."""
    parts = checkpoint.model, checkpoint.tokenizer
    work = lambda: model_attention(*parts, text, max_length=longest_input(*parts))  # noqa: E731
    return kept("attention-everywhere", 4, (checkpoint.fingerprint, text), work)
