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

from shrp.analysis.attribution import experts, instance, tokens, trust
from shrp.analysis.attribution.instance import Instance, prepare
from shrp.analysis.attribution.tokens import METHODS, WordScores
from shrp.analysis.explore import Exploration, WhatIf, explore, what_if
from shrp.analysis.importance import check_can_pick_next
from shrp.analysis.patching import Patched, patch
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.errors import PlanError
from shrp.evaluation.metrics import to_predictions
from shrp.model.convert import expert_layers
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from ui import loaders
from ui.store import Progress, kept, once

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


def what_if_grid(checkpoint: Checkpoint, text: tuple[str, ...], route: ForcedRoute = AS_ROUTED) -> WhatIf:
    """Every expert of every routed layer forced in turn."""
    parts = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, text
    key = checkpoint.fingerprint, text, route
    work = partial(what_if, *parts, route=route)
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
        return self.checkpoint.fingerprint, one.text, len(one.words)

    @property
    def prediction(self) -> int:
        """The predicted class; 0 for regression."""
        return int(self.logits.argmax())

    @property
    def quick(self) -> bool:
        """Whether pieces of the sentence can be left out one by one in a few seconds."""
        return QUICK // len(self.instance.tokens) > 1

    def in_pieces(self) -> Explained:
        """The same sentence in as many words, or pieces of several, as can be left out in a few seconds."""
        most = min(QUICK // len(self.instance.tokens), instance.MOST) if self.quick else instance.MOST
        return replace(self, instance=instance.in_pieces(self.instance, most))


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


def without_each_word(one: Explained) -> tokens.Without:
    """Each word left out in turn, routed live."""
    work, label = partial(tokens.without_each_word, one.instance), f"Leaving out {one.instance.unit}s"
    return once("without each word", 64, one.key, label, work)


def word_scores(one: Explained, output: int, method: str) -> WordScores:
    """One output's attribution to the words."""
    if method == METHODS[2]:
        return without_each_word(one).scores(output)

    def work(progress: Progress) -> WordScores:
        if method == METHODS[0]:
            return tokens.input_x_gradient(one.instance, output)
        return tokens.converged_gradients(one.instance, output, progress)

    label = f"{method.capitalize()}, steps"
    return once("attribution words", 256, (*one.key, output, method), label, work)


def trust_checks(one: Explained, output: int, found: list[WordScores]) -> list[trust.Trust]:
    """Infidelity and sensitivity of attributions and of two controls (`shrp.analysis.attribution.trust.check`)."""
    steps = max([result.steps or 1 for result in found], default=1)
    work = partial(trust.check, one.instance, found, output, steps=steps)
    key = (*one.key, output)
    return once("attribution checks", 64, key, "Testing, parts done", lambda p: work(progress=p))


def expert_scores(one: Explained, output: int, method: str) -> experts.ExpertScores:
    """One output's attribution to the experts that fire; `method` is of `shrp.analysis.attribution.experts.METHODS`.

    Raises:
        PlanError: The model has no expert layer, or no router that could pick the next expert.
    """

    def work(progress: Progress) -> experts.ExpertScores:
        if method != experts.METHODS[2]:
            return experts.knock_out_scores(one.instance, output, method)
        coalitions = experts.Coalitions(one.instance, output)
        budget = max(_LEAST, experts.enough(len(coalitions.players)))
        return experts.shapley_values(coalitions, budget=budget, progress=progress)

    key = one.checkpoint.fingerprint, one.instance.text, output, method
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
