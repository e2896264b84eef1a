"""Load checkpoints: Hugging Face folders whose `config.json` has a `shrp` section, or plain classifiers.

Only safetensors and JSON are read: nothing is ever unpickled and no code of the folder is run.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from shrp.analysis.usage import UsageStats, measure_usage
from shrp.checkpoints import reference
from shrp.checkpoints.card import card
from shrp.checkpoints.info import (
    CLASS_PREFIX,
    CONFIG,
    HEADS,
    HISTORY,
    MADE_OF,
    MORE_WEIGHTS,
    PREFIX,
    VOCABULARIES,
    WEIGHTS,
    CheckpointInfo,
    fingerprint,
    has_vocabulary,
    info_if_ours,
    pruned_training,
    read_config,
    read_history,
    usage_in,
)
from shrp.checkpoints.reference import Reference
from shrp.checkpoints.saving import save
from shrp.checkpoints.tokenizer_files import check_files, check_made
from shrp.data.batching import collate, encode, longest_input
from shrp.data.tasks import TEXTS
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError, PlanError, ShrpError, first_line, panics_caught
from shrp.evaluation.costs import WHOLE_VOCABULARY
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import empty_expert_layer, expert_layers, num_experts_of
from shrp.model.layers import StaticLayer
from shrp.model.modules import device_named
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.prune import prune

__all__ = ["CONFIG", "HISTORY", "WEIGHTS", "Checkpoint", "fingerprint", "info_if_ours", "load", "read_config"]
__all__ += ["read_history", "save"]

_NOT_PASSED_ON = (
    "shrp", "auto_map", "transformers_weights", "dtype", "attn_implementation", "_attn_implementation",
    "quantization_config", "return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
)
"""Entries of a config that would make transformers fetch or run code, return other outputs, or fail at some lengths."""
_LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "n_layers"), 256),
    **dict.fromkeys(("num_attention_heads", "n_heads"), 1024),
    "num_labels": 10_000,
    WHOLE_VOCABULARY: 10_000_000,
}
"""Bounds of numbers in a config: most of them make as many objects before the weights are looked at."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint, model in evaluation mode and float32."""

    path: Path
    info: CheckpointInfo
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    teacher: Mapping[str, Reference] = field(default_factory=dict)
    """Data fingerprint -> the dense teacher's outputs on these data, where they travel with the checkpoint."""
    problem: str = ""
    """Why the teacher's outputs could not be read, in one sentence; the model itself is sound."""

    @property
    def is_static(self) -> bool:
        """Whether the model was pruned (no routers left)."""
        return self.info.plan is not None

    def evaluate(self, data: TextData, **options: Any) -> Evaluation:
        """Evaluate on all examples, cut at the length of the checkpoint's training, as the command line and the app do.

        `shrp.evaluation.evaluate.evaluate` by itself cuts at 128 tokens, whatever the checkpoint.

        Args:
            data: examples of the checkpoint's task.
            options: of `shrp.evaluation.evaluate.evaluate_stream` (`batch_size`, `order`, another `max_length`).

        Returns:
            An evaluation with logits `(n, num_labels)`, its rows in the data's order.

        Raises:
            DataError: there are no examples, or the data are of another task.
        """
        data.check_is_for(self.info.task, "the model")
        return evaluate(self.model, self.tokenizer, data, **{"max_length": self.info.max_length} | options)

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]], **options: Any) -> pd.DataFrame:
        """Predict texts, cut as in `evaluate`.

        Args:
            texts: one text per example or, of a task on pairs, two.
            options: as of `evaluate`.

        Returns:
            One row per example, in their order: the text's column or columns, prediction (a class by its name, or a
            number) and a `p(<class>)` for each class (`Evaluation.to_frame`).

        Raises:
            DataError: there are no texts, or an example has not as many as the task's.
        """
        if isinstance(texts, (str, pd.DataFrame, Mapping)):
            raise DataError("give a list of texts; of a table, a column of them or rows of two.")
        inputs = tuple((one,) if isinstance(one, str) else one for one in texts)
        for row, one in enumerate(inputs, 1):
            if not isinstance(one, (tuple, list)) or not all(isinstance(text, str) for text in one):
                raise DataError(f"input {row} is no text, nor a pair of texts: {one!r:.40}.")
        inputs = tuple(map(tuple, inputs))
        found = self.evaluate(TextData(self.info.task, "texts", inputs), **options)
        return found.to_frame(inputs).drop(columns="index")

    def prune(
        self,
        plan: PruningPlan | None = None,
        counted_on: TextData | None = None,
        *,
        per_layer: int | None = None,
        budget: int | None = None,
    ) -> Checkpoint:
        """The static checkpoint of a plan, in memory, with its own weights and, of the scores, the teacher's.

        Args:
            plan: what is kept; without one, the most used experts by `info.usage`.
            counted_on: the data whose usage the plan was made of, which its card then names; None for `info.usage`.
            per_layer, budget: how many experts, in every layer or in all, instead of a plan.

        Raises:
            PlanError: the plan does not fit, or nothing is left to prune; not just one of the three is given.
            CheckpointError: by usage, of which the checkpoint carries none.
        """
        if (plan is not None) + (per_layer is not None) + (budget is not None) != 1:
            raise PlanError("give a plan, or experts per layer, or a budget: one of them.")
        if plan is None:
            if not expert_layers(self.model):  # a plan may prune layers without a router, too
                raise PlanError("no layer of this model has a router, so there is no usage to prune by; give a plan.")
            plan = make_plan(usage_in(self.info), per_layer=per_layer, budget=budget)
        kept = tuple(row for row in self.info.scores if row["kind"] == "teacher")
        training = pruned_training(self.info.training, self.fingerprint, plan, counted_on=counted_on)
        return replace(
            self,
            info=replace(self.info, plan=plan, usage={}, scores=kept, training=training),
            model=prune(self.model, plan),
            fingerprint=f"{self.fingerprint}-{plan.key()}",
        )

    def save(self, folder: str | os.PathLike, **options: Any) -> Path:
        """Write it, with its teacher's outputs, where it has some: `shrp.save` of its model, tokenizer and info.

        Args:
            options: of `shrp.save` (`dtype=torch.float16` for half the size, `history`).

        Raises:
            CheckpointError: as `shrp.save`.
        """
        return save(self.model, self.tokenizer, self.info, folder, **{"teacher": self.teacher} | options)

    def card(self, name: str, licence: str = "") -> str:
        """Its model card as Markdown (`shrp.checkpoints.card`)."""
        return card(name, self.info, self.model, licence)

    def usage(self, data: TextData, **options: Any) -> UsageStats:
        """Measure the usage of experts on `data`, the texts cut as in `evaluate`; `info.usage` is that of the training.

        Args:
            data: texts for the model; labels and slices, where there are any, go along for groups.
            options: of `shrp.analysis.usage.measure_usage` (`batch_size`, `output_norms`, `progress`, `max_length`).

        Returns:
            Usage with one array `(N, H)` per routed layer, of `N` examples and `H` experts.

        Raises:
            PlanError: no layer has a router, as in a pruned checkpoint.
            DataError: the data are empty.
        """
        return measure_usage(self.model, self.tokenizer, data, **{"max_length": self.info.max_length} | options)

    def __repr__(self) -> str:  # one line: the fields' own are tens of thousands of characters
        config, plan = self.info.config, self.info.plan
        layers = f"layers {', '.join(map(str, config.layers))}"
        if not config.layers:
            kind = "dense"
        elif plan is not None:
            kind = f"static, {counted(plan.budget, 'expert')} kept in {layers}"
        else:
            kind = f"routed in {layers}"
        return f"<Checkpoint {str(self.path)!r}: task {self.info.task.name!r}, {kind}>"


def load(folder: str | os.PathLike, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint, routed or static, in evaluation mode and float32, and try it on a text.

    Args:
        device: where the model goes once it is sound, and computes from then on, by PyTorch's name (`cuda`, `mps`).

    Raises:
        CheckpointError: missing, truncated, of another version, not SHRP's, of parts that don't fit each other, or
            replaced in the meantime; one sentence says which.
        ShrpError: there is no such device here.
    """
    folder, device = Path(folder), device_named(device)
    found = _state(folder)
    data, info = read_config(folder)
    weights = folder / WEIGHTS
    if not os.path.isfile(weights):
        raise CheckpointError(f"{folder} has no {WEIGHTS}; other weight formats are not read.")
    model = without_weights(folder, data, info)
    try:
        state = load_file(weights)
        if (more := folder / MORE_WEIGHTS).is_file():
            state |= load_file(more)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{weights} is truncated or not a safetensors file: {error}.") from error
    fill(model, state, weights)
    if not has_vocabulary(folder):
        raise CheckpointError(f"{folder} has no usable tokenizer: {VOCABULARIES[0]} is missing.")
    check_files(folder)
    try:
        with panics_caught():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            check_made(tokenizer)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        why = first_line(error)
        if isinstance(error, (AttributeError, KeyError, IndexError)):  # "'str' object has no attribute 'get'"
            why = f"a part of its settings is not what it should be ({type(error).__name__})."
        raise CheckpointError(f"{folder} has no usable tokenizer: {why}") from error
    read_as(model, tokenizer)
    if "shrp" not in data:
        about = {**info.training, "config": {"max_length": longest_input(model, tokenizer)}}
        info = replace(info, training=about)
    teacher, problem = {}, ""
    try:
        teacher = reference.read(folder, info.task)
    except CheckpointError as error:
        problem = str(error)
    try_out(folder, model.eval(), tokenizer, info)
    try:
        own = fingerprint(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read any more: {error.strerror}.") from error
    if _state(folder) != found:  # or weights and fingerprint may be of two checkpoints
        raise CheckpointError(f"{folder} was replaced while it was read; load it again.")
    return Checkpoint(folder, info, model.to(device), tokenizer, own, teacher, problem)


def _state(folder: Path) -> list[tuple[int, int, int]]:
    """What changes with the files that a checkpoint is made of: file, time, size; cheaper than a fingerprint."""
    state = []
    for name in MADE_OF:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        state.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return state


def without_weights(folder: Path, data: Mapping[str, Any], info: CheckpointInfo) -> PreTrainedModel:
    """The model that a checkpoint's `config.json` describes, its parameters still without storage.

    Raises:
        CheckpointError: it describes none, or other layers than its `shrp` section.
    """
    names = data.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) else ""
    cls = getattr(transformers, name, None) if name.endswith(HEADS[info.task.kind]) else None
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise CheckpointError(
            f"{folder}: architectures must name one transformers class {HEADS[info.task.kind]}, not {names!r:.60}."
        )
    for key, most in _LARGEST.items():
        value = data.get(key)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise CheckpointError(f"{folder}/config.json has a {key} that is not a number from 0 to {most:,}.")
    try:
        plain = {key: value for key, value in data.items() if key not in _NOT_PASSED_ON}
        config = config_for(plain, info)
        with torch.device("meta"):
            model = cls(config)
            _shape(model, info)
    except ShrpError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except Exception as error:  # whatever an untrusted config makes transformers raise
        raise CheckpointError(f"{folder}: its config.json does not describe a {name}: {error}.") from error
    return model


@cache
def config_class(model_type: str) -> type[PreTrainedConfig]:
    """The config class of converted models of a family, a subclass of the family's own.

    An instance's `model_type` is the family's, by which code tells families apart; files hold the class's, `shrp-...`.
    """
    family = CONFIG_MAPPING[model_type]

    def __post_init__(self, **kwargs: Any) -> None:
        family.__post_init__(self, **kwargs)
        self.model_type = model_type

    members = {"model_type": PREFIX + model_type, "__post_init__": __post_init__, "__module__": __name__}
    return type(CLASS_PREFIX + family.__name__, (family,), members)


def config_for(plain: Mapping[str, Any], info: CheckpointInfo) -> PreTrainedConfig:
    """A model's config: the family's own, or of a converted model one that says so wherever it is saved."""
    if not info.config.layers:
        return AutoConfig.for_model(**plain)
    known = {name: value for name, value in plain.items() if name != "model_type"}
    return config_class(plain["model_type"])(**known, shrp=info.to_dict())


def _shape(model: PreTrainedModel, info: CheckpointInfo) -> None:
    """Give every converted layer its module, without weights."""
    layers, experts = encoder_layers(model), num_experts_of(model)
    info.config.check_fits(len(layers), experts)
    if info.plan:
        info.plan.check_fits(info.config.layers, experts)
    if any(len(shares) != experts for shares in info.usage.values()):
        raise CheckpointError(f"its usage is not of the {experts} experts that its layers have.")
    kept = dict(info.plan.layers) if info.plan else {}
    for index in info.config.layers:
        layer = empty_expert_layer(model, index, info.config)
        plan = info.plan
        layers[index] = StaticLayer(layer, kept[index].experts, untied=plan.untied) if plan else layer


def fill(model: PreTrainedModel, state: dict[str, torch.Tensor], weights: Path) -> None:
    """Put `state`, of the file `weights`, into a model without storage, as float32, after checking names and shapes.

    Raises:
        CheckpointError: a tensor is missing, or is not the model's.
    """
    expected, wrong = model.state_dict(), ""
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        which = f"lacks {missing[0]}" if missing else f"has an unexpected {extra[0]}"
        wrong = f"it {which} ({len(missing)} missing, {len(extra)} unexpected tensors)"
    for name in expected if not wrong else ():
        of, value = expected[name], state[name]
        if value.shape != of.shape:
            wrong = f"{name} is {list(value.shape)}, expected {list(of.shape)}"
        elif value.is_floating_point() != of.is_floating_point():
            wrong = f"{name} is of {value.dtype}, expected {of.dtype}; quantised weights are not read"
    if wrong:
        raise CheckpointError(f"{weights} does not fit its config.json: {wrong}.")
    # Copied: what the file maps into memory changes, or is gone, when somebody writes over it.
    state = {
        name: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in state.items()
    }
    model.load_state_dict(state, assign=True)
    # Buffers that are not stored (position ids) are still without storage: make them as the model would.
    family_of(model).restore(model)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                fresh = torch.zeros(buffer.shape, dtype=buffer.dtype)
                if name == "position_ids":
                    fresh = torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()
                module.register_buffer(name, fresh, persistent=False)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def try_out(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: CheckpointInfo
) -> None:
    """Raise `CheckpointError` where model, tokenizer and task don't fit each other."""
    outputs = model.config.num_labels
    if wrong := unembedded(model, tokenizer):
        raise CheckpointError(f"{folder} {wrong}")
    if outputs != info.task.num_labels and info.task.name != TEXTS.name:  # whose head nobody uses
        raise CheckpointError(
            f"{folder} has a model of {outputs} outputs and a task, '{info.task.name}', that needs "
            f"{info.task.num_labels}; give the labels in {CONFIG} that it was trained with."
        )
    try:
        with torch.inference_mode(), panics_caught():
            words = ("a few words",) * len(info.task.text_columns)
            limit = longest_input(model, tokenizer, info.max_length)
            model(**collate(tokenizer, encode(tokenizer, [words], limit), [0], model.device))
    except Exception as error:  # whatever untrusted files make a model raise
        raise CheckpointError(
            f"{folder} has a model that can't compute a text: {first_line(error)}"
        ) from error


def unembedded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """What is wrong where a tokenizer has tokens that the model has no embedding of; empty where it fits."""
    rows = model.get_input_embeddings().num_embeddings
    count = 1 + max(tokenizer.get_vocab().values(), default=-1)  # ids may have gaps
    if count <= rows:
        return ""
    return (
        f"has a tokenizer of {count:,} tokens and a model that embeds {rows:,}; the tokenizer is another "
        "model's, or tokens were added without a row for them."
    )


def read_as(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a tokenizer leave out what the model has no embeddings of.

    A BERT tokenizer gives the second of two texts a type that a RoBERTa, of one type, doesn't know.
    """
    taken = inspect.signature(model.forward).parameters
    if "token_type_ids" not in taken or getattr(model.config, "type_vocab_size", 2) < 2:
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
