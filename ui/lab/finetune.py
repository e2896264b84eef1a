"""Fine-tuning a plan after pruning: the dialog that starts it as a job."""

from __future__ import annotations

import json
from pathlib import Path

import streamlit as st

from shrp.data.text_data import TextData
from shrp.errors import JobError
from shrp.pruning.plan import PruningPlan
from ui import jobs, training_data
from ui.lab.save import name_of, plan_json
from ui.own import checkpoints
from ui.state import Selection
from ui.text import escape, file_name

HOW = {False: "without labels: as the routed model", True: "with labels"}
_PLAN, _TRAIN, _SCORED, _OPTIONS = "plan.json", "train.jsonl", "validation.jsonl", "options.json"


def button(selection: Selection, plan: PruningPlan) -> bool:
    """Draw the button that opens the dialog, or says why no job can be started; returns whether it opens now."""
    why = checkpoints.why_no_job(selection.name)
    help = why or "Brings back much of a loss; the result is a point of the curve."
    icon = ":material/model_training:"
    opens = st.button("Fine-tune this", key="fine-tune", icon=icon, disabled=bool(why), help=help)
    if opens:
        _dialog(selection, plan)
    return opens


@st.dialog("Fine-tune after pruning", width="medium", on_dismiss="rerun")
def _dialog(selection: Selection, plan: PruningPlan) -> None:
    checkpoint, whole = selection.checkpoint, selection.data if selection.whole is None else selection.whole
    task = checkpoint.info.task
    labelled = st.segmented_control("How", list(HOW), default=False, format_func=HOW.get, required=True)
    epochs = st.number_input("Epochs", 1, 100, 3)
    name = jobs.free_name(f"{file_name(name_of(selection, plan))}-finetuned")
    name = file_name(st.text_input("Name", placeholder=name) or name).strip(".")
    if labelled and whole.labels is None:
        st.info("Pick labelled data in the sidebar: the result is validated on them.")
        return
    # Labels that it has learnt would say nothing of its score on them.
    picked = None if labelled else whole
    key = f"fine-tune-{'labels' if labelled else 'texts'}"
    data = training_data.choose(
        "Training data" if labelled else "Texts", task, picked, key, labelled=labelled
    )
    if data is None:
        return
    arguments, files = command(checkpoint.path, plan, data, whole, epochs)
    st.code(jobs.in_words(arguments, name), language="bash", wrap_lines=True)
    if st.button("Start", type="primary", key="fine-tune-start", icon=":material/play_arrow:"):
        parameters = sum(one.numel() for one in checkpoint.model.parameters())
        title = f"Fine-tune {selection.name} with {plan.budget} experts"
        try:
            jobs.start(title, arguments, name, files=files, **jobs.needs(parameters))
        except JobError as error:
            st.error(escape(str(error)), icon=":material/error:")
            return
        st.rerun()


def command(
    routed: Path, plan: PruningPlan, data: TextData, scored: TextData, epochs: int
) -> tuple[list[str], dict[str, str]]:
    """The arguments of `python -m shrp`, without `--out`, and the files that they name.

    Args:
        routed: folder of the routed checkpoint.
        data: to train on; without labels the routed model is distilled.
        scored: examples to validate on, where they have labels.
    """
    texts, columns = training_data.exported(data)
    files = {_PLAN: plan_json(plan), _TRAIN: texts, _OPTIONS: json.dumps({"text_columns": columns})}
    found = [
        "prune",
        str(routed.resolve()),
        "--plan",
        _PLAN,
        "--fine-tune",
        str(epochs),
        "--config",
        _OPTIONS,
    ]
    found += ["--texts" if data.labels is None else "--train-file", _TRAIN]
    if scored.labels is not None:
        files[_SCORED], _ = training_data.exported(scored)
        found += ["--validation-file", _SCORED]
    return found, files
