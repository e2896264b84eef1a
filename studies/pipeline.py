"""How the models of the GLUE table are trained, from a task's dense teacher on; `studies.glue` measures them.

`paper` converts on the task, an epoch a layer, the deeper model going on from the conversion of the upper six; `retain`
starts from one conversion on unlabelled texts (`studies.general`), and so do its controls. At 11 of 12 layers what
`retain` recovers takes from the task's routed model only which experts to keep: the encoder that was converted on texts
is pruned to them, learns on from texts, each pruned layer asked for what the dense one says, and then from the task; a
task with few tokens lends it, and the controls, changed copies of its examples (`shrp.data.augment`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.history import joined
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.text_data import TextData
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.prune import prune
from shrp.studies.studies import NARROW, UNROUTED
from shrp.training.config import TrainConfig
from shrp.training.general import graft
from studies import depths
from studies.depths import EPOCH_SIZE, Depth
from studies.general import General, Narrow
from studies.stages import Stages


@dataclass(frozen=True, eq=False)
class Start:
    """Where a stage begins that follows others: the arguments of `Stages.stage`, and the history until there."""

    checkpoint: Checkpoint
    history: list[dict[str, Any]]
    model: Callable[[], PreTrainedModel] | None = None
    info: CheckpointInfo | None = None
    made_of: str = ""
    converted: Mapping[str, Any] | None = None
    """How its layers were made, where that was on texts."""

    @property
    def given(self) -> CheckpointInfo:
        """What the model is that it begins with."""
        return self.info or self.checkpoint.info

    def pruned(self, plan: PruningPlan) -> Start:
        """The same, of a pruning of its model."""
        make = self.model or (lambda: self.checkpoint.model)
        return replace(self, model=lambda: prune(make(), plan), info=replace(self.given, plan=plan))


class Pipeline:
    """The trainings of one task and seed, each done once (`studies.stages`).

    Args:
        control_texts: whether the controls of `retain` learn from the unlabelled texts too.
        chosen: those depths of `DEPTHS` that are wanted; conversions that they go on from are made too.
        times: what the learning rates are multiplied by at which what was pruned, and the controls, train on the task.
    """

    def __init__(
        self,
        stages: Stages,
        general: General,
        *,
        control_texts: bool,
        chosen: Sequence[Depth],
        times: float = 1.0,
    ) -> None:
        self.stages, self.general, self.times = stages, general, times
        self.control_texts, self.chosen = control_texts, chosen
        self.common = {"freeze_embeddings": True, "max_length": stages.max_length}
        self.before: dict[tuple[str | None, str | None, str], Start] = {}
        """Recipe, depth and kind -> where the task's own training of both stages, or of recovery, began."""

    def config(
        self,
        recipe: str,
        control: str,
        layers: tuple[int, ...],
        part: int,
        depth: Depth | None = None,
        narrow_to: int = 0,
        **values: Any,
    ) -> TrainConfig:
        """A config of a part of a recipe; each part has a seed of its own, so it visits other examples.

        Args:
            depth: of a part after stage 1, whose own settings it takes.
            narrow_to: the size of a layer of the `narrow` control.
        """
        shrp = ShrpConfig(layers, control=control, narrow_to=narrow_to)
        seed = 10 * self.stages.seed + part
        if depth is not None:
            values["epoch_size"] = EPOCH_SIZE
            if recipe == "retain":
                values |= depth.rates | {"freeze_dense": depth.freeze_dense}
        return TrainConfig.named(recipe, shrp=shrp, seed=seed, **self.common | values)

    def conversions(self, recipe: str, control: str) -> Iterator[tuple[Depth, Checkpoint]]:
        """Each depth's routed model (or control), after stage 2."""
        if control == NARROW:
            starts = self._narrowed(recipe)
        else:
            starts = self._on_texts(control) if recipe == "retain" else self._on_task(recipe, control)
        for part, depth, start in self._to_chosen(starts):
            self.before[recipe, depth.name, control] = start
            name, values, data = f"{recipe}-{control}-{depth.name}", {}, None
            epochs = depth.stage2_epochs
            if control != "none":
                epochs, values, data = self._as_long(recipe, depth)
            size = depth.recover if control == NARROW else 0
            config = self.config(
                recipe, control, (), part + 2, stage2_epochs=epochs, depth=depth, narrow_to=size, **values
            )
            if control != "none":
                config = self._at_times(config)
            yield depth, self._stage(name, config, start, data)

    def pruned(
        self, kind: str, recipe: str, depth: Depth, routed: Checkpoint, plan: PruningPlan, per_layer: int
    ) -> Checkpoint:
        """What is left of `routed`, or of what it was made of, and then trained on.

        Args:
            kind: `static`, or `random` of random experts.
            per_layer: experts that the plan keeps in each layer.
        """
        if depth.texts_first(recipe):
            further = self.general.further(kind, depth.parts, plan, self.stages.validation.task.name)
            start = self.before[recipe, depth.name, kind] = self._grafted(further)
        else:
            start = Start(routed, []).pruned(plan)
        epochs, values, data = self.recovery(recipe, depth)
        config = self.config(recipe, "none", (), 4, balance=0.0, stage2_epochs=epochs, depth=depth, **values)
        return self._stage(f"{recipe}-{kind}-{depth.name}-{per_layer}", self._at_times(config), start, data)

    def unrouted(self, recipe: str, draw: int) -> Iterator[tuple[Depth, Checkpoint]]:
        """At each depth what is left of the control without a router, as stage 1 made it, pruned to random experts and
        then trained on for as long as a control is.

        Args:
            draw: of the random experts.
        """
        starts = self._on_texts("uniform", draw) if recipe == "retain" else self._on_task(recipe, "uniform")
        for _, depth, start in self._to_chosen(starts):
            if start.given.plan is None:
                start = start.pruned(self._drawn(depth, draw))
            self.before[recipe, depth.name, UNROUTED] = start
            epochs, values, data = self._as_long(recipe, depth)
            config = self.config(
                recipe, "none", (), 4, balance=0.0, stage2_epochs=epochs, depth=depth, **values
            )
            name = f"{recipe}-{UNROUTED}-{depth.name}-{depth.recover}"
            yield depth, self._stage(name, self._at_times(config), start, data)

    def dense(self, recipe: str, depth: Depth) -> Checkpoint:
        """The task's teacher, no layer converted, trained on for as long as a control is, from labels and what it says
        itself; all of its layers learn. It sees no changed copies: they have no labels, and it would learn nothing.
        """
        epochs = depth.recovery_epochs(recipe, len(self.stages.train_data), self.stages.tokens)
        epochs += 0 if depth.texts_first(recipe) else depth.stage2_epochs
        part = depths.DEPTHS.index(depth) + 2
        config = self.config(recipe, "none", (), part, stage2_epochs=epochs, depth=depth)
        config = self._at_times(replace(config, freeze_dense=False))
        return self._stage(f"{recipe}-dense-{depth.name}", config, Start(self.stages.teacher, []))

    def _to_chosen(self, starts: Iterator[Start]) -> Iterator[tuple[int, Depth, Start]]:
        """The place of each chosen depth, the depth, and where it starts; nothing deeper is made."""
        last = max(map(depths.DEPTHS.index, self.chosen))
        for part, (depth, start) in enumerate(zip(depths.DEPTHS[: last + 1], starts, strict=False)):
            if depth in self.chosen:
                yield part, depth, start

    def _as_long(self, recipe: str, depth: Depth) -> tuple[int, dict[str, float], TextData | None]:
        """`recovery` of a control: for as long as stage 2 and the recovery of what is pruned are together."""
        epochs, values, data = self.recovery(recipe, depth)
        return epochs + (0 if depth.texts_first(recipe) else depth.stage2_epochs), values, data

    def _drawn(self, depth: Depth, draw: int) -> PruningPlan:
        """Random experts of a model without a router."""
        heads = self.stages.teacher.model.config.num_attention_heads
        alike = {layer: np.full(heads, 1 / heads) for part in depth.parts for layer in part}
        return make_plan(alike, per_layer=depth.recover, selection="random", seed=draw)

    def _at_times(self, config: TrainConfig) -> TrainConfig:
        rates = ("learning_rate", "new_learning_rate")
        return replace(config, **{name: self.times * getattr(config, name) for name in rates})

    def recovery(self, recipe: str, depth: Depth) -> tuple[int, dict[str, float], TextData | None]:
        """How what was pruned, and a control, train on: epochs, settings, and the data if not the task's own."""
        data = self.stages.more_data(depth.copies_of(recipe, self.stages.tokens))
        if data is None:
            return depth.recovery_epochs(recipe, len(self.stages.train_data), self.stages.tokens), {}, None
        grown = round(self.stages.tokens * len(data) / len(self.stages.train_data))
        epochs = depth.recovery_epochs(recipe, len(data), grown)
        return epochs, {"distill_logits": 1.0}, data  # a copy's label is not known

    def _stage(
        self, name: str, config: TrainConfig, start: Start, data: TextData | None = None
    ) -> Checkpoint:
        return self.stages.stage(name, config, start.checkpoint, start.model, start.info, start.made_of, data)

    def _on_task(self, recipe: str, control: str) -> Iterator[Start]:
        """Stage 1 on the task itself, one layer an epoch, to each depth."""
        done, history = self.stages.teacher, []
        for part, depth in enumerate(depths.DEPTHS):
            config = self.config(
                recipe, control, depth.parts[-1], part, stage2_epochs=0, epoch_size=EPOCH_SIZE
            )
            done = self.stages.stage(f"{recipe}-{control}-{depth.name}-stage1", config, done)
            history = joined(history, checkpoint.read_history(done.path))
            yield Start(done, history)

    def _narrowed(self, recipe: str) -> Iterator[Start]:
        """The same of the `narrow` control: each depth begins with the teacher, as its layers have a size of their own,
        so those that nobody wants are not trained. Like SHRP's, `retain`'s learn from texts, and know the task.
        """
        for part, depth in enumerate(depths.DEPTHS):
            size, narrow = depth.recover, Narrow(depth.recover, self.stages.train_data)
            if depth not in self.chosen:
                yield Start(self.stages.teacher, [])
            elif recipe == "retain" and depth.recover_on_texts:
                further = self.general.further(NARROW, depth.parts, narrow=narrow)
                yield self._grafted(further, recovered=True)
            elif recipe == "retain":
                yield self._grafted(self.general(NARROW, depth.parts, narrow))
            else:
                config = self.config(
                    recipe,
                    NARROW,
                    sum(depth.parts, ()),
                    part,
                    stage2_epochs=0,
                    epoch_size=EPOCH_SIZE,
                    narrow_to=size,
                )
                done = self.stages.stage(
                    f"{recipe}-{NARROW}-{depth.name}-stage1", config, self.stages.teacher
                )
                yield Start(done, checkpoint.read_history(done.path))

    def _on_texts(self, control: str, draw: int | None = None) -> Iterator[Start]:
        """The teacher with the layers that one conversion on unlabelled texts made, to each depth.

        Args:
            draw: of the random experts to which it is pruned before it trains on there, if it is.
        """
        teacher = self.stages.teacher
        for depth in depths.DEPTHS:
            if control == "none":
                yield self._grafted(self.general(control, depth.parts))
            elif self.control_texts:
                made = (
                    self.general(control, depth.parts)
                    if not depth.recover_on_texts
                    else self.general.further(control, depth.parts)
                    if draw is None
                    else self.general.further(UNROUTED, depth.parts, self._drawn(depth, draw))
                )
                yield self._grafted(made)
            else:
                shrp = ShrpConfig(sum(depth.parts, ()), control=control)
                yield Start(
                    teacher,
                    [],
                    lambda shrp=shrp: self._converted(shrp),
                    replace(teacher.info, config=shrp),
                    json.dumps(shrp.to_dict()),
                )

    def _converted(self, shrp: ShrpConfig) -> PreTrainedModel:
        """The task's teacher with fresh layers, the same ones each time."""
        torch.manual_seed(self.stages.seed)
        return convert(copy.deepcopy(self.stages.teacher.model), shrp)

    def _grafted(self, encoder: Checkpoint, recovered: bool = False) -> Start:
        """The task's teacher with the layers of an encoder that learnt on texts; args as for `graft`."""
        teacher = self.stages.teacher
        return Start(
            teacher,
            checkpoint.read_history(encoder.path),
            lambda: graft(teacher.model, encoder.model, recovered=recovered),
            replace(teacher.info, config=encoder.info.config, plan=encoder.info.plan),
            encoder.path.name,
            encoder.info.training,
        )
