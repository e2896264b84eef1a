"""Everything that a training run is asked for, in one validated dataclass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from shrp.errors import ShrpError, TrainingError
from shrp.model.config import ShrpConfig

Precision = Literal["auto", "fp32", "bf16"]
ExpanderInit = Literal["random", "least_squares"]


RECIPES: dict[str, dict[str, Any]] = {
    # method.md and nothing else.
    "paper": {"learning_rate": 3e-5, "new_learning_rate": 5e-4, "balance": 0.1},
    # Distilled, at higher rates, from a fitted start, without dropout: a student so small does not overfit its teacher.
    "retain": {
        "learning_rate": 1e-4,
        "new_learning_rate": 1e-3,
        "balance": 0.1,
        "distill_logits": 0.5,
        "distill_hidden": 1.0,
        "expander_init": "least_squares",
        "dropout": False,
    },
}
"""The two named recipes: values of `TrainConfig` that differ between them."""


def check_seed(seed: int) -> None:
    """Raise `TrainingError` unless every generator takes the seed."""
    if not 0 <= seed < 2**32:
        raise TrainingError(f"seed must be between 0 and {2**32 - 1}, not {seed}.")


def seed_after(seed: int) -> int:
    """The seed of a training that goes on from one with this seed, so that it visits other examples."""
    return (seed + 1000) % 2**32


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch of a run, within what numpy's global generator takes."""
    return (seed * 10_007 + epoch) % 2**32


@dataclass(frozen=True)
class Epoch:
    """One epoch of the schedule."""

    index: int
    stage: int
    """1 while layers are being converted, 2 afterwards."""
    convert: int | None
    """The layer that is converted just before this epoch."""
    start_factor: float
    """Learning-rate factor at the epoch's start, before its warm-up, and at its end."""
    end_factor: float
    size: int | None
    """At most so many examples; None is all of them."""


@dataclass(frozen=True)
class TrainConfig:
    """A run of dense fine-tuning (no layers to convert) or of SHRP's two stages (method.md, "Training").

    Raises:
        TrainingError: a value is out of its range, or two contradict each other.
    """

    shrp: ShrpConfig = field(default_factory=lambda: ShrpConfig(()))
    """The conversion. With no layers this is plain fine-tuning."""
    order: tuple[int, ...] = ()
    """Conversion order, one layer an epoch; empty means from the top down."""
    stage2_epochs: int = 2
    """Epochs after the last conversion (or of plain fine-tuning), without the balance loss."""
    balance: float = 0.1
    """Lambda, the weight of the balance loss in stage 1."""
    epoch_size: int | None = None
    """At most so many examples an epoch; epochs walk through the data, so none is favoured."""
    conversion_size: int | None = None
    """The same for the epochs of stage 1, which may be short; None is `epoch_size`."""
    batch_size: int = 32
    max_length: int = 128
    learning_rate: float = 3e-5
    """For pretrained weights."""
    new_learning_rate: float = 5e-4
    """For Router and Expander; in the `narrow` control for what has the Expander's place."""
    weight_decay: float = 0.01
    warmup: float = 0.06
    """Share of each epoch's steps over which the rate rises; the optimizer starts afresh with each epoch."""
    freeze_embeddings: bool = False
    freeze_dense: bool = False
    """Leave the layers that are still dense, and the embeddings, as they are. A distilled step then starts at the
    lowest converted layer, from what the teacher says there."""
    dropout: bool = True
    """Whether the model's own dropout is on while it trains."""
    distill_logits: float = 0.0
    """Share of the task loss replaced by the teacher's soft targets, 0 to 1."""
    distill_hidden: float = 0.0
    """Weight of the squared error between a converted layer's output and the teacher's, summed over layers."""
    temperature: float = 2.0
    expander_init: ExpanderInit = "random"
    """How an Expander starts: near the identity with random directions, or fitted to what the dense layer adds."""
    swap: float = 0.0
    """Probability that a step of stage 1 runs the dense layer in place of the one just converted, at the epoch's
    start; it falls to 0 at its end (after BERT-of-Theseus, Xu et al. 2020)."""
    exploration: float = 0.0
    """Scale of the Gumbel noise on the routers' log-probabilities at the start of stage 1; it falls to 0 at its end."""
    precision: Precision = "auto"
    """`auto` takes bf16 where a short timing shows that it helps."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order and sorted(self.order) != list(self.shrp.layers):
            raise TrainingError(
                f"order {list(self.order)} must name each of the layers {list(self.shrp.layers)} once."
            )
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision must be one of {', '.join(get_args(Precision))}.")
        if self.expander_init not in get_args(ExpanderInit):
            raise TrainingError(f"expander_init must be one of {', '.join(get_args(ExpanderInit))}.")
        positive = ("batch_size", "max_length", "learning_rate", "new_learning_rate", "temperature")
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be a number above 0, not {getattr(self, name)}.")
        for name in ("balance", "distill_hidden", "weight_decay", "stage2_epochs", "exploration"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be a number from 0 on, not {getattr(self, name)}.")
        for name in ("distill_logits", "warmup", "swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} must be between 0 and 1, not {getattr(self, name)}.")
        for name in ("epoch_size", "conversion_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise TrainingError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        check_seed(self.seed)
        if not self.shrp.layers and self.stage2_epochs == 0:
            raise TrainingError("nothing to do: name layers to convert, or at least one epoch.")

    @classmethod
    def named(cls, recipe: str, **values: Any) -> TrainConfig:
        """A config of one of `RECIPES`, with further or other values.

        Raises:
            TrainingError: there is no such recipe.
        """
        if recipe not in RECIPES:
            raise TrainingError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}.")
        return cls(**RECIPES[recipe] | values)

    @property
    def distils(self) -> bool:
        """Whether the run needs a teacher."""
        return self.distill_logits > 0 or self.distill_hidden > 0

    @property
    def needs_hidden(self) -> bool:
        """Whether it is asked for hidden states too: to be learned, or as what enters the lowest converted layer."""
        return self.distill_hidden > 0 or freezes_dense(self)

    def schedule(self) -> Iterator[Epoch]:
        """The epochs in order: stage 1 at the full rate, then stage 2 falling linearly to 0."""
        order = self.order or tuple(reversed(self.shrp.layers))
        for index, layer in enumerate(order):
            yield Epoch(index, 1, layer, 1.0, 1.0, self.conversion_size or self.epoch_size)
        for k in range(self.stage2_epochs):
            factor = 1 - k / self.stage2_epochs, 1 - (k + 1) / self.stage2_epochs
            yield Epoch(len(order) + k, 2, None, *factor, self.epoch_size)

    def visits_all(self, total: int) -> bool:
        """Whether the epochs together are long enough to come by each of `total` examples."""
        return sum(min(epoch.size or total, total) for epoch in self.schedule()) >= total

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self) | {"shrp": self.shrp.to_dict(), "order": list(self.order)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainConfig:
        """Rebuild a config from `to_dict`'s form.

        Raises:
            ShrpError: it lacks a field, has one that this version does not know, or a value is out of its range.
        """
        try:
            shrp = ShrpConfig(**data["shrp"] | {"layers": tuple(data["shrp"]["layers"])})
            return cls(**data | {"shrp": shrp, "order": tuple(data["order"])})
        except (KeyError, TypeError) as error:
            raise TrainingError(f"the stored config is not one of this version: {error}.") from error


def whole_config(training: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config in a checkpoint's `training`, fields that it lacks at their default; None where it has none, or no
    valid one.
    """
    made = training.get("config")
    try:
        return None if made is None else TrainConfig.from_dict(made).to_dict()
    except ShrpError:
        return None


def was_made_with(config: TrainConfig, training: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's `training` says that it was made with a config; fields that it lacks had their default."""
    return whole_config(training) == config.to_dict()


def freezes_dense(config: TrainConfig) -> bool:
    """Whether dense layers stay as the teacher has them; never beside dropped ones, as there are no others to learn."""
    return config.freeze_dense and config.shrp.control != "dropped"
