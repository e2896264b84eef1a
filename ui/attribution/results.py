"""Attributions as the page shows them: computed once with a progress bar, then shared by all sessions."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
import torch

from shrp.analysis import importance
from shrp.analysis.attribution import experts, flips, tokens, trust, units
from shrp.analysis.attribution.instance import Instance, against, prefer, prepare
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import PlanError
from shrp.evaluation.metrics import to_predictions
from ui import loaders
from ui.store import Progress, once
from ui.text import percent


@dataclass(frozen=True, eq=False)
class Explained:
    """One input of one checkpoint, and its outputs."""

    checkpoint: Checkpoint
    instance: Instance
    logits: np.ndarray
    """`(C,)`, in the order of the task's labels."""
    preference: tuple[int, int, int] | None = None
    """Layer, expert and the other one, where a router's preference is explained and not the logits."""
    contrast: tuple[int, int] | None = None
    """The class and the other one, where the difference of their logits is explained and not each logit."""

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What results are kept under."""
        return (
            self.checkpoint.fingerprint,
            self.instance.text,
            self.instance.unit,
            self.preference,
            self.contrast,
        )

    def by(self, unit: str) -> Explained:
        """The same input in longer pieces than words. Raises as `shrp.analysis.attribution.units.in_units`."""
        return replace(self, instance=units.in_units(self.instance, unit))

    def preferring(self, layer: int, expert: int, rather_than: int) -> Explained:
        """The same input with a router's preference to explain. Raises as `shrp.analysis.attribution.instance.prefer`."""
        instance = prefer(self.instance, layer, expert, rather_than)
        return replace(self, instance=instance, preference=(layer, expert, rather_than))

    def against(self, output: int, rather_than: int) -> Explained:
        """The same input with the difference of two logits to explain. Raises as `instance.against`."""
        instance = against(self.instance, output, rather_than)
        return replace(self, instance=instance, contrast=(output, rather_than))

    @property
    def prediction(self) -> int:
        """The predicted class; 0 for regression."""
        return int(self.logits.argmax())


@dataclass(frozen=True)
class Options:
    """How words are attributed to."""

    methods: tuple[str, ...] = tokens.METHODS
    steps: int = 32
    frozen: bool = True
    replacement: str = "mask"

    def of(self, method: str) -> tuple[Hashable, ...]:
        """The options that a method heeds."""
        if method == tokens.METHODS[1]:
            return method, self.steps, self.frozen
        return (method, self.replacement) if method == tokens.METHODS[2] else (method,)


def explained(checkpoint: Checkpoint, text: tuple[str, ...]) -> Explained:
    """One input, encoded and run once.

    Raises:
        DataError: as `shrp.analysis.attribution.instance.prepare`, or the model's outputs are not finite.
    """

    def work(progress: Progress) -> Explained:
        instance = prepare(checkpoint.model, checkpoint.tokenizer, checkpoint.info.task, text)
        with torch.inference_mode():
            logits = instance.outputs(instance.embeddings)[0].numpy()
        to_predictions(instance.task, logits[None])  # outputs that are no numbers are no answer to explain
        return Explained(checkpoint, instance, logits)

    # No more than there are models, since each holds one, and a pass over one input is soon done again.
    return once(
        "attribution inputs", loaders.MODELS, (checkpoint.fingerprint, text), "Reading the input", work
    )


def answer_as_scored(one: Explained) -> str:
    """What the model says of the input where usage and scores cut it, with the probability of a class."""

    def work(progress: Progress) -> str:
        (row,) = one.checkpoint.predict([one.instance.text]).to_dict("records")
        if one.instance.task.is_regression:
            return f"{row['prediction']:.3f}"
        answer = row["prediction"]
        return f"{answer} ({percent(row[f'p({answer})'])})"

    key = one.checkpoint.fingerprint, one.instance.text
    return once("attribution answers as scored", 64, key, "Reading the beginning", work)


def word_scores(one: Explained, output: int, method: str, options: Options) -> tokens.WordScores:
    """The attribution of an output to the words by one method. Raises as the method in `shrp.analysis.attribution.tokens`."""
    instance = one.instance

    def work(progress: Progress) -> tokens.WordScores:
        if method == tokens.METHODS[0]:
            return tokens.input_x_gradient(instance, output)
        if method == tokens.METHODS[1]:
            return tokens.converged_gradients(
                instance, output, steps=options.steps, frozen=options.frozen, progress=progress
            )
        return tokens.ablate_words(instance, output, replacement=options.replacement, progress=progress)

    what = f"{instance.unit}s" if method == tokens.METHODS[2] else "steps"
    label = f"{method.capitalize()}, {what} done"
    return once("attribution words", 256, (*one.key, output, *options.of(method)), label, work)


def routes_without(one: Explained, replacement: str) -> tokens.RoutesWithout:
    """Where the input is routed without each word. Raises as `shrp.analysis.attribution.tokens.routes_without`."""
    unit = one.instance.unit
    key = (one.checkpoint.fingerprint, one.instance.text, unit, replacement)

    def work(progress: Progress) -> tokens.RoutesWithout:
        return tokens.routes_without(one.instance, replacement, progress)

    return once("attribution routes", 64, key, f"Routes without a {unit}, {unit}s done", work)


def fewest_words(one: Explained, replacement: str) -> flips.Flips:
    """The fewest words without which the answer is another one. Raises as `shrp.analysis.attribution.flips.fewest_words`."""

    def work(progress: Progress) -> flips.Flips:
        return flips.fewest_words(one.instance, replacement=replacement, progress=progress)

    return once("attribution flips", 64, (*one.key, replacement), f"Sets of {one.instance.unit}s tried", work)


def trust_checks(
    one: Explained, output: int, found: list[tokens.WordScores], options: Options
) -> list[trust.Trust]:
    """Infidelity and sensitivity of each attribution that is shown, and of the controls."""

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
    return once("attribution checks", 64, key, "Checking, parts done", work)


def firing(one: Explained) -> int:
    """How many experts compute for the input."""

    def work(progress: Progress) -> int:
        return len(experts.Coalitions(one.instance, 0).players)

    key = one.checkpoint.fingerprint, one.instance.text
    return once("attribution experts that fire", 256, key, "Reading the input", work)


def expert_scores(one: Explained, output: int, budget: int) -> tuple[list[experts.ExpertScores], str]:
    """The attributions of an output to the experts that fire, and a sentence on what could not be had.

    Raises:
        PlanError: the model has no expert layer.
    """

    def work(progress: Progress) -> tuple[list[experts.ExpertScores], str]:
        coalitions, note = experts.Coalitions(one.instance, output), ""
        found = [experts.zero_experts(coalitions)]
        try:
            found.append(experts.next_experts(coalitions))
        except PlanError as error:
            note = str(error)
        return [*found, experts.shapley_values(coalitions, budget=budget, progress=progress)], note

    key = one.checkpoint.fingerprint, one.instance.text, one.contrast, output, budget  # the same by any unit
    return once("attribution experts", 128, key, "Coalitions of experts", work)


def effect_table(found: importance.KnockOuts, key: Hashable, data: TextData, output: int | None):
    """`KnockOuts.table`, kept: its intervals take a moment."""
    key = key, data.pairs, output  # of a minimal pair both inputs are drawn together
    return once("expert effects", 64, key, "Intervals", lambda progress: found.table(data, output))
