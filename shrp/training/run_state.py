"""What a training run keeps on disk until it is done: what it is, and the weights after its last epoch."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints import checkpoint
from shrp.checkpoints.history import history_text
from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.saving import check_name, entries
from shrp.data.text_data import TextData
from shrp.errors import ShrpError, TrainingError
from shrp.training.config import TrainConfig

RUN_FILE = "run.json"
TEACHER_FILE = "teacher.txt"
"""Whether the teacher's answers are kept (`shrp.training.teacher.kept_or_live`)."""
_OF_A_RUN = re.compile(
    r"epoch-\d+|teacher(-outputs)?(-logits)?|"
    r"(teacher|routed|(routed|static)-[0-9a-f]{8}|recovered-(random-)?\d+(-[0-9a-f]{8})?"
    r"|control-(dropped|uniform|narrow-\d+))(\.run)?"
)
"""Folders of a training's epochs and of what a teacher said, and of the stages of a `train`."""
_LOCK, _PARTIAL = ".lock", "run.partial"


def run_folder(out: str | Path) -> Path:
    """Where a run that writes to `out` keeps its state until it is done.

    Raises:
        CheckpointError: `out` has no name of its own, as `.`.
    """
    out = Path(out)
    check_name(out)
    return out.with_name(out.name + ".run")


def finish(out: str | Path) -> None:
    """Delete a finished run's state."""
    shutil.rmtree(run_folder(out), ignore_errors=True)


def holds_a_run(folder: Path) -> bool:
    """Whether anything is kept in a run's folder."""
    return any(file.name != _LOCK for file in entries(folder))


def _is_of_a_run(path: Path) -> bool:
    """Whether a run, of one training or of several stages, may have left this in its folder."""
    if path.name.startswith("."):  # the lock, or what a save left that was killed
        return True
    if not path.is_dir():
        return path.name in (RUN_FILE, _PARTIAL, TEACHER_FILE)
    return bool(_OF_A_RUN.fullmatch(path.name))


def _refuse_others(folder: Path) -> None:
    """Raise `TrainingError` where a run's folder holds anything else, which would go when the run is done."""
    if others := sorted(path.name for path in entries(folder) if not _is_of_a_run(path)):
        named = ", ".join(others[:3]) + ", …" * (len(others) > 3)
        raise TrainingError(
            f"the state of an unfinished run is kept in {folder} and deleted with it, and that holds other things "
            f"({named}): choose another folder for the result."
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made, against other processes; where nothing is kept in it, it goes again.

    Raises:
        TrainingError: another process holds it, it cannot be made, or it holds other things than a run's state.
    """
    _refuse_others(folder)
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise TrainingError(
            f"another process is at work in {folder}: let it end, or choose another folder for the result."
        ) from error
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror}.") from error
    try:
        yield
    finally:
        if not holds_a_run(folder):
            with suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)
                folder.rmdir()
        lock.release()


class RunState:
    """The state of one run in a folder of its own, which the process that runs it holds (`alone_in`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def begun(self) -> bool:
        """Whether an epoch was kept."""
        return any(self.folder.glob("epoch-*"))

    def check_own(self) -> None:
        """Raise `TrainingError` where the folder holds the stages of a `train`, which go on with that alone."""
        found = [path for path in self.folder.iterdir() if path.is_dir()] if self.folder.is_dir() else []
        stages = [
            path.name.removesuffix(".run")
            for path in sorted(found)
            if not path.name.startswith(("epoch-", "."))  # (hidden: left over where a save was killed)
            and (path.suffix == ".run" or (path / checkpoint.CONFIG).is_file())
        ]
        if stages:
            raise TrainingError(
                f"{self.folder} holds an unfinished run of several stages ({', '.join(dict.fromkeys(stages))}): go on "
                "with it by its own command, delete it, or choose another folder for the result."
            )

    @contextmanager
    def only_if_begun(self) -> Iterator[None]:
        """What was killed before its first epoch is no run to go on with, and what fails before it leaves nothing.

        Raises:
            TrainingError: as `check_own`.
        """
        self.check_own()
        if not self.begun:
            for name in (RUN_FILE, TEACHER_FILE):
                (self.folder / name).unlink(missing_ok=True)
        try:
            yield
        except ShrpError:
            if not self.begun:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def open(self, identity: Mapping[str, Any], resume: bool, precision: Callable[[], str]) -> str:
        """Begin a run, or go on with one if it is the same; returns the precision that it began with.

        Args:
            identity: what makes two runs the same, JSON-able.
            precision: settles a new run's; one that goes on keeps its own, for a timing may turn out otherwise.

        Raises:
            TrainingError: there is a run already, which is not to be resumed or is another.
        """
        file = self.folder / RUN_FILE
        self.check_own()
        if file.is_file() and not resume:
            raise TrainingError(
                f"{self.folder} holds an unfinished run: pass --resume to go on, or delete it to start afresh."
            )
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            began_with = kept.pop("precision")
            if kept != identity:
                changed = [difference(key, kept.get(key), identity[key]) for key in identity]
                changed = list(filter(None, changed))
                raise TrainingError(
                    f"{self.folder} is another run (its {', '.join(changed)} differ); "
                    "repeat its options exactly, or delete it to start afresh."
                )
            return began_with
        settled = precision()
        partial = self.folder / _PARTIAL
        partial.write_text(json.dumps({**identity, "precision": settled}), encoding="utf-8")
        partial.replace(file)
        return settled

    def last(self) -> tuple[PreTrainedModel, list[dict[str, Any]]] | None:
        """The model and history after the last epoch that was kept, if any was."""
        done = self._kept()
        if not done:
            return None
        return checkpoint.load(done[-1]).model, checkpoint.read_history(done[-1])

    def _kept(self) -> list[Path]:
        """The epochs that there are, by number: mostly the last one alone."""
        return sorted(self.folder.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))

    def keep(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        info: CheckpointInfo,
        history: list[dict[str, Any]],
    ) -> None:
        """Save an epoch boundary atomically, then drop the one before."""
        done = self._kept()
        target = self.folder / f"epoch-{len(history):03d}"
        extra = {checkpoint.HISTORY: history_text(history)}
        checkpoint.save(model, tokenizer, info, target, extra_files=extra)
        for folder in done:
            if folder != target:
                shutil.rmtree(folder)


def identity_of(
    config: TrainConfig,
    model: PreTrainedModel,
    info: CheckpointInfo,
    train: TextData,
    validation: TextData,
    teacher: PreTrainedModel | None,
) -> dict[str, Any]:
    """What makes two trainings the same, JSON-able.

    Args:
        model, info: what is trained, as it is at the start.
        teacher: None for the model itself.
    """
    return {
        "config": config.to_dict(),
        "train": train.fingerprint,
        "validation": validation.fingerprint,
        "weights": weights_digest(model),
        "teacher": weights_digest(model if teacher is None else teacher) if config.distils else "",
        # Another plan or base with the same options would otherwise take this run's weights for its own.
        "start": {k: v for k, v in info.to_dict().items() if k in ("layers", "plan", "base_model")},
    }


def kept_identity(folder: Path) -> dict[str, Any]:
    """The identity that a finished training has beside its weights; empty where it has none."""
    file = folder / RUN_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `TrainingError` where what is finished in a folder was made of other things than `identity` says; one that
    was finished before its identity was kept beside it is taken for the same.
    """
    kept = kept_identity(folder)
    changed = [difference(key, kept.get(key, identity[key]), identity[key]) for key in identity]
    if changed := list(filter(None, changed)):
        raise TrainingError(
            f"{folder} is of another run (its {', '.join(changed)} differ); name another folder, or delete this one "
            "to have it made anew."
        )


def difference(name: str, before: Any, now: Any) -> str:
    """What an identity's part differs in: settings by their names; empty where it is the same."""
    if before == now:
        return ""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return name
    return ", ".join(key.replace("_", " ") for key in now if before.get(key) != now[key]) or name


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 (hex) over a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
