"""The prediction for one input with other experts than the routers pick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis import Progress
from shrp.analysis.explore import Exploration
from shrp.data.batching import collate, encode, longest_input
from shrp.data.tasks import Task
from shrp.errors import PlanError
from shrp.evaluation.evaluate import label_columns
from shrp.model.convert import expert_layers
from shrp.model.forcing import AS_ROUTED, ForcedRoute
from shrp.model.gates import GateSource, use_gates
from shrp.model.partial import run_from


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Logits of one input with one expert forced in one layer; the layers above route again."""

    task: Task
    layers: tuple[int, ...]
    base: np.ndarray
    """Logits `(C,)` under `route`."""
    logits: np.ndarray
    """`(L, H, C)`, by routed layer and expert."""
    route: ForcedRoute = AS_ROUTED
    """What is forced throughout."""
    token: int | None = None
    """Position of the only token that is forced; None for the whole input."""

    def change(self, output: int) -> np.ndarray:
        """Change of the logit of class `output` against `base`, `(L, H)`."""
        return self.logits[:, :, output] - self.base[output]

    def flips(self) -> np.ndarray:
        """Where the predicted class changes, bool `(L, H)`; nowhere for regression."""
        return self.logits.argmax(-1) != self.base.argmax()

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and expert: each class's logit, its change, and whether the prediction flips."""
        experts = self.logits.shape[1]
        columns = {
            "layer": np.repeat(self.layers, experts),
            "expert": np.tile(range(experts), len(self.layers)),
        }
        for output, name in enumerate(self.task.label_names or ("output",)):
            columns[f"logit({name})"] = self.logits[:, :, output].ravel()
            columns[f"change({name})"] = self.change(output).ravel()
        return pd.DataFrame(columns | {"flips": self.flips().ravel()})


def what_if(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    text: tuple[str, ...],
    *,
    route: ForcedRoute = AS_ROUTED,
    token: int | None = None,
    progress: Progress | None = None,
) -> WhatIf:
    """Force every expert of every routed layer in turn, each as `route.forced(layer, expert, token)`.

    One batch a layer, which starts from what enters it.

    Args:
        route: what is forced throughout; changes are against it.
        token: force the token at this position only (token routing); None forces the whole input.

    Raises:
        PlanError: the model has no routed layer; or a token is named that does not exist, or of a model that routes inputs.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so no expert can be forced.")
    columns = label_columns(model, task)
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer))
    if token is not None:
        if any(module.routing != "token" for module in routed.values()):
            raise PlanError("this model routes whole inputs, so nothing can be forced for one token.")
        if not 0 <= token < (length := len(encoded[0]["input_ids"])):
            raise PlanError(f"the input has tokens 0 to {length - 1}, not {token}.")
    forced = []
    with torch.inference_mode(), use_gates(route.gates):
        base, entering = run_from(model, collate(tokenizer, encoded, [0], model.device), watch=list(routed))
        for done, (layer, module) in enumerate(routed.items(), 1):
            batch = collate(tokenizer, encoded, [0] * module.num_experts, model.device)
            with use_gates(_each_expert(layer, token)):
                logits, _ = run_from(model, batch, layer, entering[layer])
            forced.append(logits.float().cpu().numpy()[:, columns])
            if progress:
                progress(done, len(routed))
    return WhatIf(task, tuple(routed), base.float().cpu().numpy()[0, columns], np.stack(forced), route, token)


def _each_expert(layer: int, token: int | None) -> GateSource:
    """Gates that send row `e` of a batch to expert `e` of `layer`."""

    def source(here: int, probs: Tensor, gates: Tensor) -> Tensor | None:
        if here != layer:
            return None
        each = torch.eye(probs.shape[-1], dtype=gates.dtype, device=gates.device)
        if token is None:
            return each
        changed = gates.clone()
        changed[:, token] = each
        return changed

    return source


def compare_outputs(before: Exploration, after: Exploration) -> pd.DataFrame:
    """One row a class: class, logit, forced logit, change, (probability, forced probability)."""
    names = before.task.label_names or ("the prediction",)
    frame = pd.DataFrame({"class": names, "logit": before.logits, "forced logit": after.logits})
    frame["change"] = frame["forced logit"] - frame["logit"]
    if not before.task.is_regression:
        frame["probability"], frame["forced probability"] = before.probabilities, after.probabilities
    return frame


def compare_routes(before: Exploration, after: Exploration, route: ForcedRoute) -> pd.DataFrame:
    """One row a routed layer: its expert as routed and under `route`.

    Columns layer, as routed, its probability, forced route, its probability there, (tokens changed, tokens), what (`forced`,
    `changed as a result`, or `the same` for all tokens and all k experts).
    """
    rows = []
    for layer in before.layers:
        old, new = before.choice(layer), after.choice(layer)
        moved = int((before.fires(layer) != after.fires(layer)).any(-1).sum())
        row = {
            "layer": layer,
            "as routed": old,
            "its probability": float(before.mean_probs(layer)[old]),
            "forced route": new,
            "its probability there": float(after.mean_probs(layer)[new]),
        }
        if before.by_token:
            row |= {"tokens changed": moved, "tokens": len(before.tokens)}
        row["what"] = "forced" if layer in route.layers else "changed as a result" if moved else "the same"
        rows.append(row)
    return pd.DataFrame(rows)
