"""Jobs: commands of `python -m shrp` that run one at a time in a process of their own.

Each job is a folder, so any process can see how far it is. One process works: it holds the lock, imports what commands
need, and runs one job after the other, the oldest that has not ended, each in a copy of itself; it leaves where none has
come for `STAYS` seconds. A process that is killed or interrupted leaves its job as it is, and `wake` starts another,
whose command resumes. The folder's files:

- `job.json`: what it is; `log.txt`: what the command printed; `result.json`: its `--json` output;
- `status.json`: how far it is; `starts`: a byte for each time it was started and not interrupted by SIGTERM;
- `cancel`: it is to end; `end.json`: it has ended, and how.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from shrp.errors import JobError
from shrp.files import read_object, write_text
from shrp.training.progress import STATUS_FILE

MOST_STARTS = 3
"""A job whose process was killed so often has failed."""
STAYS = 300
"""Seconds that a process waits for a job, with some 400 MB of libraries in memory."""
GIB = 2**30
_MODULE = "shrp.jobs"
_INTERRUPTED = 130
"""A command's exit code after SIGTERM (`_interrupt`)."""
_LIBRARIES = ("shrp.cli", "shrp.training.quick", "transformers.models.bert.modeling_bert", "pydantic.fields")
"""What takes seconds to import, and commands need."""
_LOOKS = 0.1
"""Seconds between two looks for a job."""
State = Literal["waiting", "running", "done", "failed", "cancelled"]
_JOB, _LOG, _RESULT, _STATUS = "job.json", "log.txt", "result.json", "status.json"
_STARTS, _CANCEL, _END, _LOCK, _PID = "starts", "cancel", "end.json", ".lock", ".pid"


@dataclass(frozen=True)
class Job:
    """A job as it is now."""

    folder: Path
    title: str
    """What it does, in words."""
    arguments: tuple[str, ...]
    """The command line after `python -m shrp`, without `--json`."""
    out: Path
    """The folder that it makes."""
    about: dict[str, Any]
    """What the submitter wants to find again, JSON-able."""
    state: State
    error: str = ""
    """Why it failed, in a sentence."""
    status: dict[str, Any] = field(default_factory=dict)
    """What `shrp.training.progress.FileProgress` wrote last; empty before that."""
    result: dict[str, Any] = field(default_factory=dict)
    """What the command printed."""

    @property
    def name(self) -> str:
        """The folder's name, by which jobs are in the order of submission."""
        return self.folder.name

    @property
    def command(self) -> str:
        """The command to run the same elsewhere."""
        return shlex.join(["python", "-m", "shrp", *self.arguments])

    @property
    def log(self) -> str:
        """What the command printed so far."""
        return _text(self.folder / _LOG)


def submit(
    root: Path,
    title: str,
    arguments: Sequence[str],
    out: Path,
    *,
    disk: int = 0,
    memory: int = 0,
    about: dict[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Job:
    """Add a job, which starts when those before it have ended.

    Args:
        root: folder of all jobs, made if missing.
        disk, memory: bytes that must be free now.
        files: name -> text of files that the command reads, which are kept with the job. An argument that is such a
            name becomes the file's path.

    Raises:
        JobError: there is too little room or memory, `out` is taken, or the folder can't be written.
    """
    if out.exists() or any(job.out == out and job.state in ("waiting", "running") for job in jobs(root)):
        raise JobError(f"{out.name} is there already: choose another name.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        free = {"disk": shutil.disk_usage(out.parent).free, "memory": psutil.virtual_memory().available}
        for what, needed in (("disk", disk), ("memory", memory)):
            if free[what] < needed:
                raise JobError(
                    f"this takes about {needed / GIB:.1f} GiB of {what}, and {free[what] / GIB:.1f} GiB are free."
                )
        folder = root / f"{time.time_ns():020d}-{secrets.token_hex(2)}"
        given = [str(folder / one) if one in (files or {}) else one for one in arguments]
        made = {"title": title, "arguments": given, "out": str(out), "about": about or {}}
        partial = root / f".{folder.name}"
        partial.mkdir()
        for name, text in (files or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        (partial / _JOB).write_text(json.dumps(made), encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        raise JobError(f"{error.filename or root} can't be written: {error.strerror or error}.") from error
    wake(root)
    return _read(folder, None)


def jobs(root: Path) -> list[Job]:
    """All jobs, oldest first."""
    working = _working(root)
    return [_read(folder, working) for folder in _folders(root)]


def wake(root: Path, *, early: bool = False) -> None:
    """Start a process if a job waits, or was left by a process that was killed, and there is none.

    Where none can be started, as on a disk that is read-only, the jobs go on waiting.

    Args:
        early: also where no job waits yet, so that the next begins at once.
    """
    if (early or _next(root)) and _working(root) is None:
        with suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            with (root / "worker.log").open("ab") as log:
                subprocess.Popen(
                    [sys.executable, "-m", _MODULE, str(root)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that it outlives the server, and takes no Ctrl-C of its terminal
                )


def cancel(job: Job) -> None:
    """End a job; what it has made so far is deleted."""
    (job.folder / _CANCEL).touch()
    root = job.folder.parent
    if _working(root) == job.name:
        with suppress(OSError, ValueError, IndexError):  # the next job, if hit instead, resumes
            os.kill(int(_text(root / _PID).split()[0]), signal.SIGTERM)
    else:
        wake(root)


def forget(job: Job) -> None:
    """Take a job that has ended off the list; what it made stays, and the state that one that failed left is deleted."""
    if not (end := read_object(job.folder / _END)):
        return
    try:  # first: half deleted it would seem to wait, and of two that forget it one goes on
        gone = job.folder.rename(job.folder.with_name(f".{job.name}"))
    except OSError:
        return
    others = [one for one in jobs(gone.parent) if one.state in ("waiting", "running")]
    if end["state"] == "failed" and all(one.out != job.out for one in others):
        from shrp.training.runs import finish

        finish(job.out)
    shutil.rmtree(gone, ignore_errors=True)


def _folders(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(one for one in root.iterdir() if (one / _JOB).is_file() and not one.name.startswith("."))
    return []


def _next(root: Path) -> Path | None:
    """The oldest job that has not ended."""
    return next((one for one in _folders(root) if not (one / _END).exists()), None)


def _working(root: Path) -> str | None:
    """The name of the job at work; empty where the process waits for one, None where there is no process.

    It takes no lock, as a process that starts could give up on it. A killed process leaves its `.pid`, and keeps its
    number and time of creation until its parent waits for it, but no command line.
    """
    with suppress(psutil.Error, ValueError):
        pid, _, name = _text(root / _PID).partition(" ")
        if psutil.Process(int(pid)).cmdline()[-2:] == [_MODULE, str(root)]:
            return name
    return None


def _read(folder: Path, working: str | None) -> Job:
    made, end = read_object(folder / _JOB), read_object(folder / _END)
    state = end.get("state") or ("running" if working == folder.name else "waiting")
    return Job(
        folder,
        made.get("title", ""),
        tuple(made.get("arguments", ())),
        Path(made.get("out", ".")),
        made.get("about", {}),
        state,
        end.get("error", ""),
        read_object(folder / _STATUS),
        read_object(folder / _RESULT),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def work(root: Path, stays: float = 0.0, *, copied: bool = False) -> bool:
    """Run the oldest job that has not ended, if no other process works; returns whether one has ended now.

    Args:
        stays: seconds to wait for a job, with all imported.
        copied: whether to run it in a copy of this process, so that none inherits another's memory or generators.
    """
    try:  # one that leaves may have looked for jobs before the last was submitted
        held = FileLock(root / _LOCK).acquire(timeout=1)
    except Timeout:
        return False
    pid, own = root / _PID, str(os.getpid())
    with held:
        pid.write_text(own, encoding="utf-8")
        if stays:
            _import()
        end = time.monotonic() + stays
        while (folder := _next(root)) is None and time.monotonic() < end:
            time.sleep(_LOOKS)
        if folder is None:
            pid.unlink()  # a job submitted from now on starts a process
            if (folder := _next(root)) is None:
                return False
        if ended := _copy_ends(folder) if copied else _ends(folder):
            pid.write_text(own, encoding="utf-8")
        else:
            pid.unlink()  # this process leaves
    return ended


def _copy_ends(folder: Path) -> bool:
    """As `_ends`, in a copy of this process, which has its lock, too, should this one be killed."""
    if (copy := os.fork()) == 0:
        ended = False
        try:
            ended = _ends(folder)
        finally:
            os._exit(not ended)
    return os.waitpid(copy, 0)[1] == 0


def _ends(folder: Path) -> bool:
    """Run a job's command in this process, the one at work; returns whether it has ended, as its folder then says."""
    (folder.parent / _PID).write_text(f"{os.getpid()} {folder.name}", encoding="utf-8")
    if ended := _run(folder):
        write_text(folder / _END, json.dumps(ended))
    return ended is not None


def _import() -> None:
    for name in _LIBRARIES:
        with suppress(Exception):  # the command says it
            importlib.import_module(name)


def _run(folder: Path) -> dict[str, Any] | None:
    """Run a job's command in this process; returns how it ended, None where it was interrupted and is to resume."""
    from shrp.cli import main
    from shrp.training.runs import finish

    job, starts = _read(folder, None), folder / _STARTS
    signal.signal(signal.SIGTERM, _interrupt)
    if starts.exists() and (job.out / "config.json").is_file():  # killed after it had saved its result
        finish(job.out)
        return {"state": "done"}
    if (folder / _CANCEL).exists():
        finish(job.out)
        return {"state": "cancelled"}
    if (count := len(_text(starts))) >= MOST_STARTS:
        return {
            "state": "failed",
            "error": f"its process was killed {MOST_STARTS} times; the machine may have too little memory for it.",
        }
    starts.write_text("." * (count + 1), encoding="utf-8")
    os.environ[STATUS_FILE] = str(folder / _STATUS)
    code: Any = 0
    sys.argv = ["shrp", *job.arguments, "--json"]
    with (
        (folder / _LOG).open("a", encoding="utf-8", buffering=1) as log,
        (folder / _RESULT).open("w", encoding="utf-8") as result,
        redirect_stderr(log),
        redirect_stdout(result),
    ):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except Exception as error:  # its log has the traceback
            traceback.print_exc()
            return {"state": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    if code == 0:
        return {"state": "done"}
    if (folder / _CANCEL).exists():
        finish(job.out)
        return {"state": "cancelled"}
    if code == _INTERRUPTED:
        starts.write_text("." * count, encoding="utf-8")
        return None
    said = [line for line in job.log.splitlines() if line.strip()]
    why = next((line for line in reversed(said) if line.startswith("error:")), said[-1] if said else "")
    return {"state": "failed", "error": why.removeprefix("error:").strip() or f"it ended with code {code}."}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    while work(Path(sys.argv[1]), STAYS, copied=sys.platform == "linux"):
        if sys.platform != "linux":  # where a copy of a process that has imported PyTorch may not run
            os.execv(sys.executable, [sys.executable, "-m", _MODULE, sys.argv[1]])
