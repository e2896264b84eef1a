"""Activation patching: hidden states of one input put into another, one token and layer at a time.

Sources: Vig et al. 2020 (arXiv 2004.12265), Meng et al. 2022 (arXiv 2202.05262). Everything above is computed again,
routes too. Shapes: `L` layers, `T` tokens of the changed input, `C` classes, `d` hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.attribution.instance import TOKENS_AT_ONCE
from shrp.analysis.attribution.tokens import layers_rerouted
from shrp.analysis.explore import token_labels
from shrp.data.batching import collate, encode, longest_input, token_spans
from shrp.data.tasks import Task
from shrp.errors import DataError
from shrp.evaluation.evaluate import label_columns
from shrp.evaluation.metrics import to_predictions
from shrp.families.families import encoder_layers
from shrp.model.convert import expert_layers
from shrp.model.gates import record_routing
from shrp.model.partial import run_from
from shrp.progress import Progress, silent

MOST = 128
"""Most tokens of an input."""
LITTLE, LITTLE_PART = 0.1, 0.05
"""A smaller gap between two inputs, in logits, or as a part of the largest change, is not divided by."""


@dataclass(frozen=True, eq=False)
class Patched:
    """The effect of one input's hidden states, the donor's, in another."""

    task: Task
    tokens: tuple[str, ...]
    """`T`, special ones included."""
    donors: tuple[str | None, ...]
    """The donor's token at each place, or None."""
    left_out: tuple[str, ...]
    """The donor's tokens that have no place."""
    own: np.ndarray
    """Logits `(C,)` of the input, in the order of the task's labels."""
    other: np.ndarray
    """The donor's."""
    logits: np.ndarray
    """`(L, T, C)`: with the donor's state at that place entering that layer; nan without one."""
    rerouted: np.ndarray | None
    """`(L, T)`: layers above in which the input, or another token, takes other experts; None without routers."""

    @property
    def contrast(self) -> tuple[int, int] | None:
        """The donor's class and this input's; if equal, this input's second in place of the donor's. None for regression."""
        if self.task.is_regression:
            return None
        mine, donors = int(self.own.argmax()), int(self.other.argmax())
        if mine == donors:
            donors = int(np.argsort(-self.own, kind="stable")[1])
        return donors, mine

    @property
    def measured(self) -> str:
        """Name of what `start`, `gap` and `moved` measure."""
        if self.contrast is None:
            return "the output"
        first, second = (self.task.label_names[label] for label in self.contrast)
        return f"the logit of {first} less that of {second}"

    def _lead(self, logits: np.ndarray) -> np.ndarray:
        """First class of `contrast` minus the other, of logits `(..., C)`; the output of a regression."""
        if self.contrast is None:
            return logits[..., 0]
        first, second = self.contrast
        return logits[..., first] - logits[..., second]

    @property
    def start(self) -> float:
        """The lead as the input is."""
        return float(self._lead(self.own))

    @property
    def gap(self) -> float:
        """The donor's lead minus `start`."""
        return float(self._lead(self.other)) - self.start

    @property
    def moved(self) -> np.ndarray:
        """`(L, T)`: change of the lead."""
        return self._lead(self.logits) - self.start

    @property
    def parts(self) -> np.ndarray:
        """`(L, T)`: `moved` as a part of `gap`; nan where the gap is too small."""
        moved = self.moved
        least = LITTLE_PART * float(np.nanmax(np.abs(moved), initial=0.0))
        if self.contrast is not None:
            least = max(least, LITTLE)
        return moved / self.gap if abs(self.gap) > least else np.full(moved.shape, np.nan)

    @property
    def flips(self) -> np.ndarray:
        """Bool `(L, T)`: where the prediction changes; nowhere for regression."""
        if self.task.is_regression:
            return np.zeros(self.logits.shape[:2], dtype=bool)
        known = ~np.isnan(self.logits).any(-1)
        return known & (np.nan_to_num(self.logits).argmax(-1) != self.own.argmax())

    def strongest(self) -> list[int]:
        """Of each layer the place with the largest of `parts`, or of the absolute change where these are nan."""
        parts = self.parts
        towards = np.abs(self.moved) if np.isnan(parts).all() else parts
        return [int(place) for place in np.nan_to_num(towards, nan=-np.inf).argmax(1)]

    def to_frame(self) -> pd.DataFrame:
        """A row a layer and patched token: layer, position, token, `from`, logits, change, part of the gap, (rerouted)."""
        moved, parts = self.moved, self.parts
        at = layers, places = np.nonzero(~np.isnan(moved))
        columns = {"layer": layers, "position": places}
        columns |= {"token": np.array(self.tokens)[places], "from": np.array(self.donors)[places]}
        for i, name in enumerate(self.task.label_names or ("output",)):
            columns[f"logit {name}"] = self.logits[(*at, i)]
        columns |= {"change": moved[at], "part of the gap": parts[at]}
        if self.rerouted is not None:
            columns["layers rerouted"] = self.rerouted[at]
        return pd.DataFrame(columns)


def patch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    text: tuple[str, ...],
    donor: tuple[str, ...],
    *,
    progress: Progress = silent,
) -> Patched:
    """Put each hidden state of `donor` into `text`, one at a time.

    Tokens are aligned text by text: by place if both texts have as many; else by the longest matching runs.

    Raises:
        DataError: an input has more than `MOST` tokens; the tokenizer is a slow one; or the outputs are not finite.
    """
    task.check_of_texts("patching")
    limit = min(MOST + 1, longest_input(model, tokenizer))
    encoded = encode(tokenizer, [text, donor], limit)
    ids = [one["input_ids"] for one in encoded]
    if max(map(len, ids)) > MOST:
        raise DataError(f"Hidden states are patched in inputs of at most {MOST} tokens; take shorter ones.")
    spans = [token_spans(tokenizer, one, limit) for one in (text, donor)]
    parts = [[span and span[0] for span in each] for each in spans]  # None of special tokens
    partner, donor_tokens = aligned(*ids, *parts), token_labels(tokenizer, ids[1])
    inputs, others = (collate(tokenizer, encoded, [row], model.device) for row in (0, 1))
    layers, columns = range(len(encoder_layers(model))), label_columns(model, task)
    with torch.inference_mode():
        with record_routing() as routes:
            own, entering = run_from(model, inputs, watch=layers)
        other, donors = run_from(model, others, watch=layers)
        answers = torch.cat([own, other])[:, columns].float().cpu().numpy()
        to_predictions(task, answers)  # which says so where they are no numbers
        tokens, places = len(ids[0]), np.flatnonzero(partner >= 0).tolist()
        logits = np.full((len(layers), tokens, len(columns)), np.nan)
        rerouted = np.zeros((len(layers), tokens), dtype=np.int64)
        for layer in layers:
            mine, new = entering[layer][0], donors[layer][0]
            # Where both states are the same, as below all layers of the same word, nothing can change.
            same = [place for place in places if torch.equal(mine[place], new[partner[place]])]
            logits[layer, same] = answers[0]
            changed = [place for place in places if place not in same]
            size = max(1, TOKENS_AT_ONCE // tokens)
            for begin in range(0, len(changed), size):
                some = changed[begin : begin + size]
                rows = mine.repeat(len(some), 1, 1)  # copies of the input, each with one state replaced
                rows[torch.arange(len(some)), some] = new[partner[some]]
                many = {name: values.expand(len(some), -1) for name, values in inputs.items()}
                with record_routing() as record:
                    patched, _ = run_from(model, many, layer, rows)
                logits[layer, some] = patched[:, columns].float().cpu().numpy()
                rerouted[layer, some] = layers_rerouted(routes, record, [(place,) for place in some])
                done = layer * len(places) + len(same) + begin + len(some)
                progress(done, len(layers) * len(places))
    found = tuple(None if place < 0 else donor_tokens[place] for place in partner)
    left_out = tuple(name for place, name in enumerate(donor_tokens) if place not in partner)
    moved, about = rerouted if expert_layers(model) else None, (task, token_labels(tokenizer, ids[0]))
    return Patched(*about, found, left_out, answers[0], answers[1], logits, moved)


def work(model: PreTrainedModel, tokens: int) -> float:
    """About how many multiplications `patch` takes for inputs of so many tokens."""
    layers = encoder_layers(model)
    weights = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    return tokens**2 * len(layers) * weights / 2  # of each layer's copies half of the layers lie above


def aligned(
    ids: Sequence[int], donor: Sequence[int], parts: Sequence[int | None], donor_parts: Sequence[int | None]
) -> np.ndarray:
    """The donor's place for each token, -1 where there is none; `(T,)`. `parts` has each token's text; None if special."""
    partner = np.full(len(ids), -1)
    for part in (None, 0, 1):
        mine, others = (
            [place for place, one in enumerate(each) if one == part] for each in (parts, donor_parts)
        )
        words, donors = [ids[place] for place in mine], [donor[place] for place in others]
        if len(mine) == len(others):
            partner[mine] = others
            continue
        for _, *ends in SequenceMatcher(None, words, donors, False).get_opcodes():
            for place, other in zip(mine[slice(*ends[:2])], others[slice(*ends[2:])]):
                partner[place] = other
    return partner
