"""Minimal pairs in the app, against figures made without it."""

import numpy as np
import pytest
import torch

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData, halves, pairs_of
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.minimal_pairs import ALL, pair_changes, pair_outcomes
from shrp.evaluation.statistics import mcnemar
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import specs, texts_of, values
from ui import data_sources
from ui.lab.hurts import PAIRS, TABS
from ui.pair_views import in_order, line
from ui.text import p_text

COLA = load_probe("cola")


@pytest.fixture
def folder(save_tiny):
    return save_tiny("pairs", task="cola")


@pytest.fixture
def loaded(folder):
    return checkpoints.load(folder)


def titled(at, start):
    return next(spec for spec in specs(at) if spec["layout"]["title"]["text"].startswith(start))


def plainly(at):
    return texts_of(at).replace("**", "").replace("\\", "")


def test_the_lab_says_how_many_pairs_are_in_order(open_page, folder, loaded, tiny_model):
    dense = evaluate(tiny_model(seed=3), loaded.tokenizer, COLA)
    reference.write(folder, {COLA.fingerprint: reference.from_evaluation(dense, "t")})
    at = open_page("pruning_lab", folder, budget=3, **{TABS: PAIRS})
    assert not at.exception
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, COLA), budget=3)
    pruned = evaluate(prune(loaded.model, plan), loaded.tokenizer, COLA)
    routed = evaluate(loaded.model, loaded.tokenizer, COLA)
    one, two, three = (pair_outcomes(COLA, e) for e in (pruned, routed, dense))
    said = (
        f"pruned {in_order(one)}; routed {in_order(two)}; dense teacher {in_order(three)}; by guessing half."
    )
    assert said in plainly(at), [x for x in plainly(at).splitlines() if "in order" in x]
    frame = pair_changes(three, one)
    assert f"Only dense teacher has {frame.loc[0, 'only_reference']} pairs in order, only pruned" in plainly(
        at
    )
    assert p_text(mcnemar(three.ahead, one.ahead)) in plainly(at)
    figure = titled(at, "Minimal pairs in order by slice")
    np.testing.assert_allclose(values(figure["data"][0]["x"]), 100 * frame["reference"][1:])
    assert "144 pairs in all" in figure["layout"]["title"]["subtitle"]["text"]
    assert "have under 30 pairs" in plainly(at)


def test_data_without_pairs_show_nothing_of_them(open_page, tiny_checkpoint):
    for page in ("pruning_lab", "expert_usage", "overview", "compare"):
        at = open_page(page, tiny_checkpoint)
        assert not at.exception
        assert "inimal pair" not in texts_of(at).replace("Minimal pairs stay together", "")
        assert PAIRS not in [tab.label for tab in at.tabs]


def test_compare_and_overview_have_them_too(open_page, folder, loaded):
    at = open_page("compare", folder, b_budget=2, **{TABS: PAIRS})
    assert not at.exception
    whole = pair_outcomes(COLA, evaluate(loaded.model, loaded.tokenizer, COLA))
    assert f"In order: A {in_order(whole)}, B" in plainly(at)
    at = open_page("overview", folder)
    assert not at.exception
    assert f"Minimal pairs in order: this model {in_order(whole)}; by guessing half." in plainly(at)
    assert "gives the acceptable one a higher score for that label" in plainly(at)


def frame_of(rows):
    import pandas as pd

    columns = ["layer", "n", "parted", "share", "unpaired"]
    return pd.DataFrame(rows, columns=columns).assign(slice=ALL, low=0.0, high=1.0)


class SimpleStats:
    def __init__(self, top1):
        self.top1 = {5: top1}


def test_halves_keep_pairs_together(open_page, folder):
    ranked, scored = halves(COLA)
    assert (len(ranked), len(scored)) == (144, 144)
    assert sorted([*ranked, *scored]) == list(range(288))
    assert not {COLA.pairs[i] for i in ranked} & {COLA.pairs[i] for i in scored}
    assert len(pairs_of(COLA.subset(scored))) == 72
    at = open_page("pruning_lab", folder, hold_out="true", budget=3)
    assert not at.exception
    assert " of 72 (" in plainly(at)


def test_names_that_are_no_pairs_part_no_halves():
    labels = np.arange(80) % 2
    texts = tuple((f"text {i}",) for i in range(80))
    for pairs in (("x",) * 80, tuple("ab"[i % 2] for i in range(80))):
        ranked, scored = halves(TextData(TASKS["sst2"], "t", texts, labels, None, pairs))
        assert (len(ranked), len(scored)) == (40, 40)
        assert labels[ranked].sum() == 20


def test_halves_of_the_same_texts_with_other_pairs_are_other_halves(open_page, tiny_checkpoint):
    rows = "".join(f"w{i} w{i % 7},{i % 2},{i // 2},{(i + 1) // 2}\n" for i in range(80))
    at = open_page("pruning_lab", tiny_checkpoint, hold_out="true")
    box = next(box for box in at.file_uploader if "table" in box.label)
    box.set_value(("mine.csv", f"sentence,label,pair,other\n{rows}".encode(), "text/csv")).run()
    assert not at.exception
    assert " of 20 (" in plainly(at)
    pair = next(box for box in at.sidebar.selectbox if box.label == "Pair column")
    pair.set_value("none").run()
    assert "Minimal pairs in order" not in plainly(at)
    pair = next(box for box in at.sidebar.selectbox if box.label == "Pair column")
    pair.set_value("other").run()
    assert not at.exception
    assert "Minimal pairs in order" in plainly(at)


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
