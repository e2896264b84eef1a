"""The depths of the GLUE table: which layers are converted, and what is done with the result."""

from __future__ import annotations

from dataclasses import dataclass

from studies.command import names

UPPER = (6, 7, 8, 9, 10, 11)
LOWER = (1, 2, 3, 4, 5)
EPOCH_SIZE = 20_000
FEW = 100_000
"""A training set of fewer tokens has changed copies of its texts (`shrp.data.augment`), where a depth asks for
copies.
"""
FAST = {"learning_rate": 4e-4, "new_learning_rate": 3e-3}


@dataclass(frozen=True)
class Depth:
    """How many layers are converted, and what is done with the result."""

    name: str
    parts: tuple[tuple[int, ...], ...]
    """Converted layers; each part goes on from the one before."""
    stage2_epochs: int
    keep: tuple[int, ...]
    """Experts a layer at which it is pruned."""
    recover: int
    """The one of these at which the pruned model, and one of random experts, are trained on; what leads are of."""
    recovery_examples: int
    """About how many of the task they see, in whole epochs and at least one."""
    recovery_tokens: int
    """What `retain` pruned, and its controls, see of the task if that is more: about so many tokens, since a short
    sentence teaches less than a pair of long ones."""
    recover_on_texts: bool
    """Whether what `retain` pruned, and its controls, train on with texts before they go to the task."""
    copies: int
    """Changed copies of each example that these then see too, where the task has few."""
    freeze_dense: bool
    """Whether `retain` leaves the dense layers as the teacher has them; `dropped` has no others to train."""
    rates: dict[str, float]
    """Learning rates of `retain` and its controls, where they are not the recipe's."""

    def texts_first(self, recipe: str) -> bool:
        """Whether what a recipe pruned sees texts before the task."""
        return recipe == "retain" and self.recover_on_texts

    def copies_of(self, recipe: str, tokens: int) -> int:
        """Changed copies of each example of a training set of `tokens` that what a recipe pruned learns from."""
        return self.copies if self.texts_first(recipe) and tokens < FEW else 0

    def recovery_epochs(self, recipe: str, size: int, tokens: int) -> int:
        """Epochs of recovery on `size` training examples with `tokens` in all."""
        examples = self.recovery_examples
        if self.texts_first(recipe):
            examples = max(examples, self.recovery_tokens * size / tokens)
        return max(1, round(examples / min(size, EPOCH_SIZE)))


DEPTHS = (
    Depth(
        "6of12",
        (UPPER,),
        2,
        (2, 4, 8, 12),
        2,
        0,
        0,
        recover_on_texts=False,
        copies=0,
        freeze_dense=True,
        rates={},
    ),
    Depth(
        "11of12",
        (UPPER, LOWER),
        2,
        (1, 2),
        1,
        60_000,
        1_500_000,
        recover_on_texts=True,
        copies=15,
        freeze_dense=False,
        rates=FAST,
    ),
)


def named(depths: str) -> tuple[Depth, ...]:
    """The depths with these comma-separated names, the shallower first.

    Raises:
        BadParameter: there is none of a name.
    """
    picked = names(depths, [depth.name for depth in DEPTHS], "--depths")
    return tuple(depth for depth in DEPTHS if depth.name in picked)
