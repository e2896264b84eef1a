import io
import re
import zipfile
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest

from shrp.analysis import importance
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.checkpoints.card import card
from shrp.checkpoints.history import history_text
from shrp.checkpoints.info import usage_in
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData, halves
from shrp.evaluation.calibration import answer_shares, matching_shift, shifted
from shrp.evaluation.costs import cost
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.metrics import ranking
from shrp.evaluation.paired import paired_difference
from shrp.pruning import select
from shrp.pruning.live import FIRST_ESTIMATE
from shrp.pruning.plan import NO_EDITS, LayerEdit, PlanEdits, make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import GateFit, plan_from
from tests.app.helpers import HISTORY, SCORES, specs, texts_of, upload
from tests.app.helpers import ONNX_REPORT as REPORT
from ui.lab import beside as lab_beside
from ui.lab import edits as lab_edits
from ui.lab import export as lab_export
from ui.lab import onnx as lab_onnx
from ui.lab import split as lab_split
from ui.lab import views as lab_views
from ui.lab import work as lab
from ui.lab.reference import with_part
from ui.lab.work import GLOBAL, PER_LAYER, Setting
from ui.store import results
from ui.text import percent


def metric(at, label):
    return next(m.value for m in at.metric if m.label == label)


@pytest.fixture
def loaded(tiny_checkpoint):
    return checkpoints.load(tiny_checkpoint)


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    return at


def direct(loaded, **options):
    """The evaluation that the page must show, made without it."""
    data = load_probe("sst2")
    stats = measure_usage(
        loaded.model, loaded.tokenizer, data, output_norms=options.get("selection") == "gate_norm"
    )
    plan = plan_from(stats, **options)
    return plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data)


def assert_shows(at, plan, evaluation):
    assert not at.exception
    assert not at.error
    assert metric(at, "Accuracy") == f"{100 * evaluation.score:.1f}%"
    assert metric(at, "Experts kept").startswith(f"{plan.budget} of")
    low, high = (100 * end for end in evaluation.interval)
    assert f"{low:.1f}–{high:.1f}%" in texts_of(at)
    assert f"n = {evaluation.n}" in texts_of(at)


def test_the_page_starts_with_a_pruned_model(page, loaded):
    assert page.title[0].value == "Pruning lab"
    assert_shows(page, *direct(loaded, budget=4))
    shown = {chart.key for chart in page.get("plotly_chart")}
    assert {"kept-map", "curve", "by-slice", "by-class", "by-length"} <= shown
    assert "probe/sst2" in texts_of(page)


def test_an_estimate_is_shown_first_and_then_the_exact_score(cache, page, monkeypatch):
    shown, busy = [], []
    headline, progress = lab_views.headline, DeltaGenerator.progress
    monkeypatch.setattr(lab_views, "headline", lambda one, *rest: (shown.append(one), headline(one, *rest)))
    monkeypatch.setattr(
        DeltaGenerator,
        "progress",
        lambda place, value, text=None, **options: (
            busy.append((len(shown), text)) or progress(place, value, text, **options)
        ),
    )
    page.slider(key="budget").set_value(5).run()
    first, *_, last = shown
    assert (first.n, first.total, first.complete) == (FIRST_ESTIMATE, 480, False)
    assert (1, "A running estimate from 64 of 480 inputs") in busy
    assert last.complete
    assert [one.n for one in shown] == sorted(one.n for one in shown)
    low, high = first.interval
    assert high - low > last.interval[1] - last.interval[0]  # narrower in the end
    shown.clear()
    page.slider(key="budget").set_value(4).run()  # evaluated before, when the page was opened
    assert [one.complete for one in shown] == [True]


@pytest.mark.parametrize("budget", [2, 5, 8])
def test_moving_the_slider_shows_the_new_plans_score(page, loaded, budget):
    page.slider(key="budget").set_value(budget).run()
    assert_shows(page, *direct(loaded, budget=budget))


def test_every_other_control_counts(page, loaded):
    page.segmented_control(key="keep").set_value("Per layer").run()
    page.slider(key="per_layer").set_value(1).run()
    assert_shows(page, *direct(loaded, per_layer=1))
    page.slider(key="per_layer").set_value(3).run()
    page.segmented_control(key="combine").set_value("Plain mean").run()
    assert_shows(page, *direct(loaded, per_layer=3, combination="mean"))
    page.segmented_control(key="select").set_value("Random (control)").run()
    page.number_input(key="seed").set_value(5).run()
    assert_shows(page, *direct(loaded, per_layer=3, combination="mean", selection="random", seed=5))
    assert "are a control" in texts_of(page)
    page.segmented_control(key="select").set_value("Gate × norm").run()
    assert_shows(page, *direct(loaded, per_layer=3, combination="mean", selection="gate_norm"))


def test_experts_are_chosen_by_what_is_lost_without_them(cache, page, loaded, monkeypatch):
    page.slider(key="budget").set_value(5).run()
    page.segmented_control(key="select").set_value("Ablation").run()
    data = load_probe("sst2")
    scores = importance.ablation(loaded.model, loaded.tokenizer, data)
    shares = measure_usage(loaded.model, loaded.tokenizer, data).shares()
    plan = make_plan(shares, budget=5, scores=scores, selection="ablation")
    assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data))
    again = mock.Mock(side_effect=AssertionError("measured once, whatever the slider does then"))
    monkeypatch.setattr(importance, "knock_outs", again)
    page.slider(key="budget").set_value(3).run()
    plan = make_plan(shares, budget=3, scores=scores, selection="ablation")
    assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data))
    page.segmented_control(key="select").set_value("Usage").run()
    assert any("ablation" in frame.value.to_string() for frame in page.dataframe)  # beside it, as it is known


def test_recorded_usage_is_that_of_the_command_line(open_page, save_tiny, page):
    page.segmented_control(key="select").set_value("Recorded usage").run()
    assert "this checkpoint carries no usage from its training" in page.error[0].value
    folder = save_tiny("counted", usage={1: [0.7, 0.1, 0.1, 0.1], 2: [0.1, 0.2, 0.3, 0.4]})
    page, loaded = open_page("pruning_lab", folder), checkpoints.load(folder)
    page.slider(key="budget").set_value(5).run()
    page.segmented_control(key="select").set_value("Recorded usage").run()
    plan = make_plan(usage_in(loaded.info), budget=5)
    assert plan != make_plan(
        measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2")).shares(), budget=5
    )
    assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, load_probe("sst2")))
    assert "the checkpoint's own" in texts_of(page)


def test_kept_experts_of_weight_0_are_said(page, loaded):
    used = [
        share > 0
        for share in measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2")).shares().values()
    ]
    used = int(np.sum(used))
    assert used < 8
    assert "have weight 0" not in texts_of(page)
    page.slider(key="budget").set_value(8).run()
    assert f"{8 - used} of the 8 kept experts have weight 0" in texts_of(page)
    assert f"the other {used} alone give the same answers" in texts_of(page)


def test_the_slider_starts_from_the_same_number_in_every_run(page):
    """The address leaves out a default: were it the least number once the slider moved, that one would be lost."""
    for budget in (5, 2):
        page.slider(key="budget").set_value(budget).run()
        assert (page.slider(key="budget").proto.default, page.slider(key="budget").value) == ([4], budget)
    assert not [one for one in page.warning if "constant answer" not in one.value]


def test_the_routed_model_is_scored_by_the_passes_that_measured_its_usage(
    cache, open_page, tiny_checkpoint, loaded, monkeypatch
):
    wanted = evaluate(loaded.model, loaded.tokenizer, load_probe("sst2")).score
    monkeypatch.setattr(
        "shrp.evaluation.evaluate.evaluate_stream", lambda *_, **__: pytest.fail("it ran again")
    )
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    assert f"routed {wanted:.1%}, n = 480" in texts_of(at)


@pytest.fixture
def short(monkeypatch):
    """Fits of few steps: how good they are is not asked here."""
    monkeypatch.setattr(select, "WARM_UP", 4)
    monkeypatch.setattr(select, "STEPS", 24)


def test_fitted_gates_bring_their_weights_and_are_fitted_once(cache, page, loaded, monkeypatch, short):
    fits = []
    monkeypatch.setattr(lab, "GateFit", lambda *args, **kw: fits.append(1) or GateFit(*args, **kw))
    page.segmented_control(key="select").set_value("Fitted").run(timeout=120)
    data = load_probe("sst2")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    stats = replace(stats, fitted=GateFit(loaded.model, loaded.tokenizer, data, stats.shares()).finish())
    for budget in (4, 7):
        page.slider(key="budget").set_value(budget).run()
        plan = plan_from(stats, selection="fitted", combination="fitted", budget=budget)
        assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data))
    assert len(fits) == 1
    assert "combine" not in [control.key for control in page.segmented_control]
    assert "their labels only mix the classes" in texts_of(page)


def test_a_fit_that_a_moved_slider_broke_off_goes_on(cache, page, loaded, monkeypatch, short):
    data = load_probe("sst2")
    shares = measure_usage(loaded.model, loaded.tokenizer, data).shares()
    begun = GateFit(loaded.model, loaded.tokenizer, data, shares)
    assert next(iter(begun)) == 1
    key = loaded.fingerprint, data.fingerprint, data.name
    results("running fits", 2).put(key, begun)
    monkeypatch.setattr(lab, "GateFit", lambda *_, **__: pytest.fail("a fit was begun anew"))
    page.segmented_control(key="select").set_value("Fitted").run(timeout=120)
    assert not page.exception
    assert begun.result is not None
    assert results("running fits", 2).get(key) is None
    stats = replace(measure_usage(loaded.model, loaded.tokenizer, data), fitted=begun.result)
    plan = plan_from(stats, selection="fitted", combination="fitted", budget=4)
    assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data))


def test_usage_with_norms_of_the_same_inputs_keeps_each_name(cache, loaded):
    data = load_probe("sst2")
    for name in (data.name, "mine.csv"):
        assert lab.usage_for("Gate × norm", loaded, replace(data, name=name)).data == name


def test_a_link_opens_its_setting(open_page, tiny_checkpoint, loaded):
    at = open_page("pruning_lab", tiny_checkpoint, keep="Per layer", per_layer="4")
    assert_shows(at, *direct(loaded, per_layer=4))


@pytest.mark.parametrize(
    "params",
    [
        {"budget": "9999", "select": "best"},
        {"budget": "x", "curve_cost": "time"},
        {"keep": "none", "select": "Random (control)", "seed": "-5"},
        {"keep": "Per layer", "per_layer": "0", "select": "Random (control)", "seed": "-inf"},
    ],
)
def test_nonsense_in_the_url_falls_back(open_page, tiny_checkpoint, params):
    at = open_page("pruning_lab", tiny_checkpoint, **params)
    assert not at.exception
    assert not at.error
    assert metric(at, "Experts kept").startswith("4 of 8")  # by default half of all
    assert metric(at, "Accuracy").endswith("%")


def test_a_value_that_another_checkpoint_allowed_is_brought_into_range():
    def script():
        import streamlit as st

        from ui.lab.controls import controls

        st.session_state.setdefault("budget", 500)
        st.session_state.setdefault("select", "gone")
        setting = controls(2, 4)
        st.write(f"{setting.number} {setting.selection}")

    at = AppTest.from_function(script, default_timeout=120).run()
    assert not at.exception
    assert at.markdown[-1].value == "8 Usage"


def test_costs_name_their_denominators(page):
    assert "of the dense encoder's" in texts_of(page)
    assert "whole model" in texts_of(page)
    assert metric(page, "Encoder FLOPs").endswith("%")


def test_flips_are_those_of_the_two_evaluations(page, loaded):
    page.slider(key="budget").set_value(2).run()
    _, pruned = direct(loaded, budget=2)
    routed = evaluate(loaded.model, loaded.tokenizer, load_probe("sst2"))
    flipped = int((pruned.predictions != routed.predictions).sum())
    assert 0 < flipped < pruned.n
    assert f"{flipped:,} of {pruned.n:,} predictions flip" in texts_of(page)
    frame = next(d.value for d in page.dataframe if "p pruned" in d.value)
    assert len(frame) == flipped
    data = load_probe("sst2")
    for row in frame.itertuples():
        i = data.texts.index((row.sentence,))
        names = [data.task.label_names[one.predictions[i]] for one in (routed, pruned)]
        assert row[frame.columns.get_loc("routed model → pruned") + 1] == " → ".join(names)
        assert names[0] != names[1]


def test_latency_is_measured_on_demand(page):
    page.button(key="measure-latency").click().run()
    assert not page.exception
    times = page.dataframe[-1].value
    assert set(times["name"]) == {"dense", "routed", "pruned"}
    assert (times["median_ms"] > 0).all()


def test_the_zip_is_a_checkpoint_with_the_measured_score(loaded, tmp_path):
    plan, evaluation = direct(loaded, budget=3)
    archive = zipfile.ZipFile(
        io.BytesIO(
            lab_export.checkpoint_zip(
                loaded, plan, "mine", evaluation, load_probe("sst2"), load_probe("sst2")
            )
        )
    )
    assert all(name.startswith("mine/") for name in archive.namelist())
    archive.extractall(tmp_path)
    again = checkpoints.load(tmp_path / "mine")
    assert again.info.plan == plan
    assert again.info.scores[-1]["score"] == pytest.approx(evaluation.score)
    assert again.info.scores[-1]["constant"] == 0.5
    assert again.info.training["pruned_from"] == loaded.fingerprint
    probe = load_probe("sst2")
    assert again.info.training["chosen_on"] == {
        **{"data": "probe/sst2", "n": 480, "data_fingerprint": probe.fingerprint},
    }
    assert "chosen on probe/sst2 (n = 480)" in card("mine", again)
    scored = evaluate(again.model, again.tokenizer, load_probe("sst2"))
    assert scored.score == pytest.approx(evaluation.score, abs=0.02)  # weights went through float16
    assert checkpoints.load(loaded.path).fingerprint == loaded.fingerprint


def test_what_is_scored_on_a_half_is_told_beside_the_teacher_there(loaded, tiny_model, tmp_path):
    data = load_probe("sst2")
    dense = evaluate(tiny_model(seed=3), loaded.tokenizer, data)
    known = replace(loaded, teacher={data.fingerprint: reference.from_evaluation(dense, "t")})
    _, rows = halves(data)
    half = data.subset(rows)
    plan, _ = direct(loaded, budget=3)
    scored = evaluate(prune(loaded.model, plan), loaded.tokenizer, half)
    lab_export.write_checkpoint(
        tmp_path / "out", with_part(known, data, half, rows), plan, scored, half, data
    )
    row = checkpoints.load(tmp_path / "out").info.scores[-1]
    teacher = (dense.predictions == data.labels)[rows].mean()
    assert row["retained"] == pytest.approx(scored.score / teacher)


def test_a_pruning_is_opened_in_the_session_and_gone_on_with(page, loaded):
    plan, evaluation = direct(loaded, budget=4)
    page.button(key="open-pruned").click().run()
    assert not page.exception
    name = "tiny-static-4 (yours)"
    assert page.selectbox(key="checkpoint").value == "tiny"  # what is picked stays
    assert name in page.selectbox(key="checkpoint").options
    page.button(key="open-pruned").click().run()  # once more takes its own place
    assert [one for one in page.selectbox(key="checkpoint").options if "yours" in one] == [name]
    page.slider(key="budget").set_value(5).run()
    assert "pick-pruned" not in [one.key for one in page.button]  # another pruning is not open yet
    page.slider(key="budget").set_value(4).run()
    page.button(key="pick-pruned").click().run()
    assert not page.exception
    assert page.selectbox(key="checkpoint").value == name
    assert "This checkpoint is pruned already" in texts_of(page)
    assert f"{100 * evaluation.score:.1f}%" in texts_of(page)
    opened = checkpoints.load(page.session_state["own-checkpoints"][name])
    assert opened.info.plan == plan
    assert opened.info.scores[-1]["score"] == pytest.approx(evaluation.score)
    page.button(key=f"own-checkpoint-remove-{name}").click().run()
    assert not page.exception
    assert page.selectbox(key="checkpoint").value == "tiny"
    assert not opened.path.exists()


def test_prunings_that_are_opened_push_out_the_oldest_but_not_what_they_are_made_of(
    open_page, tiny_checkpoint, save_tiny
):
    at = open_page("pruning_lab", tiny_checkpoint)
    upload(at, "zip", "mine.zip", lab_export.zipped(save_tiny("mine"), "mine"))
    for budget in (3, 4, 5):
        at.slider(key="budget").set_value(budget).run()
        at.button(key="open-pruned").click().run()
        assert not at.exception
    yours = [one for one in at.selectbox(key="checkpoint").options if "yours" in one]
    assert at.selectbox(key="checkpoint").value == "mine (yours)"
    assert yours == ["mine (yours)", "mine (yours)-static-4 (yours)", "mine (yours)-static-5 (yours)"]


def test_a_pruning_that_can_not_be_written_is_told_and_leaves_nothing(page, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def full(folder, *rest):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lab_export, "write_checkpoint", full)
    page.button(key="open-pruned").click().run()
    assert not page.exception
    assert "No space left on device" in texts_of(page)
    assert not list((tmp_path / "temporary").iterdir())
    assert [one for one in page.selectbox(key="checkpoint").options if "yours" in one] == []


def test_of_a_plan_from_a_file_it_is_not_known_what_it_was_chosen_on(loaded, tmp_path):
    plan, evaluation = direct(loaded, budget=3)
    given = replace(plan, combination="given weights")
    data = lab_export.checkpoint_zip(
        loaded, given, "mine", evaluation, load_probe("sst2"), load_probe("sst2")
    )
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    mine = checkpoints.load(tmp_path / "mine")
    assert "chosen_on" not in mine.info.training
    assert "given by a plan from a file" in card("mine", mine)
    # By the usage that the checkpoint carries, other data had no part in it.
    data = lab_export.checkpoint_zip(loaded, plan, "other", evaluation, load_probe("sst2"), None)
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    other = checkpoints.load(tmp_path / "other")
    assert "chosen_on" not in other.info.training
    training = dict(other.info.training) | {"validation_data": "glue/sst2 validation"}
    other = replace(other, info=replace(other.info, training=training))
    assert "usage on glue/sst2 validation, of which none of its scores is" in card("other", other)


def test_how_much_of_the_model_is_its_vocabulary_is_told(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, budget="3")
    (said,) = [one.value for one in at.markdown if "are the embeddings of its vocabulary" in one.value]
    assert "trim-vocabulary" not in said  # of words alone, as the tiny tokenizer's is, none can be trimmed
    model = checkpoints.load(tiny_checkpoint).model
    pruned = prune(model, make_plan({1: [1, 0, 0, 0], 2: [1, 1, 0, 0]}, counts={1: 1, 2: 2}))
    share = model.get_input_embeddings().weight.numel() / cost(pruned).model_params
    assert f"parameters {percent(share, 0)} are the embeddings" in said


def test_the_history_of_its_training_goes_along(open_page, save_tiny, tmp_path):
    loaded = checkpoints.load(save_tiny("trained", history=history_text(HISTORY)))
    plan, evaluation = direct(loaded, budget=3)
    data = lab_export.checkpoint_zip(loaded, plan, "mine", evaluation, load_probe("sst2"), load_probe("sst2"))
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    assert checkpoints.read_history(tmp_path / "mine") == checkpoints.read_history(loaded.path)
    at = open_page("overview", tmp_path / "mine")
    assert not at.exception
    assert "No training history" not in texts_of(at)


def test_a_random_plan_that_is_loaded_again_is_taken_home_as_a_control(loaded, tmp_path):
    drawn, evaluation = direct(loaded, budget=3, selection="random", seed=2)
    editor = lab_edits.Editor("tiny", (1, 2), 4)
    editor.edits = NO_EDITS
    editor.to_url = lambda: None  # there is no page
    editor.load("plan.json", lab_export.plan_json(drawn).encode())
    plan, _ = direct(loaded, budget=5, edits=editor.edits)
    assert plan.key() == drawn.key()
    setting = lab.Setting(lab.GLOBAL, 5, edits=editor.edits, edited="edit 1: 3 in all")
    assert setting.is_control  # though usage is picked beside it
    assert setting.text == "edit 1: 3 in all (from 5 in all), random (control), as given"
    data = lab_export.checkpoint_zip(loaded, plan, "mine", evaluation, load_probe("sst2"), load_probe("sst2"))
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    mine = checkpoints.load(tmp_path / "mine")
    assert mine.info.scores[-1]["kind"] == "control"
    assert mine.info.scores[-1]["model"] == "random experts, 3 in all"
    assert "drawn at random, as a control" in card("mine", mine)


def test_what_experts_were_chosen_on_is_told_with_the_score(loaded, tmp_path, open_page):
    plan, evaluation = direct(loaded, budget=3)
    data = lab_export.checkpoint_zip(loaded, plan, "mine", evaluation, load_probe("sst2"), load_probe("sst2"))
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    at = open_page("overview", tmp_path / "mine")
    assert not at.exception
    assert "its experts were chosen on these inputs" in texts_of(at)
    assert "| experts chosen on | probe/sst2, n = 480 |" in texts_of(at)


@pytest.mark.parametrize("edits", [NO_EDITS, PlanEdits(((1, LayerEdit(pinned=(2,))),))])
def test_random_experts_are_taken_home_as_the_control_that_they_are(loaded, tmp_path, open_page, edits):
    plan, evaluation = direct(loaded, budget=3, selection="random", seed=1, edits=edits)
    archive = zipfile.ZipFile(
        io.BytesIO(
            lab_export.checkpoint_zip(
                loaded, plan, "drawn", evaluation, load_probe("sst2"), load_probe("sst2"), seed=1
            )
        )
    )
    archive.extractall(tmp_path)
    found = checkpoints.load(tmp_path / "drawn")
    assert "picked at random (seed 1)" in card("drawn", found)
    assert "chosen_on" not in found.info.training
    assert "drawn at random, as a control" in card("drawn", found)
    row = found.info.scores[-1]
    assert (row["model"], row["kind"]) == ("random experts, 3 in all", "control")
    at = open_page("overview", tmp_path / "drawn")
    assert not at.exception
    assert next(m.value for m in at.metric if m.label == "Accuracy") == f"{evaluation.score:.1%}"
    assert "SHRP, static" not in str(specs(at))


def test_token_routing_prunes_too(open_page, tiny_token_checkpoint):
    at = open_page("pruning_lab", tiny_token_checkpoint, budget="3")
    assert_shows(at, *direct(checkpoints.load(tiny_token_checkpoint), budget=3))


def test_a_static_checkpoint_shows_its_plan(open_page, tiny_static_checkpoint):
    at = open_page("pruning_lab", tiny_static_checkpoint)
    assert not at.exception
    assert "pruned already" in texts_of(at)
    (chart,) = at.get("plotly_chart")
    plan = checkpoints.load(tiny_static_checkpoint).info.plan
    for layer, kept in plan.layers:
        assert f"layer {layer} keeps {', '.join(map(str, kept.experts))}" in chart.proto.alt
    assert not at.slider


def test_shipped_scores_stand_beside_what_is_tried(open_page, save_tiny):
    rows = [
        dict(score, data="probe/sst2", n=480, data_fingerprint=load_probe("sst2").fingerprint)
        for score in SCORES
    ]
    at = open_page("pruning_lab", save_tiny("scored", scores=tuple(rows)))
    assert not at.exception
    names = [trace.get("name") for trace in specs(at)[1]["data"]]
    for name in (
        "dense teacher",
        "routed model",
        "static, stored score",
        "control: random experts",
        "this setting",
    ):
        assert name in names
    assert metric(at, "vs dense teacher").endswith("points")
    assert "not paired, so without an interval of its own<br>teacher 90.0%, n = 480" in texts_of(at)


def test_a_running_estimate_is_not_held_against_a_score_of_all_inputs(
    cache, open_page, save_tiny, monkeypatch
):
    facts = {"data": "probe/sst2", "n": 480, "data_fingerprint": load_probe("sst2").fingerprint}
    seen = []
    metric_of, caption = lab_views.st.metric, lab_views.st.caption
    monkeypatch.setattr(lab_views.st, "metric", lambda *a, **o: (seen.append(a), metric_of(*a, **o)))
    monkeypatch.setattr(lab_views.st, "caption", lambda *a, **o: (seen.append(a), caption(*a, **o)))
    at = open_page("pruning_lab", save_tiny("scored", scores=(SCORES[0] | facts,)), budget=5)
    assert not at.exception
    held = [(said[1], after[0]) for said, after in pairwise(seen) if said[0] == "vs dense teacher"]
    first, *_, last = held
    assert first == ("–", "known once all inputs are evaluated<br>teacher 90.0%, n = 480")
    assert last[0].endswith("points")


def test_an_abandoned_evaluation_leaves_nothing_behind(cache, loaded):
    data = load_probe("sst2")
    plan, evaluation = direct(loaded, budget=6)
    kept, key = results("prunings"), (loaded.fingerprint, data.fingerprint, data.name, plan.key())
    running = lab.stream(loaded, data, plan)
    first = next(running)
    assert 0 < first.n < first.total
    running.close()
    assert kept.get(key) is None
    *_, last = lab.stream(loaded, data, plan)
    assert last.score == pytest.approx(evaluation.score)
    assert kept.get(key) is last
    assert list(lab.stream(loaded, data, plan)) == [last]


def test_as_many_experts_chosen_otherwise_stand_beside_the_score(cache, page, loaded):
    (frame,) = [d.value for d in page.dataframe if lab_beside.CHOSEN in d.value]
    assert list(frame[lab_beside.CHOSEN]) == [
        "random (control), mean of 3 draws"
    ]  # the others want measuring
    _, mine = direct(loaded, budget=4)
    draws = [direct(loaded, budget=4, selection="random", seed=seed)[1].score for seed in range(3)]
    mean = sum(draws) / 3
    assert frame["accuracy"][0] == f"{mean:.1%}"
    assert frame[lab_beside.AHEAD][0] == lab_views.points(mine.score - mean, "accuracy")
    assert lab_beside.verdict(mine, draws) in texts_of(page)
    page.segmented_control(key="select").set_value("Gate × norm").run()
    assert not page.exception
    (frame,) = [d.value for d in page.dataframe if lab_beside.CHOSEN in d.value]
    assert list(frame[lab_beside.CHOSEN]) == ["usage", "random (control), mean of 3 draws"]
    assert frame["accuracy"][0] == f"{mine.score:.1%}"
    assert direct(loaded, budget=4, selection="gate_norm")[0] == replace(
        direct(loaded, budget=4)[0], selection="gate_norm"
    )
    assert frame[lab_beside.AHEAD][0] == lab_beside.SAME
    other = direct(loaded, budget=3)[1]
    ahead, _ = paired_difference(mine, other)
    row = lab_beside._row("Usage", [other], mine)
    assert row[lab_beside.AHEAD].startswith(f"{lab_views.points(ahead, 'accuracy')} (")
    page.slider(key="budget").set_value(8).run()  # all experts are all experts
    assert not [d for d in page.dataframe if lab_beside.CHOSEN in d.value]


def test_random_draws_keep_as_many_in_each_layer_as_the_plan(loaded):
    """Else they would differ by more than which experts they are; and they weigh by what the plan weighs by."""
    data = load_probe("sst2")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    selection = SimpleNamespace(checkpoint=loaded, ranking=data, ranked_on=None)

    def drawn(setting, plan):
        return dict(lab_beside.others(selection, setting, plan))["Random (control)"]

    for counts in ({1: 1, 2: 3}, {1: 3, 2: 1}):  # of which usage itself would give one at the most
        plan = make_plan(stats.shares(), counts=counts)
        setting = replace(lab.Setting(lab.GLOBAL, 4), edited="by hand")
        expected = [
            make_plan(stats.shares(), counts=counts, selection="random", seed=seed) for seed in range(3)
        ]
        assert drawn(setting, plan) == expected
    recorded = {1: np.array([0.1, 0.2, 0.3, 0.4]), 2: np.array([0.4, 0.3, 0.2, 0.1])}
    usage = {str(layer): share.tolist() for layer, share in recorded.items()}
    known = replace(loaded, info=replace(loaded.info, usage=usage))
    selection.checkpoint = known
    setting = lab.Setting(lab.PER_LAYER, 2, selection=lab.RECORDED)
    plan = lab.plan_of(setting, lab.usage_for(lab.RECORDED, known, data))
    assert drawn(setting, plan) == [
        make_plan(recorded, per_layer=2, selection="random", seed=seed) for seed in range(3)
    ]


def test_beside_a_random_plan_stand_the_draws_that_are_not_it(loaded):
    stats = measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))
    selection = SimpleNamespace(checkpoint=loaded, ranking=load_probe("sst2"), ranked_on=load_probe("sst2"))
    for seed, count in (
        (1, 2),
        (99, 3),
    ):  # of a seed beside those that are drawn, as a plan from a file may be
        setting = lab.Setting(lab.GLOBAL, 4, selection="Random (control)", seed=seed)
        plan = lab.plan_of(setting, stats)
        found = dict(lab_beside.others(selection, replace(setting, seed=1), plan))
        assert len(found["Random (control)"]) == count
        assert plan.key() not in [one.key() for one in found["Random (control)"]]


@pytest.mark.parametrize(
    ("draws", "said"),
    [
        ([0.1, 0.2], "above all 2 random draws"),
        ([0.1, 0.9], "above 1 of 2 random draws"),
        ([0.9, 0.8], "None of the 2 random draws scores below this plan"),
        ([], ""),
        ([float("nan"), 0.1], ""),
    ],
)
def test_the_plan_is_said_to_be_above_draws_or_not(draws, said):
    found = lab_beside.verdict(SimpleNamespace(score=0.5), draws)
    assert said in found
    assert bool(found) == bool(said)


def test_a_draw_of_its_own_is_no_other_draw(cache, page):
    page.segmented_control(key="select").set_value("Random (control)").run()
    page.number_input(key="seed").set_value(1).run()
    assert not page.exception
    (frame,) = [d.value for d in page.dataframe if lab_beside.CHOSEN in d.value]
    assert list(frame[lab_beside.CHOSEN]) == ["usage", "random (control), mean of 2 draws"]


def test_half_of_the_data_can_choose_and_the_other_half_score(open_page, tiny_checkpoint, tiny_model, loaded):
    data = load_probe("sst2")
    dense = evaluate(tiny_model(seed=3), loaded.tokenizer, data)
    reference.write(loaded.path, {data.fingerprint: reference.from_evaluation(dense, "t")})
    ranked, scored = halves(data)
    assert sorted([*ranked, *scored]) == list(range(480))
    assert abs(data.labels[ranked].sum() - data.labels[scored].sum()) <= 2
    chosen, held = data.subset(ranked), data.subset(scored)
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, chosen), budget=3)
    expected = evaluate(prune(loaded.model, plan), loaded.tokenizer, held)

    at = open_page("pruning_lab", tiny_checkpoint, hold_out="true", budget=3)
    assert_shows(at, plan, expected)
    said = texts_of(at)
    assert "evaluated on **probe/sst2, other half** (n = 240)" in said
    assert "the experts are chosen on **probe/sst2, half** (n = 240)" in said
    _, everything = direct(loaded, budget=3)
    assert everything.score != expected.score
    teacher = (dense.predictions == data.labels)[scored].mean()
    assert f"teacher {teacher:.1%}, n = 240" in said
    at.toggle(key="hold_out").set_value(False).run()
    assert_shows(at, *direct(loaded, budget=3))


def test_what_the_threshold_costs_is_said_and_can_be_mended(
    open_page, tiny_checkpoint, loaded, tmp_path, monkeypatch
):
    at = open_page("pruning_lab", tiny_checkpoint, budget=3)
    data = load_probe("sst2")
    plan, pruned = direct(loaded, budget=3)
    routed = evaluate(loaded.model, loaded.tokenizer, data)
    shift = matching_shift(pruned.logits, routed.logits)
    moved = shifted(pruned, data, shift)
    said = texts_of(at)
    ours, theirs = (answer_shares(one.logits)[1] for one in (pruned, routed))
    assert f"predicts *positive* for {ours:.1%} of the inputs, the routed model for {theirs:.1%}" in said
    assert f"as frequent as in the routed model): accuracy {moved.score:.1%} (95% interval" in said
    areas = re.search(r"free of any threshold: (\S+), routed (\d\.\d+)", said).groups()
    expected = [ranking(one.labels, one.logits) for one in (pruned, routed)]
    assert [float(area) for area in areas] == pytest.approx(
        expected, abs=0.005
    )  # noise decides between equals
    (frame,) = [d.value for d in at.dataframe if lab_beside.CHOSEN in d.value]
    assert frame[lab_beside.MATCHED].str.fullmatch(r"\d+\.\d%").all()
    files = zipfile.ZipFile(
        io.BytesIO(lab_export.checkpoint_zip(loaded, plan, "mine", moved, data, data, shift))
    )
    files.extractall(tmp_path)
    saved = checkpoints.load(tmp_path / "mine")
    again = evaluate(saved.model, saved.tokenizer, data)
    assert again.score == pytest.approx(moved.score, abs=2 / 480)  # float16
    (row,) = [one for one in saved.info.scores if one["kind"] == "static"]
    assert (row["model"], row["score"]) == ("static, 3 in all, shares matched", moved.score)
    assert saved.info.training["shares_matched"]["n"] == 480
    at.checkbox(key="match_shares").check().run()
    assert not at.exception
    built = []
    monkeypatch.setattr(
        lab_onnx,
        "build",
        lambda _, plan, name, shift, **__: built.append((name, shift)) or lab_onnx.OnnxExport(b"", REPORT),
    )
    at.button(key="build-onnx-float32").click().run()
    assert not at.exception
    ((name, used),) = built
    assert name == "tiny-static-3-matched-onnx-float32"
    assert used == pytest.approx(shift)


def test_few_inputs_are_not_halved(open_page, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(lab_split, "FEWEST", 481)
    at = open_page("pruning_lab", tiny_checkpoint, hold_out="true")
    assert not at.exception
    assert at.toggle(key="hold_out").disabled
    assert "evaluated on **probe/sst2** (n = 480)" in texts_of(at)


ONE_LAYER = ((1, LayerEdit(1, (0,), (), (1.0,))),)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({}, "**d** (n = 9), on which the experts are chosen too."),
        ({"selection": "Recorded usage"}, "chosen by is the checkpoint's own, of **v**."),
        (
            {"selection": "Random (control)"},
            "random; their weights and the layers' parts of the budget follow usage, counted on **d** (n = 9).",
        ),
        (
            {"selection": "Random (control)", "allocation": PER_LAYER},
            "drawn at random; their weights follow usage, counted on **d** (n = 9).",
        ),
        (
            {"selection": "Random (control)", "allocation": PER_LAYER, "combination": "Plain mean"},
            "the experts are drawn at random.",
        ),
        ({"edits": PlanEdits(ONE_LAYER), "whole": True}, "those of a plan from a file."),
        (
            {"edits": PlanEdits(ONE_LAYER, "random"), "whole": True},
            "drawn at random, by a plan from a file.",
        ),
        ({"edits": PlanEdits(ONE_LAYER, "usage")}, "a plan from a file, but for what is changed here."),
        (
            {"edits": PlanEdits(ONE_LAYER, "usage"), "selection": "Recorded usage"},
            "a plan from a file, but for what is changed here.",
        ),
        (
            {"edits": PlanEdits(ONE_LAYER, "usage"), "selection": "Random (control)"},
            "but for what is changed here, some of them drawn at random.",
        ),
    ],
)
def test_what_the_experts_are_chosen_by_is_told(setting, said):
    training = {"validation_data": "v"}
    selection = SimpleNamespace(
        data=TextData(TASKS["sst2"], "d", (("w",),) * 9),
        ranked_on=None,
        checkpoint=SimpleNamespace(info=SimpleNamespace(training=training)),
    )
    told = lab_split.introduction(selection, Setting(**{"allocation": GLOBAL, "number": 3} | setting))
    assert told.endswith(said)
