"""The options of a training, as validated dataclasses: a checkpoint records them, and a file can give them."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from shrp.errors import PlanError, TrainingError
from shrp.model.config import ShrpConfig

Precision = Literal["auto", "fp32", "bf16"]
ExpanderInit = Literal["random", "least_squares"]

QUICK: dict[str, Any] = {
    "shrp": {"self_path": True},
    "conversion_size": 1000,
    "final_size": 8000,
    "distill_logits": 1.0,
}
"""Values of `TextConfig` for a conversion in minutes (`shrp.training.quick`)."""
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
WIDE_RATES = {"learning_rate": 4e-5, "new_learning_rate": 2e-4}
"""Those of a conversion on text of encoders wider than 512, which do not settle at a small one's."""
PER_LAYER = (1, 2, 4, 8, 12)
"""Experts per layer at which a recipe scores pruned models by default."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of a schedule."""

    index: int
    """Counted from 0 over the whole training; with the seed it decides everything random in the epoch."""
    stage: int
    """1 while layers are being converted, 2 afterwards."""
    convert: int | None
    """The layer that is converted just before this epoch."""
    start_factor: float
    """Factor of the learning rates at the epoch's start, before the warm-up."""
    end_factor: float
    """Factor at its end; in between it moves linearly."""
    size: int | None
    """Number of examples, at most; None for all of them."""
    phase: str
    """What the epoch does, in words for a progress line."""

    def rate(self, step: int, steps: int, warmup: float) -> float:
        """Factor of the learning rates at step 0 to `steps` - 1; it rises over the share `warmup` of them."""
        warm = max(1, round(warmup * steps))
        falling = self.start_factor + (self.end_factor - self.start_factor) * step / steps
        return min(1.0, (step + 1) / warm) * falling


def conversions(layers: Sequence[int], size: int | None, phase: str) -> Iterator[Epoch]:
    """One epoch a layer, at the full rate: stage 1."""
    for index, layer in enumerate(layers):
        name = f"{phase}: converting layer {layer} ({index + 1} of {len(layers)})"
        yield Epoch(index, 1, layer, 1.0, 1.0, size, name)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch of a training, within what numpy's global generator takes."""
    return (seed * 10_007 + epoch) % 2**32


_RANGES = (
    ("a number above 0", lambda x: 0 < x < math.inf, "learning_rate new_learning_rate temperature"),
    ("a number from 0 on", lambda x: 0 <= x < math.inf, "balance distill_hidden weight_decay stage2_epochs"),
    ("between 0 and 1", lambda x: 0 <= x <= 1, "distill_logits warmup"),
    ("1 or more", lambda x: x >= 1, "batch_size max_length epoch_size conversion_size final_size"),
    (f"between 0 and {2**32 - 1}", lambda x: 0 <= x < 2**32, "seed"),  # what every generator takes
)
"""Ranges of the fields of both configs; None is in all of them."""


@dataclass(frozen=True)
class _Config:
    """What every training is configured by; a `TrainingError` if a value is out of its range, or two contradict each other."""

    shrp: ShrpConfig = field(default_factory=lambda: ShrpConfig(()))
    """The conversion. Without layers, a dense or pruned model is fine-tuned."""
    batch_size: int = 32
    """Examples a step."""
    max_length: int = 128
    """Longest input, in tokens."""
    learning_rate: float = 3e-5
    """Peak rate of pretrained weights."""
    new_learning_rate: float = 5e-4
    """Peak rate of new weights: Router and Expander."""
    weight_decay: float = 0.01
    """AdamW's, on matrices."""
    balance: float = 0.1
    """Lambda, the weight of the balance loss: in stage 1, and on text throughout (experts specialise on the task)."""
    distill_logits: float = 0.0
    """On a task, the share of its loss replaced by the teacher's soft targets, 0 to 1; on text, the weight
    of the base's soft targets, where it has a trained head (0 leaves the head out)."""
    temperature: float = 2.0
    """Temperature of the soft targets."""
    precision: Precision = "auto"
    """`auto` takes bf16 where a short timing shows that it helps."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for words, valid, names in _RANGES:
            for name in names.split():
                if (value := getattr(self, name, None)) is not None and not valid(value):
                    raise TrainingError(f"{name} must be {words}, not {value}.")
        for name, choices in (("precision", get_args(Precision)), ("expander_init", get_args(ExpanderInit))):
            if getattr(self, name) not in choices:
                raise TrainingError(f"{name} must be one of {', '.join(choices)}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as checkpoints record it."""
        return asdict(self) | {"shrp": self.shrp.to_dict()}


@dataclass(frozen=True)
class TrainConfig(_Config):
    """Training on a task: dense fine-tuning (no layers to convert), SHRP's two stages, or fine-tuning after pruning."""

    repeats: ClassVar[bool] = False
    """An epoch never sees an example twice."""

    order: tuple[int, ...] = ()
    """Conversion order, one layer an epoch; empty means from the top down."""
    stage2_epochs: int = 2
    """Epochs after the last conversion (or of plain fine-tuning), without the balance loss."""
    epoch_size: int | None = None
    """Examples an epoch, at most; epochs walk through the data, so none is favoured. None for all."""
    conversion_size: int | None = None
    """The same for the epochs of stage 1, which may be short; None is `epoch_size`."""
    warmup: float = 0.06
    """Share of each epoch's steps over which the rate rises; the optimizer starts afresh with each epoch."""
    freeze_embeddings: bool = False
    """Leave the embeddings as they are."""
    freeze_dense: bool = False
    """Leave the layers that are still dense, and the embeddings, as they are. A distilled step then starts at the
    lowest converted layer, from the teacher's hidden states there."""
    dropout: bool = True
    """Whether the model's own dropout is on while it trains."""
    distill_hidden: float = 0.0
    """Weight of the squared error between a converted layer's output and the teacher's, summed over layers."""
    expander_init: ExpanderInit = "random"
    """Start of an Expander: near the identity with random directions, or fitted to the dense layer's residual update."""

    def __post_init__(self) -> None:
        if self.order and sorted(self.order) != list(self.shrp.layers):
            wanted = list(self.shrp.layers)
            raise TrainingError(f"order {list(self.order)} must name each of the layers {wanted} once.")
        super().__post_init__()
        if not self.shrp.layers and self.stage2_epochs == 0:
            raise TrainingError("nothing to do: name layers to convert, or at least one epoch.")

    @classmethod
    def named(cls, recipe: str, **values: Any) -> TrainConfig:
        """A config of one of `RECIPES`, with further or other values."""
        return cls(**RECIPES[recipe] | values)

    @property
    def distils(self) -> bool:
        """Whether the training needs a teacher."""
        return self.distill_logits > 0 or self.distill_hidden > 0

    @property
    def needs_hidden(self) -> bool:
        """Whether it needs the teacher's hidden states: as targets, or as inputs of the lowest converted layer."""
        return self.distill_hidden > 0 or self.freeze_dense

    def schedule(self) -> Iterator[Epoch]:
        """The epochs in order: stage 1 at the full rate, then stage 2 falling linearly to 0."""
        order = self.order or tuple(reversed(self.shrp.layers))
        yield from conversions(order, self.conversion_size or self.epoch_size, "stage 1")
        phase = "stage 2" if order else "fine-tuning"
        for k in range(self.stage2_epochs):
            factor = 1 - k / self.stage2_epochs, 1 - (k + 1) / self.stage2_epochs
            yield Epoch(len(order) + k, 2, None, *factor, self.epoch_size, phase)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as checkpoints record it."""
        return super().to_dict() | {"order": list(self.order)}


@dataclass(frozen=True)
class TextConfig(_Config):
    """Training on unlabelled text: a conversion from the top layer down, or fine-tuning after pruning (no layers)."""

    repeats: ClassVar[bool] = True
    """Where there are fewer texts than an epoch wants, it sees them again."""
    # What is to be learnt is one function of the text, which dropout would only blur.
    dropout: ClassVar[bool] = False
    needs_hidden: ClassVar[bool] = True
    expander_init: ClassVar[ExpanderInit] = "least_squares"
    warmup: ClassVar[float] = 1 / 16

    max_length: int = 64
    learning_rate: float = 2e-4
    new_learning_rate: float = 1e-3
    conversion_size: int = 2500
    """Texts of the epoch after each conversion."""
    final_size: int = 20_000
    """Texts of the last epoch, in which the learning rate falls to 0."""

    def visited(self, total: int) -> int:
        """How many of `total` texts the epochs see."""
        return min(sum(epoch.size for epoch in self.schedule()), total)

    def schedule(self) -> Iterator[Epoch]:
        """The epochs in order: one after each conversion at the full rate, then one that falls linearly to 0."""
        order = tuple(reversed(self.shrp.layers))
        yield from conversions(order, self.conversion_size, "conversion on text")
        phase = "conversion on text: all layers" if order else "fine-tuning after pruning, on text"
        yield Epoch(len(order), 1, None, 1.0, 0.0, self.final_size, phase)


@dataclass(frozen=True)
class Recipe:
    """The whole of SHRP (`shrp.training.recipe`): teacher, two-stage training, and scores of prunings.

    Raises:
        TrainingError: no layer is converted, or a number is out of its range.
    """

    training: TrainConfig
    """The two stages: layers and routing (`shrp`), order, epochs, rates, distillation, seed."""
    teacher: TrainConfig | None = None
    """Fine-tuning of the dense teacher if the base has no trained head; by default 3 epochs at 5e-5."""
    per_layer: tuple[int, ...] | None = None
    """Experts per layer at which pruned models are scored; by default 1, 2, 4, 8 and 12, as far as they exist."""
    random_draws: int = 3
    """Random selections that each pruned model is compared with; 0 for none."""
    converted: str | None = None
    """A checkpoint that `convert` made of the same base: its layers take the place of stage 1. If it is pruned, the
    run trains and scores that pruned model only."""
    base_name: str | None = None
    """What checkpoints call the base; by default the folder's name."""
    full_precision: bool = False
    """Store float32 weights instead of float16."""

    def __post_init__(self) -> None:
        if not self.training.shrp.layers:
            raise TrainingError("name at least one layer to convert; plain fine-tuning is `finetune`.")
        if self.random_draws < 0:
            raise TrainingError(f"random_draws must be 0 or more, not {self.random_draws}.")

    def sizes(self, experts: int) -> tuple[int, ...]:
        """Experts per layer at which pruned models are scored, for layers that have so many.

        Raises:
            PlanError: `per_layer` asks for more than these, or for none.
        """
        for m in self.per_layer or ():
            if not 1 <= m <= experts:
                raise PlanError(f"pruned models of this base keep 1 to {experts} experts per layer, not {m}.")
        return tuple(m for m in PER_LAYER if m <= experts) if self.per_layer is None else self.per_layer


def read_config(
    path: Path | None,
    cls: type,
    *,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
    overrides: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Make a config dataclass from a YAML or JSON file (`--config`); all that is not given has its default.

    Args:
        path: the file, a mapping of field names to values; nested dataclasses are nested mappings. None for none.
        defaults: values that the file may replace, in the same form, such as one of `RECIPES`.
        overrides: values that replace the file's, such as those of flags.

    Raises:
        TrainingError: the file can't be read, has an unknown field (the message names the nearest one), or a value
            of another type.
        ShrpError: a value is out of its range.
    """
    given: Any = {}
    if path is not None:
        import yaml

        try:
            text = path.read_text(encoding="utf-8")
            given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text) or {}
        except OSError as error:
            raise TrainingError(f"{path} can't be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())[:200]
            raise TrainingError(f"{path} is not a YAML or JSON file: {why}.") from error
    where = "the options" if path is None else path.name
    if not isinstance(given, Mapping):
        raise TrainingError(f"{where} must map options to values, such as `training: {{seed: 1}}`.")
    return _build(cls, _merged(_merged(defaults, given), overrides), where)


def _merged(one: Any, other: Any) -> Any:
    """`one` with the values of `other`, mapping by mapping; an empty key of a file replaces no mapping."""
    if other is None and isinstance(one, Mapping):
        return one
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {**one, **{key: _merged(one.get(key), value) for key, value in other.items()}}


def _build(cls: type, data: Any, where: str) -> Any:
    """A dataclass from a mapping of its fields, values checked by their annotations."""
    if not isinstance(data, Mapping):
        raise TrainingError(f"{where}: expected a mapping of options to values, not {data!r:.60}.")
    hints, names = get_type_hints(cls), [one.name for one in fields(cls)]
    values = {}
    for name, value in data.items():
        if name not in names:
            inner = {one.name for one in fields(hints["training"])} if "training" in names else ()
            near = "training: " + name if name in inner else difflib.get_close_matches(str(name), names, 1, 0.0)[0]
            raise TrainingError(f"{where} has no option {str(name)!r:.60}; did you mean {near!r}?")
        values[name] = _value(hints[name], value, f"{where}: {name}")
    try:
        return cls(**values)
    except TypeError as error:  # a field without a default
        raise TrainingError(f"{where} lacks options: {error}.") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value as its annotation wants it."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    (kind,) = (one for one in kinds if one is not type(None))
    if is_dataclass(kind):
        return _build(kind, value, where)
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(get_args(kind)[0], one, where) for one in value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-4, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if get_origin(kind) is Literal and isinstance(value, str):
        return value  # which one is checked by the dataclass
    if get_origin(kind) is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise TrainingError(f"{where} must be {words.get(kind, 'a list')}, not {value!r:.60}.")
