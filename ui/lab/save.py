"""What the lab does with a plan: save the pruned checkpoint, and start its fine-tuning as a job."""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st
import torch

from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import HEADS, pruned_training, teacher_score
from shrp.checkpoints.score_rows import pruned_row
from shrp.data.tasks import TEXT, WORDS
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError
from shrp.evaluation.evaluation import Evaluation
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from ui import jobs, measurements, prunings, state, training_data
from ui.downloads import file_button
from ui.measurements import teacher_on
from ui.own import checkpoints as own_checkpoints
from ui.own import dialog, guide
from ui.prunings import Setting
from ui.state import Selection
from ui.text import file_name

PIPELINES = {TEXT: "text-classification", WORDS: "token-classification"}
"""Kind of task -> transformers' pipeline for it."""


def name_of(selection: Selection, plan: PruningPlan) -> str:
    """What a pruned checkpoint is called."""
    return f"{selection.name}-pruned-{plan.budget}"


@state.shows_errors
def menu(selection: Selection, setting: Setting, plan: PruningPlan, pruned: Evaluation) -> None:
    """Draw the ways to save the pruned model."""
    checkpoint, data, name = selection.checkpoint, selection.data, name_of(selection, plan)
    ranked_on = None if setting.selection == "recorded" else data
    how = plan, pruned, data, ranked_on
    folder_button(lambda: checkpoint_zip(name, checkpoint, *how), name)
    plan_button(plan, name)
    if st.button("Open as a checkpoint", key="open-pruned", icon=":material/folder_open:"):
        known_as = prunings.model_key(checkpoint, plan)
        write = lambda folder: write_checkpoint(folder, checkpoint, *how)  # noqa: E731
        with st.spinner("Making the checkpoint …"):
            own_checkpoints.pick(own_checkpoints.make(known_as, name, write, selection.name))
        st.rerun()  # the sidebar lists it, and it is picked there
    opens = f"AutoModel{HEADS[data.task.kind]}.from_pretrained(folder)"
    if data.task.kind in PIPELINES:
        opens = f'pipeline("{PIPELINES[data.task.kind]}", model=folder)'
    st.caption(f"Weights in float16. `{opens}` opens the unpacked folder after `import shrp`.")


def folder_button(make: Callable[[], bytes], name: str) -> None:
    """Draw the download of a checkpoint's folder, which is zipped when it is asked for."""
    guided = {"on_click": lambda: guide.mark(guide.EXPORT)} if st.session_state.get(guide.PARAM) else {}
    file, key = f"{file_name(name)}.zip", "download-checkpoint"
    file_button("Hugging Face folder (.zip)", make, file, key, ":material/archive:", **guided)


def plan_button(plan: PruningPlan, name: str) -> None:
    """Draw the download of a plan as the file that `python -m shrp prune --plan` reads."""
    file = f"{file_name(name)}-plan.json"
    file_button("Plan (.json)", plan_json(plan), file, "download-plan", ":material/description:")


def plan_json(plan: PruningPlan) -> str:
    """A plan as the text of that file."""
    return json.dumps(plan.to_dict(), indent=2) + "\n"


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    plan: PruningPlan,
    evaluation: Evaluation,
    data: TextData,
    ranked_on: TextData | None,
) -> Path:
    """Write the pruned model as a checkpoint, weights in float16, with the score measured here.

    `ranked_on`: what the plan's experts were chosen on; None where that was the checkpoint's own usage.
    """
    kept = [dict(row) for row in checkpoint.info.scores if row["kind"] == "teacher"]
    if math.isfinite(evaluation.score):
        if (teacher := teacher_on(checkpoint, data)) is not None:
            dense = teacher.score
        else:
            dense = teacher_score(measurements.score_rows(checkpoint, data))
        kept.append(pruned_row(plan, evaluation, dense, data, checkpoint.info.max_length))
    seed = 0 if plan.selection.startswith("random") else None
    training = pruned_training(checkpoint.info.training, checkpoint.fingerprint, plan, counted_on=ranked_on, seed=seed)
    try:
        same = checkpoints.fingerprint(checkpoint.path) == checkpoint.fingerprint  # not trained again since
        history = checkpoints.read_history(checkpoint.path) if same else []
    except (CheckpointError, OSError):
        history = []
    info = replace(checkpoint.info, plan=plan, scores=tuple(kept), training=training, usage={})
    return checkpoints.save(
        prune(checkpoint.model, plan, share_weights=True),  # the shared model is not written to
        checkpoint.tokenizer,
        info,
        folder,
        dtype=torch.float16,
        history=history,
        teacher=checkpoint.teacher,
    )


def checkpoint_zip(name: str, *what: Any) -> bytes:
    """The folder of `write_checkpoint`, named `name`, as a zip archive; further arguments are that one's."""
    with tempfile.TemporaryDirectory() as scratch:
        return zipped(write_checkpoint(Path(scratch) / name, *what).iterdir(), name)


def zipped(files: Iterable[Path], name: str) -> bytes:
    """Files as a zip archive, in one folder of this name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights hardly compress
        for file in sorted(files):
            archive.write(file, f"{name}/{file.name}")
    return buffer.getvalue()


# Fine-tuning after pruning

HOW = {False: "without labels: to predict as the routed model", True: "with labels"}
_PLAN, _TRAIN, _SCORED, _OPTIONS = "plan.json", "train.jsonl", "validation.jsonl", "options.json"


def fine_tune_button(selection: Selection, plan: PruningPlan) -> bool:
    """Draw the button that opens the dialog, or says why not, and the dialog where it is open; returns whether it is."""
    icon, help = ":material/model_training:", "Brings back much of a loss; the result is a point of the curve."
    opens = dialog.opener("Fine-tune this", dialog.FINE_TUNE, selection.name, icon, help)
    if opens:
        _fine_tune_dialog(selection, plan)
    return opens


@st.dialog("Fine-tune after pruning", width="medium", on_dismiss=dialog.close)
def _fine_tune_dialog(selection: Selection, plan: PruningPlan) -> None:
    jobs.prepare()
    checkpoint, data = selection.checkpoint, selection.data
    labelled = st.segmented_control("How", list(HOW), default=False, format_func=HOW.get, required=True)
    epochs = st.number_input("Epochs", 1, 100, 3)
    name = training_data.ask_name(f"{name_of(selection, plan)}-finetuned")
    key = f"fine-tune-{'labels' if labelled else 'texts'}"
    # The curve scores it on the picked data, which would say nothing had it learnt their labels.
    found = training_data.choose(data.task, None if labelled else data, data, key, labelled=labelled)
    if found is not None:
        title = f"Fine-tune {selection.name} with {plan.budget} experts"
        training_data.start(title, name, *fine_tune_command(checkpoint.path, plan, *found, epochs), checkpoint)


def fine_tune_command(
    routed: Path, plan: PruningPlan, data: TextData, validation: TextData | None, epochs: int
) -> tuple[list[str], dict[str, str | TextData]]:
    """The arguments of `python -m shrp`, without `--out`, and the files that they name.

    `data`: to train on; without labels the routed model is distilled. `validation`: labelled examples, or None.
    """
    options = json.dumps({"text_columns": training_data.columns(data)})
    files = {_PLAN: plan_json(plan), _TRAIN: data, _OPTIONS: options}
    found = ["prune", str(routed.resolve()), "--plan", _PLAN, "--fine-tune", str(epochs), "--config", _OPTIONS]
    found += ["--texts" if data.labels is None else "--train-file", _TRAIN]
    if validation is not None:
        files[_SCORED] = validation
        found += ["--validation-file", _SCORED]
    return found, files
