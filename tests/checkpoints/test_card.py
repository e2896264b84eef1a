"""A model card says what the checkpoint says: how it was made, its scores beside its controls, its limits."""

import re
from dataclasses import replace

import pytest

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import as_html, converted, training_facts
from shrp.checkpoints.info import CARD
from shrp.evaluation.costs import dense_cost, plan_cost
from shrp.pruning.plan import make_plan


def row(model, kind, score, data="validation.csv", **facts):
    own = {"interval": [score - 0.05, score + 0.05], "interval_is": "95%", "n": 24, "metric": "accuracy"}
    return {"model": model, "kind": kind, "data": data, "score": score, "retained": score / 0.8} | own | facts


@pytest.fixture
def folder(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    """A routed checkpoint with scores."""
    usage = {"1": [0.7, 0.1, 0.1, 0.1], "2": [0.1, 0.1, 0.7, 0.1]}
    scores = (
        row("dense teacher", "teacher", 0.8),
        row("routed", "routed", 0.78),
        row("static, 2 a layer", "static", 0.75, per_layer=2, budget=4),
        row("random experts, 2 a layer", "control", 0.74, per_layer=2, budget=4),
        row("layers dropped, 3 epochs", "control", 0.5, epochs=3),
        row("no interval", "static", 0.0, interval=[0.0, 0.0]),
        row("dense teacher", "teacher", 0.6, "probe/sst2"),
        row("routed", "routed", 0.55, "probe/sst2"),
    )
    training = {"train_data": "train.csv", "train_examples": 1200, "epochs": 4, "recipe": "retain"}
    training |= {"validation_data": "validation.csv", "config": {"seed": 3, "distill_hidden": 1.0}}
    info = tiny_info(usage=usage, scores=scores, training=training)
    return checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "mine")


def test_the_card_has_scores_controls_costs_and_limits(folder):
    loaded = checkpoint.load(folder)
    text = loaded.card("mine", "MIT")
    assert "| no interval | 0.0000 | – |" in text
    assert text.startswith("# mine\n")
    assert "| trained on | train.csv, n = 1,200 |" in text
    share = plan_cost(
        loaded.model, make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.1, 0.1, 0.7, 0.1]}, per_layer=2), 128
    )
    kept = share.relative_to(dense_cost(loaded.model, 128))["encoder_params"]
    assert re.search(rf"\| static, 2 a layer \| 0.7500 .* 93.8% \| {kept:.1%} ", text)
    # One of three layers is left, and all of the rest.
    rest = [p for name, p in loaded.model.named_parameters() if ".layer." not in name]
    rest, layer = sum(p.numel() for p in rest), dense_cost(loaded.model, 128).encoder_params / 3
    of_model = (rest + layer) / (rest + 3 * layer)
    sizes = rf"\| 33.3% \| {of_model:.1%} \| 33.3% \|"
    assert re.search(rf"\| control: layers dropped, 3 epochs \| 0.5000 .*{sizes}", text)
    assert "Weights derive from tiny: MIT" in text


def test_facts_of_a_training_are_those_that_are_stored():
    config = {"conversion_size": 8, "final_size": 16, "shrp": {"layers": [1, 2]}, "seed": 0}
    made = {"config": config, "texts": 40, "sources": ["a.csv", "b.csv"]}
    assert not training_facts({})
    facts = dict(
        training_facts({"converted": made, "train_data": "c.csv", "config": {"balance": 0.1, "seed": 4}})
    )
    assert facts == {"layers": converted(made), "trained on": "c.csv, n = 0", "seed": "4"}
    assert "a.csv" in facts["layers"]
    tuned = {"pruning": {}, "recovery": {"final_size": 4000}, "recovery_sources": ["e.csv"]}
    assert dict(training_facts(tuned)) == {"after pruning": "fine-tuned on 4,000 unlabelled texts (of e.csv)"}
    after = {"train_data": "d.csv", "train_examples": 9, "epochs": 2, "seconds": 90.0}
    found = dict(training_facts({"recovery": after | {"config": {"epoch_size": 5}}}))
    assert [*found.values()] == ["d.csv, n = 9", "2, of at most 5 examples", "1.5 min"]


def test_a_collapsed_layer_is_among_the_limits(folder):
    assert "effective experts" not in checkpoint.load(folder).card("mine")
    loaded = checkpoint.load(folder)
    usage = {"1": [0.99, 0.01, 0.0, 0.0], "2": [0.25] * 4}
    checkpoint.save(loaded.model, loaded.tokenizer, replace(loaded.info, usage=usage), folder)
    text = checkpoint.load(folder).card("mine")
    assert "- Layer 1 uses 1.06 effective experts of 4" in text
    assert "Layer 2 uses" not in text


def test_a_row_of_scores_without_a_score_is_left_out(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    scores = ({"kind": "routed", "model": "routed", "data": "made", "metric": "accuracy", "n": 4},)
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(scores=scores), tmp_path / "bare")
    assert "No scores were stored with it." in checkpoint.load(folder).card("bare")


def test_saving_writes_it_and_keeps_a_licence(folder):
    loaded, file = checkpoint.load(folder), folder / CARD
    assert file.read_text() == loaded.card("mine")
    file.write_text(loaded.card("mine", "MIT"))
    loaded.save(folder)
    assert file.read_text() == loaded.card("mine", "MIT")


def test_as_a_page_it_has_tables_and_no_markup_of_a_strangers():
    page = as_html("# <script>x</script>\n\n| a | b |\n|---|---|\n| 1 | [x](javascript:y) |\n")
    assert "<table>" in page
    assert "<script" not in page
    assert "href" not in page
