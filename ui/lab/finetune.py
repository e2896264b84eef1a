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
from ui.own import checkpoints, dialog
from ui.state import Selection
from ui.text import escape, file_name

HOW = {False: "without labels: as the routed model", True: "with labels"}
_PLAN, _TRAIN, _SCORED, _OPTIONS = "plan.json", "train.jsonl", "validation.jsonl", "options.json"


def button(selection: Selection, plan: PruningPlan) -> bool:
    """Draw the button that opens the dialog, or says why not, and the dialog where it is open; returns whether it is."""
    why, which = checkpoints.why_no_job(selection.name), (dialog.FINE_TUNE, selection.name)
    help = why or "Brings back much of a loss; the result is a point of the curve."
    icon = ":material/model_training:"
    opened = {"on_click": dialog.show, "args": which, "disabled": bool(why)}
    st.button("Fine-tune this", key="fine-tune", icon=icon, help=help, **opened)
    opens = dialog.is_open(*which) and not why
    if opens:
        _dialog(selection, plan)
    return opens


@st.dialog("Fine-tune after pruning", width="medium", on_dismiss=dialog.close)
def _dialog(selection: Selection, plan: PruningPlan) -> None:
    jobs.prepare()
    checkpoint, task = selection.checkpoint, selection.checkpoint.info.task
    data = selection.data
    labelled = st.segmented_control("How", list(HOW), default=False, format_func=HOW.get, required=True)
    epochs = st.number_input("Epochs", 1, 100, 3)
    name = jobs.free_name(f"{file_name(name_of(selection, plan))}-finetuned")
    name = file_name(st.text_input("Name", placeholder=name) or name).strip(".")
    key = f"fine-tune-{'labels' if labelled else 'texts'}"
    # The curve scores it on the picked data, which would say nothing had it learnt their labels.
    found = training_data.choose(task, None if labelled else data, data, key, labelled=labelled)
    if found is None:
        return
    arguments, files = command(checkpoint.path, plan, *found, epochs)
    if st.button("Start", type="primary", key="fine-tune-start", icon=":material/play_arrow:"):
        parameters = sum(one.numel() for one in checkpoint.model.parameters())
        title = f"Fine-tune {selection.name} with {plan.budget} experts"
        try:
            given = training_data.exported(files)
            jobs.start(title, arguments, name, files=given, **jobs.needs(parameters))
        except JobError as error:
            st.error(escape(str(error)), icon=":material/error:")
            return
        dialog.close()
        st.rerun()


def command(
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
