"""Many sessions on one server, over its websocket: nobody sees another one's numbers."""

import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from shrp.data.sources import load_probe
from shrp.evaluation.paired import paired_difference
from shrp.pruning.plan import make_plan
from tests.campaign.world import EXPERTS, LAYERS, RIGHT, load
from tests.processes import serve
from ui.differences import below_or_above
from ui.text import points_interval

MANY, ACTIONS, ANSWER = 20, 5, 600
"""Sessions at once, what each of them does, and the seconds that a page may take on a busy machine."""
_SHOWN = (r"Checkpoint (\S+), task", r"(\d+) of \d+ experts: (.*) \(95% CI (.*?)\)")


class Session:
    """A browser's part on the pruning lab: the address, the states of widgets, and what the page last drew."""

    def __init__(self, host: str, **query: str) -> None:
        self.query, self.states, self.drawn = query, {}, {}
        address = f"ws://{host}/_stcore/stream"
        self.socket = connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=ANSWER, ping_interval=None)
        self.run()

    def set(self, kind: str, label: str, key: str, value: str, **state: Any) -> None:
        """Set a widget, by the beginning of its label, which the address names by `key`."""
        shown = [getattr(one, kind) for one in self.drawn.values() if one.WhichOneof("type") == kind]
        self.states[next(one.id for one in shown if one.label.startswith(label))] = state
        self.query[key] = value

    def run(self, *, wait: bool = True) -> None:
        """Run the page; `wait` for its end, or set what else is to be set meanwhile."""
        widgets = [{"id": name, **state} for name, state in self.states.items()]
        asked = {"query_string": urlencode(self.query), "page_name": "pruning_lab", "widget_states": {"widgets": widgets}}
        self.socket.send(BackMsg(rerun_script=asked).SerializeToString())
        if wait:
            self._read()

    def _read(self) -> None:
        """Take what comes until a run has ended and no other begins; the page is then what that run drew."""
        ended = False
        while True:
            try:
                message = ForwardMsg.FromString(self.socket.recv(timeout=0.3 if ended else ANSWER))
            except TimeoutError:
                assert ended, f"no answer in {ANSWER} s to {self.query}"
                return
            kind = message.WhichOneof("type")
            if kind == "new_session":
                ended, self.drawn = False, {}
            elif kind == "delta":
                path = tuple(message.metadata.delta_path)  # what was drawn there or below is replaced
                self.drawn = {at: one for at, one in self.drawn.items() if at[: len(path)] != path}
                if message.delta.WhichOneof("type") == "new_element":
                    self.drawn[path] = element = message.delta.new_element
                    assert element.WhichOneof("type") != "exception", f"{self.query}: {element.exception}"
            elif kind == "script_finished":
                ended = message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN

    def shown(self) -> tuple[str, int, tuple[str, str]]:
        """The checkpoint and the number of experts that the page names; and its headline."""
        texts = [one.markdown.body for one in self.drawn.values() if one.WhichOneof("type") == "markdown"]
        text = "\n".join(texts).replace("\\", "").replace("**", "")
        found = [re.findall(pattern, text) for pattern in _SHOWN]
        assert [len(one) for one in found] == [1, 1], f"{found} of {self.query}: {text[:500]}"
        ((name,), ((budget, *headline),)) = found
        return name, int(budget), tuple(headline)


@lru_cache(maxsize=256)
def _expected(folder: Path, budget: int) -> tuple[str, str]:
    """The lab's headline by the library: the difference from the routed model, and its interval."""
    loaded, data = load(folder), load_probe("sst2")
    pruned = loaded.prune(make_plan(loaded.usage(data).shares(), budget=budget)).evaluate(data)
    change, bounds = paired_difference(pruned, loaded.evaluate(data))
    return below_or_above(change, "accuracy", "the routed model"), points_interval(bounds, "accuracy")


def sessions(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """Sessions that move the slider, also while it computes, and switch models.

    Each headline must be the library's for the checkpoint and the experts that were set last, which the page names.
    """
    process, url = serve(scratch / "cache", scratch / "app.log", SHRP_JOBS="0", SHRP_CHECKPOINTS=str(world / "checkpoints"))

    def visit(own: random.Random) -> list[tuple[str, int, tuple[str, str]]]:
        name, budget = own.choice(("sequence", "token")), own.randint(len(LAYERS), len(LAYERS) * EXPERTS)
        session = Session(url.removeprefix("http://"), checkpoint=name, source="probe", budget=str(budget))
        found = []
        for _ in range(ACTIONS):
            if (act := own.choice(("move", "drag", "switch"))) == "switch":
                name = own.choice(("sequence", "token"))
                session.set("selectbox", "Checkpoint", "checkpoint", name, string_value=name)
            for moves in reversed(range({"move": 1, "drag": 5, "switch": 0}[act])):
                budget = own.randint(len(LAYERS), len(LAYERS) * EXPERTS)
                session.set("slider", "", "budget", str(budget), double_array_value={"data": [budget]})
                if moves:
                    session.run(wait=False)
                    time.sleep(own.uniform(0, 0.2))
            session.run()
            found.append(session.shown())
            assert found[-1][:2] == (name, budget), f"{found[-1]}, after {act} to {name}, {budget}"
        session.socket.close()
        return found

    try:
        with ThreadPoolExecutor(MANY) as pool:
            drawn = [random.Random(rng.getrandbits(32)) for _ in range(MANY)]
            found = [one for visited in pool.map(visit, drawn) for one in visited]
    finally:
        process.kill()
    wrong = [one for one in found if one[2] != _expected(world / "checkpoints" / one[0], one[1])]
    assert not wrong, f"{len(wrong)} of {len(found)} headlines are not the library's: {wrong[:3]}"
    return [RIGHT] * len(found)
