"""Minimal pairs in the app, against figures made without it."""

import numpy as np
import pytest
import torch

from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData, halves, pairs_of
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.minimal_pairs import pair_outcomes
from tests.app.helpers import texts_of
from ui import data_sources
from ui.pair_views import in_order, line

COLA = load_probe("cola")


@pytest.fixture
def folder(save_tiny):
    return save_tiny("pairs", task="cola")


@pytest.fixture
def loaded(folder):
    return checkpoints.load(folder)


def plainly(at):
    return texts_of(at).replace("**", "").replace("\\", "")


def test_overview_has_them(open_page, folder, loaded):
    whole = pair_outcomes(COLA, evaluate(loaded.model, loaded.tokenizer, COLA))
    at = open_page("overview", folder)
    assert not at.exception
    assert f"Minimal pairs in order: this model {in_order(whole)}; by guessing half." in plainly(at)
    assert "gives the acceptable one a higher score for that label" in plainly(at)


def test_halves_keep_pairs_together(open_page, folder):
    ranked, scored = halves(COLA)
    assert (len(ranked), len(scored)) == (144, 144)
    assert sorted([*ranked, *scored]) == list(range(288))
    assert not {COLA.pairs[i] for i in ranked} & {COLA.pairs[i] for i in scored}
    assert len(pairs_of(COLA.subset(scored))) == 72
    at = open_page("pruning_lab", folder, hold_out="true", budget=3)
    assert not at.exception
    assert "n = 144" in plainly(at)


def test_names_that_are_no_pairs_part_no_halves():
    labels = np.arange(80) % 2
    texts = tuple((f"text {i}",) for i in range(80))
    for pairs in (("x",) * 80, tuple("ab"[i % 2] for i in range(80))):
        ranked, scored = halves(TextData(TASKS["sst2"], "t", texts, labels, None, pairs))
        assert (len(ranked), len(scored)) == (40, 40)
        assert labels[ranked].sum() == 20


def test_models_that_are_not_there_are_left_out():
    assert line(COLA, {"x": None}) == ""
    assert line(load_probe("sst2"), {"x": None}) == ""


def test_data_of_ones_own_may_name_pairs(open_page, tiny_checkpoint):
    rows = "".join(f"w{i} w{i % 7},{i % 2},{i // 2}\n" for i in range(20))
    at = open_page("overview", tiny_checkpoint)
    box = next(box for box in at.file_uploader if "table" in box.label)
    box.set_value(("mine.csv", f"sentence,label,pair\n{rows}".encode(), "text/csv")).run()
    assert not at.exception
    assert at.session_state[data_sources.OWN_DATA].pairs == tuple(str(i // 2) for i in range(20))
    assert "Minimal pairs in order: this model " in plainly(at)
    assert " of 10 (" in plainly(at)
    pair = next(box for box in at.sidebar.selectbox if box.label == "Pair column")
    assert pair.value == "pair"
    pair.set_value("none").run()
    assert not at.exception
    assert at.session_state[data_sources.OWN_DATA].pairs is None
    assert "Minimal pairs in order" not in plainly(at)
    assert TASKS["sst2"].label_names == ("negative", "positive")


@pytest.mark.parametrize("page", ["overview", "routing", "pruning_lab", "compare"])
def test_outputs_that_are_no_numbers_are_told_in_words(open_page, folder, loaded, page):
    with torch.no_grad():
        loaded.model.classifier.bias.fill_(float("nan"))
    checkpoints.save(loaded.model, loaded.tokenizer, loaded.info, folder.parent / "nan")
    at = open_page(page, folder.parent / "nan", text="w1 w2 w3")
    assert not at.exception
    assert any("finite numbers" in error.value for error in at.error), texts_of(at)
