"""Trials, one after the other in a process of their own, which ends where one hangs."""

import faulthandler
import importlib
import itertools
import math
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.campaign.world import RIGHT, World

PARTS = {
    "damaged_checkpoint": ("damage", 3, 20),
    "damaged_zip": ("damage", 2, 20),
    "odd_plan": ("damage", 1, 20),
    "tables": ("generated", 2, 60),
    "texts": ("generated", 2, 60),
    "addresses": ("generated", 3, 240),
    "killed": ("killed", 3, 240),
    "disk": ("killed", 3, 240),
    "job": ("killed", 3, 900),
    "threads": ("at_once", 2, 120),
    "sessions": ("at_once", 4, 1200),
    "memory": ("at_once", 3, 1200),
}
"""Trials by name: the module of the function, a share of the time, and the seconds that one may take."""


def outcome(part: str, number: int, seconds: float, said: list[str], failed: str = "") -> dict[str, Any]:
    """What is kept of a trial, which may stand for several results that were right or refused."""
    right = said.count(RIGHT)
    found = {"part": part, "trial": number, "failed": failed, "seconds": round(seconds, 2)}
    return found | {"right": right, "refused": len(said) - right, "notes": []}


def judged(world: World, part: str, seed: int, number: int) -> dict[str, Any]:
    """Run one trial."""
    trial = getattr(importlib.import_module(f"tests.campaign.{PARTS[part][0]}"), part)
    began, said, failed = time.monotonic(), [], ""
    world.notes.clear()
    try:
        said = trial(world, random.Random(f"{seed}/{part}/{number}"))
    except Exception as error:
        where = (f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__))
        failed = f"{type(error).__name__}: {str(error)[:1500]} ({' > '.join(where)})"
    for left in world.root.glob("trial-*"):
        shutil.rmtree(left, ignore_errors=True)
    return outcome(part, number, time.monotonic() - began, said, failed) | {"notes": list(world.notes)}


def _begin(folder: str) -> None:
    global _world
    os.setsid()  # what it starts, such as a server, ends with it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _world = World.make(Path(folder))


def _trial(part: str, seed: int, number: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(PARTS[part][2], exit=True)
    try:
        return judged(_world, part, seed, number)
    finally:
        faulthandler.cancel_dump_traceback_later()


def trials(part: str, seed: int, done: set[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Trials that are not done, for so long, in a process; one that hangs or ends its process has failed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"tests.campaign.{module}" for module, *_ in PARTS.values()])  # imported once
    numbers, end = (number for number in itertools.count() if number not in done), math.inf
    while time.monotonic() < end:
        with (
            tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder,
            ProcessPoolExecutor(1, context, _begin, (folder,)) as pool,
        ):
            leader, end = pool.submit(os.getpid).result(), min(end, time.monotonic() + seconds)
            try:
                while time.monotonic() < end:
                    number, began = next(numbers), time.monotonic()
                    yield pool.submit(_trial, part, seed, number).result()
            except BrokenProcessPool:
                took = time.monotonic() - began
                yield outcome(part, number, took, [], f"its process ended after {took:.0f} s")
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(leader, signal.SIGKILL)
