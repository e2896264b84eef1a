"""Cached access to checkpoints, data and what was measured on them.

Everything is keyed on fingerprints of bytes, never on objects: a checkpoint that is trained anew is loaded
anew, and two sessions that look at the same things share one model and one measurement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from shrp import checkpoint as checkpoints
from shrp import reference
from shrp.checkpoint import Checkpoint
from shrp.checkpoint_info import CheckpointInfo
from shrp.data import PROBES, TextData, load_glue, load_probe
from shrp.errors import CheckpointError, DataError
from shrp.hub import DATA_DIR
from shrp.results_store import ROUTED
from shrp.tabular import EXTENSIONS, is_unicode
from shrp.tasks import TASKS, Task
from ui.own_fit import fit, guess
from ui.own_table import read_file
from ui.store import Progress, disk, once
from ui.text import escape

OWN, HUB, FOLDER = "own", "hub", "folder"
"""The sources that are a person's own table, GLUE over the network, and a file of a task of one's own that lies in the
folder of SHRP_DATA_DIR, for whoever runs the app to leave there."""
OWN_DATA, OWN_CHECKPOINTS = "own-data", "own-checkpoints"
"""Keys of the session's state: its own `TextData`, and its own checkpoints' folders by name."""
MODELS = 3
"""How many models are kept in memory."""
CHECKPOINT_DIRS = "SHRP_CHECKPOINTS"
SHIPPED = Path(__file__).parent.parent / "checkpoints"
_FILES = (*checkpoints.MADE_OF, checkpoints.HISTORY, reference.FILE)

Stamp = tuple[tuple[str, int, int], ...]


def checkpoint_roots() -> list[Path]:
    """Folders whose subfolders are offered: the shipped ones, then those that SHRP_CHECKPOINTS names."""
    named = os.environ.get(CHECKPOINT_DIRS, "").split(os.pathsep)
    return [SHIPPED, *(Path(name) for name in named if name.strip())]


def _stamp(folder: Path, names: Sequence[str] = _FILES) -> Stamp:
    """Name, time and size of files, by default a checkpoint's: cheap to take, and it changes when they do."""
    stamp = []
    for name in names:
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        stamp.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(stamp)


def _folders() -> tuple[Path, ...]:
    found = []
    for root in checkpoint_roots():
        try:
            folders = sorted(p for p in root.iterdir() if os.path.isdir(p) and not p.name.startswith("."))
            found += [folder for folder in folders if is_unicode(folder.name)]  # others can't be shown
        except OSError:
            continue  # a folder that is not there offers nothing
    return tuple(found)


@st.cache_resource(max_entries=4, show_spinner=False)
def _discover(
    roots: tuple[Path, ...], stamps: tuple[Stamp, ...]
) -> dict[str, tuple[Path, CheckpointInfo | CheckpointError]]:
    found: dict[str, tuple[Path, CheckpointInfo | CheckpointError]] = {}
    for root in roots:
        for name, info in sorted(checkpoints.discover(root).items(), key=lambda entry: _counting(entry[0])):
            key, number = name, 2
            while key in found:  # the same name under two roots
                key, number = f"{name} ({root.name})" if number == 2 else f"{name} ({number})", number + 1
            found[key] = (root / name, info)
    return found


def _counting(name: str) -> list[str | int]:
    """A key that sorts names with numbers in them as people count: `6of12` before `11of12`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _entries() -> dict[str, tuple[Path, CheckpointInfo | CheckpointError]]:
    roots = tuple(dict.fromkeys(root.resolve() for root in checkpoint_roots()))
    found = _discover(roots, tuple((*_stamp(folder), (str(folder), 0, 0)) for folder in _folders()))
    own: dict[str, Path] = st.session_state.get(OWN_CHECKPOINTS, {})
    return found | {name: (path, _info(path, _stamp(path))) for name, path in own.items()}


@st.cache_resource(max_entries=32, show_spinner=False)
def _info(path: Path, stamp: Stamp) -> CheckpointInfo | CheckpointError:
    try:
        return checkpoints.read_config(path)[1]
    except CheckpointError as error:
        return error


def discover_all() -> dict[str, CheckpointInfo | CheckpointError]:
    """Every checkpoint by name, the session's own last; a broken one maps to its error.

    Looks at the disk again each time.
    """
    return {name: info for name, (_, info) in _entries().items()}


def path_of(name: str) -> Path:
    """The folder of a checkpoint.

    Raises:
        CheckpointError: there is none of this name (any more).
    """
    entries = _entries()
    if name not in entries:
        raise CheckpointError(f"There is no checkpoint '{name}' any more; pick another one.")
    return entries[name][0]


def load_checkpoint(name: str) -> Checkpoint:
    """A checkpoint's model, shared by all sessions: never change it.

    Raises:
        CheckpointError: it can't be loaded; one sentence says why.
    """
    return load_folder(path_of(name))


def load_folder(path: Path) -> Checkpoint:
    """A checkpoint's model by its folder, as `load_checkpoint`."""
    return _load(path, _stamp(path))


def forget(path: Path) -> None:
    """Let go of a model that only one session could reach, before its folder is deleted."""
    _load.clear(path, _stamp(path))


@st.cache_resource(max_entries=MODELS, show_spinner="Loading the checkpoint …")
def _load(path: Path, stamp: Stamp) -> Checkpoint:
    return checkpoints.load(path)


def read_history(name: str) -> list[dict[str, Any]]:
    """The epochs of a checkpoint's training, oldest first; empty where none were kept.

    Raises:
        CheckpointError: the history can't be read.
    """
    path = path_of(name)
    return _history(path, _stamp(path))


@st.cache_resource(max_entries=8, show_spinner=False)
def _history(path: Path, stamp: Stamp) -> list[dict[str, Any]]:
    return checkpoints.read_history(path)


def available_sources(task: Task) -> dict[str, str]:
    """The data sets that can be had for a task: source -> label. The hub is last: one to pick, never a default."""
    sources = {}
    mine: TextData | None = st.session_state.get(OWN_DATA)
    own = {OWN: _describe_own(mine)} if mine is not None and mine.task == task else {}
    if not is_known(task):
        if left := _left_for(task):
            sources[FOLDER] = f"{escape(left.name)} in the data folder, of {escape(task.name)}"
        return sources | own
    if os.path.isfile(_file_of("probe", task.name)):
        sources["probe"] = "The shipped probe set: sentences tagged by phenomenon"
    if not os.environ.get(DATA_DIR):
        return sources | own | {HUB: "GLUE from the hub: validation split, needs a network once"}
    if os.path.isfile(_file_of("glue", task.name)):
        sources["glue"] = "GLUE, validation split"
    return sources | own


def is_known(task: Task) -> bool:
    """Whether data of the task's name can be of it: one of the same name but other labels can't be scored on them."""
    known = TASKS.get(task.name)
    return known is not None and known.label_names == task.label_names


def may_lie_in_folder(task: Task) -> bool:
    """Whether data of a task can be left in the data folder: GLUE's can, and those of a task of one's own whose name is
    a folder's. A checkpoint, and with it the name, may come from anywhere and must not lead elsewhere.
    """
    name = task.name
    own = name not in (*TASKS, "", "..") and Path(name).name == name and name.isprintable()
    return own or is_known(task)


def _left_for(task: Task) -> Path | None:
    """The validation data that lie in the data folder for a task of one's own; None where there are none."""
    folder, name = os.environ.get(DATA_DIR), task.name
    if not folder or is_known(task) or not may_lie_in_folder(task):
        return None
    return next(
        (
            path
            for suffix in EXTENSIONS
            if os.path.isfile(path := Path(folder) / name / f"validation{suffix}")
        ),
        None,
    )


def default_source(sources: Iterable[str]) -> str | None:
    """The source that is used until a person picks one; None where there is only the hub, which may take long."""
    return next((source for source in sources if source != HUB), None)


def _file_of(source: str, task_name: str) -> Path | None:
    """Where a source is read from; None for the hub, whose splits never change."""
    if source == "probe":
        return PROBES / f"{task_name}.jsonl"
    folder = os.environ.get(DATA_DIR)
    return Path(folder) / task_name / "validation.parquet" if folder else None


def _describe_own(data: TextData) -> str:
    labels = "with labels" if data.labels is not None else "without labels, so nothing is scored"
    return f"Your own {escape(data.name)}: {len(data):,} inputs, {labels}; in this session only"


def load_dataset(source: str, task: Task) -> TextData:
    """The data of a source for a task.

    Raises:
        DataError: an unknown source, or data that can't be read; one sentence says why.
    """
    if source == OWN:
        mine: TextData | None = st.session_state.get(OWN_DATA)
        if mine is None or mine.task.name != task.name:
            raise DataError(f"No data of your own were given for the task '{task.name}' in this session.")
        return mine
    file = _left_for(task) if source == FOLDER else _file_of(source, task.name)
    if source == FOLDER and file is None:
        raise DataError(f"The data of '{task.name}' are not in the data folder any more.")
    stamp = _stamp(file.parent, (file.name,)) if file is not None else ()
    return _dataset(source, task, str(task.to_dict()), str(file), stamp)


@st.cache_resource(max_entries=6, show_spinner="Reading the data …")
def _dataset(source: str, _task: Task, about_task: str, file: str, stamp: Stamp) -> TextData:
    # Streamlit hashes all arguments but `_task`, for which `about_task` stands.
    if source == "probe":
        return load_probe(_task.name)
    if source in ("glue", HUB):
        return load_glue(_task.name)
    if source == FOLDER:
        return _left(Path(file), _task)
    raise DataError(f"There is no data source '{source}'; the sources are probe, glue, hub, folder and own.")


def _left(file: Path, task: Task) -> TextData:
    """A file of the data folder, under the limits of an upload and fitted as one whose columns nobody chooses."""
    try:
        table = read_file(file)
    except OSError as error:
        raise DataError(f"'{file.name}' can't be read: {error.strerror or error}.") from error
    return fit(table, task, replace(guess(table, task), texts=task.text_columns))


def cut_inputs(checkpoint: Checkpoint, data: TextData) -> tuple[int, int]:
    """How many inputs usage and scores cut, and at how many tokens."""
    from shrp.batching import longest_input

    length = longest_input(checkpoint.model, checkpoint.tokenizer, checkpoint.info.max_length)
    return int((token_lengths(checkpoint, data) > length).sum()), length


def score_rows(checkpoint: Checkpoint, data: TextData) -> list[Mapping[str, Any]]:
    """The rows of scores that a checkpoint carries of these data, measured with texts cut where they are cut here."""
    from shrp.score_rows import rows_as_now

    return rows_as_now(checkpoint.info, data, lambda: int(token_lengths(checkpoint, data).max()))


def token_lengths(checkpoint: Checkpoint, data: TextData) -> np.ndarray:
    """Tokens of each input `(N,)`, uncut."""
    return _lengths(checkpoint, data, checkpoint.fingerprint, data.fingerprint)


@st.cache_data(max_entries=48, show_spinner=False)
def _lengths(_checkpoint: Checkpoint, _data: TextData, fingerprint: str, data_fingerprint: str):
    from shrp.batching import token_counts

    return np.array(token_counts(_checkpoint.tokenizer, _data.texts))


def usage_stats(checkpoint: Checkpoint, data: TextData, *, norms: bool = False):
    """How the checkpoint's routers treat the data, measured once, with a progress bar the first time.

    Args:
        norms: also the norms of all experts' outputs, which takes longer.

    Returns:
        `shrp.usage.UsageStats`, rows in the data set's order. Shared by all sessions: never change it.

    Raises:
        PlanError: the model has no routed layer.
        DataError: the data are empty.
    """
    from shrp.usage import measure_usage

    def work(progress: Progress):
        if (stats := kept_usage(checkpoint, data, norms=norms)) is None:
            stats = measure_usage(
                checkpoint.model,
                checkpoint.tokenizer,
                data,
                max_length=checkpoint.info.max_length,
                output_norms=norms,
                progress=progress,
            )
            disk().keep_usage(checkpoint.fingerprint, data, stats)
        return stats

    # The name is part of the result, and may be that of a person's own file: equal content is not enough.
    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    what = "every expert's output norm" if norms else "expert usage"
    store = ("usage with norms", 8) if norms else ("usage", 12)
    return once(*store, key, f"Measuring {what} on {escape(data.name)}", work)


def kept_usage(checkpoint: Checkpoint, data: TextData, *, norms: bool = False):
    """Usage that was measured before this process started; None where it must be measured."""
    from shrp.convert import num_experts_of, router_layers

    layers, experts = len(router_layers(checkpoint.model)), num_experts_of(checkpoint.model)
    return disk().usage(checkpoint.fingerprint, data, layers, experts, norms=norms)


def evaluation(checkpoint: Checkpoint, data: TextData, stats=None):
    """The checkpoint's own model evaluated on all of the data, once, with a progress bar the first time.

    Args:
        stats: a `shrp.usage.UsageStats` of the same data, where it is there: the passes that measured it may have kept
            the outputs, and then the model need not run a second time.

    Returns:
        `shrp.evaluation.Evaluation`; its `indices` say which input each row is. Shared: never change it.

    Raises:
        DataError: the data are empty or do not fit the model.
    """
    from shrp.evaluate import evaluate_stream

    def work(progress: Progress):
        store, key = disk(), (checkpoint.fingerprint, data, ROUTED)
        if (found := store.evaluation(*key)) is not None:
            return found
        if stats is not None and stats.data == data.name and len(stats.logits) == len(data):
            estimate = routed_evaluation(checkpoint, data, stats, with_interval=True)
            store.keep_evaluation(*key, estimate)
            return estimate
        length = checkpoint.info.max_length
        for estimate in evaluate_stream(checkpoint.model, checkpoint.tokenizer, data, max_length=length):
            progress(estimate.n, estimate.total)
        store.keep_evaluation(*key, estimate)
        return estimate

    key = (checkpoint.fingerprint, data.fingerprint, data.name)
    return once("evaluation", 24, key, f"Evaluating on {escape(data.name)}", work)


def routed_evaluation(checkpoint: Checkpoint, data: TextData, stats, *, with_interval: bool):
    """The routed model's `evaluation`, from the passes that measured its usage where these kept its outputs: it need
    not run a second time.

    Args:
        stats: a `shrp.usage.UsageStats`, of the same data.

    Raises:
        DataError: the model's outputs are no numbers.
    """
    from shrp.evaluate import label_columns, summarise
    from shrp.metrics import to_predictions

    if len(stats.logits) != len(data):
        return evaluation(checkpoint, data)
    logits = stats.logits[:, label_columns(checkpoint.model, data.task)]
    to_predictions(data.task, logits)  # says so where they are no numbers, of data without labels too
    return summarise(data, np.arange(len(data)), logits, with_interval)


def groups(checkpoint: Checkpoint, data: TextData, stats) -> dict[str, dict[str, np.ndarray]]:
    """Every grouping of the data that can be made, with the routed model's own answers (`shrp.groups.input_groups`).
    Shared by all sessions: never change it.

    Args:
        stats: a `shrp.usage.UsageStats`, of the same data.
    """
    from shrp.groups import input_groups

    def work(_: Progress) -> dict[str, dict[str, np.ndarray]]:
        return input_groups(data, answers(checkpoint, data, stats), token_lengths(checkpoint, data))

    key = (checkpoint.fingerprint, data.fingerprint)
    return once("groups", 6, key, "Grouping the inputs", work)


def answers(checkpoint: Checkpoint, data: TextData, stats) -> np.ndarray | None:
    """What the routed model predicts of each input, a class or a number `(N,)`; None where its outputs are no numbers,
    which its score says. Args as for `routed_evaluation`.
    """
    try:
        found = routed_evaluation(checkpoint, data, stats, with_interval=False)
    except DataError:
        return None
    return found.predictions[np.argsort(found.indices)]


def live_evaluator(checkpoint: Checkpoint, data: TextData):
    """The `shrp.live.LiveEvaluator` of a checkpoint on the data, shared by all sessions."""
    return _live(checkpoint, data, checkpoint.fingerprint, data.fingerprint, data.name)


@st.cache_resource(max_entries=2, show_spinner=False)  # each may hold hundreds of megabytes
def _live(_checkpoint: Checkpoint, _data: TextData, fingerprint: str, data_fingerprint: str, name: str):
    from shrp.live import LiveEvaluator

    length = _checkpoint.info.max_length
    return LiveEvaluator(_checkpoint.model, _checkpoint.tokenizer, _data, max_length=length)
