"""Checkpoints made of a study's trainings: the rows of scores that they carry, and how they are saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import CARD, card, licence_in
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import history_text, joined
from shrp.checkpoints.reference import from_evaluation
from shrp.checkpoints.score_rows import score_row
from shrp.data.text_data import TextData
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.verdicts import HEADS_PRUNED
from shrp.files import write_text
from shrp.phrases import counted
from shrp.studies.studies import NARROW, UNROUTED, untaught
from studies.stages import Stages

LABELS = {
    "teacher": "dense teacher",
    "routed": "routed",
    "static": "static",
    "random": "random experts",
    "dropped": "layers dropped",
    "uniform": "no router, all experts",
    UNROUTED: "no router, then random experts",
    NARROW: HEADS_PRUNED,
}


class Shipping:
    """What the checkpoints of one task and seed carry, by recipe and depth.

    Args:
        sets: the data that models are scored on, the validation data first.
        best: the teacher's evaluation on each, by the data's fingerprint.
    """

    def __init__(self, stages: Stages, sets: Sequence[TextData], best: dict[str, Evaluation]) -> None:
        self.stages, self.sets, self.best = stages, sets, best
        self.common: list[dict[str, Any]] = []
        """The teacher's rows, which all checkpoints carry."""
        self.own: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
        """Those of the routed model of a recipe and depth, or (true) of what learned on from texts after pruning."""

    def note(
        self,
        model: str,
        recipe: str | None,
        depth: str | None,
        found: list[list[Evaluation]],
        layers: int,
        per_layer: int | None,
        recovered: bool,
        texts: int,
        epochs: int | None = None,
        beside: Sequence[bool] = (False,),
    ) -> None:
        """Add a model's rows, one a data set.

        Args:
            recipe, depth: None for the teacher.
            layers: how many are converted.
            texts: how many it was trained on.
            epochs: of a control's own training, which thus is no pruning of the checkpoint.
            beside: which checkpoints of the recipe and depth carry them, as in `own`.
        """
        label = LABELS[model]
        if untaught(model, recipe, texts):
            label += ", not trained on texts"
        facts: dict[str, Any] = {}
        if model == NARROW:  # which has no experts, and stands beside what was trained on
            facts = {"per_layer": per_layer, "recovered": True}
            label += f" to the size of {counted(per_layer or 0, 'expert')}"
        elif per_layer:
            facts = {"per_layer": per_layer, "budget": per_layer * layers}
            label += f", {per_layer} a layer" + (", recovered" if recovered else "")
        if recovered:
            facts["recovered"] = True
        if epochs is not None:
            facts["epochs"] = epochs
        kind = model if model in ("teacher", "routed", "static") else "control"
        added = []
        for data, evaluations in zip(self.sets, found, strict=True):
            best = self.best[data.fingerprint].score
            about = {"data_fingerprint": data.fingerprint, "max_length": self.stages.max_length}
            added.append(score_row(label, kind, evaluations, best) | about | facts)
        if recipe is None:
            self.common += added
            return
        for apart in beside:
            self.own.setdefault((recipe, str(depth), apart), []).extend(added)

    def ship(
        self,
        recipe: str,
        depth: str,
        made: Checkpoint,
        before: list[dict[str, Any]],
        converted: Mapping[str, Any] | None,
        folder: Path,
        licence: str,
    ) -> None:
        """Save a model as a checkpoint that carries its rows, in float16, with its card.

        Args:
            made: the routed model, or a static one that learned on from texts after pruning.
            before: the history until the task's own training.
            converted: how that made its layers on texts, if it did.
        """
        teacher = self.stages.teacher
        told = {
            data.fingerprint: from_evaluation(
                self.best[data.fingerprint], teacher.fingerprint, self.stages.max_length
            )
            for data in self.sets
        }
        training = dict(made.info.training) | {"recipe": recipe, "teacher": dict(teacher.info.training)}
        if converted is not None:
            training["converted"] = dict(converted)
        else:  # stage 1 was on the task too, in trainings of its own
            training["epochs"] = training["epochs"] + len(before)
            training["seconds"] = round(training["seconds"] + sum(row["seconds"] for row in before), 1)
        scores = (*self.common, *self.own[recipe, depth, made.is_static])
        history = joined(before, checkpoint.read_history(made.path))
        before = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
        licence = licence or licence_in(before, made.info.base_model)
        checkpoint.save(
            made.model,
            made.tokenizer,
            replace(made.info, scores=scores, training=training),
            folder,
            dtype=torch.float16,
            extra_files={checkpoint.HISTORY: history_text(history)},
            teacher=told,
        )
        text = card(folder.name, checkpoint.load(folder), licence)
        write_text(folder / CARD, text)
