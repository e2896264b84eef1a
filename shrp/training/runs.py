"""A training's folder: one process at a time, the state after the last epoch, and what makes two trainings the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.saving import check_name, entries
from shrp.errors import ShrpError, TrainingError
from shrp.files import write_text
from shrp.training.config import TextConfig, TrainConfig
from shrp.training.processes import from_main, rank

RUN_FILE = "run.json"
"""What a training is (`identity_of`), and the number format that it computes in."""
STATE_FILE = "state.safetensors"
"""Weights and history after the last epoch."""
MARK_FILE = ".run"
"""The kind of the run (`alone_in`)."""
_LOCK = ".lock"
Convert = Callable[[PreTrainedModel, int], Any]
"""`convert(model, layer)` replaces a dense layer of a model in place (or removes it), the same way each time."""


def run_folder(out: str | Path) -> Path:
    """Where a training that writes to `out` keeps its state until it is done.

    Raises:
        CheckpointError: `out` has no name of its own, as `.`.
    """
    out = Path(out)
    check_name(out)
    return out.with_name(out.name + ".run")


def finish(out: str | Path) -> None:
    """Delete the state of a training whose result is written; of several processes all call this."""
    from_main(lambda: None)  # which writes the result
    shutil.rmtree(run_folder(out), ignore_errors=True)


def holds_a_run(folder: Path) -> bool:
    """Whether anything is kept in a run's folder."""
    return any(file.name not in (_LOCK, MARK_FILE) for file in entries(folder))


@contextmanager
def alone_in(folder: Path, kind: str) -> Iterator[None]:
    """Make a run's folder and hold it against other processes; a folder that stays empty is removed again.

    Of several processes that train together, the main one holds it for all.

    `kind`: of run; only a run of the same kind continues what is left there.

    Raises:
        TrainingError: another process holds it, it cannot be made, or it holds another kind of run or files that are
            not a run's, which would be deleted with it.
    """
    if rank():
        yield
        return
    lock, mark = FileLock(folder / _LOCK), folder / MARK_FILE
    if entries(folder) and not mark.is_file():
        raise TrainingError(
            f"the state of an unfinished run is kept in {folder} and deleted with it, and that holds other things: "
            "choose another folder for the result."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        own = (folder / _LOCK).stat().st_ino
    except Timeout as error:
        raise TrainingError(
            f"another process is at work in {folder}: let it end, or choose another folder for the result."
        ) from error
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        if holds_a_run(folder) and (found := mark.read_text(encoding="utf-8")) != kind:
            raise TrainingError(
                f"{folder} holds an unfinished run of another command ({found}): go on with that, delete it, or "
                "choose another folder for the result."
            )
        mark.write_text(kind, encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # deleted by `finish`, the folder may be another process's since
            if not holds_a_run(folder) and (folder / _LOCK).stat().st_ino == own:
                for name in (MARK_FILE, _LOCK):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        lock.release()


@dataclass(frozen=True)
class Run:
    """One training that can be killed at any time and resumed: it ends bit for bit as if it had not been killed.

    Each epoch is a function of the weights at its start, the config and the epoch's number alone (random generators
    are seeded and the optimizer starts afresh), so weights and history after an epoch are the whole state.
    """

    folder: Path
    precision: str
    """`fp32` or `bf16`, as settled when the run began: a later timing may differ."""

    def restore(self, model: PreTrainedModel, convert: Convert) -> list[dict[str, Any]]:
        """Bring a model from the training's start to its last epoch, in place.

        `convert`: converts a layer as the training did; the weights are then replaced, in the main process alone.

        Returns:
            The history, a row an epoch; empty where no epoch was finished.
        """
        state = self.folder / STATE_FILE
        history = from_main(lambda: _history(state))
        for row in history:
            if row["converted_layer"] is not None:
                convert(model, row["converted_layer"])
        if history and rank() == 0:
            model.load_state_dict(load_file(state))
        return history

    def keep(self, model: PreTrainedModel, history: list[dict[str, Any]]) -> None:
        """Replace the state by that after one more epoch, atomically; the main process does.

        Raises:
            TrainingError: it can't be written, as on a full disk; the state before stays.
        """
        if rank():
            return
        weights = {
            name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()
        }
        state = self.folder / STATE_FILE
        partial = state.with_suffix(".partial")
        try:
            save_file(weights, partial, metadata={"history": json.dumps(history)})
            partial.replace(state)
        except (OSError, SafetensorError) as error:  # a full disk, for one
            reason = getattr(error, "strerror", None) or error
            raise TrainingError(
                f"the state after epoch {len(history)} cannot be written to {self.folder}: {reason}. Make room and repeat "
                "the command: it goes on after the last epoch that was kept."
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _history(state: Path) -> list[dict[str, Any]]:
    if not state.is_file():
        return []
    with safe_open(state, "pt") as file:
        return json.loads(file.metadata()["history"])


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any], precision: Callable[[], str]) -> Iterator[Run]:
    """Hold a training's folder, and begin the training or continue the one that was begun there.

    What was killed before its first epoch is forgotten, and what fails before it leaves nothing.

    Raises:
        TrainingError: the training there is another one; or as `alone_in`.
    """
    file, state = folder / RUN_FILE, folder / STATE_FILE

    def settle() -> str:
        if state.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            _check_same(folder, kept, json.loads(json.dumps(identity)))
        else:
            kept = {**identity, "precision": precision()}
            write_text(file, json.dumps(kept))
        return kept["precision"]

    with alone_in(folder, "one training"):
        try:
            yield Run(folder, from_main(settle))
        except ShrpError:
            if rank() == 0 and not state.is_file():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def identity_of(
    config: TrainConfig | TextConfig,
    model: PreTrainedModel,
    info: CheckpointInfo | None,
    *digests: str,
    teacher: PreTrainedModel | None,
    converts_by: str = "",
) -> dict[str, Any]:
    """What makes two trainings the same, JSON-able. `digests`: of the training data, then of the validation data."""
    start = info.to_dict() if info is not None else {}
    found = {
        "config": config.to_dict(),
        **dict(zip(("train", "validation"), digests)),
        "weights": weights_digest(model),
        "teacher": "" if teacher is None else weights_digest(teacher),
        # Another plan or base with the same options would otherwise take this run's weights for its own.
        "start": {k: v for k, v in start.items() if k in ("layers", "plan", "base_model")},
    }
    return found | ({"conversion": converts_by} if converts_by else {})


def _check_same(folder: Path, kept: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise `TrainingError` where a run is not what `identity` says; a part that it lacks is taken for the same."""
    changed = []
    for name, now in identity.items():
        if (before := kept.get(name, now)) != now:
            both = isinstance(before, Mapping) and isinstance(now, Mapping)
            fields = [key.replace("_", " ") for key in now if before.get(key) != now[key]] if both else []
            changed += fields or [name]
    if changed:
        raise TrainingError(
            f"{folder} is of another run (its {', '.join(changed)} differ); repeat its options exactly, or delete it to "
            "start afresh."
        )


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 (hex) over a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
