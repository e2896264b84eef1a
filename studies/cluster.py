"""Pieces of work, one after the other or spread over a Ray cluster (`pip install -e .[cluster]`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from shrp.errors import TrainingError, first_line

RETRIES = 10
"""Nodes and processes that may die under one piece."""
PASSED_ON = ("SHRP_", "HF_", "TRANSFORMERS_", "TOKENIZERS_")
"""Beginnings of the variables that workers get from the environment of the command."""

Piece = TypeVar("Piece", bound=Hashable)
Result = TypeVar("Result")


def run_pieces(
    work: Callable[[Piece], Iterable[Result]],
    pieces: Mapping[Piece, Iterable[Piece]],
    address: str = "",
    cpus: float = 1,
    gpus: float | None = None,
) -> Iterator[Result]:
    """Yield what each piece of work gives.

    A piece that ends without a result because its node or process died is started again elsewhere, so `work` must go on
    with what was begun. A piece that fails does not stop those that do not need it; the first error is raised at the end.

    Args:
        pieces: each with those that must be done before it, which come earlier.
        address: of a Ray cluster, or `local` to start one on this machine; "" runs the pieces in this process in their
            order, and stops at the first error.
        cpus, gpus: what a piece takes on the cluster; None for one GPU if the cluster has any.

    Raises:
        TrainingError: Ray is not installed, there is no such cluster, or none of its nodes has what a piece takes.
        Exception: a piece's.
    """
    if not address:
        for piece in pieces:
            yield from work(piece)
        return
    ray = _connected(address)
    try:
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0)) if gpus is None else gpus
        _check_fits(ray.nodes(), {"CPU": cpus, "GPU": gpus})

        def run(piece: Piece, *_done: list[Result]) -> list[Result]:
            return list(work(piece))

        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(run)
        running: dict[Piece, Any] = {}
        for piece, before in pieces.items():
            running[piece] = remote.remote(piece, *(running[one] for one in before))
        left, failed = list(running.values()), None
        while left:
            (done,), left = ray.wait(left)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayError as error:
                failed = failed or error
    finally:
        ray.shutdown()
    if failed is not None:
        raise getattr(failed, "cause", None) or TrainingError(first_line(failed)) from failed


def _connected(address: str) -> Any:
    """Ray, connected to a cluster whose workers import this checkout."""
    try:
        import ray
    except ImportError as error:
        raise TrainingError("--ray needs Ray, which is not installed: pip install -e .[cluster]") from error
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    try:
        ray.init(address=address, runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TrainingError(f"there is no Ray cluster at {address!r}: {first_line(error)}") from error
    return ray


def _check_fits(nodes: list[dict[str, Any]], needed: Mapping[str, float]) -> None:
    """Raise `TrainingError` where no node ever has what a piece takes: Ray would wait for one."""
    owned = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(has.get(name, 0) >= amount for name, amount in needed.items()) for has in owned):
        wanted = " and ".join(f"{amount:g} {name}s" for name, amount in needed.items() if amount)
        raise TrainingError(f"no node of the Ray cluster has {wanted}: take less with --cpus and --gpus.")
