"""Trainings and jobs that are killed, and disks that are full or read-only: the same result in the end, nothing lost."""

import contextlib
import ctypes
import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from shrp import cli, jobs
from tests.campaign.world import RIGHT, World, sentence

COMMANDS = ("finetune", "train", "prune")
_NEW_NAMESPACE, _PRIVATE, _REMOUNT, _READ_ONLY = 0x20000, 0x44000, 32, 1  # of unshare(2) and mount(2)


def _arguments(world: World, command: str, out: Path) -> list[str]:
    """A tiny training, as given to `python -m shrp`."""
    files = ["--train-file", world.root / "train.csv", "--validation-file", world.root / "validation.csv"]
    options = {
        "finetune": ["--base", world.root / "encoder", *files, "--task", "sst2", "--epochs", 3],
        "train": ["--base", world.root / "encoder", *files, "--task", "sst2", "--layers", "1,2"],
        "prune": [world.folder("sequence"), *files, "--per-layer", 1, "--fine-tune", 2],
    }[command]
    training = {"max_length": 16, "batch_size": 16, "precision": "fp32"}
    more = {"per_layer": [1], "random_draws": 1} if command == "train" else {}
    config = world.root / f"{command}.json"
    config.write_text(json.dumps({"training": training | ({"stage2_epochs": 1} if more else {})} | more))
    return [command, *map(str, options), "--config", str(config), "--out", str(out), "--json"]


def _forked(action: Callable[[], object], meanwhile: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Run something in a process of its own; returns its exit code, negative for a signal, and the end of its stderr."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        code, said = 0, io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                action()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else bool(left.code)
        except BaseException:
            code = 70
            said.write(traceback.format_exc())
        finally:
            os.write(writing, said.getvalue()[-3000:].encode())
            os._exit(code)
    os.close(writing)
    meanwhile(pid)
    with os.fdopen(reading, errors="replace") as pipe:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pipe.read()


def _shrp(arguments: list[str], kill_at: int = 0) -> None:
    """Run a command; it is killed just before it opens, renames or deletes a file next to its result the n-th time."""
    left, place = [kill_at], str(Path(arguments[-2]).parent)

    def watch(event: str, given: tuple) -> None:
        if event.partition(".")[0] in ("open", "os", "shutil") and given and place in str(given[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(watch)
    sys.argv = ["shrp", *arguments]
    cli.main()


@lru_cache(maxsize=8)
def _undisturbed(world: World, command: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights that a command ends with, and the seconds it takes."""
    out, began = world.root / "undisturbed" / command, time.monotonic()
    code, said = _forked(lambda: _shrp(_arguments(world, command, out)))
    assert code == 0, said[-1500:]
    return load_file(out / "model.safetensors"), time.monotonic() - began


def _check_end(world: World, command: str, out: Path) -> None:
    """The result is the undisturbed one, and nothing but it is left, hidden files of killed processes aside."""
    found, expected = load_file(out / "model.safetensors"), _undisturbed(world, command)[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found), "the weights are others"
    left = [one.name for one in out.parent.iterdir() if one != out and not one.name.startswith(".")]
    assert not left, f"left behind: {left}"


def killed(world: World, rng: random.Random) -> list[str]:
    """A training killed up to three times, at random times or steps of its file work, then resumed."""
    command = rng.choice(COMMANDS)
    out, seconds = world.scratch(rng) / "out", _undisturbed(world, command)[1]
    arguments = _arguments(world, command, out)

    def later(pid: int) -> None:
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)  # it is not waited for yet

    for last in (*[False] * rng.randint(1, 3), True):
        if last or rng.random() < 0.5:
            code, said = _forked(lambda: _shrp(arguments), *([] if last else [later]))
        else:
            code, said = _forked(lambda: _shrp(arguments, rng.randint(1, 200)))
        assert code == 0 or (code == -signal.SIGKILL and not last), said[-1500:]
        if out.exists():
            break
    _check_end(world, command, out)
    return [RIGHT]


def _mount(folder: Path, size: int, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "no mount")


def disk(world: World, rng: random.Random) -> list[str]:
    """A training on a disk that is full sooner or later, or read-only: one sentence; with room again it ends as ever.

    The disk is a mount that this process alone sees; where that is not permitted, files may not grow larger instead.
    """
    command, folder = rng.choice(COMMANDS), world.scratch(rng) / "disk"
    _undisturbed(world, command)
    folder.mkdir()
    arguments = _arguments(world, command, folder / "out")
    read_only, size = rng.random() < 0.25, 4096 * rng.randint(1, 150)

    def inside() -> None:
        limit = (resource.RLIM_INFINITY,) * 2
        try:
            libc = ctypes.CDLL(None)
            if libc.unshare(_NEW_NAMESPACE) or libc.mount(b"none", b"/", None, _PRIVATE, None):
                raise OSError
            _mount(folder, size)
            if read_only:
                _mount(folder, size, _REMOUNT | _READ_ONLY)
        except OSError:
            limit = (size, size)
        code, said = _forked(lambda: (resource.setrlimit(resource.RLIMIT_FSIZE, limit), _shrp(arguments)))
        if code == 1:
            assert not (folder / "out").exists(), "half a result"
            print(sentence(" ".join(said[said.rindex("error:") :].split())), file=sys.stderr)
            if limit[0] != size:
                _mount(folder, 2**32, _REMOUNT)  # commands ask for 1 GiB to spare
            code, said = _forked(lambda: _shrp(arguments))
        assert code == 0, said[-1500:]
        _check_end(world, command, folder / "out")

    code, said = _forked(inside)
    assert code == 0, said[-1500:]
    return [said.strip() or RIGHT]


def job(world: World, rng: random.Random) -> list[str]:
    """A job whose process is killed once or twice at any time: started again, it ends with the same weights."""
    (_, seconds), scratch = _undisturbed(world, "finetune"), world.scratch(rng)
    out, root, end = scratch / "made" / "out", scratch / "jobs", time.monotonic() + 850
    found = jobs.submit(root, "one", _arguments(world, "finetune", out)[:-1], out)
    kills = rng.randint(1, jobs.MOST_STARTS - 1)
    while found.state in ("waiting", "running"):
        assert time.monotonic() < end, f"the job is {found.state}"
        if kills and (root / ".pid").exists():
            time.sleep(rng.uniform(0, 4 * seconds))
            with contextlib.suppress(OSError, ValueError, IndexError):
                os.kill(int((root / ".pid").read_text().split()[0]), signal.SIGKILL)
            kills -= 1
        time.sleep(0.2)
        jobs.wake(root)
        (found,) = jobs.jobs(root)
    with contextlib.suppress(OSError, ValueError, IndexError):  # its process stays for another one
        os.kill(int((root / ".pid").read_text().split()[0]), signal.SIGKILL)
    assert found.state == "done", f"{found.state}: {found.error}"
    _check_end(world, "finetune", out)
    return [RIGHT]
