"""A pruned model as ONNX: built on request by the command line in a process of its own, kept, and scored.

Tracing patches torch for as long as it lasts, in every thread, while other sessions go on computing.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import ExportError, ShrpError, first_line
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import flip_table
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan
from ui import differences, state
from ui.lab.save import plan_json, zipped
from ui.store import Progress, once, results
from ui.text import duration, escape, points, points_interval, with_interval

KEPT = 3
"""Exports in memory, of up to some hundred megabytes each."""
SCORES = "onnx-score"
_ROOT, _POLL_S = Path(__file__).parents[2], 0.2
_building = threading.Lock()


@dataclass(frozen=True)
class OnnxExport:
    """A zipped export folder, and `shrp.export.onnx.ExportReport` as a dictionary."""

    archive: bytes
    report: Mapping[str, Any]


def build(
    checkpoint: Checkpoint,
    plan: PruningPlan | None,
    name: str,
    *,
    int8: bool,
    tick: Callable[[], None] = lambda: None,
) -> OnnxExport:
    """Run `python -m shrp export` and zip what it makes, under the folder name `name`.

    Args:
        plan: which experts to keep; None for a checkpoint that has no routers.
        tick: called several times a second; what it raises ends the build.

    Raises:
        ExportError: it failed; in the command's own words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, plan_file = Path(scratch) / name, Path(scratch) / "plan.json"
        command = [sys.executable, "-m", "shrp", "export", "--json"]
        command += [str(checkpoint.path.resolve()), "--out", str(folder)]
        if plan is not None:
            plan_file.write_text(plan_json(plan), encoding="utf-8")
            command += ["--plan", str(plan_file)]
        with open(Path(scratch) / "out", "w+b") as out, open(Path(scratch) / "err", "w+b") as err:
            process = subprocess.Popen(
                [*command, *(["--int8"] if int8 else [])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=_ROOT,
                env=os.environ | {"COLUMNS": "2000"},  # the error stays on one line
            )
            try:
                while process.poll() is None:
                    tick()
                    time.sleep(_POLL_S)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            said, complained = (_text(stream) for stream in (out, err))
        if process.returncode != 0:
            raise ExportError(_reason(complained))
        report = json.loads(said)
        if report["made_from"] != checkpoint.fingerprint:
            raise ExportError(
                "the checkpoint was replaced on disk meanwhile; reload the page and build again."
            )
        return OnnxExport(zipped(folder, name), report)


def menu(
    checkpoint: Checkpoint,
    plan: PruningPlan | None,
    name: str,
    data: TextData,
    scored: Evaluation,
) -> None:
    """Draw the two offers: a button that builds, then a download, what was checked, and the score as served.

    Args:
        plan: as for `build`.
        data: what an export is scored on.
        scored: the model that is exported, in PyTorch, on all of `data`.
    """
    st.caption("To serve with onnxruntime and tokenizers alone. A build takes about a minute.")
    for precision in ("float32", "int8"):
        of = checkpoint, plan, f"{name}-onnx-{precision}", precision
        if (made := _offer(*of)) is not None:
            _score(made.archive, (*_key(*of), data.fingerprint, data.name), precision, data, scored)


def _offer(checkpoint: Checkpoint, plan: PruningPlan | None, name: str, precision: str) -> OnnxExport | None:
    """One offer; returns what was built, None where nothing is yet."""
    store, key = results("onnx", KEPT), _key(checkpoint, plan, name, precision)
    label, place = f"ONNX ({precision})", st.empty()
    if (made := store.get(key)) is None:
        if not place.button(f"Build {label}", key=f"build-onnx-{precision}", icon=":material/deployed_code:"):
            return None
        try:
            made = _build_once(checkpoint, plan, name, precision, place)
        except ShrpError as error:
            place.empty()
            state.show_error(error)
            return None
    place.download_button(
        f"{label} (.zip)",
        data=made.archive,
        file_name=f"{name}.zip",
        mime="application/zip",
        key=f"download-onnx-{precision}",
        on_click="ignore",
        icon=":material/deployed_code:",
    )
    st.caption(summary(made.report))
    return made


def _key(checkpoint: Checkpoint, plan: PruningPlan | None, name: str, precision: str) -> tuple[Any, ...]:
    """What the archive is of; its name and how the plan was made are in it too."""
    of = None if plan is None else (plan.key(), plan.selection, plan.combination)
    return checkpoint.fingerprint, of, name, precision


def _build_once(
    checkpoint: Checkpoint,
    plan: PruningPlan | None,
    name: str,
    precision: str,
    place: Any,
) -> OnnxExport:
    """One build at a time on this machine; a session that waited for the same one takes it as it is."""
    store, key = results("onnx", KEPT), _key(checkpoint, plan, name, precision)
    start = time.monotonic()

    def tick() -> None:
        place.markdown(
            f":material/hourglass_top: Building ONNX ({precision}) … {duration(time.monotonic() - start)}. Another "
            "setting or page ends it."
        )

    while not _building.acquire(timeout=_POLL_S):
        place.markdown(":material/hourglass_top: Waiting for another export to finish …")
    try:
        if (made := store.get(key)) is None:
            made = build(checkpoint, plan, name, int8=precision == "int8", tick=tick)
            store.put(key, made)
    finally:
        _building.release()
    return made


def summary(report: Mapping[str, Any]) -> str:
    """What was checked, in a sentence or two."""
    parts = [
        f"{report['bytes'] / 1e6:.1f} MB; logits differ from PyTorch's float32 by at most "
        f"{report['max_difference']:.1g} on {report['checked']} examples of several sizes"
    ]
    if report["int8"]:
        if report["label_agreement"] is not None:
            same = round(report["label_agreement"] * report["sentences"])
            parts.append(
                f"same prediction for {same} of {report['sentences']} examples of {report['compared_on']}"
            )
        parts.append(f"{report['speedup']:.2f} times as fast as the float32 graph here (8 short examples)")
    return "; ".join(parts) + "."


def _score(archive: bytes, key: tuple, precision: str, data: TextData, same: Evaluation) -> None:
    """A button that scores the export on the data, and then what it found."""
    place = st.empty()
    if results(SCORES, 24).get(key) is None and not place.button(
        f"Score it on {escape(data.name)}", key=f"score-onnx-{precision}", icon=":material/rule:"
    ):
        return
    place.empty()
    label = f"Scoring the export on {escape(data.name)}"
    try:
        st.markdown(sentence(once(SCORES, 24, key, label, lambda p: run(archive, data, p)), same, data))
    except ShrpError as error:
        state.show_error(error)


def run(archive: bytes, data: TextData, progress: Progress) -> Evaluation:
    """Score a zipped export with onnxruntime.

    Args:
        archive: with one folder in it.
        progress: called after every batch.

    Raises:
        ExportError: it can't be loaded or run.
    """
    from shrp.export.exported import load_export

    with tempfile.TemporaryDirectory() as scratch:
        try:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(scratch)  # of our own making
        except (OSError, zipfile.BadZipFile) as error:
            raise ExportError(f"the export can't be loaded: {first_line(error)}; build it again.") from error
        (folder,) = Path(scratch).iterdir()
        for estimate in load_export(folder).evaluate_stream(data):
            progress(estimate.n, estimate.total)
    return estimate


def sentence(found: Evaluation, same: Evaluation, data: TextData) -> str:
    """The export's score, its difference from PyTorch's, and how many predictions changed, as Markdown."""
    flips = len(flip_table(same, found, data))
    changed = f"{flips:,} of {counted(found.n, 'prediction')} changed"
    if data.labels is None:
        return f"As served: {changed}."
    change, ends = differences.difference(found, same)
    interval = f" (95% CI {points_interval(ends, found.metric)})" if ends[0] == ends[0] else ""
    return (
        f"As served: **{escape(with_interval(found.score, found.interval, found.metric, found.n))}**, "
        f"{points(change, found.metric)}{interval} compared with PyTorch; {changed}."
    )


def _text(stream: Any) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


def _reason(complained: str) -> str:
    """The sentence that the command line ended with."""
    lines = [line.strip() for line in complained.splitlines() if line.strip()]
    if lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    return "the export ended unexpectedly, perhaps for lack of memory; try it on the command line."
