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
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

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
BUILD = "build"
"""Held while an export is built."""
_ROOT, _POLL_S = Path(__file__).parents[2], 0.2


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
        command += [str(checkpoint.path.resolve()), "--out", str(folder), *["--int8"] * int8]
        if plan is not None:
            plan_file.write_text(plan_json(plan), encoding="utf-8")
            command += ["--plan", str(plan_file)]
        environment = os.environ | {"COLUMNS": "2000"}  # the error stays on one line
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(
            command, **pipes, cwd=_ROOT, env=environment, encoding="utf-8", errors="replace"
        ) as process:
            try:
                output = None
                while output is None:
                    tick()
                    with suppress(subprocess.TimeoutExpired):
                        output, errors = process.communicate(timeout=_POLL_S)
            finally:
                process.kill()  # nothing where it has ended
        if process.returncode != 0:
            raise ExportError(_reason(errors))
        report = json.loads(output)
        if report["made_from"] != checkpoint.fingerprint:
            raise ExportError(
                "the checkpoint was replaced on disk meanwhile; reload the page and build again."
            )
        return OnnxExport(zipped(folder, name), report)


def menu(
    checkpoint: Checkpoint, plan: PruningPlan | None, name: str, data: TextData, scored: Evaluation
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
        store, key, place = results("onnx", KEPT), _key(*of), st.empty()
        label = f"ONNX ({precision})"
        if (made := store.get(key)) is None:
            build_key, icon = f"build-onnx-{precision}", ":material/deployed_code:"
            if not place.button(f"Build {label}", key=build_key, icon=icon):
                continue
            try:
                made = _build_once(*of, place)
            except ShrpError as error:
                place.empty()
                state.show_error(error)
                continue
        place.download_button(
            f"{label} (.zip)",
            data=made.archive,
            file_name=f"{of[2]}.zip",
            mime="application/zip",
            key=f"download-onnx-{precision}",
            on_click="ignore",
            icon=":material/deployed_code:",
        )
        st.caption(summary(made.report))
        _score(made.archive, (*key, data.fingerprint, data.name), precision, data, scored)


def _key(checkpoint: Checkpoint, plan: PruningPlan | None, name: str, precision: str) -> tuple[Any, ...]:
    """What the archive is of; its name and how the plan was made are in it too."""
    of = None if plan is None else (plan.key(), plan.selection, plan.combination)
    return checkpoint.fingerprint, of, name, precision


def _build_once(
    checkpoint: Checkpoint, plan: PruningPlan | None, name: str, precision: str, place: DeltaGenerator
) -> OnnxExport:
    """One build at a time on this machine; a session that waited for the same one takes it as it is."""
    store, key = results("onnx", KEPT), _key(checkpoint, plan, name, precision)
    start, hourglass = time.monotonic(), ":material/hourglass_top:"

    def tick() -> None:
        since = duration(time.monotonic() - start)
        place.markdown(f"{hourglass} Building ONNX ({precision}) … {since}. Another setting or page ends it.")

    with store.making(BUILD, lambda: place.markdown(f"{hourglass} Waiting for another export to finish …")):
        if (made := store.get(key)) is None:
            made = build(checkpoint, plan, name, int8=precision == "int8", tick=tick)
            store.put(key, made)
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


def _reason(errors: str) -> str:
    """The sentence that the command line ended with."""
    last = (errors.strip().splitlines() or [""])[-1].strip()
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return "the export ended unexpectedly, perhaps for lack of memory; try it on the command line."
