"""Jobs: one at a time in a process of their own, resumed after a kill, cancelled, or failed with a reason."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
from filelock import FileLock

from shrp import cli, jobs
from shrp.errors import JobError
from shrp.training.progress import FileProgress, Status
from shrp.training.runs import run_folder

WAIT = 280
"""Seconds."""


def until(found):
    """What `found()` returns once that is true."""
    end = time.monotonic() + WAIT
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


@pytest.fixture
def root(tmp_path):
    """A folder of jobs whose process is killed in the end."""
    yield tmp_path / "jobs"
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "jobs" / ".pid").read_text().split()[0]), signal.SIGKILL)


@pytest.fixture
def asleep(monkeypatch):
    """No process is started: the test works itself."""
    monkeypatch.setattr(jobs, "wake", lambda root, **_: None)


@pytest.fixture
def commands(monkeypatch):
    """Commands that stand for the real ones: what they are given, and what they do."""
    given = []
    does = {}

    def main():
        given.append(sys.argv[1:])
        does.get(sys.argv[1], lambda: print(json.dumps({"ran": sys.argv[1]})))()

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return given, does


def test_jobs_run_in_order_and_keep_their_result(asleep, commands, tmp_path):
    given, _ = commands
    for name in ("one", "two"):
        command, about = [name, "--out", "a b"], {"of": name}
        job = jobs.submit(tmp_path / "jobs", name, command, tmp_path / name, about=about)
        assert job.state == "waiting"
    assert job.command == "python -m shrp two --out 'a b'"
    assert jobs.work(tmp_path / "jobs")
    first, second = jobs.jobs(tmp_path / "jobs")
    assert (first.state, first.result, first.about) == ("done", {"ran": "one"}, {"of": "one"})
    assert second.state == "waiting"
    assert jobs.work(tmp_path / "jobs")
    assert not jobs.work(tmp_path / "jobs")
    assert given == [["one", "--out", "a b", "--json"], ["two", "--out", "a b", "--json"]]
    jobs.forget(first)
    assert [job.title for job in jobs.jobs(tmp_path / "jobs")] == ["two"]


@pytest.mark.parametrize(
    ("ends", "state", "error"),
    [
        (SystemExit(0), "done", ""),
        (SystemExit(1), "failed", "no room."),
        (ValueError("odd"), "failed", "ValueError: odd"),
    ],
)
def test_how_a_job_ends(asleep, commands, tmp_path, ends, state, error):
    def does():
        print(f"error: {error}", file=sys.stderr)
        raise ends

    commands[1]["one"] = does
    jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    jobs.work(tmp_path)
    (job,) = jobs.jobs(tmp_path)
    assert (job.state, job.error) == (state, error)
    assert not error or error.split()[-1] in job.log


def test_a_job_killed_too_often_fails_and_a_cancelled_one_never_starts(asleep, commands, tmp_path):
    given, _ = commands
    killed = jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    (killed.folder / "starts").write_text("." * jobs.MOST_STARTS)
    jobs.cancel(jobs.submit(tmp_path, "two", ["two"], tmp_path / "other"))
    assert jobs.work(tmp_path)
    assert jobs.work(tmp_path)
    assert [job.state for job in jobs.jobs(tmp_path)] == ["failed", "cancelled"]
    assert not given


@pytest.mark.parametrize("how", [KeyboardInterrupt, lambda: SystemExit(130)])
def test_a_job_that_is_interrupted_resumes_unless_it_is_cancelled(asleep, commands, tmp_path, how):
    """As a shutdown does, or a SIGTERM that was meant for the job before it."""
    job = jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    kept = run_folder(job.out)
    kept.mkdir()

    def interrupted():
        raise how()

    commands[1]["one"] = interrupted
    for _ in range(jobs.MOST_STARTS + 1):
        assert not jobs.work(tmp_path)
        assert [job.state for job in jobs.jobs(tmp_path)] == ["waiting"]
    assert kept.is_dir()
    commands[1]["one"] = lambda: jobs.cancel(job) or interrupted()
    assert jobs.work(tmp_path)
    assert [job.state for job in jobs.jobs(tmp_path)] == ["cancelled"]
    assert not kept.exists()


def test_a_job_killed_after_it_saved_its_result_is_done(asleep, commands, tmp_path):
    job = jobs.submit(tmp_path / "jobs", "one", ["convert"], tmp_path / "out")
    (job.folder / "starts").write_text("." * jobs.MOST_STARTS)
    (job.folder / "result.json").write_text('{"n": 4}')
    for file, text in (("out/config.json", "{}"), ("out.run/.run", "convert"), ("out.run/state", "")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    assert jobs.work(tmp_path / "jobs")
    (job,) = jobs.jobs(tmp_path / "jobs")
    assert (job.state, job.result, commands[0]) == ("done", {"n": 4}, [])
    assert not run_folder(job.out).exists()


def test_a_failed_job_that_is_dismissed_leaves_nothing(asleep, tmp_path, monkeypatch):
    failed = jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    (failed.folder / "end.json").write_text('{"state": "failed"}')
    kept = run_folder(failed.out)
    kept.mkdir()
    again = jobs.submit(tmp_path, "two", ["one"], tmp_path / "out")
    jobs.forget(failed)
    assert kept.is_dir()  # the other's, by now
    (again.folder / "end.json").write_text('{"state": "failed"}')
    jobs.forget(again)
    assert not kept.exists()
    last = jobs.submit(tmp_path, "three", ["one"], tmp_path / "out")
    (last.folder / "end.json").write_text('{"state": "failed"}')
    monkeypatch.setattr(jobs.shutil, "rmtree", lambda folder, **_: (folder / "end.json").unlink(missing_ok=True))
    jobs.forget(last)
    assert not jobs.jobs(tmp_path)  # half deleted, it does not wait


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_what_a_killed_process_left_is_not_believed(asleep, tmp_path, monkeypatch, state):
    """Its number may be that of another process, also one that works for another folder, or of none that lives."""
    job = jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    assert not (tmp_path / ".lock").exists()  # looking keeps no process from starting
    of, signalled = tmp_path / "other" if state == "waiting" else tmp_path, []
    command = [sys.executable, "-c", "input()", "-m", "shrp.jobs", str(of)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        until(lambda: psutil.Process(process.pid).cmdline() == command)  # which one that starts has not yet
        (tmp_path / ".pid").write_text(f"{process.pid} {job.name}")
        monkeypatch.setattr(os, "kill", lambda *given: signalled.append(given))
        with FileLock(tmp_path / ".lock"):
            assert [job.state for job in jobs.jobs(tmp_path)] == [state]
            jobs.cancel(job)
        assert signalled == [(process.pid, signal.SIGTERM)] * (state == "running")
        monkeypatch.undo()
        process.kill()  # and nobody has waited for it yet
        until(lambda: jobs.jobs(tmp_path)[0].state == "waiting")


def test_a_process_that_starts_waits_for_one_that_ends(asleep, commands, tmp_path):
    jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    other = FileLock(tmp_path / ".lock", thread_local=False)
    other.acquire()
    threading.Timer(0.2, other.release).start()
    assert jobs.work(tmp_path)


def test_a_process_stays_for_a_job_and_leaves_where_none_comes(asleep, commands, tmp_path, monkeypatch):
    imported = []
    monkeypatch.setattr(jobs, "_import", lambda: imported.append((tmp_path / ".pid").read_text()))
    threading.Timer(0.3, lambda: jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")).start()
    assert jobs.work(tmp_path, stays=WAIT)
    assert commands[0] == [["one", "--json"]]
    assert (tmp_path / ".pid").read_text() == str(os.getpid())
    assert not jobs.work(tmp_path, stays=0.01)
    assert not (tmp_path / ".pid").exists()
    assert imported == [str(os.getpid())] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each job has a process of its own")
def test_a_job_runs_in_a_copy_of_the_process_at_work(asleep, commands, tmp_path):
    given, does = commands
    does["one"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    job = jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    assert not jobs.work(tmp_path, copied=True)  # it leaves, and the job waits for the next
    assert not (tmp_path / ".pid").exists()
    does["one"] = lambda: print(json.dumps({"pid": os.getpid()}))
    assert jobs.work(tmp_path, copied=True)
    assert (tmp_path / ".pid").read_text() == str(os.getpid())
    (job,) = jobs.jobs(tmp_path)
    assert (job.state, given) == ("done", [])
    assert job.result["pid"] != os.getpid()


def test_a_job_submitted_as_a_process_leaves_is_run(asleep, commands, tmp_path, monkeypatch):
    """Who submits it starts no process as long as there is one."""
    looks, there = jobs._next, []

    def look(root):
        there.append((root / ".pid").exists())
        if there[-1]:
            return None
        return looks(root) or jobs.submit(root, "one", ["one"], tmp_path / "out").folder

    monkeypatch.setattr(jobs, "_next", look)
    assert jobs.work(tmp_path)
    assert there == [True, False]
    assert commands[0] == [["one", "--json"]]


@pytest.mark.parametrize(
    ("working", "waits", "early", "started"),
    [(None, True, False, 1), (None, False, False, 0), (None, False, True, 1), ("", True, False, 0), ("", False, True, 0)],
)
def test_a_process_is_started_where_there_is_none(tmp_path, monkeypatch, working, waits, early, started):
    commands = []
    monkeypatch.setattr(jobs, "_working", lambda root: working)
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda command, **_: commands.append(command))
    root = tmp_path / "new"
    if waits:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "wake", lambda root: None)
            jobs.submit(root, "one", ["one"], tmp_path / "out")
    jobs.wake(root, early=early)
    assert [command[-2:] for command in commands] == [["shrp.jobs", str(root)]] * started


def test_jobs_wait_where_no_process_can_be_started(asleep, tmp_path, monkeypatch):
    jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    (tmp_path / "worker.log").mkdir()
    monkeypatch.undo()
    jobs.wake(tmp_path)
    assert [job.state for job in jobs.jobs(tmp_path)] == ["waiting"]


@pytest.mark.parametrize("much", ["disk", "memory"])
def test_what_has_no_room_or_a_taken_name_is_refused(asleep, tmp_path, much):
    with pytest.raises(JobError, match=much):
        jobs.submit(tmp_path, "one", ["one"], tmp_path / "out", **{much: 2**60})
    jobs.submit(tmp_path, "one", ["one"], tmp_path / "out")
    with pytest.raises(JobError, match="out"):
        jobs.submit(tmp_path, "again", ["one"], tmp_path / "out")
    assert len(jobs.jobs(tmp_path)) == 1


def test_the_status_file_holds_the_last_step_some_losses_and_the_history(tmp_path):
    clock = iter(range(10_000))
    progress = FileProgress(tmp_path / "status.json")
    progress.clock, progress.write = lambda: next(clock), lambda line: None
    for step in range(1, 1001):
        progress.step(Status("training", step, 1000, loss=float(step), seconds_left=3.0))
    progress.epoch({"epoch": 0, "stage": 2, "converted_layer": None, "loss": 1.0, "seconds": 1.0})
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["status"]["step"] == 1000
    assert 100 <= len(found["losses"]) <= 200
    assert found["losses"] == sorted(found["losses"])
    assert [row["loss"] for row in found["history"]] == [1.0]


@pytest.mark.timeout(900)
def test_a_killed_process_is_started_anew_and_resumes(root, tmp_path, tiny_model, save_model, tiny_data):
    """With the real command line; the next job waits, and is cancelled while it runs; then the process waits."""
    base, table = save_model(tiny_model().base_model, tmp_path / "base"), tmp_path / "train.csv"
    tiny_data(48, 0).to_frame().drop(columns="slice").to_csv(table, index=False)
    arguments = ["finetune", "--base", base, "--train-file", str(table), "--validation-file", str(table)]
    arguments += ["--text-column", "sentence"]
    out = tmp_path / "out"
    jobs.submit(root, "one", [*arguments, "--epochs", "12", "--out", str(out)], out)
    jobs.submit(root, "two", [*arguments, "--epochs", "2000", "--out", str(tmp_path / "b")], tmp_path / "b")
    now = lambda: jobs.jobs(root)  # noqa: E731
    until(lambda: len(now()[0].status.get("history", ())) > 2)
    assert [job.state for job in now()] == ["running", "waiting"]
    os.kill(int((root / ".pid").read_text().split()[0]), signal.SIGKILL)
    until(lambda: now()[0].state == "waiting")
    jobs.wake(root)
    until(lambda: now()[0].state == "done")
    assert (out / "config.json").is_file()
    assert now()[0].result["epoch"] == 11
    until(lambda: now()[1].status.get("history"))
    jobs.cancel(now()[1])
    until(lambda: now()[1].state == "cancelled")
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob("b.run"))
    until(lambda: jobs._working(root) == "")
