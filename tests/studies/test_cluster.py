"""Pieces of work on a Ray cluster of two nodes, one of which is killed."""

import os
import signal
import threading
import time
from contextlib import suppress

import pytest
from filelock import FileLock

from shrp.errors import TrainingError
from studies.cluster import run_pieces
from studies.rows import Rows, read_rows


def work_in(place):
    """Work of which each piece is trained once and read back later, as `studies.trainings` does."""
    trained = place / "trained"

    def work(piece):  # pickled by value, so that workers need none of the tests
        import ray

        node = ray.get_runtime_context().get_node_id()
        with (place / "begun").open("a") as file:
            file.write(f"{piece} {node} {os.getpid()}\n")
        with FileLock(place / f".{piece}.lock"):
            done = place / piece
            if not done.exists():
                deadline = time.monotonic() + 120
                while piece != "first" and not (place / "go").exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
                with trained.open("a") as file:
                    file.write(f"{piece}\n")
                done.touch()
        if piece == "fails":
            raise TrainingError("this piece fails")
        yield {"piece": piece}

    return work


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # a node has 30 s, too few on busy cores
    testing = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    found = testing.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    found.second = found.add_node(**node)
    yield found
    found.shutdown()


def test_a_killed_node_loses_no_row_and_repeats_no_training(cluster, tmp_path):
    rows, second, killed = Rows(tmp_path / "rows.json", ("piece",)), cluster.second.node_id, []
    pieces = {"first": (), "fails": ("first",), "after fails": ("fails",)}
    pieces |= {name: ("first",) for name in "abcd"}

    def lines(name):
        file = tmp_path / name
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def kill():
        while not (there := [(p, pid) for p, node, pid in lines("begun") if node == second and p != "first"]):
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)
        for piece, pid in there:
            killed.append(piece)
            with suppress(ProcessLookupError):  # a worker outlives its node for a moment
                os.kill(int(pid), signal.SIGKILL)
        (tmp_path / "go").touch()

    def run():
        for row in run_pieces(work_in(tmp_path), pieces, cluster.address):
            assert row not in rows
            rows.add(row)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(TrainingError, match="this piece fails"):
        run()
    killer.join()
    assert [row["piece"] for row in read_rows(rows.path)] == ["a", "b", "c", "d", "first"]
    assert sorted(piece for (piece,) in lines("trained")) == ["a", "b", "c", "d", "fails", "first"]
    begun = [piece for piece, _, _ in lines("begun")]
    assert {piece for piece in begun if begun.count(piece) > 1} == set(killed)


def test_without_ray_pieces_run_in_order():
    done = []

    def work(piece):
        done.append(piece)
        yield from piece * 2

    assert list(run_pieces(work, {"a": (), "b": ("a",)})) == ["a", "a", "b", "b"]
    assert done == ["a", "b"]
