"""Many at once: threads on one model, sessions on one server; and the server's memory while a slider moves."""

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shrp.checkpoints.checkpoint import load
from shrp.data.sources import load_file, load_probe
from shrp.evaluation.paired import paired_difference
from shrp.pruning.plan import make_plan
from tests.campaign.client import Session, served
from tests.campaign.world import EXPERTS, LAYERS, RIGHT, World, tiny_data, tiny_inputs
from tests.test_two_at_once import as_arrays, differences, make_jobs
from ui.differences import below_or_above
from ui.text import points_interval

MANY, EACH, ACTIONS = 20, 2, 5
"""Threads or sessions at once; what each thread computes, and what each session does."""
MOVES, WARM_UP = 100, 60
"""Of the slider, where the memory is measured."""
_SHOWN = (
    r"Checkpoint (\S+), task",
    r"Scored on (\S+) \(n =",
    r"(\d+) of \d+ experts: (.*) \(95% CI (.*?)\)",
)


@lru_cache(maxsize=2)
def _alone(world: World, routing: str) -> tuple[dict[str, Any], dict[str, Any]]:
    jobs = make_jobs(load(world.folder(routing)), tiny_data(90), tiny_inputs())
    return jobs, {name: as_arrays(job()) for name, job in jobs.items()}


def threads(world: World, rng: random.Random) -> list[str]:
    """Threads on one model: forced routes, knock-outs, word scores, prunings; each result is the one that it is alone."""
    jobs, alone = _alone(world, rng.choice(("sequence", "token")))
    start, drawn = threading.Barrier(MANY), [rng.sample(list(jobs), EACH) for _ in range(MANY)]

    def work(names: list[str]) -> list[str]:
        start.wait(60)
        return [f"{name}: {part}" for name in names for part in differences(as_arrays(jobs[name]()), alone[name])]

    with ThreadPoolExecutor(MANY) as pool:
        wrong = [line for found in pool.map(work, drawn) for line in found]
    assert not wrong, f"{len(wrong)} results mixed, such as {wrong[:4]}"
    return [RIGHT] * MANY * EACH


@lru_cache(maxsize=256)
def _expected(folder: Path, table: Path | None, budget: int) -> tuple[str, str]:
    """The lab's headline by the library: the difference from the routed model, and its interval."""
    loaded, data = load(folder), load_file(table, "sst2") if table else load_probe("sst2")
    usage = loaded.usage(data).shares()
    pruned = loaded.prune(make_plan(usage, budget=budget)).evaluate(data)
    change, bounds = paired_difference(pruned, loaded.evaluate(data))
    return below_or_above(change, "accuracy", "the routed model"), points_interval(bounds, "accuracy")


def _shown(session: Session) -> tuple[str, str, int, tuple[str, str]]:
    """What the lab says that it shows: checkpoint, data and experts; and its headline."""
    assert not session.failed, session.failed
    texts = [one.markdown.body for one in session.drawn.values() if one.WhichOneof("type") == "markdown"]
    text = "\n".join(texts).replace("\\", "").replace("**", "")
    found = [re.findall(pattern, text) for pattern in _SHOWN]
    assert [len(one) for one in found] == [1, 1, 1], f"{found} on {session.page}: {text[:500]}"
    ((name,), (data,), ((budget, *headline),)) = found
    return name, data, int(budget), tuple(headline)


def sessions(world: World, rng: random.Random) -> list[str]:
    """Sessions that move the slider, also while it computes, switch models, upload tables, look elsewhere and go Back.

    Each headline must be the library's for the checkpoint, the data and the experts that the page names, and those are the
    ones that were set last. After Back, what the page then names counts: the address is the browser's, which is not here.
    """
    _, host = served(world.root, world.root / "checkpoints")
    tables = {name: world.root / name for name in ("train.csv", "validation.csv")}

    def visit(own: random.Random) -> list[tuple[str, str, int, tuple[str, str]]]:
        session, found, lowest, most = Session(host), [], len(LAYERS), len(LAYERS) * EXPERTS
        name, data, budget = own.choice(("sequence", "token")), "probe/sst2", own.randint(lowest, most)
        session.go("pruning_lab", checkpoint=name, source="probe", budget=str(budget))
        for _ in range(ACTIONS):
            act = own.choice(("move", "drag", "switch", "away", "upload"))
            if act in ("move", "drag"):
                for _ in range(4 * (act == "drag")):
                    session.move(own.randint(lowest, most))
                    session.run(wait=False)
                    time.sleep(own.uniform(0, 0.2))
                session.move(budget := own.randint(lowest, most))
                session.run()
            elif act == "switch":
                session.pick("Checkpoint", "checkpoint", name := own.choice(("sequence", "token")))
                session.run()
            elif act == "upload" and data not in tables:
                session.run(click="Use your own")
                session.upload("A table", data := own.choice(list(tables)), tables[data].read_bytes())
                session.run(click="Look at it")
            else:
                query = dict(session.query)
                session.go(own.choice(("overview", "routing")), checkpoint=name)
                session.go("pruning_lab", back=True, **query | {"checkpoint": name})
                _, data, budget, _ = _shown(session)
            found.append(_shown(session))
            assert found[-1][:3] == (name, data, budget), f"{found[-1]}, after {act} to {name}, {data}, {budget}"
        session.socket.close()
        return found

    with ThreadPoolExecutor(MANY) as pool:
        drawn = [random.Random(rng.getrandbits(32)) for _ in range(MANY)]
        found = [one for visited in pool.map(visit, drawn) for one in visited]
    wrong = [one for one in found if one[3] != _expected(world.folder(one[0]), tables.get(one[1]), one[2])]
    assert not wrong, f"{len(wrong)} of {len(found)} headlines are not the library's: {wrong[:3]}"
    return [RIGHT] * len(found)


def memory(world: World, rng: random.Random) -> list[str]:
    """The server's memory over moves of the slider on a shipped checkpoint, after others that warm it up."""
    (process, host), sizes = served(world.root, None), []
    session = Session(host)
    session.go("pruning_lab", checkpoint="sst2-11of12", source="probe")
    slider = session.widget("slider")
    for move in range(1, WARM_UP + MOVES + 1):
        session.move(rng.randint(int(slider.min), int(slider.max)))
        session.run()
        assert not session.failed, session.failed
        if move >= WARM_UP and move % 5 == 0:
            sizes.append((move, process.memory_info().rss / 2**20))
    session.socket.close()
    slope = 100 * np.polyfit(*zip(*sizes), 1)[0]
    world.notes.append(
        f"{sizes[0][1]:.0f} MB after {WARM_UP} moves, {sizes[-1][1]:.0f} MB after {MOVES} more: {slope:+.1f} MB per 100"
    )
    return [RIGHT] * MOVES
