"""SHRP checkpoints: a Hugging Face folder whose `config.json` has a `shrp` section, or a plain classifier's.

Only safetensors and JSON are read: nothing is ever unpickled and no code of the folder is run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shrp.analysis.usage import UsageStats, measure_usage
from shrp.checkpoints import hub, reference, stored
from shrp.checkpoints.card_pruning import pruned_training
from shrp.checkpoints.info import CheckpointInfo, info_of_classifier, usage_in
from shrp.checkpoints.rebuild import fill, without_weights
from shrp.checkpoints.reference import Reference
from shrp.checkpoints.saving import CONFIG as CONFIG
from shrp.checkpoints.saving import EXPORT
from shrp.checkpoints.saving import WEIGHTS as WEIGHTS
from shrp.checkpoints.saving import save as save
from shrp.checkpoints.tokenizer_files import check_files, check_made
from shrp.checkpoints.try_out import read_as, try_out
from shrp.data.batching import longest_input
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError, PlanError, first_line, panics_caught
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import router_layers
from shrp.model.modules import device_named
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan, make_plan
from shrp.pruning.prune import prune

HISTORY = "history.jsonl"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)
MADE_OF = (
    *(CONFIG, WEIGHTS, *VOCABULARIES),
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""The files that decide a checkpoint's outputs for a text, of which it has some."""
_MAX_JSON_BYTES = 20 * 2**20


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
        """Evaluate on all inputs, cut at the length of the checkpoint's training, as the command line and the app do.

        `shrp.evaluation.evaluate.evaluate` by itself cuts at 128 tokens, whatever the checkpoint.

        Args:
            data: inputs of the checkpoint's task.
            options: of `shrp.evaluation.evaluate.evaluate_stream` (`batch_size`, `order`); a `max_length` of one's own as
                well.

        Returns:
            An evaluation with logits `(n, num_labels)`, its rows in the data's order.

        Raises:
            DataError: there are no inputs, or the data are of another task.
            ValueError: an `order` or a batch size that can't be.
        """
        self._check_task(data)
        return evaluate(self.model, self.tokenizer, data, **self._at_own_length(options))

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]], **options: Any) -> pd.DataFrame:
        """What the model says of texts, cut as in `evaluate`.

        Args:
            texts: one text an input or, of a task on pairs, two.
            options: as of `evaluate`.

        Returns:
            One row an input, in their order: the text's column or columns, prediction (a class by its name, or a
            number) and a `p(<class>)` for each class (`Evaluation.to_frame`).

        Raises:
            DataError: there are no texts, or an input has not as many as the task's.
        """
        if isinstance(texts, str):
            raise DataError("give a list of texts, not one text.")
        if isinstance(texts, (pd.DataFrame, Mapping)):
            raise DataError("give a list of texts; of a table, a column of them or rows of two.")
        inputs = tuple((one,) if isinstance(one, str) else one for one in texts)
        for row, one in enumerate(inputs, 1):
            if not isinstance(one, (tuple, list)) or not all(isinstance(text, str) for text in one):
                raise DataError(f"input {row} is no text, nor a pair of texts: {one!r:.40}.")
        inputs = tuple(map(tuple, inputs))
        data = TextData(self.info.task, "texts", inputs)
        return self.evaluate(data, **options).to_frame(inputs).drop(columns="index")

    def prune(
        self,
        plan: PruningPlan | None = None,
        counted_on: TextData | None = None,
        *,
        per_layer: int | None = None,
        budget: int | None = None,
    ) -> Checkpoint:
        """The static checkpoint of a plan, in memory, with weights of its own (`save` writes it). Of the scores the
        teacher's alone go along: the others are the routed model's.

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
        # By a plan experts that are mixed alike can go, too.
        if plan is None and not router_layers(self.model):
            raise PlanError(
                "no layer of this model has a router, so there is no usage to prune by; give a plan."
            )
        if plan is None:
            plan = make_plan(usage_in(self.info), per_layer=per_layer, budget=budget)
        kept = tuple(row for row in self.info.scores if row.get("kind") == "teacher")
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
            options: of `shrp.save` (`dtype=torch.float16` for half the size, `extra_files`).

        Raises:
            CheckpointError: as `shrp.save`.
        """
        return save(self.model, self.tokenizer, self.info, folder, **{"teacher": self.teacher} | options)

    def _check_task(self, data: TextData) -> None:
        ours, theirs = self.info.task, data.task
        if not ours.reads_as(theirs):
            raise DataError(
                f"{data.name} is data of {theirs.name}, and the model is for {ours.name}: their texts or their classes "
                "are others."
            )

    def usage(self, data: TextData, **options: Any) -> UsageStats:
        """Run over `data` and keep what the routers did, the inputs cut as in `evaluate`.

        `info.usage` is what the checkpoint has from its training; this measures anew.

        Args:
            data: texts for the model; labels and slices, where there are any, go along for groups.
            options: of `shrp.analysis.usage.measure_usage` (`batch_size`, `output_norms`, `progress`, `max_length`).

        Returns:
            Usage with one array `(N, H)` a routed layer, of `N` inputs and `H` experts.

        Raises:
            PlanError: no layer has a router, as in a pruned checkpoint.
            DataError: the data are empty.
        """
        return measure_usage(self.model, self.tokenizer, data, **self._at_own_length(options))

    def sweep(
        self, data: TextData, *, allocation: str = "per_layer", draws: int = 3, selection: str = "usage"
    ) -> pd.DataFrame:
        """Scores of prunings of all sizes beside random experts, chosen on the data that score them, as
        `python -m shrp sweep` has them.

        Args:
            data: labelled inputs of the checkpoint's task.
            allocation: `per_layer` or `budget`.
            draws: of random experts at each size.
            selection: `usage`, or `recorded`, that of the training.

        Returns:
            `shrp.pruning.sweep.to_frame`: one row a pruning.

        Raises:
            PlanError: no layer has a router, or another allocation or selection.
            DataError: the data have no labels, or are of another task.
            CheckpointError: by recorded usage, of which the checkpoint carries none.
        """
        from shrp.pruning.sweep import swept

        self._check_task(data)
        if selection not in ("usage", "recorded"):
            raise PlanError(f"selection is usage or recorded here, not {selection!r}.")
        stats = self.usage(data)
        if selection == "recorded":
            stats = replace(stats, recorded=usage_in(self.info))
        how = {"allocation": allocation, "draws": draws, "selection": selection}
        return swept(self.model, self.tokenizer, data, stats, max_length=self.info.max_length, **how)

    def _at_own_length(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"max_length": self.info.max_length} | options

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


def read_config(folder: str | os.PathLike) -> tuple[dict[str, Any], CheckpointInfo]:
    """Read `config.json` of a checkpoint or of a plain classifier: the whole of it, with the names of the family's own
    classes, and what its `shrp` section says, or of a plain classifier its labels. Reads no weights.

    Raises:
        CheckpointError: not a checkpoint; one sentence says why.
    """
    folder = Path(folder)
    file = folder / CONFIG
    if not os.path.isfile(file):  # False, too, where the folder may not be looked into
        if not os.path.lexists(folder):
            raise CheckpointError(
                f"there is no {folder}; name a checkpoint's folder (`finetune --epochs 0` makes one of a dense model)."
            )
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {CONFIG} that can be read.")
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{file} is larger than any model's config; it is not a checkpoint's.")
        data = json.loads(file.read_text(encoding="utf-8"))
        # Half of a surrogate pair can't be shown, or written again.
        json.dumps(data, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:  # also of a number of too many digits
        raise CheckpointError(f"{file} is not readable JSON: {error}.") from error
    if isinstance(data, dict) and data.get("format") == EXPORT:
        raise CheckpointError(
            f"{folder} is an export to ONNX, which onnxruntime serves; give the checkpoint that it was made from."
        )
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds no object, so it is not a model's config.")
    kind, names = data.get("model_type"), data.get("architectures")
    data["model_type"] = kind.removeprefix(hub.PREFIX) if isinstance(kind, str) else kind
    if isinstance(names, list):
        data["architectures"] = [str(name).removeprefix(hub.CLASS_PREFIX) for name in names]
    if data["model_type"] not in list(hub.MODEL_TYPES):  # a list: a stranger's value may not be hashable
        raise CheckpointError(
            f"{folder}: model_type {kind!r:.60} is not one of {', '.join(sorted(hub.MODEL_TYPES))}."
        )
    if "shrp" in data or kind != data["model_type"]:
        if not isinstance(data.get("shrp"), dict):
            raise CheckpointError(f'{folder} is not an SHRP checkpoint: its {CONFIG} has no "shrp" section.')
        return data, CheckpointInfo.from_dict(data["shrp"])
    return data, info_of_classifier(folder.resolve().name, data)


def info_if_ours(folder: str | os.PathLike) -> CheckpointInfo | None:
    """The `shrp` section of `folder`, or None where that is no checkpoint of ours (a hub id, say)."""
    try:
        data, info = read_config(folder)
    except CheckpointError:
        return None
    return info if "shrp" in data else None


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
        raise CheckpointError(f"{folder} has no usable tokenizer: {first_line(error)}") from error
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


def has_vocabulary(folder: str | os.PathLike) -> bool:
    """Whether a model folder has a tokenizer's vocabulary; without one, transformers makes up an empty one."""
    return any(os.path.isfile(Path(folder) / name) for name in VOCABULARIES)


def fingerprint(folder: str | os.PathLike) -> str:
    """SHA-256 over a checkpoint's config, weights and tokenizer: equal bytes, equal fingerprint.

    What does not decide the outputs for a text (history, the teacher's outputs) does not count.
    """
    digest = hashlib.sha256()
    for name in MADE_OF:
        path = Path(folder) / name
        if path.is_file() or name in (CONFIG, WEIGHTS):
            with open(path, "rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_history(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The epochs of a checkpoint's training, oldest first; empty where none were kept."""
    file = Path(folder) / HISTORY
    if not os.path.isfile(file):
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not readable JSON lines: {error}.") from error
    return stored.check_history(rows)
