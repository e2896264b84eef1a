"""Trainings and jobs that are killed, and disks that are full or read-only: the same result in the end, nothing lost."""

import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from shrp import cli, jobs
from tests.campaign.world import RIGHT, World, sentence
from tests.processes import fork

COMMANDS = ("finetune", "train", "prune")
_NEW_NAMESPACE = 0x20000  # of unshare(2)


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
    with tempfile.NamedTemporaryFile() as said:
        process = fork(action, Path(said.name))
        meanwhile(process.pid)
        process.join()
        return process.exitcode, Path(said.name).read_text(errors="replace")[-3000:]


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
    assert code == 0, said
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
        assert code == 0 or (code == -signal.SIGKILL and not last), said
        if out.exists():
            break
    _check_end(world, command, out)
    return [RIGHT]


def disk(world: World, rng: random.Random) -> list[str]:
    """A training on a disk that is full sooner or later, or read-only: one sentence; with room again it ends as ever.

    The disk is a mount that this process alone sees; where that is not permitted, files may not grow larger instead.
    """
    command, folder = rng.choice(COMMANDS), world.scratch(rng) / "disk"
    _undisturbed(world, command)
    folder.mkdir()
    arguments = _arguments(world, command, folder / "out")
    how, size = "ro" if rng.random() < 0.25 else "rw", 4096 * rng.randint(1, 150)

    def mount(*options: str) -> bool:
        return not subprocess.run(["mount", *options], stderr=subprocess.DEVNULL).returncode

    def inside() -> None:
        private = not ctypes.CDLL(None).unshare(_NEW_NAMESPACE) and mount("--make-rprivate", "/")
        mounted = private and mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
        mounted = mounted and mount("-o", f"remount,{how}", str(folder))
        limit = (resource.RLIM_INFINITY if mounted else size,) * 2
        code, said = _forked(lambda: (resource.setrlimit(resource.RLIMIT_FSIZE, limit), _shrp(arguments)))
        if code == 1:
            assert not (folder / "out").exists(), "half a result"
            print(sentence(" ".join(said[said.rindex("error:") :].split())), file=sys.stderr)
            if mounted:
                mount("-o", f"remount,rw,size={2**32}", str(folder))  # commands ask for 1 GiB to spare
            code, said = _forked(lambda: _shrp(arguments))
        assert code == 0, said
        _check_end(world, command, folder / "out")

    code, said = _forked(inside)
    assert code == 0, said
    return [said.strip() or RIGHT]


def job(world: World, rng: random.Random) -> list[str]:
    """A job whose process is killed once or twice at any time: started again, it ends with the same weights."""
    (_, seconds), scratch = _undisturbed(world, "finetune"), world.scratch(rng)
    out, root = scratch / "made" / "out", scratch / "jobs"
    found = jobs.submit(root, "one", _arguments(world, "finetune", out)[:-1], out)
    kills = rng.randint(1, jobs.MOST_STARTS - 1)
    while found.state in ("waiting", "running"):
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
