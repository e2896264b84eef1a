"""Other processes: the app, for what looks at it from outside, and copies of this one, which need not import anything."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT, MOST = Path(__file__).parents[1], 180
"""The repository, and the seconds that a start may take on a busy machine."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve(cache: Path, log: Path, **environment: str) -> tuple[subprocess.Popen, str]:
    """The app's process, with these settings alone, and its address; on another port where another took the first."""
    kept = {name: value for name, value in os.environ.items() if name == "SHRP_DATA_DIR" or "SHRP_" not in name}
    for _ in range(3):
        port, end = free_port(), time.monotonic() + MOST
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
                cwd=ROOT,
                env=kept | environment | {"SHRP_CACHE": str(cache)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).read()
                return process, f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.25)
                if time.monotonic() > end:
                    process.kill()
    raise AssertionError(f"the app did not start: {log.read_text()[-2000:]}")


def fork(action: Callable[[], object], errors: Path, **environment: str) -> multiprocessing.Process:
    """A started copy of this process that calls `action` and ends with its exit code; its stderr goes to a file."""

    def run() -> None:
        import torch

        torch.set_num_threads(1)  # the threads that PyTorch has begun are not copied
        os.environ.update(environment)
        with open(os.devnull, "w") as sys.stdout, errors.open("w") as sys.stderr:
            action()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process
