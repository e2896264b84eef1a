"""Whether experts that look for a token in the other text of a pair decide what a pruned encoder is worth.

Some heads attend to the same token of the other text (`shrp.analysis.attention`): they compare the two. Here a
pruned encoder of the GLUE table, one expert a layer in 11 of 12 layers, is trained once more with the experts of some
layers exchanged, and all else as it was: where none of these is its layer's most matching expert, that one is put in,
and as a control another one; where some are, they are taken out. What matches is counted in the encoder that was
converted on texts, before any pruning, on the task's validation inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from shrp.analysis.attention import MATCHING, AttentionRoles, attention_roles
from shrp.checkpoints.base import name_of
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.data.tasks import get_task
from shrp.data.text_data import TextData
from shrp.errors import TrainingError
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import LayerPlan, PruningPlan, make_plan
from shrp.studies.matching import AS_DRAWN
from shrp.studies.studies import FILES
from studies import depths
from studies.command import names, numbers, seeds_of
from studies.experiments.results_file import ResultsFile
from studies.experiments.study import data_of, scored
from studies.general import General
from studies.glue import RANDOM_DRAWS
from studies.pipeline import Pipeline
from studies.shares import lead, worth_keeping
from studies.stages import Stages

KINDS = PUT_IN, TAKEN_OUT, ANOTHER = "put in", "taken out", "another"
INPUTS = 192
"""Validation inputs, at most, on which attention is counted."""
Kept = dict[int, int]
"""Layer -> the one expert that it keeps."""


def exchanges(
    kept: Kept, layers: tuple[int, ...], shares: Mapping[int, np.ndarray]
) -> Iterator[tuple[str, Kept]]:
    """What a pruning is trained with instead: the kind of exchange, and the kept experts.

    Args:
        layers: those whose expert may be exchanged.
        shares: layer -> `(H,)`, the share of each expert's attention that goes to the same token of the other text.
    """
    order = {layer: np.argsort(shares[layer], kind="stable") for layer in layers}
    matching = [layer for layer in layers if kept[layer] == order[layer][-1]]
    if matching:
        yield TAKEN_OUT, kept | {layer: int(order[layer][0]) for layer in matching}
        return
    yield PUT_IN, kept | {layer: int(order[layer][-1]) for layer in layers}
    yield (
        ANOTHER,
        kept | {layer: int(next(e for e in order[layer] if e != kept[layer])) for layer in layers},
    )


def matching_shares(found: AttentionRoles) -> dict[int, np.ndarray]:
    """Layer -> `(H,)`: mean share of each expert's attention that goes to the same token of the other text."""
    place = found.roles.index(MATCHING)
    return {layer: found.mean(layer)[:, place] for layer in found.layers}


class Exchange:
    """One task and seed: the prunings of the table's extreme depth and what becomes of them with other experts."""

    def __init__(self, stages: Stages, general: General) -> None:
        self.stages, self.validation = stages, stages.validation
        self.depth = depths.DEPTHS[-1]
        self.pipeline = Pipeline(stages, general, control_texts=True, chosen=(self.depth,))
        self.teacher = worth_keeping(stages.evaluate(stages.teacher.model))
        converted = general("none", self.depth.parts)
        self.shares = matching_shares(self._roles(converted))

    def _roles(self, made: Checkpoint) -> AttentionRoles:
        data: TextData = self.validation
        return attention_roles(
            made.model, made.tokenizer, data, inputs=INPUTS, max_length=self.stages.max_length
        )

    def rows(self, origin: str, layers: tuple[int, ...], kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
        """A row for the pruning as the table has it, and one for each exchange.

        Args:
            origin: `static`, what usage keeps, or `random`, the seed's draw.
            kinds: the exchanges to make.
        """
        ((_, routed),) = self.pipeline.conversions("retain", "none")
        usage = usage_in(routed.info)
        draw = self.stages.seed % RANDOM_DRAWS
        plan = (
            make_plan(usage, per_layer=1)
            if origin == "static"
            else make_plan(usage, per_layer=1, selection="random", seed=draw)
        )
        kept = {layer: one.experts[0] for layer, one in plan.layers}
        first = yield from self._row(origin, AS_DRAWN, kept, plan, routed, None)
        for kind, instead in exchanges(kept, layers, self.shares):
            if kind in kinds:
                of = tuple((layer, LayerPlan((expert,), (1.0,))) for layer, expert in instead.items())
                other = PruningPlan(of, plan.selection, plan.combination)
                yield from self._row(origin, kind, instead, other, routed, first)

    def _row(
        self,
        origin: str,
        kind: str,
        kept: Kept,
        plan: PruningPlan,
        routed: Checkpoint,
        first: Evaluation | None,
    ) -> Iterator[dict[str, Any]]:
        trained = self.pipeline.pruned(origin, "retain", self.depth, routed, plan, 1)
        found = self.stages.evaluate(trained.model)
        after = matching_shares(self._roles(trained))
        row = {
            "origin": origin,
            "exchange": kind,
            "kept": {str(layer): expert for layer, expert in kept.items()},
            "matching": {str(layer): _rounded(self.shares[layer][e]) for layer, e in kept.items()},
            "matching_after": {str(layer): _rounded(share[0]) for layer, share in after.items()},
            "teacher": self.teacher.score,
            "retained": found.score / self.teacher.score,
            **scored(found),
        }
        if first is not None:
            paired = lead(found, first, self.teacher)
            row |= {"change": paired["lead"], "change_interval": paired["lead_interval"]}
        yield row
        return found


def _rounded(share: float) -> float:
    return round(float(share), 4)


def main(
    base: Annotated[str, typer.Option(help="The dense encoder of 12 layers: a hub id or a folder.")],
    base_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    task: Annotated[str, typer.Option(help="A GLUE task of pairs.")] = "stsb",
    seeds: Annotated[str, typer.Option(help="Seeds.")] = "0,1,2",
    origins: Annotated[
        str, typer.Option(help="static (what usage keeps), random, or both.")
    ] = "random,static",
    layers: Annotated[str, typer.Option(help="Layers whose experts are exchanged, together.")] = "1,2",
    kinds: Annotated[str, typer.Option(help="Exchanges to make.")] = ",".join(KINDS),
    work: Annotated[Path, typer.Option(help="Folder for the trainings, shared with the GLUE table.")] = Path(
        "glue.run"
    ),
    out: Annotated[Path, typer.Option(help="The file of results.")] = FILES / "matching.json",
) -> None:
    """What one matching expert decides: prunings of the GLUE table, trained once more with other experts."""
    name = name_of(base, base_name)
    file = ResultsFile(out, f"python -m studies.experiments matching --base {name}")
    file.refuse_another(name)
    exchanged, wanted = tuple(numbers(layers)), names(kinds, KINDS, "--kinds", none=True)
    picked = names(origins, ("static", "random"), "--origins")
    converted = sum(depths.DEPTHS[-1].parts, ())
    if wrong := [layer for layer in exchanged if layer not in converted]:
        raise TrainingError(
            f"layer {wrong[0]} keeps no expert; --layers takes {min(converted)} to {max(converted)}."
        )
    if len(get_task(task).text_columns) != 2:
        raise TrainingError(f"{task} has no pairs of texts; name a task that has.")
    general = General(base, name, work)
    for seed in seeds_of(seeds):
        study = Exchange(Stages(base, name, work, task, seed), general)
        _describe(file, study, name)
        for origin in picked:
            for row in study.rows(origin, exchanged, wanted):
                given = list(exchanged) if row["exchange"] != AS_DRAWN else []
                which = {"task": task, "seed": seed, "origin": origin, "exchange": row["exchange"]}
                file.put([row], **which, layers=given)
                stderr.print(
                    f"{task}, seed {seed}, {origin}, {row['exchange']}: {row['retained']:.1%} of the teacher"
                )


def _describe(file: ResultsFile, study: Exchange, base: str) -> None:
    stages = study.stages
    file.describe(
        stages.validation.task.name,
        data_of(stages, study.teacher),
        {
            "base": base,
            "recipe": "retain",
            "depth": study.depth.name,
            "per_layer": 1,
            "experts": stages.teacher.model.config.num_attention_heads,
            "inputs": min(INPUTS, len(stages.validation)),
            "shares": {
                str(layer): [_rounded(share) for share in shares] for layer, shares in study.shares.items()
            },
        },
    )
