"""What a built export scores as it is served, beside the same model in PyTorch."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import streamlit as st

from shrp.data.text_data import TextData
from shrp.errors import ExportError, ShrpError, first_line
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.paired import far_apart, flip_table
from shrp.phrases import counted
from ui import paired_results, state
from ui.store import Progress, once, results
from ui.text import escape, points, points_interval, with_interval

KIND, KEPT = "onnx-score", 24


def section(archive: bytes, key: tuple, button: str, data: TextData, same: Evaluation) -> None:
    """A button that scores the export on the data, and then what it found.

    Args:
        archive: the zipped export, in one folder.
        key: what it is of.
        button: of the button's key.
        same: the PyTorch model that it was made from, on all of `data`.
    """
    key = (*key, data.fingerprint, data.name)
    place = st.empty()
    asked = results(KIND, KEPT).get(key) is not None or place.button(
        f"Score it on {escape(data.name)}",
        key=f"score-{button}",
        icon=":material/rule:",
        help="Runs the export itself, with onnxruntime, on all of the inputs.",
    )
    if not asked:
        return
    place.empty()  # once it is scored there is nothing left to ask for
    try:
        found = once(
            KIND, KEPT, key, f"Scoring the export on {escape(data.name)}", lambda p: run(archive, data, p)
        )
        st.markdown(sentence(found, same, data))
    except ShrpError as error:
        state.show_error(error)


def run(archive: bytes, data: TextData, progress: Progress) -> Evaluation:
    """Score a zipped export.

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
    """The export's score, its difference to PyTorch's, and how many answers changed, as Markdown."""
    flips = len(flip_table(same, found, data))
    what = f"differ by more than {far_apart(same):g} in" if data.task.is_regression else "are others for"
    answers = f"its answers {what} {flips:,} of {counted(found.n, 'input')}"
    if data.labels is None:
        return f"As served, {answers}, {escape(data.name)}."
    change, ends = paired_results.difference(found, same)
    interval = f" (95% interval {points_interval(ends, found.metric)}, paired)" if ends[0] == ends[0] else ""
    return (
        f"As served: **{escape(with_interval(found.score, found.interval, found.metric, found.n))}**, "
        f"{escape(data.name)}: {points(change, found.metric)}{interval} against the same model in PyTorch; {answers}."
    )
