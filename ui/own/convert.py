"""The dialog that converts a dense classifier by a job: quickly on unlabelled texts, or by the two-stage training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.model.config import ShrpConfig
from shrp.training.config import QUICK, RECIPES, TextConfig
from ui import data_sources, jobs, store, training_data
from ui.own import dialog
from ui.state import Selection
from ui.text import about, capital, escape

RECIPE_NAMES = {"quick": "quick: minutes, no labels", "full": "full: two stages, labels"}


def button(selection: Selection) -> bool:
    """Draw the button that opens the dialog, or says why not, and the dialog where it is open; returns whether it is."""
    icon, help = ":material/alt_route:", "Turn the heads of upper layers into experts with a router."
    opens = dialog.opener("Convert this model", dialog.CONVERT, selection.name, icon, help, type="primary")
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
    name = training_data.ask_name(f"{selection.name}-{layers}of{total}")
    found = training_data.choose(task, whole, whole, f"convert-{recipe}", labelled=recipe == "full")
    full = _options() if recipe == "full" else None
    if found is None:
        return
    from shrp.training.quick import enough

    texts, validation = found
    given = texts.texts if full else enough(texts.texts, validation.texts if validation else ())[0]
    try:
        with st.spinner("Measuring a training step …"):
            seconds = _estimate(selection, texts, given, layers, full)
        more = f" and {len(given) - len(texts):,} shipped ones" * (len(given) > len(texts))
        st.markdown(f"**{capital(about(seconds))}** for {len(texts):,} texts{more} on this machine.")
    except (ShrpError, RuntimeError) as error:
        st.warning(escape(f"The time can't be estimated: {error}"))
    title = f"Convert {selection.name}: {layers} of {total} layers"
    noted = {"kind": "convert", "metric": task.metric, "of": checkpoint.fingerprint}
    made_by = command(checkpoint.path, task, texts, validation, layers, full)
    training_data.start(title, name, *made_by, checkpoint, noted)


def _options() -> dict[str, Any]:
    """Ask for the options of the two-stage training, as its configuration names them."""
    left, right = st.columns(2)
    rate, balance = (RECIPES["retain"][name] for name in ("learning_rate", "balance"))
    return {
        "stage2_epochs": left.number_input("Epochs after the conversion", 0, 20, 2),
        "learning_rate": right.number_input("Learning rate", 1e-6, 1e-2, rate, step=1e-5, format="%.0e"),
        "balance": left.number_input("Weight of the balance loss", 0.0, 10.0, balance, step=0.05),
        "freeze_dense": not right.checkbox(
            "Train the dense layers too", help="Slower, and often a little better."
        ),
    }


def command(
    base: Path, task: Any, texts: TextData, validation: TextData | None, layers: int, full: dict[str, Any] | None
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
    files["options.json"] = json.dumps({"training": full} | ({} if known else {"task_name": task.name}))
    named = ["--task", task.name] if known else []
    return ["train", *shared, *named, "--train-file", "train.jsonl", "--config", "options.json"], files


def _estimate(
    selection: Selection, texts: TextData, given: list[tuple[str, ...]], layers: int, full: dict[str, Any] | None
) -> float:
    """Seconds of training on `given`, the texts and what was added, from measured steps, which are kept."""
    from shrp.training.quick import estimate

    dense, n = selection.checkpoint, len(texts)
    total = dense.model.config.num_hidden_layers
    sizes = {} if full is None else {"conversion_size": n, "final_size": max(full["stage2_epochs"] * n, 1)}
    shrp = ShrpConfig(tuple(range(total - layers, total)), **QUICK["shrp"])
    config = TextConfig(**(QUICK | sizes | {"shrp": shrp}))
    key = (dense.fingerprint, texts.fingerprint, len(given), config)
    seconds = store.kept("estimates", 64, key, lambda: estimate(dense, given, config))
    # The layers below take no part in the measured steps.
    return seconds * total / layers if full is not None and not full["freeze_dense"] else seconds
