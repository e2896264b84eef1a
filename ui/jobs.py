"""Jobs of the app (`shrp.jobs`): where they are, how pages start one, and their list in the sidebar.

They run commands on the app's machine, so a server that others reach has them off, unless SHRP_JOBS is 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from shrp import jobs
from shrp.checkpoints.info import WEIGHTS
from shrp.errors import JobError
from shrp.files import cache_folder
from shrp.jobs import Job
from ui.own.kept import is_local
from ui.text import about, capital, escape, metric_name, score_text, with_interval

SWITCH = "SHRP_JOBS"
"""Variable of the environment that switches jobs on or off whatever address the app has."""
EVERY = 1.0
"""Seconds between two looks at jobs that have not ended."""
_ENDED = ("done", "failed", "cancelled")
_PER_WEIGHT = 4
"""Bytes of a float32."""
GIB = 2**30


def root() -> Path:
    """The folder of all jobs; only where they are `allowed`."""
    return cache_folder() / "jobs"


def models() -> Path:
    """The folder of what jobs made, which is one of the app's folders of checkpoints; only where they are `allowed`."""
    return cache_folder() / "models"


def why_not() -> str:
    """Why no job can be started here, in a sentence; empty where one can."""
    if cache_folder() is None:
        return "There is no home folder for jobs: set SHRP_CACHE."
    if os.environ.get(SWITCH, "1" if is_local() else "0") != "1":
        return f"Jobs are off, as others can reach this server. {SWITCH}=1 switches them on."
    return ""


def allowed() -> bool:
    """Whether jobs can be started here."""
    return not why_not()


def needs(parameters: int) -> dict[str, int]:
    """What a training of a model with so many parameters needs, in bytes, as `start` takes it."""
    model = _PER_WEIGHT * parameters
    return {"disk": 4 * model + GIB, "memory": 6 * model + 2 * GIB}


def prepare() -> None:
    """Have a process import what a job needs, for a dialog that may start one."""
    jobs.wake(root(), early=True)


def start(title: str, arguments: Sequence[str], name: str, **options: Any) -> Job:
    """Start a job that makes the checkpoint `models() / name`, or let it wait for those before it.

    Args:
        arguments: of `python -m shrp`, without `--out`.
        options: of `shrp.jobs.submit`.

    Raises:
        JobError: as there, or jobs are off.
    """
    if why := why_not():
        raise JobError(why)
    out = models() / name
    return jobs.submit(root(), title, [*arguments, "--out", str(out)], out, **options)


def free_name(name: str) -> str:
    """A name, numbered where something that a job made, is to make, or left unfinished is called so."""
    taken = {job.out.name for job in jobs.jobs(root()) if job.state in ("waiting", "running")}
    free, number = name, 2
    while free in taken or any((models() / one).exists() for one in (free, f"{free}.run")):
        free, number = f"{name}-{number}", number + 1
    return free


def latest(about: Mapping[str, Any]) -> Job | None:
    """The last job with this `about` that was not cancelled; only where jobs are `allowed`."""
    found = reversed(jobs.jobs(root()))
    return next((job for job in found if job.about == about and job.state != "cancelled"), None)


def reads(folder: Path) -> bool:
    """Whether a job that has not ended needs a folder."""
    found = jobs.jobs(root()) if allowed() else ()
    return any(str(folder) in job.arguments for job in found if job.state not in _ENDED)


def draw(open_folder: Callable[[Path], None]) -> None:
    """Draw the jobs in the sidebar and keep them up to date; nothing where there are none.

    Args:
        open_folder: has the app pick the checkpoint in a folder.
    """
    if not allowed() or not (found := jobs.jobs(root())):
        return
    ended = {job.name for job in found if job.state in _ENDED}
    every = EVERY if len(ended) < len(found) else None
    st.fragment(_draw, run_every=every)([found], ended, open_folder)


def _draw(looked: list[list[Job]], ended: set[str], open_folder: Callable[[Path], None]) -> None:
    jobs.wake(root())
    found = looked.pop() if looked else jobs.jobs(root())  # the first run has them from the app's
    if {job.name for job in found if job.state in _ENDED} != ended:
        st.rerun()  # the page offers what was made, and a fragment with nothing to wait for no longer runs by itself
    with st.container(key="jobs"):
        for job in reversed(found):
            with st.container(border=True, key=f"job-{job.name}"):
                _one(job, open_folder)


def _one(job: Job, open_folder: Callable[[Path], None]) -> None:
    """Draw a job: how far it is or how it ended, and what can be done about it."""
    key = {"key": f"job-{job.name}-act"}
    if job.state == "cancelled":
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.caption(f"{escape(job.title)}: cancelled", width="stretch")
            st.button("Dismiss", on_click=jobs.forget, args=(job,), type="tertiary", **key)
        return
    st.markdown(f"**{escape(job.title)}**")
    if job.state == "running":
        share, said = progress(job)
        st.progress(share, escape(said))
        _curve(job)
    elif job.state == "waiting":
        st.caption(":material/schedule: Waits to start.")
    elif job.state == "failed":
        st.error(escape(job.error), icon=":material/error:")
    elif said := outcome(job):
        st.markdown(escape(said))
    with st.container(horizontal=True, gap="small"):
        made = job.state == "done" and (job.out / WEIGHTS).is_file()  # which an export has not
        # By a callback: "Dismiss" may take the job off the list before the run.
        opened = {"on_click": open_folder, "args": (job.out,), "key": f"job-{job.name}-open"}
        if made and st.button(f"Open {escape(job.out.name)}", type="primary", **opened):
            st.rerun()
        if job.state in _ENDED:
            st.button("Dismiss", on_click=jobs.forget, args=(job,), **key)
        elif (job.folder / "cancel").exists():
            st.caption("Is being cancelled …")
        else:
            st.button("Cancel", icon=":material/cancel:", on_click=jobs.cancel, args=(job,), **key)
    log = job.log
    with st.expander("Command and log" if log else "Command"):
        st.caption("On another machine, copy the files that it names and change their paths.")
        st.code(job.command, language="bash", wrap_lines=True)
        if log:
            st.code(log[-5000:], language=None, wrap_lines=True, height=200)


def progress(job: Job) -> tuple[float, str]:
    """How much of a running job is done (0 to 1), and what it does with the time left, in words."""
    status = job.status.get("status") or {}
    if not status:
        lines = job.log.splitlines()
        return 0.0, capital(lines[-1]) if lines else "Starting …"
    of_epoch = status["step"] / status["steps"] if status["steps"] else 0.0
    share = min((status["epoch"] - 1 + of_epoch) / status["epochs"], 1.0) if status["stage"] else 0.0
    said = status["phase"]
    if status["stage"] == 0 and status["steps"]:
        said += f", {of_epoch:.0%}"
    if (left := status["seconds_left"]) is not None:
        said += f", {about(left)} left"
    return share, capital(said)


def outcome(job: Job) -> str:
    """What a job that is done came to, in words; empty where nothing was scored."""
    found, metric = job.result, job.about.get("metric", "")
    if "p50_ms" in found:
        score = capital(with_interval(found["score"], found["interval"], metric, found["n"]))
        return f"{score}, p50 {found['p50_ms']:.1f} ms, {found['mb']:.1f} MB"
    if found.get("n"):
        scores = (score_text(found[name], metric) for name in ("routed_score", "dense_score"))
        return "Routed {}, dense {}".format(*scores) + f" ({metric_name(metric)}, n = {found['n']:,})"
    rows = [row for row in found.get("scores", ()) if row.get("kind") in ("routed", "static")]
    if not rows:
        return ""
    row = next((row for row in rows if row["kind"] == "routed"), rows[-1])
    return capital(f"{metric_name(row['metric'])} {score_text(row['score'], row['metric'])} (n = {row['n']:,})")


def _curve(job: Job) -> None:
    """Draw the loss by step and, where known, the validation score by epoch."""
    losses, rows = job.status.get("losses", []), job.status.get("history", [])
    scored = [row for row in rows if row.get("validation_score") is not None]
    if len(losses) > 1:
        about = "It rises where another layer is converted." if job.about.get("kind") == "convert" else None
        st.metric("Loss by step", f"{losses[-1]:.4g}", chart_data=losses, help=about)
    if scored:
        metric, scores = scored[0]["metric"], [row["validation_score"] for row in scored]
        title = f"Validation {metric_name(metric)} by epoch"
        st.metric(title, score_text(scores[-1], metric), chart_data=scores if len(scores) > 1 else None)
