"""Which input takes whose gates when routes are exchanged: any other one's, or another's that is answered alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from shrp.analysis.usage import UsageStats
from shrp.data.groups import ANSWER, groups_by
from shrp.data.text_data import TextData
from shrp.model.gates import RoutingRecord, top_k_gates

ALL, ALIKE = "all", "alike"

Case = tuple[int | str, int]
"""What is exchanged (a layer's number, or a kind for all layers) and in which draw."""


class Exchanges:
    """Whose gates each input, or token, takes: in several draws, among all inputs and among those answered alike.

    Under sequence routing an input takes the gates of another one, the same one in all layers; one that is alone in its
    answer keeps its own. Under token routing the real tokens of a batch, special ones among them, exchange theirs, also
    with those of their own text.
    """

    def __init__(
        self, stats: UsageStats, answers: np.ndarray, top_k: Mapping[int, int], draws: int, seed: int
    ) -> None:
        """Args:
        stats: of the inputs as routed.
        answers: the group of each input `(N,)`, as by `answer_groups`.
        top_k: how many experts an input takes, by layer.
        draws: of each kind.
        seed: of the first draw.
        """
        self.stats, self.top_k, self.by_token = stats, top_k, stats.unit == "tokens"
        self.groups = {ALL: np.zeros_like(answers), ALIKE: answers}
        # The draws among all are the same whatever the answers are.
        self.generators = {(ALL, draw): np.random.default_rng(seed + draw) for draw in range(draws)}
        self.generators |= {(ALIKE, draw): np.random.default_rng([seed + draw, 1]) for draw in range(draws)}
        self.partners = {}
        if not self.by_token:
            for case, generator in self.generators.items():
                self.partners[case] = _partners(self.groups[case[0]], generator)

    @property
    def cases(self) -> list[Case]:
        """Kinds of exchange and draws."""
        return [*self.generators]

    def __call__(
        self, rows: Sequence[int], record: RoutingRecord, mask: Tensor
    ) -> dict[Case, dict[int, Tensor]]:
        """Case -> layer -> gates of a batch, `(B, H)` or `(B, T, H)`.

        Args:
            rows: of the data, the batch's.
            record: of the batch as routed.
            mask: the real tokens `(B, T)`.
        """
        if self.by_token:
            lengths = mask.sum(1).cpu().numpy()
            return {
                case: _among_tokens(
                    record, mask, _partners(np.repeat(self.groups[case[0]][rows], lengths), generator)
                )
                for case, generator in self.generators.items()
            }
        return {
            case: {
                layer: top_k_gates(torch.from_numpy(self.stats.probs[layer][partner[rows]]), k)
                for layer, k in self.top_k.items()
            }
            for case, partner in self.partners.items()
        }


def answer_groups(answers: np.ndarray, data: TextData) -> np.ndarray:
    """The group of answers that each input is in `(N,)`: its predicted class, or which fourth of the numbers.

    Args:
        answers: predictions `(N,)`.
    """
    return np.argmax(np.stack([*groups_by(ANSWER, data, answers).values()]), axis=0)


def count_moved(record: RoutingRecord, taken: Mapping[int, Tensor], mask: Tensor) -> tuple[int, int]:
    """How many of a batch's choices of an expert fall on another one than as routed, and how many there are.

    Args:
        record: of the batch as routed.
        taken: layer -> gates taken instead, `(B, H)` or `(B, T, H)`.
        mask: the real tokens `(B, T)`.
    """
    moved, choices = 0, 0
    for layer, gates in taken.items():
        other = record.last(layer).gates.argmax(-1) != gates.argmax(-1).to(mask.device)
        if other.dim() == mask.dim():
            other = other[mask]
        moved, choices = moved + int(other.sum()), choices + len(other)
    return moved, choices


def _partners(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each of `(n,)` another one of its group, each once: a random ring a group. One that is alone has itself."""
    partner = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        ring = generator.permutation(np.flatnonzero(groups == group))
        partner[ring] = np.roll(ring, -1)
    return partner


def _among_tokens(record: RoutingRecord, mask: Tensor, partner: np.ndarray) -> dict[int, Tensor]:
    """Layer -> gates `(B, T, H)`, where each real token, `mask` `(B, T)`, has its partner's."""
    dealt = {}
    for layer in record.layers:
        dealt[layer] = record.last(layer).gates.clone()
        dealt[layer][mask] = dealt[layer][mask][torch.from_numpy(partner)]
    return dealt
