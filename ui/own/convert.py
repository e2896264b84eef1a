"""The dialog that converts a dense classifier by a job: quickly on unlabelled texts, or by the two-stage training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.data.text_data import TextData
from shrp.errors import JobError, ShrpError
from shrp.model.config import ShrpConfig
from shrp.phrases import duration
from shrp.training.config import QUICK, RECIPES, TextConfig
from ui import data_sources, jobs, store, training_data
from ui.own import checkpoints, dialog
from ui.state import Selection
from ui.text import escape, file_name

RECIPE_NAMES = {"quick": "quick: minutes, no labels", "full": "full: two stages, labels"}


@dataclass(frozen=True)
class Full:
    """What the form of the two-stage training asks for."""

    epochs: int = 2
    learning_rate: float = RECIPES["retain"]["learning_rate"]
    balance: float = RECIPES["retain"]["balance"]
    all_layers: bool = False

    def config(self, task_name: str | None) -> str:
        """The text of the `--config` file of `train`."""
        training = {
            "stage2_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "balance": self.balance,
        }
        training["freeze_dense"] = not self.all_layers
        named = {} if task_name is None else {"task_name": task_name}
        return json.dumps(named | {"training": training})


def button(selection: Selection) -> bool:
    """Draw the button that opens the dialog, and the dialog where it is open; returns whether it is.

    Where no job can be started the button says why.
    """
    why, which = checkpoints.why_no_job(selection.name), (dialog.CONVERT, selection.name)
    st.button(
        "Convert this model",
        key="convert",
        on_click=dialog.show,
        args=which,
        type="primary",
        icon=":material/alt_route:",
        disabled=bool(why),
        help=why or "Turn the heads of upper layers into experts with a router.",
    )
    opens = dialog.is_open(*which) and not why
    if opens:
        _dialog(selection)
    return opens


@st.dialog("Convert this model", width="medium", on_dismiss=dialog.close)
def _dialog(selection: Selection) -> None:
    jobs.prepare()
    checkpoint, whole = selection.checkpoint, selection.data
    task, total = checkpoint.info.task, checkpoint.model.config.num_hidden_layers
    recipe = st.segmented_control(
        "Recipe", list(RECIPE_NAMES), default="quick", format_func=RECIPE_NAMES.get, required=True
    )
    layers = 1
    if total > 1:
        layers = st.slider("Upper layers to convert", 1, total, max(total // 2, 1))
    name = jobs.free_name(f"{file_name(selection.name)}-{layers}of{total}")
    name = file_name(st.text_input("Name", placeholder=name) or name).strip(".")
    full = recipe == "full"
    found = training_data.choose(task, whole, whole, f"convert-{recipe}", labelled=full)
    options = Full()
    if full:
        options = _options()
    if found is None:
        return
    texts, validation = found
    arguments, files = command(checkpoint.path, task, texts, validation, layers, options if full else None)
    try:
        with st.spinner("Measuring a training step …"):
            seconds = _estimate(selection, texts, layers, options if full else None)
        st.markdown(f"**About {duration(_rounded(seconds))}** for {len(texts):,} texts on this machine.")
    except (ShrpError, RuntimeError) as error:
        st.warning(escape(f"The time can't be estimated: {error}"))
    if st.button("Start", type="primary", key="convert-start", icon=":material/play_arrow:"):
        parameters = sum(one.numel() for one in checkpoint.model.parameters())
        about = {"kind": "convert", "metric": task.metric, "of": checkpoint.fingerprint}
        title = f"Convert {selection.name}: {layers} of {total} layers"
        try:
            given = training_data.exported(files)
            jobs.start(title, arguments, name, about=about, files=given, **jobs.needs(parameters))
        except JobError as error:
            st.error(escape(str(error)), icon=":material/error:")
            return
        dialog.close()
        st.rerun()


def _options() -> Full:
    left, right = st.columns(2)
    return Full(
        left.number_input("Epochs after the conversion", 0, 20, Full.epochs),
        right.number_input("Learning rate", 1e-6, 1e-2, Full.learning_rate, step=1e-5, format="%.0e"),
        left.number_input("Weight of the balance loss", 0.0, 10.0, Full.balance, step=0.05),
        right.checkbox("Train the dense layers too", help="Slower, and often a little better."),
    )


def command(
    base: Path,
    task: Any,
    texts: TextData,
    validation: TextData | None,
    layers: int,
    full: Full | None,
) -> tuple[list[str], dict[str, str | TextData]]:
    """The arguments of `python -m shrp`, without `--out`, and the files that they name.

    Args:
        base: folder of the dense classifier.
        task: the classifier's.
        texts: to train on.
        validation: labelled examples; needed for a full training.
        full: the options of one, or None for a quick conversion.
    """
    files, validated = {"train.jsonl": texts}, []
    if validation is not None:
        files["validation.jsonl"] = validation
        validated = ["--validation-file", "validation.jsonl"]
    of_texts = [part for column in training_data.columns(texts) for part in ("--text-column", column)]
    shared = ["--base", str(base.resolve()), "--layers", f"upper:{layers}", *of_texts, *validated]
    if full is None:
        return ["convert", *shared, "--texts", "train.jsonl", "--quick"], files
    known = data_sources.is_known(task)
    files["options.json"] = full.config(None if known else task.name)
    named = ["--task", task.name] if known else []
    return ["train", *shared, *named, "--train-file", "train.jsonl", "--config", "options.json"], files


def _estimate(selection: Selection, texts: TextData, layers: int, full: Full | None) -> float:
    """Seconds of training, from measured steps, which are kept."""
    from shrp.training.quick import enough, estimate

    dense, n = selection.checkpoint, len(texts)
    total = dense.model.config.num_hidden_layers
    sizes = QUICK if full is None else {"conversion_size": n, "final_size": max(full.epochs * n, 1)}
    config = TextConfig(shrp=ShrpConfig(tuple(range(total - layers, total))), **(QUICK | sizes))
    given = texts.texts if full is not None else enough(texts.texts)[0]
    key = (dense.fingerprint, texts.fingerprint, config)
    seconds = store.kept("estimates", 64, key, lambda: estimate(dense, given, config))
    # The layers below take no part in the measured steps.
    return seconds * total / layers if full is not None and full.all_layers else seconds


def _rounded(seconds: float) -> float:
    step = 5 if seconds < 60 else 30 if seconds < 600 else 60
    return step * max(round(seconds / step), 1)
