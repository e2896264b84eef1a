"""What a model would say if one layer sent an input to another expert than it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.batching import collate, encode
from shrp.convert import expert_layers
from shrp.errors import PlanError
from shrp.evaluate import label_columns
from shrp.explore import longest_input
from shrp.partial import run_from
from shrp.routing import use_gates
from shrp.tasks import Task


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Logits of one input with one expert forced in one layer; the layers above route as they then would."""

    task: Task
    layers: tuple[int, ...]
    base: np.ndarray
    """Logits `(C,)` under the model's own routing."""
    logits: np.ndarray
    """`(L, H, C)`: the forced logits, by routed layer and expert."""

    def change(self, output: int) -> np.ndarray:
        """Change of the logit of class `output` against the model's own routing, `(L, H)`."""
        return self.logits[:, :, output] - self.base[output]

    def flips(self) -> np.ndarray:
        """Where forcing changes the predicted class, bool `(L, H)`; nowhere for regression."""
        return self.logits.argmax(-1) != self.base.argmax()

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and expert: each class's logit, its change, and whether the prediction flips."""
        rows = []
        names = self.task.label_names or ("output",)
        for i, layer in enumerate(self.layers):
            for expert, forced in enumerate(self.logits[i]):
                row: dict[str, object] = {"layer": layer, "expert": expert}
                for name, value, base in zip(names, forced, self.base, strict=True):
                    row |= {f"logit({name})": float(value), f"change({name})": float(value - base)}
                rows.append(row | {"flips": bool(forced.argmax() != self.base.argmax())})
        return pd.DataFrame(rows)


def what_if(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    text: tuple[str, ...],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> WhatIf:
    """Force every expert of every routed layer in turn.

    One batch a layer: row `e` sends the input to expert `e` there. The layers below cannot change, so
    each batch starts from their recorded output, which makes this many times cheaper than whole passes.

    Args:
        progress: called with layers done and in all.

    Raises:
        PlanError: the model has no routed layer.
    """
    routed = expert_layers(model)
    if not routed:
        raise PlanError("this model has no routed layer, so no expert can be forced.")
    columns = label_columns(model, task)
    encoded = encode(tokenizer, [text], longest_input(model, tokenizer))
    forced = []
    with torch.inference_mode():
        base, entering = run_from(model, collate(tokenizer, encoded, [0]), watch=list(routed))
        for done, (layer, module) in enumerate(routed.items(), 1):
            batch = collate(tokenizer, encoded, [0] * module.num_experts)
            with use_gates({layer: torch.eye(module.num_experts)}):
                logits, _ = run_from(model, batch, layer, entering[layer])
            forced.append(logits.float().numpy()[:, columns])
            if progress:
                progress(done, len(routed))
    return WhatIf(task, tuple(routed), base.float().numpy()[0, columns], np.stack(forced))
