"""A model as ONNX: a job of the command line builds, scores and times it, and the lab shows what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.text_data import TextData
from shrp.pruning.plan import PruningPlan
from ui import jobs, loaders, training_data
from ui.bound import always_one
from ui.downloads import file_button
from ui.lab.save import plan_json, zipped
from ui.own import checkpoints as own_checkpoints
from ui.own import guide
from ui.state import Selection
from ui.text import escape, file_name, with_interval

_OFFER = "Build an ONNX package"
_PLAN, _DATA = "plan.json", "data.jsonl"


def command(
    checkpoint: Checkpoint, plan: PruningPlan | None, data: TextData, *, int8: bool
) -> tuple[list[str], dict[str, str | TextData]]:
    """The arguments of `python -m shrp`, without `--out`, and the files that they name.

    `plan`: which experts to keep; None for a checkpoint that has no routers.
    """
    found, files = ["export", str(checkpoint.path.resolve()), *["--int8"] * int8], {}
    if plan is not None:
        files[_PLAN] = plan_json(plan)
        found += ["--plan", _PLAN]
    files[_DATA] = data
    found += ["--data", _DATA, *(f"--text-column={column}" for column in training_data.columns(data))]
    if (dense := dense_of(checkpoint)) is not None:
        found += ["--beside", str(dense.resolve())]
    return found, files


def menu(selection: Selection, plan: PruningPlan | None, name: str) -> None:
    """Draw the offer to build an export; then its download, and how it does on the data next to the dense model."""
    checkpoint, data = selection.checkpoint, selection.data
    if data.task.on_tokens:
        why = "Only classifiers of texts are exported to ONNX."
        st.button(_OFFER, icon=":material/deployed_code:", disabled=True, help=why)
        return
    st.caption("ONNX, a tokenizer and `predict.py`: runs with onnxruntime and tokenizers alone.")
    precision = always_one("Weights", ("float32", "int8"), "precision")
    name = f"{name}-onnx-{precision}"
    arguments, files = command(checkpoint, plan, data, int8=precision == "int8")
    if why := own_checkpoints.why_no_job(selection.name):
        st.caption(f"{why} This command does it where the files that it names are.")
        named = (Path(one).name if Path(one).is_absolute() else one for one in arguments)  # no paths of the server
        whole = shlex.join(["python", "-m", "shrp", *named, "--out", name])
        st.code(whole, language="bash", wrap_lines=True)
        return
    of = [checkpoint.fingerprint, files.get(_PLAN), precision, data.fingerprint]
    about = {"export": of, "metric": data.task.metric}
    job = jobs.latest(about)
    if job is not None and job.state in ("waiting", "running"):
        st.markdown(":material/hourglass_top: Being built; the sidebar shows how far it is.")
        return
    # The checkpoint may have been replaced before the job began, and the folder deleted since.
    if job is None or job.result.get("made_from") != checkpoint.fingerprint or not job.out.is_dir():
        free, start = jobs.free_name(file_name(name)), (_OFFER, "serve")
        training_data.start(f"Export {name}", free, arguments, files, checkpoint, about, *start)
        return
    make = lambda: zipped(job.out.iterdir(), name)  # noqa: E731
    label, icon = f"ONNX folder, {precision} (.zip)", ":material/deployed_code:"
    file_button(label, make, f"{name}.zip", "download-onnx", icon)
    guide.mark(guide.EXPORT)
    st.markdown(figures(job.result, f"ONNX, {precision}"))
    st.caption(f"{checked(job.result)} The folder: {escape(str(job.out))}")


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
    same = f"logits within {report['max_difference']:.2g}"
    if report["label_agreement"] is not None:
        agreeing = round(report["label_agreement"] * report["sentences"])
        same = f"the same prediction for {agreeing:,} of {report['sentences']:,} examples, {same}"
    return f"p50 and p95: single texts; texts/s: batches of 32; in turns on this machine. Compared with PyTorch: {same}."
