"""Trials, one after the other in a process of their own, which is ended where one hangs."""

import importlib
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
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

START = 300
"""Seconds that a part may take to begin."""
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
"""Trials by name: the module of the function, a share of the time, and the seconds that one may take.

One of `tables`, `texts` and `addresses` has 20, 10 and 3 inputs; one of `threads` and `sessions` has all of them.
"""


def judged(world: Any, part: str, seed: int, number: int) -> dict[str, Any]:
    """Run one trial; returns what is kept of it."""
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
    refusals = [one.replace(str(world.root), "") for one in said if one != "right"]
    found = outcome(part, number, failed, time.monotonic() - began)
    found |= {"right": len(said) - len(refusals), "refused": len(refusals)}
    return found | {"refusals": sorted(set(refusals))[:2], "notes": list(world.notes)}


def outcome(part: str, number: int, failed: str, seconds: float) -> dict[str, Any]:
    found = {"part": part, "trial": number, "failed": failed, "seconds": round(seconds, 2)}
    return found | {"right": 0, "refused": 0, "refusals": [], "notes": []}


def _work(pipe: Connection, part: str, seed: int, done: set[int], first: int, folder: str) -> None:
    """Run trials in a process of its own; of each its number is sent, then what came out."""
    from tests.campaign.world import World

    os.setsid()  # what it starts, such as a server, ends with it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    world = World.make(Path(folder))
    for number in count(first):
        if number not in done:
            pipe.send(number)
            pipe.send(judged(world, part, seed, number))


def trials(part: str, seed: int, done: set[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Trials that are not done, for so long; one that hangs, or ends its process, has failed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"tests.campaign.{module}" for module, *_ in PARTS.values()])  # imported once
    end, number, why = math.inf, -1, "again"
    while why and time.monotonic() < end:
        ours, theirs = context.Pipe()
        with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
            process = context.Process(target=_work, args=(theirs, part, seed, done, number + 1, folder))
            process.start()
            theirs.close()
            limit, why, running = START, "", False
            while not why and (running or time.monotonic() < end):
                got = None
                try:
                    got = ours.recv() if ours.poll(limit) else None
                    why = f"no end in {limit} s" if got is None else ""
                except EOFError:
                    process.join()
                    why = f"its process ended with {process.exitcode}"
                if isinstance(got, int):
                    number, limit, running = got, PARTS[part][2], True
                    end = min(end, time.monotonic() + seconds)
                elif got:
                    limit, running = START, False
                    yield got
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # where it has not begun
            process.join()
        if why:
            yield outcome(part, number, why, limit)
            end = min(end, time.monotonic() + seconds)
