"""A model as ONNX: built, scored and timed on request by the command line in a process of its own, and kept.

Tracing patches torch for as long as it lasts, in every thread, while other sessions go on computing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.text_data import TextData
from shrp.errors import ExportError, ShrpError
from shrp.phrases import duration
from shrp.pruning.plan import PruningPlan
from ui import loaders, state
from ui.bound import always_one
from ui.lab.save import plan_json, zipped
from ui.own import guide
from ui.store import kept, results
from ui.text import escape, with_interval

KEPT = 3
"""Exports in memory, of up to some hundred megabytes each."""
BUILD = "build"
"""Held while an export is built, so that nothing else is timed meanwhile."""
_OFFER = "Build an ONNX package"
_ROOT, _POLL_S = Path(__file__).parents[2], 0.2
_STEPS = {
    "exporting": "Step 1 of 3: exporting and checking",
    "scoring": "Step 2 of 3: scoring",
    "measuring": "Step 3 of 3: timing",
}
"""Beginnings of lines that the command prints -> the step that they begin."""


@dataclass(frozen=True)
class OnnxExport:
    """A zipped export folder, and what the command printed of it."""

    archive: bytes
    report: Mapping[str, Any]


def build(
    checkpoint: Checkpoint,
    plan: PruningPlan | None,
    name: str,
    data: TextData,
    *,
    int8: bool,
    tick: Callable[[str], None] = lambda step: None,
) -> OnnxExport:
    """Run `python -m shrp export` and zip what it makes, under the folder name `name`.

    Args:
        plan: which experts to keep; None for a checkpoint that has no routers.
        tick: called several times a second with the step in words; what it raises ends the build.

    Raises:
        ExportError: it failed; in the command's own words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, plan_file = Path(scratch) / name, Path(scratch) / "plan.json"
        command = [sys.executable, "-m", "shrp", "export", "--json"]
        command += [str(checkpoint.path.resolve()), "--out", str(folder), *["--int8"] * int8]
        frame = data.to_frame()
        frame.to_parquet(file := Path(scratch) / "data.parquet")
        texts = frame.columns[: len(data.task.text_columns)]
        command += ["--data", str(file), *(f"--text-column={column}" for column in texts)]
        if (dense := dense_of(checkpoint)) is not None:
            command += ["--beside", str(dense.resolve())]
        if plan is not None:
            plan_file.write_text(plan_json(plan), encoding="utf-8")
            command += ["--plan", str(plan_file)]
        environment = os.environ | {"COLUMNS": "2000"}  # the error stays on one line
        said = Path(scratch) / "said.txt"
        with (
            said.open("wb") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                env=environment,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            try:
                output = None
                while output is None:
                    tick(_step(_last_line(said)))
                    with suppress(subprocess.TimeoutExpired):
                        output, _ = process.communicate(timeout=_POLL_S)
            finally:
                process.kill()  # nothing where it has ended
        if process.returncode != 0:
            unknown, last = "the export ended unexpectedly, perhaps for lack of memory; try the command line.", _last_line(said)
            raise ExportError(last.removeprefix("error: ") if last.startswith("error: ") else unknown)
        report = json.loads(output)
        if report["made_from"] != checkpoint.fingerprint:
            raise ExportError("the checkpoint was replaced on disk meanwhile; reload the page and build again.")
        return OnnxExport(zipped(folder.iterdir(), name), report)


def menu(checkpoint: Checkpoint, plan: PruningPlan | None, name: str, data: TextData) -> None:
    """Draw the offer to build an export; then its download, and how it does on the data next to the dense model."""
    if data.task.on_tokens:
        why = "Only classifiers of texts are exported to ONNX."
        st.button(_OFFER, icon=":material/deployed_code:", disabled=True, help=why)
        return
    st.caption(
        "ONNX, a tokenizer and `predict.py`: runs with onnxruntime and tokenizers alone. Building, scoring and timing take "
        "minutes; changing anything on the page, or leaving it, stops them."
    )
    precision = always_one("Weights", ("float32", "int8"), "precision")
    name, start = f"{name}-onnx-{precision}", time.monotonic()
    place, stop = st.empty(), st.empty()
    of = None if plan is None else (plan.key(), plan.selection, plan.combination)
    key = checkpoint.fingerprint, of, name, data.fingerprint, data.name
    store = results("onnx", KEPT)
    if store.get(key) is None:
        if not place.button(_OFFER, key="serve", icon=":material/deployed_code:"):
            return
        # It stops the build as any click does, by running the page again.
        stop.button("Stop", key="serve-stop", icon=":material/cancel:")

    def tick(step: str = "Waiting for another build") -> None:
        place.markdown(f":material/hourglass_top: {step} … ({duration(time.monotonic() - start)} so far)")

    def work() -> OnnxExport:
        with store.making(BUILD, tick):
            return build(checkpoint, plan, name, data, int8=precision == "int8", tick=tick)

    try:
        made = kept("onnx", KEPT, key, work, tick)
    except ShrpError as error:
        place.empty()
        stop.empty()
        state.show_error(error)
        return
    stop.empty()
    place.download_button(
        f"ONNX folder, {precision} (.zip)",
        data=made.archive,
        file_name=f"{name}.zip",
        mime="application/zip",
        key="download-onnx",
        on_click="ignore",
        icon=":material/deployed_code:",
    )
    guide.mark(guide.EXPORT)
    st.markdown(figures(made.report, f"ONNX, {precision}"))
    st.caption(checked(made.report))


def dense_of(checkpoint: Checkpoint) -> Path | None:
    """The folder of the listed dense model of the same base and task; a dense model is its own."""
    mine = checkpoint.info
    if not mine.config.layers:
        return checkpoint.path
    for name, info in loaders.discover_all().items():
        dense = isinstance(info, CheckpointInfo) and not info.config.layers
        if dense and (info.base_model, info.task) == (mine.base_model, mine.task):
            return loaders.path_of(name)
    return None


def figures(report: Mapping[str, Any], name: str) -> str:
    """What serving the export is like, and the models next to it, as a Markdown table."""
    lines = ["| | score | p50, ms | p95, ms | texts/s | MB |", "|---|---|---|---|---|---|"]
    beside = [row | {"model": f"{Path(row['model']).name}, PyTorch"} for row in report["beside"]]
    for row in ({"model": name} | report, *beside):
        known = row["score"] is not None
        score = with_interval(row["score"], row["interval"], row["metric"], row["n"]) if known else "–"
        times = f"{row['p50_ms']:.1f} | {row['p95_ms']:.1f} | {row['texts_per_s']:,.0f} | {row['mb']:.1f}"
        lines.append(f"| {escape(row['model'])} | {escape(score)} | {times} |")
    return "\n".join(lines)


def checked(report: Mapping[str, Any]) -> str:
    """How the export was measured and compared, in two sentences."""
    same = f"logits within {report['max_difference']:.1g}"
    if report["label_agreement"] is not None:
        agreeing = round(report["label_agreement"] * report["sentences"])
        same = f"the same prediction for {agreeing:,} of {report['sentences']:,} examples, {same}"
    return f"p50 and p95: single texts; texts/s: batches of 32; in turns on this machine. Compared with PyTorch: {same}."


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _step(last: str) -> str:
    """What the command does, by the last line that it printed."""
    return next((step for start, step in _STEPS.items() if last.startswith(start)), "Starting")
