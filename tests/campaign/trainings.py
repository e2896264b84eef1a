"""Trainings and jobs that are killed, and disks that are full or read-only: the same result in the end, nothing lost."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from shrp import cli, jobs
from tests.campaign.world import RIGHT, sentence
from tests.processes import fork

COMMANDS = ("finetune", "train", "prune")
_NEW_NAMESPACE = 0x20000  # of unshare(2)


def _arguments(world: Path, command: str, out: Path) -> list[str]:
    """A tiny training, as given to `python -m shrp`."""
    files = ["--train-file", world / "train.csv", "--validation-file", world / "validation.csv"]
    options = {
        "finetune": ["--base", world / "encoder", *files, "--task", "sst2", "--epochs", 3],
        "train": ["--base", world / "encoder", *files, "--task", "sst2", "--layers", "1,2"],
        "prune": [world / "checkpoints" / "sequence", *files, "--per-layer", 1, "--fine-tune", 2],
    }[command]
    training = {"max_length": 16, "batch_size": 16, "precision": "fp32"}
    more = {"per_layer": [1], "random_draws": 1} if command == "train" else {}
    config = world / f"{command}.json"
    config.write_text(json.dumps({"training": training | ({"stage2_epochs": 1} if more else {})} | more))
    return [command, *map(str, options), "--config", str(config), "--out", str(out), "--json"]


def _shrp(arguments: list[str], *, kill_after: float = 0.0, kill_at: int = 0) -> tuple[int, str]:
    """Run a command in a process of its own; returns its exit code and the end of its stderr.

    It is killed after some seconds, or just before it opens, renames or deletes a file next to its result the n-th time.
    """
    place, left, said = str(Path(arguments[-2]).parent), [kill_at], Path(arguments[-2]).parents[1] / "stderr"

    def watch(event: str, given: tuple) -> None:
        if event.partition(".")[0] in ("open", "os", "shutil") and given and place in str(given[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        if kill_at:
            sys.addaudithook(watch)
        sys.argv = ["shrp", *arguments]
        cli.main()

    process = fork(run, said)
    if kill_after:
        time.sleep(kill_after)
        process.kill()
    process.join()
    return process.exitcode, said.read_text(errors="replace")[-3000:]


def _undisturbed(world: Path, command: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights that a command ends with, and the seconds it takes; of an earlier trial, if there was one."""
    out, began = world / "undisturbed" / command / "out", time.monotonic()
    if not (took := out.parents[1] / f"{command}.seconds").exists():
        out.parent.mkdir(parents=True)
        code, said = _shrp(_arguments(world, command, out))
        assert code == 0, said
        took.write_text(str(time.monotonic() - began))
    return load_file(out / "model.safetensors"), float(took.read_text())


def _check_end(world: Path, command: str, out: Path) -> None:
    """The result is the undisturbed one, and nothing but it is left, hidden files of killed processes aside."""
    found, expected = load_file(out / "model.safetensors"), _undisturbed(world, command)[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found), "the weights are others"
    left = [one.name for one in out.parent.iterdir() if one != out and not one.name.startswith(".")]
    assert not left, f"left behind: {left}"


def killed(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A training killed up to three times, at random times or steps of its file work, then resumed."""
    command, out = rng.choice(COMMANDS), scratch / "made" / "out"
    _, seconds = _undisturbed(world, command)
    out.parent.mkdir()
    arguments = _arguments(world, command, out)
    for last in (*[False] * rng.randint(1, 3), True):
        how = {"kill_after": rng.uniform(0, seconds)} if rng.random() < 0.5 else {"kill_at": rng.randint(1, 200)}
        code, said = _shrp(arguments, **({} if last else how))
        assert code == 0 or (code == -signal.SIGKILL and not last), said
        if out.exists():
            break
    _check_end(world, command, out)
    return [RIGHT]


def disk(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A training on a disk that is full sooner or later, or read-only: one sentence; with room again it ends as ever.

    The disk is a mount that this process and those it starts alone see.
    """
    command, folder, said = rng.choice(COMMANDS), scratch / "disk", RIGHT
    _undisturbed(world, command)
    folder.mkdir()
    arguments, how = _arguments(world, command, folder / "out"), rng.choice(("rw", "rw", "rw", "ro"))

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options], check=True)

    assert not ctypes.CDLL(None).unshare(_NEW_NAMESPACE), "only root may mount a disk"
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", f"size={4096 * rng.randint(1, 150)}", "none", str(folder))
    mount("-o", f"remount,{how}", str(folder))
    code, told = _shrp(arguments)
    if code == 1:
        assert not (folder / "out").exists(), "half a result"
        said = sentence(" ".join(told[told.rindex("error:") :].split()))
        mount("-o", f"remount,rw,size={2**32}", str(folder))  # commands ask for 1 GiB to spare
        code, told = _shrp(arguments)
    assert code == 0, told
    _check_end(world, command, folder / "out")
    return [said]


def job(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A job whose process is killed once or twice at any time: started again, it ends with the same weights."""
    (_, seconds), out, root = _undisturbed(world, "finetune"), scratch / "made" / "out", scratch / "jobs"
    found = jobs.submit(root, "one", _arguments(world, "finetune", out)[:-1], out)
    pid, kills = root / ".pid", rng.randint(1, jobs.MOST_STARTS - 1)

    def kill() -> None:
        with suppress(OSError, ValueError, IndexError):  # it has just begun or ended
            os.kill(int(pid.read_text().split()[0]), signal.SIGKILL)

    while found.state in ("waiting", "running"):
        if kills and pid.exists():
            time.sleep(rng.uniform(0, 4 * seconds))  # it imports first, which `seconds` leave out
            kill()
            kills -= 1
        time.sleep(0.2)
        jobs.wake(root)
        (found,) = jobs.jobs(root)
    kill()  # it would wait for another job
    assert found.state == "done", f"{found.state}: {found.error}"
    _check_end(world, "finetune", out)
    return [RIGHT]
