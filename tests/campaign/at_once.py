"""Many at once: threads on one model, sessions on one server; and the server's memory while a slider moves."""

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
import psutil
import requests
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from shrp.data.sources import load_file, load_probe
from shrp.evaluation.paired import paired_difference
from shrp.pruning.plan import make_plan
from tests.arrays import arrays
from tests.campaign.world import EXPERTS, LAYERS, RIGHT, load, tiny_data, tiny_inputs
from tests.processes import serve
from tests.test_two_at_once import differences, make_jobs
from ui.differences import below_or_above
from ui.text import points_interval

MANY, EACH, ACTIONS, ANSWER = 20, 10, 5, 600
"""Threads or sessions at once, what each computes or does, and the seconds that a page may take on a busy machine."""
WARM_UP, MOVES, MOST = 200, 800, 1.0
"""Of the slider, where memory is measured; and the MB that 100 moves may add."""
PROBE, TABLES = "probe/sst2", ("train.csv", "validation.csv")
_SHOWN = (r"Checkpoint (\S+), task", r"Scored on (\S+) \(n =", r"(\d+) of \d+ experts: (.*) \(95% CI (.*?)\)")
State = tuple[str, str, int]
"""Of the pruning lab: the checkpoint, the data and the number of experts."""


def threads(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """Threads on one model: forced routes, knock-outs, word scores, prunings; each result is the one that it is alone."""
    jobs = make_jobs(load(world / "checkpoints" / rng.choice(("sequence", "token"))), tiny_data(90), tiny_inputs())
    alone = {name: list(arrays(job())) for name, job in jobs.items()}
    start, drawn = threading.Barrier(MANY), [rng.sample(list(jobs), EACH) for _ in range(MANY)]

    def work(names: list[str]) -> list[str]:
        start.wait(60)
        return [f"{name}: {part}" for name in names for part in differences(arrays(jobs[name]()), alone[name])]

    with ThreadPoolExecutor(MANY) as pool:
        wrong = [line for found in pool.map(work, drawn) for line in found]
    assert not wrong, f"{len(wrong)} results mixed, such as {wrong[:4]}"
    return [RIGHT] * MANY * EACH


class Session:
    """A browser's part: the address, the states of widgets, and what the page last drew."""

    def __init__(self, url: str) -> None:
        self.url, self.id, self.page, self.query, self.states, self.drawn = url, "", "", {}, {}, {}
        options = {"subprotocols": ["streamlit"], "max_size": None, "open_timeout": ANSWER, "ping_interval": None}
        self.socket = connect(f"ws{url.removeprefix('http')}/_stcore/stream", **options).__enter__()

    def go(self, page: str, *, back: bool = False, **query: str) -> None:
        """Ask for a page's address, as by a link or, `back`, by the browser's button."""
        self.page, self.query, self.states = page, query, {}
        self.ask(back=back)

    def widget(self, kind: str, label: str = "") -> Any:
        """The first widget of a kind whose label begins so."""
        shown = [getattr(one, kind) for one in self.drawn.values() if one.WhichOneof("type") == kind]
        return next(one for one in shown if one.label.startswith(label))

    def set(self, kind: str, label: str, key: str, value: str, **state: Any) -> None:
        """Set a widget, which the address names by `key`."""
        self.states[self.widget(kind, label).id] = state
        self.query[key] = value

    def move(self, budget: int) -> None:
        """Move the page's slider, and ask for what it then shows."""
        self.set("slider", "", "budget", str(budget), double_array_value={"data": [budget]})
        self.ask()

    def ask(self, *, click: str = "", back: bool = False) -> None:
        """Ask for a run of the page, with a button clicked if one is named."""
        states = self.states | ({self.widget("button", click).id: {"trigger_value": True}} if click else {})
        asked = {"query_string": urlencode(self.query), "page_name": self.page, "is_history_navigation": back}
        widgets = [{"id": name, **state} for name, state in states.items()]
        self._send(rerun_script=asked | {"widget_states": {"widgets": widgets}})

    def upload(self, label: str, file: Path) -> None:
        """Give a file to an uploader: by a PUT to the address that the server names, with the server's token."""
        self._send(file_urls_request={"request_id": "1", "session_id": self.id, "file_names": [file.name]})
        while (found := self._next()).WhichOneof("type") != "file_urls_response":
            pass
        (urls,) = found.file_urls_response.file_urls
        with requests.Session() as web:
            web.get(f"{self.url}/_stcore/health", timeout=ANSWER)
            token, content = {"X-Xsrftoken": web.cookies["_streamlit_xsrf"]}, {"f": (file.name, file.read_bytes())}
            web.put(self.url + urls.upload_url, headers=token, files=content, timeout=ANSWER).raise_for_status()
        given = {"name": file.name, "size": file.stat().st_size, "file_id": urls.file_id, "file_urls": urls}
        state = FileUploaderState(uploaded_file_info=[given])
        self.states[self.widget("file_uploader", label).id] = {"file_uploader_state_value": state}
        self.ask()

    def read(self, wanted: State | None = None) -> tuple[State, tuple[str, str]] | None:
        """Wait for the end of a run that shows what is wanted, if anything, and return `shown()`; earlier ones may end."""
        while True:
            kind = (message := self._next()).WhichOneof("type")
            if kind == "new_session":
                self.id, self.drawn = message.new_session.initialize.session_id or self.id, {}
            elif kind == "page_info_changed":
                self.query = dict(parse_qsl(message.page_info_changed.query_string))
            elif kind == "delta":
                path = tuple(message.metadata.delta_path)  # what was drawn there or below is replaced
                self.drawn = {at: one for at, one in self.drawn.items() if at[: len(path)] != path}
                if message.delta.WhichOneof("type") == "new_element":
                    self.drawn[path] = element = message.delta.new_element
                    assert element.WhichOneof("type") != "exception", f"{self.query}: {element.exception}"
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                found = self.shown()
                if wanted is None or (found and found[0] == wanted):
                    return found

    def shown(self) -> tuple[State, tuple[str, str]] | None:
        """What the lab says that it shows, and its headline; None of another page."""
        texts = [one.markdown.body for one in self.drawn.values() if one.WhichOneof("type") == "markdown"]
        found = [re.findall(pattern, "\n".join(texts).replace("\\", "").replace("**", "")) for pattern in _SHOWN]
        if [len(one) for one in found] != [1, 1, 1]:
            return None
        ((name,), (data,), ((budget, *headline),)) = found
        return (name, data, int(budget)), tuple(headline)

    def _send(self, **message: Any) -> None:
        self.socket.send(BackMsg(**message).SerializeToString())

    def _next(self) -> ForwardMsg:
        try:
            return ForwardMsg.FromString(self.socket.recv(timeout=ANSWER))
        except TimeoutError:
            raise AssertionError(f"waited {ANSWER} s at {self.page}, {self.query}, which shows {self.shown()}") from None


@lru_cache(maxsize=256)
def _expected(world: Path, name: str, data: str, budget: int) -> tuple[str, str]:
    """The lab's headline by the library: the difference from the routed model, and its interval."""
    loaded, on = load(world / "checkpoints" / name), load_probe("sst2") if data == PROBE else load_file(world / data, "sst2")
    pruned = loaded.prune(make_plan(loaded.usage(on).shares(), budget=budget)).evaluate(on)
    change, bounds = paired_difference(pruned, loaded.evaluate(on))
    return below_or_above(change, "accuracy", "the routed model"), points_interval(bounds, "accuracy")


def sessions(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """Sessions that move the slider, also while it computes, switch models, upload tables, look elsewhere and go Back.

    After each act the page must name the checkpoint, the data and the experts that were set last, with the library's
    headline for them.
    """
    _, url = serve(scratch / "cache", scratch / "app.log", SHRP_JOBS="0", SHRP_CHECKPOINTS=str(world / "checkpoints"))

    def visit(own: random.Random) -> list[tuple[State, tuple[str, str]]]:
        budgets, names, found = range(len(LAYERS), len(LAYERS) * EXPERTS + 1), ("sequence", "token"), []
        session, name, data, budget = Session(url), own.choice(names), PROBE, own.choice(budgets)
        session.go("pruning_lab", checkpoint=name, source="probe", budget=str(budget))
        session.read((name, data, budget))
        for _ in range(ACTIONS):
            act = own.choice(("move", "drag", "switch", "upload", "back"))
            if act == "switch":
                session.set("selectbox", "Checkpoint", "checkpoint", name := own.choice(names), string_value=name)
                session.ask()
            elif act == "upload" and data == PROBE:
                session.ask(click="Use your own")
                session.read()
                session.upload("A table", world / (data := own.choice(TABLES)))
                session.read()
                session.ask(click="Look at it")
            elif act == "back":
                left = session.query | {"checkpoint": name, "source": "probe" if data == PROBE else "own", "budget": str(budget)}
                session.go(own.choice(("overview", "routing")), checkpoint=name)
                session.read()
                session.go("pruning_lab", back=True, **left)
            else:
                budget = own.choice(budgets)
                for _ in range(4 if act == "drag" else 0):
                    session.move(own.choice([one for one in budgets if one != budget]))
                    time.sleep(own.uniform(0, 0.2))
                session.move(budget)
            found.append(session.read((name, data, budget)))
        session.socket.close()
        return found

    with ThreadPoolExecutor(MANY) as pool:
        drawn = [random.Random(rng.getrandbits(32)) for _ in range(MANY)]
        found = [one for visited in pool.map(visit, drawn) for one in visited]
    wrong = [one for one in found if one[1] != _expected(world, *one[0])]
    assert not wrong, f"{len(wrong)} of {len(found)} headlines are not the library's: {wrong[:3]}"
    return [RIGHT] * len(found)


def memory(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """The server's memory over moves of the slider on a shipped checkpoint, after others that warm it up."""
    (process, url), sizes = serve(scratch / "cache", scratch / "app.log", SHRP_JOBS="0"), []
    session = Session(url)
    session.go("pruning_lab", checkpoint="sst2-11of12", source="probe")
    session.read()
    slider = session.widget("slider")
    for move in range(WARM_UP + MOVES):
        session.move(budget := rng.randint(int(slider.min), int(slider.max)))
        session.read(("sst2-11of12", PROBE, budget))
        if move >= WARM_UP:
            sizes.append(psutil.Process(process.pid).memory_info().rss / 2**20)
    slope = 100 * np.polyfit(np.arange(MOVES), sizes, 1)[0]
    said = f"{sizes[0]:.0f} MB after {WARM_UP} moves, {sizes[-1]:.0f} MB after {MOVES} more, {slope:+.2f} per 100"
    assert slope <= MOST, said
    return [f"{RIGHT} {said}"]
