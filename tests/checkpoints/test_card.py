"""A model card says what the checkpoint says: how it was made, its scores beside its controls, its limits."""

import re
from dataclasses import replace

import pytest

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import CARD, as_html, card, converted, description, limits
from shrp.evaluation.costs import dense_cost, plan_cost, static_cost
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import make_plan
from shrp.training.config import TrainConfig


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
        row("no router, 3 epochs", "control", 0.4, epochs=3),
        row("dense teacher", "teacher", 0.6, "probe/sst2"),
        row("routed", "routed", 0.55, "probe/sst2"),
    )
    training = {"train_data": "train.csv", "train_examples": 1200, "epochs": 4, "recipe": "retain"}
    training |= {"validation_data": "validation.csv", "config": {"seed": 3, "distill_hidden": 1.0}}
    info = tiny_info(usage=usage, scores=scores, training=training)
    return checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "mine")


def test_what_is_dense_or_a_control_is_not_called_routed(tiny_info):
    dense = description(tiny_info(layers=()))
    assert dense.endswith("dense: no layer is converted.")
    assert any("choice of experts" in text for text in limits(tiny_info()))


def test_the_card_has_scores_controls_costs_and_limits(folder):
    loaded = checkpoint.load(folder)
    text = card("mine", loaded, "MIT")
    assert text.startswith("# mine\n")
    assert "base: tiny; routed; converted layers: 1, 2" in text
    assert "Recipe `retain`. Trained on train.csv (1,200 examples" in text
    assert "dense teacher's hidden states." in text
    assert "random experts, 2 a layer” (0.7400)" in text
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
    unrouted = static_cost(loaded.model, 2, 8).relative_to(dense_cost(loaded.model))["encoder_params"]
    assert re.search(rf"\| control: no router, 3 epochs \| 0.4000 .*\| {unrouted:.1%} ", text)
    assert "the teacher has 0.600 and the routed model 0.550" in text
    assert "Weights derive from tiny: MIT" in text


def test_the_card_says_what_is_not_above_a_constant_answer(folder, tmp_path):
    loaded = checkpoint.load(folder)

    def said(floor):
        scores = tuple(
            one | {"constant": floor} for one in loaded.info.scores if one["data"] == "validation.csv"
        )
        return card("mine", replace(loaded, info=replace(loaded.info, scores=scores)))

    assert "constant answer" not in card("mine", loaded)
    assert "The best constant answer has 0.3000; not above that: no model." in said(0.3)
    assert "not above that: 2 of 6 models: “layers dropped, 3 epochs”, “no router, 3 epochs”." in said(0.5)
    assert "not above that: 3 of 6 models: “random experts, 2 a layer”, “layers dropped" in said(0.74)
    assert "not above that: every model." in said(0.8)


def test_a_score_without_an_interval_has_a_dash(folder, tmp_path):
    loaded = checkpoint.load(folder)
    flat = (
        row("routed", "routed", 0.0, interval=None),
        row("layers dropped", "control", 0.0, interval=[0.0, 0.0]),
    )
    text = card("mine", replace(loaded, info=replace(loaded.info, scores=flat)))
    assert "| routed | 0.0000 | – |" in text
    assert "| control: layers dropped | 0.0000 | – |" in text
    assert "nan" not in text


def test_the_card_tells_settings_and_where_they_are_not_the_recipe_s(folder, tmp_path):
    loaded = checkpoint.load(folder)
    assert "Learning rates" not in card("mine", loaded)  # its config is not whole

    def of(config):
        training = dict(loaded.info.training) | {"config": config.to_dict()}
        path = checkpoint.save(
            loaded.model, loaded.tokenizer, replace(loaded.info, training=training), tmp_path / "other"
        )
        return card("other", checkpoint.load(path))

    text = of(TrainConfig.named("retain", shrp=ShrpConfig((1, 2)), max_length=64))
    assert "Recipe `retain`. Trained" in text
    assert "at most 64 tokens; without dropout; dense layers learned too" in text
    assert "Expanders started from a least-squares fit." in text
    changed = TrainConfig.named("retain", shrp=ShrpConfig(()), dropout=True, learning_rate=4e-4)
    text = of(changed)
    assert "Recipe `retain`, but for learning rate, dropout. Trained" in text
    assert "with dropout" in text
    assert "Expanders started" not in text


def test_a_collapsed_layer_is_among_the_limits(folder):
    assert "effective experts" not in card("mine", checkpoint.load(folder))
    loaded = checkpoint.load(folder)
    usage = {"1": [0.99, 0.01, 0.0, 0.0], "2": [0.25] * 4}
    checkpoint.save(loaded.model, loaded.tokenizer, replace(loaded.info, usage=usage), folder)
    text = card("mine", checkpoint.load(folder))
    assert "- Layer 1 uses 1.06 effective experts of 4" in text
    assert "Layer 2 uses" not in text


def test_where_only_the_history_tells_of_texts_the_card_does_too(folder):
    assert "unlabelled" not in card("mine", checkpoint.load(folder))
    rows = [
        '{"epoch": 0, "stage": 1, "converted_layer": 2, "texts": 500}',
        '{"epoch": 1, "stage": 1, "converted_layer": 1, "texts": 500}',
        '{"epoch": 2, "stage": 1, "converted_layer": null, "texts": 4000}',
        '{"epoch": 3, "stage": 2, "converted_layer": null}',
    ]
    (folder / "history.jsonl").write_text("\n".join(rows))
    text = card("mine", checkpoint.load(folder))
    assert "Converted on unlabelled texts, 2 layers with 5,000 texts in all. Then: Recipe `retain`." in text


def test_a_row_of_scores_that_lacks_something_is_left_out(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    scores = ({"kind": "routed"}, {"kind": "static", "model": "static", "score": 0.5})
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(scores=scores), tmp_path / "bare")
    assert "No scores were stored with it." in card("bare", checkpoint.load(folder))


def test_a_conversion_names_its_texts_and_those_it_learned_on_from_where_they_are_others():
    config = {"conversion_size": 8, "final_size": 16, "shrp": {"layers": [1, 2]}, "seed": 0}
    made = {"config": config, "texts": 40, "sources": ["a.csv", "b.csv"]}
    pruned = made | {"recovery": {"final_size": 9}}
    assert converted(made).startswith(
        "Converted on 40 unlabelled texts (of a.csv, b.csv), 8 for each of 2 layers"
    )
    assert "trained on with 9 (seed 0)" in converted(pruned | {"recovery_sources": made["sources"]})
    assert "trained on with 9 (of c.csv) (seed 0)" in converted(pruned | {"recovery_sources": ["c.csv"]})
    assert converted(made | {"earlier": made}).count("a.csv") == 1
    del made["sources"]  # as those of before had it
    assert converted(made).startswith("Converted on 40 unlabelled texts, 8 for each of 2 layers")


def test_saving_writes_it_and_keeps_a_licence_and_notes(folder, tmp_path):
    loaded, file = checkpoint.load(folder), folder / CARD
    assert file.read_text() == card("mine", loaded)
    file.write_text(card("mine", loaded, "MIT"))
    loaded.save(folder)
    assert file.read_text() == card("mine", loaded, "MIT")
    file.write_text("my notes")
    loaded.save(folder, keep_others=True)
    assert file.read_text() == "my notes"
    loaded.save(folder, extra_files={CARD: "given"})
    assert file.read_text() == "given"


def test_as_a_page_it_has_tables_and_no_markup_of_a_strangers():
    page = as_html("# <script>x</script>\n\n| a | b |\n|---|---|\n| 1 | [x](javascript:y) |\n")
    assert "<table>" in page
    assert "<script" not in page
    assert "href" not in page
