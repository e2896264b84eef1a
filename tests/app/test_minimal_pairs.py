"""Minimal pairs in the app, against figures made without it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shrp.analysis.evenness import even_experts
from shrp.analysis.usage import measure_usage, plan_from
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS, custom_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.halves import halves
from shrp.evaluation.metrics import mcnemar
from shrp.evaluation.minimal_pairs import (
    ALL,
    independent_choices,
    pair_changes,
    pair_outcomes,
    pairs_of,
    route_changes,
    taken,
)
from shrp.pruning.prune import prune
from tests.app.helpers import specs, texts_of, values
from ui import data_sources
from ui.lab.hurts import PAIRS, TABS
from ui.pair_views import in_order, line
from ui.text import p_text
from ui.usage import pair_routes

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


def test_expert_usage_shows_where_the_routes_of_pairs_part(open_page, folder, loaded):
    at = open_page("expert_usage", folder, layer=1, expert=0)
    assert not at.exception
    stats = measure_usage(loaded.model, loaded.tokenizer, COLA)
    frame = route_changes(stats, COLA)
    whole = frame[frame["slice"] == ALL]
    heat = titled(at, "Minimal pairs whose routes part")["data"][0]
    shown = values(heat["z"])
    np.testing.assert_allclose(shown[0], whole["share"])
    np.testing.assert_allclose(shown[1], whole["unpaired"])
    np.testing.assert_allclose(shown[2:].ravel(), frame.loc[frame["slice"] != ALL, "share"])
    assert heat["y"][0] == "all pairs (n = 144)"
    assert "argument structure (n = 12)" in heat["y"]
    low, high = pairs_of(COLA).T
    chosen = taken(stats, 1)
    apart = np.flatnonzero(chosen[low] != chosen[high])
    assert f"Layer 1, the one picked above: routes part in {len(apart)} of 144 pairs" in plainly(at)
    table = next(d.value for d in at.dataframe if "experts" in d.value and "acceptable" in d.value)
    assert table["acceptable"].tolist() == [COLA.texts[high[i]][0] for i in apart]
    assert table["unacceptable"].tolist() == [COLA.texts[low[i]][0] for i in apart]
    assert table["experts"].tolist() == [f"{chosen[high[i]]}, {chosen[low[i]]}" for i in apart]
    outcomes = pair_outcomes(COLA, evaluate(loaded.model, loaded.tokenizer, COLA))
    assert (table["in order"] == "yes").tolist() == outcomes.ahead[apart].tolist()
    hits = int(outcomes.ahead[apart].sum())
    assert f"The model has {hits} of these {len(apart)} in order" in plainly(at)


def test_words_of_where_routes_part_most_and_least():
    text = pair_routes.in_words(frame_of([(5, 10, 4, 0.4, 0.8), (6, 10, 2, 0.2, 0.2), (7, 10, 1, 0.1, 0.0)]))
    assert "part most often in layer 6, where 2 of 10 part (20.0%" in text  # as often as strangers
    assert "least often in layer 5, where 4 of 10 part" in text
    assert pair_routes.in_words(frame_of([(5, 10, 0, 0.0, 0.0)])).startswith("The inputs of all pairs")
    assert "least" not in pair_routes.in_words(frame_of([(5, 10, 4, 0.4, 0.8)]))


def frame_of(rows):
    import pandas as pd

    columns = ["layer", "n", "parted", "share", "unpaired"]
    return pd.DataFrame(rows, columns=columns).assign(slice=ALL, low=0.0, high=1.0)


def test_the_table_of_other_tasks_names_no_classes():
    task = custom_task("t", ("slice",), ("a", "b", "c"))
    data = TextData(task, "made", (("x",), ("y",)), np.array([0, 2]), None, ("p", "p"))
    top1 = np.eye(2)
    stats = SimpleStats(top1)
    found = pair_outcomes(data, np.eye(3, dtype=np.float32)[[0, 2]])
    table, numbers = pair_routes.pair_table(stats, 5, found, data)
    assert numbers.tolist() == [[1, 0]]
    assert table.to_dict("records") == [
        {"greater label": "y", "smaller label": "x", "experts": "1, 0", "in order": "yes"}
    ]


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


@pytest.mark.parametrize(
    "page", ["overview", "expert_usage", "routing", "pruning_lab", "attribution", "compare"]
)
def test_outputs_that_are_no_numbers_are_told_in_words(open_page, folder, loaded, page):
    with torch.no_grad():
        loaded.model.classifier.bias.fill_(float("nan"))
    checkpoints.save(loaded.model, loaded.tokenizer, loaded.info, folder.parent / "nan")
    at = open_page(page, folder.parent / "nan", text="w1 w2 w3")
    assert not at.exception
    assert any("finite numbers" in error.value for error in at.error), texts_of(at)


def test_pairs_that_route_alike_count_as_one_where_even_use_is_marked(open_page, folder, loaded):
    """Counting both would take use for more uneven than it is."""
    at = open_page("expert_usage", folder)
    assert not at.exception
    stats, pairs = measure_usage(loaded.model, loaded.tokenizer, COLA), pairs_of(COLA)
    n, every = len(COLA), np.ones(len(COLA), dtype=bool)
    counted = independent_choices(stats, every, pairs)
    assert n / 2 <= counted < n
    mark = titled(at, "Effective experts")["layout"]["shapes"][0]["x0"]
    assert mark == pytest.approx(even_experts(counted, 4))
    assert independent_choices(stats, every, pairs[:0]) == n
    alike = replace(stats, top1={1: np.eye(4, dtype=int)[np.zeros(n, dtype=int)]})
    assert independent_choices(alike, every, pairs) == n - len(pairs)
    one_each = np.isin(np.arange(n), pairs[:, 0])
    assert independent_choices(alike, one_each, pairs) == len(pairs)  # of no pair are both there


def test_pairs_that_agree_half_the_time_count_between_one_and_two_inputs():
    """Kish's effective number: of pairs whose choices correlate by r, 2 / (1 + r) inputs each."""
    pairs = np.arange(40).reshape(20, 2)
    top1 = np.zeros((40, 4))
    top1[:, 0] = 1
    top1[pairs[:10, 1]] = np.eye(4)[1]  # half of the pairs agree; by chance a fourth would
    stats = SimpleNamespace(num_experts=4, top1={0: top1})
    correlation = (0.5 - 0.25) / 0.75
    assert independent_choices(stats, np.ones(40, bool), pairs) == round(20 * 2 / (1 + correlation))


def test_one_expert_a_layer_leaves_nothing_to_agree_on():
    pairs = np.arange(40).reshape(20, 2)
    stats = SimpleNamespace(num_experts=1, top1={0: np.ones((40, 1))})
    assert independent_choices(stats, np.ones(40, bool), pairs) == 40
