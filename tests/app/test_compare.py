"""The Compare page on tiny checkpoints, against figures made without it."""

import copy
import shutil
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.routes import usage_distances
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.batching import token_counts
from shrp.data.slices import input_groups
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS, TEXTS
from shrp.data.text_data import TextData, halves
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.costs import Cost, cost, dense_cost, plan_cost
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.metrics import ranking
from shrp.evaluation.paired import agreement, by_group, paired_difference
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import specs, texts_of, values
from ui import data_sources
from ui.compare.own import OWN
from ui.compare.sides import AS_IS, PRUNED, SIDEBAR, TEACHER, Choice, read_alike, refusal
from ui.compare.views import costs_frame, numbering
from ui.lab import compare as lab_compare
from ui.lab import hurts as lab_hurts
from ui.lab import threshold as lab_threshold
from ui.lab.export import plan_json
from ui.text import points

SST2 = TASKS["sst2"]


def metric(at, start):
    return next(m.value for m in at.metric if m.label.startswith(start))


def frame_with(at, column):
    return next(d.value for d in at.dataframe if column in d.value)


@pytest.fixture
def both(tiny_checkpoint, tiny_token_checkpoint):
    """The loaded sequence- and token-routed checkpoints, which lie in one folder."""
    return checkpoints.load(tiny_checkpoint), checkpoints.load(tiny_token_checkpoint)


def test_it_opens_on_the_checkpoint_and_a_pruning_of_it(open_page, tiny_checkpoint):
    at = open_page("compare", tiny_checkpoint)
    assert not at.exception
    assert not at.error
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, data), budget=4)
    a = evaluate(loaded.model, loaded.tokenizer, data)
    b = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
    assert metric(at, "A: accuracy") == f"{100 * a.score:.1f}%"
    assert metric(at, "B: accuracy") == f"{100 * b.score:.1f}%"
    assert metric(at, "B − A") == points(paired_difference(b, a)[0], "accuracy")
    assert metric(at, "McNemar") == lab_compare.p_text(agreement(a, b).p_value)
    text = texts_of(at)
    assert "tiny pruned (4 in all, usage, usage weights)" in text
    assert f"n = {len(data):,}" in text
    apart = a.predictions != b.predictions
    assert apart.sum() > 0
    assert f"{apart.sum():,} of {len(data):,} predictions flip" in text
    listed = frame_with(at, "A → B")
    assert sorted(listed["sentence"]) == sorted(data.texts[i][0] for i in np.flatnonzero(apart))
    labels = data.labels[apart]
    assert listed["p B"].tolist() == pytest.approx(100 * b.probabilities[apart, labels], abs=1e-2)
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    kept = {layer: stats.share(layer)[list(one.experts)].sum() for layer, one in plan.layers}
    assert (
        f"**{100 * np.mean(list(kept.values())):.1f}%** of A's Top-1 choices fall on experts that B keeps"
        in text
    )
    shown = frame_with(at, "of A's choices")
    assert shown["of A's choices"].tolist() == [f"{100 * share:.1f}%" for share in kept.values()]
    titles = [spec["layout"]["title"]["text"] for spec in specs(at)]
    assert any(title.endswith("A: Top-1 share") or "A: Top-1 share" in title for title in titles)
    assert any("B: kept experts and their weights" in title for title in titles)
    costs = frame_with(at, "B ÷ A")
    dense, pruned, routed = dense_cost(loaded.model), plan_cost(loaded.model, plan), cost(loaded.model)
    assert costs.loc[0, "B ÷ A"] == f"{100 * pruned.encoder_params / routed.encoder_params:.1f}%"
    assert (
        costs.loc[1, "A"]
        .split(", ")[1]
        .startswith(f"{100 * routed.encoder_flops / dense.encoder_flops:.1f}% of ")
    )


def assert_lined_up(maps):
    """Rows of both maps are as high and begin at one height, and no line above is too long for half the width."""
    assert len({(spec["layout"]["height"], spec["layout"]["margin"]["t"]) for spec in maps}) == 1
    for spec in maps:
        lines = spec["layout"]["title"]["subtitle"]["text"].split("<br>")
        assert spec["layout"]["margin"]["t"] >= 56 + 18 * len(lines)
        assert all(len(line) <= 40 or " " not in line for line in lines)


def test_a_link_restores_both_sides_and_usage_is_side_by_side(open_page, tiny_checkpoint, both):
    at = open_page("compare", tiny_checkpoint, b="tiny-token", b_is=AS_IS)
    assert not at.exception
    assert (at.selectbox(key="a").value, at.selectbox(key="b").value) == (SIDEBAR, "tiny-token")
    data = load_probe("sst2")
    a, b = (measure_usage(one.model, one.tokenizer, data) for one in both)
    frame = usage_distances(a, b)
    shown = frame_with(at, "at the best renumbering")
    assert shown["distance"].tolist() == [f"{value:.3f}" for value in frame["distance"]]
    assert set(shown["by chance"]) == set(shown["q"]) == {"–"}  # inputs on one side, tokens on the other
    maps = [spec for spec in specs(at) if spec["layout"]["title"]["text"].endswith("Top-1 share")]
    heats = [spec["data"][0] for spec in maps]
    assert len(heats) == 2
    assert heats[0]["zmax"] == heats[1]["zmax"]
    for heat, stats in zip(heats, (a, b), strict=True):
        np.testing.assert_allclose(values(heat["z"]), [stats.share(1), stats.share(2)])
    assert_lined_up(maps)
    text = texts_of(at)
    assert "Both were converted from a tiny one" in text
    assert "One side counts inputs and the other tokens" in text


def test_losses_are_told_by_slice_class_and_length(open_page, tiny_checkpoint):
    at = open_page("compare", tiny_checkpoint, a_is=AS_IS, b_is=PRUNED, b_budget=2)
    assert not at.exception
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, data), budget=2)
    whole = evaluate(loaded.model, loaded.tokenizer, data)
    pruned = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
    drawn = {spec["layout"]["title"]["text"].split("<br>")[0]: spec for spec in specs(at)}
    groups = input_groups(data, lengths=token_counts(loaded.tokenizer, data.texts))["length"]
    names = [next(name for name, mask in groups.items() if mask[i]) for i in range(len(data))]
    parted = [replace(one, slices=tuple(names[i] for i in one.indices)) for one in (whole, pruned)]
    for by, value, models in (
        ("slice", "Accuracy", (whole, pruned)),
        ("class", "Recall", (whole, pruned)),
        ("length", "Accuracy", parted),
    ):
        frame = by_group(*models, "slice" if by == "length" else by)
        chart = next(spec for title, spec in drawn.items() if title.startswith(f"{value} by {by}"))
        a, b = chart["data"][:2]
        assert (a["name"], b["name"]) == ("A", "B")
        np.testing.assert_allclose(values(a["x"]), 100 * frame["reference"])
        np.testing.assert_allclose(values(b["x"]), 100 * frame["other"])


def test_slices_are_named_where_the_score_is_0_of_any_answers(tiny_data):
    data = tiny_data(20, task=TASKS["cola"])
    slices = (*("ones" if label else "mixed" for label in data.labels[:-1]), "mixed")
    labels = data.labels.copy()
    labels[-1] = 1
    data = replace(data, labels=labels, slices=slices)
    found = summarise(data, np.arange(20), np.zeros((20, 2)), False)
    assert lab_hurts.without_a_class(found) == ["ones"]
    # F1 is of the second class: where all are of that it is not 0, where none is it is.
    found = replace(found, metric="f1")
    assert lab_hurts.without_a_class(found) == []
    assert lab_hurts.without_a_class(replace(found, labels=1 - found.labels)) == ["ones"]


def test_both_sides_read_as_much_of_an_input(open_page, tiny_checkpoint, save_tiny, monkeypatch, cache):
    """Of two lengths the longer one where an input is longer than the shorter, as on the command line, or a difference
    might be the cut's; experts are chosen as without the comparison.
    """
    monkeypatch.setattr("shrp.checkpoints.info.EVALUATED_TOKENS", 14)
    save_tiny("long", training={"config": {"max_length": 30}})
    at = open_page("compare", tiny_checkpoint, b="long", b_is=AS_IS)
    assert not at.exception
    assert "Both sides read 30 tokens of an input" in texts_of(at)
    assert "A's tokenizer" not in texts_of(at)  # which is B's too
    short, long = (checkpoints.load(tiny_checkpoint.with_name(name)) for name in ("tiny", "long"))
    data = load_probe("sst2")
    assert (short.info.max_length, long.info.max_length) == (14, 30)
    expected = evaluate(short.model, short.tokenizer, data, max_length=30)
    assert not np.array_equal(expected.logits, short.evaluate(data).logits)
    assert (
        metric(at, "A: accuracy") == metric(at, "B: accuracy") == f"{100 * expected.score:.1f}%"
    )  # one model
    sides = [Choice(one.path.name, one, AS_IS) for one in (short, long)]
    assert read_alike(sides, data)[0] == 30
    few = data.subset(np.flatnonzero(np.array(token_counts(short.tokenizer, data.texts)) <= 14))
    assert 0 < len(few) < len(data)
    assert read_alike(sides, few) == (None, "")  # nothing of them is cut
    assert read_alike([sides[0], sides[0]], data) == (None, "")
    tokens, said = read_alike([replace(sides[0], kind=TEACHER), sides[1]], data)  # whose outputs came with it
    assert tokens is None
    assert "at 14 tokens, the other one at 30" in said
    at = open_page("compare", tiny_checkpoint, a_is=PRUNED, a_budget=3, b="long", b_is=AS_IS)
    assert not at.exception
    plan = plan_from(measure_usage(short.model, short.tokenizer, data, max_length=14), budget=3)
    pruned = evaluate(prune(short.model, plan), short.tokenizer, data, max_length=30)
    assert metric(at, "A: accuracy") == f"{100 * pruned.score:.1f}%"


def test_two_prunings_are_set_apart_by_their_own_controls(open_page, tiny_checkpoint):
    at = open_page("compare", tiny_checkpoint, a_is=PRUNED, a_budget=2, b_keep="Per layer", b_per_layer=3)
    assert not at.exception
    text = texts_of(at)
    assert "tiny pruned (2 in all, usage, usage weights)" in text
    assert "tiny pruned (3 a layer, usage, usage weights)" in text
    assert "A keeps 2 experts, B " in text
    assert list(frame_with(at, "overlap (Jaccard)")["layer"]) == ["1", "2", "all"]
    assert "only comparison so far" in text
    at.slider(key="b_per_layer").set_value(1).run()  # a budget of one a layer is the same plan
    assert "A and B are the same model" in texts_of(at)
    at.segmented_control(key="a_select").set_value("Random (control)").run()
    at.number_input(key="a_seed").set_value(3).run()
    assert not at.exception
    assert "random (control) 3" in texts_of(at)
    assert "comparisons so far" in texts_of(at)


def plan_upload(at, url):
    return next(box for box in at.file_uploader if box.key.startswith(f"{url}-file"))


def test_a_plan_from_a_file_is_a_side(open_page, tiny_checkpoint):
    at = open_page("compare", tiny_checkpoint, a_is=PRUNED)
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    plan = make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}, counts={1: 1, 2: 3})
    plan_upload(at, "b_plan").set_value(("mine.json", plan_json(plan).encode(), "application/json")).run()
    assert not at.exception
    expected = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
    assert metric(at, "B: accuracy") == f"{100 * expected.score:.1f}%"
    text = texts_of(at)
    assert "mine.json was loaded whole" in text
    assert "tiny pruned (edit 1: 4 in all (from 4 in all), usage, as given)" in text
    assert "Edited by hand: layers 1 and 2." in text
    assert at.query_params["b_plan"]
    assert "a_plan" not in at.query_params
    again = open_page("compare", tiny_checkpoint, a_is=PRUNED, b_plan="".join(at.query_params["b_plan"]))
    assert "usage, as given" in texts_of(again)
    assert metric(again, "B: accuracy") == f"{100 * expected.score:.1f}%"
    plan_upload(at, "b_plan").set_value(("broken.json", b"{", "application/json")).run()
    assert not at.exception
    assert "broken.json was not loaded" in texts_of(at)
    assert metric(at, "B: accuracy") == f"{100 * expected.score:.1f}%"  # what was there stays
    at.button(key="b_plan-reset").click().run()
    assert "A and B are the same model" in texts_of(at)
    assert "b_plan" not in at.query_params
    wrong = open_page("compare", tiny_checkpoint, b_plan="9n2")
    assert not wrong.exception
    assert "The plan in the address was left out" in texts_of(wrong)


def test_the_labs_pruning_goes_to_side_b(open_page, tiny_checkpoint, save_tiny):
    save_tiny("another")
    setting = {"keep": "Per layer", "per_layer": 2, "combine": "Plain mean", "plan": "1d0"}
    at = open_page("pruning_lab", tiny_checkpoint, **setting)
    lab_score = next(m.value for m in at.metric if m.label == "Accuracy")
    link = next(link.proto for link in at.get("page_link") if "Hold this pruning" in link.proto.label)
    asked = {key: values[0] for key, values in parse_qs(link.query_string).items()}
    assert asked["b_plan"] == "lab-1d0"
    # Whatever side B was when this session was there before.
    at.query_params.clear()
    at.query_params.update({"b": "another", "b_keep": "Per layer", "b_per_layer": "4", "b_is": PRUNED})
    at.switch_page("pages/compare.py").run()
    assert at.selectbox(key="b").value == "another"
    assert at.slider(key="b_per_layer").value == 4
    at.query_params.clear()
    at.query_params.update(asked)
    at.switch_page("pages/overview.py").run()
    at.query_params.update(asked)
    at.switch_page("pages/compare.py").run()
    assert not at.exception
    assert at.title[0].value == "Compare"
    assert "open" not in at.query_params
    assert at.selectbox(key="b").value == SIDEBAR
    assert at.segmented_control(key="b_keep").value == "Per layer"
    assert at.slider(key="b_per_layer").value == 2
    assert metric(at, "B: accuracy") == lab_score
    assert "(edit 1: 4 in all (from 2 a layer), usage, plain mean)" in texts_of(at)
    assert "".join(at.query_params["b_plan"]) == "1d0"


def test_a_side_that_nobody_touched_follows_the_sidebar(open_page, tiny_checkpoint, tiny_static_checkpoint):
    at = open_page("compare", tiny_checkpoint)
    assert at.segmented_control(key="b_is").value == PRUNED
    at.selectbox(key="checkpoint").set_value("tiny-static").run()
    assert (at.selectbox(key="b").value, at.segmented_control(key="b_is").value) == ("tiny", AS_IS)
    assert "has no routers" not in texts_of(at)
    at.selectbox(key="b").set_value(SIDEBAR).run()
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert (at.selectbox(key="b").value, at.segmented_control(key="b_is").value) == (SIDEBAR, AS_IS)


def test_a_held_out_choice_of_experts_goes_whole(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, hold_out="true", keep="Per layer", per_layer=2)
    link = next(link.proto for link in at.get("page_link") if "Hold this pruning" in link.proto.label)
    asked = {key: values[0] for key, values in parse_qs(link.query_string).items()}
    found = open_page("compare", tiny_checkpoint, **asked)  # another session, as by a link that was sent
    assert not found.exception
    assert "usage, as given" in texts_of(found)
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    half = data.subset(halves(data)[0])
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, half), per_layer=2)
    expected = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
    assert metric(found, "B: accuracy") == f"{100 * expected.score:.1f}%"
    broken = open_page("compare", tiny_checkpoint, b_plan="lab-nonsense")
    assert not broken.exception
    assert "The plan in the address was left out" in texts_of(broken)


def test_the_labs_edits_are_taken_over(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, plan="1d0")
    at.switch_page("pages/compare.py").run()
    assert not at.exception
    at.button(key="b_plan-lab").click().run()
    assert not at.exception
    assert "Edited by hand: layer 1." in texts_of(at)
    assert not [button for button in at.button if button.key == "b_plan-lab"]
    assert [button for button in at.button if button.key == "a_plan-lab"] == []  # A is no pruning


def test_the_teacher_is_a_side_where_it_is_known(open_page, tiny_checkpoint, tiny_model, tiny_tokenizer):
    at = open_page("compare", tiny_checkpoint, b_is=TEACHER)
    assert not at.exception
    assert "carries no outputs of its dense teacher" in texts_of(at)
    probe = load_probe("sst2")
    found = evaluate(tiny_model(seed=3), tiny_tokenizer, probe)
    reference.write(tiny_checkpoint, {probe.fingerprint: reference.from_evaluation(found, "t")})
    at.run()
    assert not at.exception
    assert metric(at, "B: accuracy") == f"{100 * found.score:.1f}%"
    assert "dense teacher of tiny" in texts_of(at)
    assert frame_with(at, "B ÷ A").loc[0, "B"].split(", ")[1].startswith("100.0% of ")


def test_a_pruned_checkpoint_can_be_compared_but_not_pruned(
    open_page, tiny_static_checkpoint, tiny_checkpoint
):
    at = open_page("compare", tiny_static_checkpoint)
    assert not at.exception
    assert at.selectbox(key="b").value == "tiny"  # the one other checkpoint of the task
    assert metric(at, "McNemar")
    assert "of B's Top-1 choices fall on experts that A keeps" in texts_of(at)
    assert list(at.segmented_control(key="a_is").options) == [AS_IS, TEACHER]
    at = open_page("compare", tiny_checkpoint, b="tiny-static", b_is=PRUNED)  # a pruning that can't be
    assert not at.exception
    assert at.segmented_control(key="b_is").value == AS_IS
    assert metric(at, "McNemar")


def test_other_tasks_broken_and_missing_checkpoints_are_refused_in_words(
    open_page, tiny_checkpoint, save_tiny
):
    save_tiny("pairs", task="mrpc")
    broken = save_tiny("broken")
    (broken / "config.json").write_text("{")
    at = open_page("compare", tiny_checkpoint, b="pairs")
    assert not at.exception
    assert "pairs is for the task mrpc, tiny in the sidebar" in texts_of(at).replace("*", "")
    assert not at.metric
    at.selectbox(key="b").set_value("broken").run()
    assert not at.exception
    assert "can't be loaded" in at.error[0].value
    at = open_page("compare", tiny_checkpoint, b="gone", a_is="nonsense", a_budget=999)
    assert not at.exception
    assert (at.selectbox(key="b").value, at.segmented_control(key="a_is").value) == (SIDEBAR, AS_IS)
    assert metric(at, "B − A")


def test_a_side_that_is_gone_is_said_to_be(open_page, tiny_checkpoint, save_tiny):
    """A checkpoint that was removed, or let go for newer ones, is not replaced by the sidebar's in silence."""
    other = save_tiny("other", routing="token")
    at = open_page("compare", tiny_checkpoint, b="other")
    assert at.selectbox(key="b").value == "other"
    shutil.rmtree(other)
    at.run()
    assert not at.exception
    said = "other is not here any more; the sidebar's checkpoint stands in its place"
    assert said in texts_of(at).replace("*", "")
    at.run()
    assert said in texts_of(at).replace("*", "")  # until something else is picked
    at.selectbox(key="b").set_value("tiny").run()
    assert said not in texts_of(at).replace("*", "")


def test_regression_has_the_bootstrap_only(open_page, save_tiny, tmp_path):
    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(20)]
    rows = [[" ".join(rng.choice(words, 4)) for _ in range(60)] for _ in range(2)]
    frame = pd.DataFrame({"sentence1": rows[0], "sentence2": rows[1], "label": rng.uniform(0, 5, 60)})
    (tmp_path / "glue" / "stsb").mkdir(parents=True)
    frame.to_parquet(tmp_path / "glue" / "stsb" / "validation.parquet")
    folder = save_tiny("numbers", task="stsb", num_labels=1)
    at = open_page("pruning_lab", folder, data_dir=tmp_path / "glue")
    assert not at.exception
    assert "in each layer as this plan. Gate × norm" in texts_of(at)  # a number has no answer shares to match
    at = open_page("compare", folder, data_dir=tmp_path / "glue")
    assert not at.exception
    assert not at.error
    assert metric(at, "B − A").lstrip("+−").startswith("0.")
    assert [m.label for m in at.metric if "McNemar" in m.label] == []
    assert "interval of the difference" in texts_of(at)


def test_without_labels_there_are_only_disagreements(open_page, tiny_checkpoint, monkeypatch):
    probe = load_probe("sst2")
    bare = TextData(TASKS["sst2"], "my sentences", probe.texts[:80])
    monkeypatch.setattr(data_sources, "load_dataset", lambda source, task: bare)
    at = open_page("compare", tiny_checkpoint)
    assert not at.exception
    text = texts_of(at)
    assert "neither side is better" in text
    assert "no labels, so no score; n = 80, my sentences" in text
    assert metric(at, "A: accuracy") == "–"
    assert at.multiselect(key=lab_hurts.DIRECTION)


def test_words_on_tasks_and_bases(both):
    info = both[0].info
    assert refusal("x", info, TASKS["sst2"], "y") == ""
    assert refusal("x", info, replace(TASKS["sst2"], name="train"), "y") == ""  # another name of one's own
    of_rte, of_qnli = (replace(info, task=TASKS[name]) for name in ("rte", "qnli"))
    assert TASKS["rte"].reads_as(TASKS["qnli"])
    assert "the task qnli, **y** in the sidebar" in refusal("x", of_qnli, of_rte.task, "y")
    rated = replace(TASKS["stsb"], name="rated", text_columns=("sentence",))
    assert TEXTS.reads_as(rated)
    converted = replace(info, task=TEXTS)  # whose head nothing has trained
    assert "**x** was converted on texts" in refusal("x", converted, rated, "y")
    assert "**y** was converted on texts" in refusal("x", info, TEXTS, "y")
    assert "was converted on texts" in refusal("x", converted, TEXTS, "y")
    assert "the task sst2, **y** in the sidebar" in refusal("x", info, TASKS["mrpc"], "y")
    of_pairs = replace(TASKS["sst2"], text_columns=("sentence", "another"))
    assert "the task sst2 with other classes or texts" in refusal("x", info, of_pairs, "y")
    assert "same number means the same thing" in numbering(("b", "b"))
    for bases in (("a", "b"), ("", ""), ("a", "")):
        assert "do not mean the same thing" in numbering(bases)


def test_what_the_threshold_has_to_do_with_a_difference_is_told(open_page, tiny_checkpoint):
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    at = open_page("compare", tiny_checkpoint)
    assert not at.exception
    (said,) = (m.value for m in at.markdown if m.value.startswith("**Threshold**"))
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, data), budget=4)
    one = evaluate(loaded.model, loaded.tokenizer, data)
    other = evaluate(prune(loaded.model, plan), loaded.tokenizer, data)
    moved = shifted(other, data, matching_shift(other.logits, one.logits))
    assert f"B has {moved.score:.1%}" in said
    assert f"A {ranking(one.labels, one.logits):.3f}, B {ranking(other.labels, other.logits):.3f}" in said


def test_a_model_without_parameters_in_its_layers_is_nothing_to_divide_by():
    none, some, dense = (Cost(*each, 128) for each in ((0, 9, 0, 9), (5, 9, 5, 9), (9, 9, 9, 9)))
    sides = [SimpleNamespace(cost=one, dense=dense) for one in (none, some)]
    frame = costs_frame(sides)
    assert frame["B / A"].isna().tolist() == [one == 0 for one in frame["A"]]
    assert frame["B / A"].isna().sum() == 2
    assert (costs_frame(sides[::-1])["B / A"] < 1.01).all()


def test_a_model_with_fewer_positions_reads_less_and_it_says_so(both):
    long = ((" ".join(f"w{i % 50}" for i in range(60)),),) * 3
    data, read = TextData(TASKS["sst2"], "long", long, np.array([0, 1, 0])), []
    for positions in (36, 30):
        tokenizer = copy.deepcopy(both[0].tokenizer)
        tokenizer.model_max_length = positions
        fingerprint = f"{both[0].fingerprint}-{positions}"
        read.append(Choice("x", replace(both[0], tokenizer=tokenizer, fingerprint=fingerprint), AS_IS))
    tokens, said = read_alike(read, data)
    assert tokens == 36
    assert "One side cuts inputs at 30 tokens, the other one at 36" in said


def test_models_that_answer_alike_have_no_threshold_to_tell(tiny_checkpoint):
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    one = evaluate(loaded.model, loaded.tokenizer, data)
    assert not lab_threshold.between(one, one, data)


def picked_first(monkeypatch):
    """The first flip of the table is the one that is picked, as no test can click there."""
    monkeypatch.setattr(lab_hurts, "_table", lambda frame, data, names: [0])


def test_of_a_pair_task_both_texts_are_asked_for(open_page, save_tiny):
    folder = save_tiny("pair", task="mrpc")
    at = open_page("compare", folder, own_input="one alone")
    assert not at.exception
    assert "an input of this task is a sentence1 and a sentence2 on one line" in texts_of(at)
    at.text_input(key=OWN).set_value("w1 w2 ||| w3 w4").run()
    assert not at.exception
    answers = next(frame.value for frame in at.dataframe if "model" in frame.value)
    assert answers["model"].tolist() == ["A", "B"]
