"""The app without a browser: a server of its own, and sessions over its websocket."""

import atexit
import time
import urllib.request
from functools import lru_cache
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from tests.processes import serve

ANSWER = 600
"""Seconds that a page may take on a busy machine."""


@lru_cache(maxsize=2)
def served(root: Path, checkpoints: Path | None) -> tuple[psutil.Process, str]:
    """An app on these checkpoints besides the shipped ones, and its host and port; it ends with this process."""
    process, url = serve(root / "cache", root / "app.log", SHRP_JOBS="0", SHRP_CHECKPOINTS=str(checkpoints or ""))
    atexit.register(process.kill)
    return psutil.Process(process.pid), url.removeprefix("http://")


class Session:
    """A browser's part: the address, the states of widgets, and what the page last drew."""

    def __init__(self, host: str) -> None:
        self.host, self.id, self.page, self.failed = host, "", "", []
        self.query: dict[str, str] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.drawn: dict[tuple[int, ...], Any] = {}
        address = f"ws://{host}/_stcore/stream"
        self.socket = connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=ANSWER, ping_interval=None)

    def go(self, page: str, *, back: bool = False, **query: str) -> None:
        """Open a page's address, as by a link or, `back`, the browser's button."""
        self.page, self.query, self.states = page, query, {}
        self.run(back=back)

    def widget(self, kind: str, label: str = "") -> Any:
        """A drawn widget of a kind, by the beginning of its label."""
        shown = [getattr(one, kind) for one in self.drawn.values() if one.WhichOneof("type") == kind]
        found = [one for one in shown if one.label.startswith(label)]
        assert found, f"no {kind} '{label}' on {self.page}?{urlencode(self.query)}: {[one.label for one in shown]}"
        return found[0]

    def move(self, value: int) -> None:
        """Move the slider of the page, which the address names `budget`."""
        self.states[self.widget("slider").id] = {"double_array_value": {"data": [value]}}
        self.query |= {"budget": str(value)}

    def pick(self, label: str, key: str, value: str) -> None:
        """Pick an option, which the address names by `key`."""
        self.states[self.widget("selectbox", label).id] = {"string_value": value}
        self.query |= {key: value}

    def run(self, *, back: bool = False, wait: bool = True, click: str = "") -> None:
        """Run the page with a button clicked, if one is named; `wait` for its end, or send what else is set meanwhile."""
        states = self.states | ({self.widget("button", click).id: {"trigger_value": True}} if click else {})
        asked = {"query_string": urlencode(self.query), "page_name": self.page, "is_history_navigation": back}
        widgets = [{"id": name, **state} for name, state in states.items()]
        self._send(rerun_script=asked | {"widget_states": {"widgets": widgets}})
        if wait:
            self._read()

    def upload(self, label: str, name: str, content: bytes) -> None:
        """Give a file to an uploader: by a PUT to the address that the server names."""
        self._send(file_urls_request={"request_id": "1", "session_id": self.id, "file_names": [name]})
        while (found := self._next(ANSWER)).WhichOneof("type") != "file_urls_response":
            pass
        (urls,) = found.file_urls_response.file_urls
        form = f'Content-Disposition: form-data; name="f"; filename="{name}"'.encode()
        body = b"--x\r\n" + form + b"\r\n\r\n" + content + b"\r\n--x--\r\n"
        with urllib.request.urlopen(f"http://{self.host}/_stcore/health", timeout=ANSWER) as answer:
            ((cookie, token),) = SimpleCookie(answer.headers["Set-Cookie"]).items()
        header = {"Content-Type": "multipart/form-data; boundary=x", "X-Xsrftoken": token.value}
        header |= {"Cookie": f"{cookie}={token.value}"}
        asked = urllib.request.Request(f"http://{self.host}{urls.upload_url}", body, header, method="PUT")
        urllib.request.urlopen(asked, timeout=ANSWER).read()
        file = {"name": name, "size": len(content), "file_id": urls.file_id, "file_urls": urls}
        state = FileUploaderState(uploaded_file_info=[file])
        self.states[self.widget("file_uploader", label).id] = {"file_uploader_state_value": state}
        self.run()

    def _send(self, **message: Any) -> None:
        self.socket.send(BackMsg(**message).SerializeToString())

    def _next(self, seconds: float) -> Any:
        return ForwardMsg.FromString(self.socket.recv(timeout=seconds))

    def _read(self) -> None:
        """Take what comes until a run has ended and no other begins; the page is then what that run drew."""
        end, quiet, seen = time.monotonic() + ANSWER, False, set()
        while True:
            try:
                message = self._next(0.3 if quiet else max(0.1, end - time.monotonic()))
            except TimeoutError:
                assert quiet, f"no answer in {ANSWER} s on {self.page}?{urlencode(self.query)}"
                return
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.id, quiet, seen = message.new_session.initialize.session_id or self.id, False, set()
            elif kind == "page_info_changed":
                self.query = dict(parse_qsl(message.page_info_changed.query_string))
            elif kind == "delta":
                path = tuple(message.metadata.delta_path)
                self.drawn = {at: one for at, one in self.drawn.items() if at[: len(path)] != path or at in seen}
                if message.delta.WhichOneof("type") == "new_element":
                    seen.add(path)
                    self.drawn[path] = element = message.delta.new_element
                    if element.WhichOneof("type") == "exception":
                        self.failed.append(f"{self.page}?{urlencode(self.query)}: {element.exception}"[:500])
            elif kind == "script_finished":
                ended = message.script_finished
                if ended == ForwardMsg.FINISHED_SUCCESSFULLY:
                    self.drawn = {path: one for path, one in self.drawn.items() if path in seen}
                quiet = ended != ForwardMsg.FINISHED_EARLY_FOR_RERUN
