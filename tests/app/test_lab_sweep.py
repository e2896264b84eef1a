import re

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.delta_generator import DeltaGenerator

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation.calibration import matching_shift, shifted
from shrp.evaluation.evaluate import evaluate
from shrp.model.convert import expert_layers
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.prune import prune
from shrp.pruning.sweep import budgets
from shrp.results_store import ROUTED, ResultsStore
from tests.app.helpers import forget, specs, texts_of
from ui import measurements
from ui.lab import beside as lab_beside
from ui.lab import sweep as lab_sweep
from ui.lab import work as lab
from ui.lab.sides import FIRST
from ui.lab.work import GLOBAL, PER_LAYER, Setting
from ui.text import score_text


@pytest.fixture
def loaded(tiny_checkpoint):
    return checkpoints.load(tiny_checkpoint)


@pytest.fixture
def stats(loaded):
    return measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))


@pytest.fixture
def page(cache, open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    return at


def tried(at):
    return next(iter(at.session_state["lab-tried"].values()))


def scores(at):
    """A random draw may be a plan that is known already, so controls don't count."""
    return {k: (a.score, a.interval, a.n) for k, a in tried(at).items() if not a.setting.is_control}


def table(at):
    return next(frame.value for frame in at.dataframe if "#" in frame.value)


def curve(at):
    return next(s for s in specs(at) if "against cost" in s["layout"]["title"]["text"])


class Interrupted(Exception):  # stands for Streamlit's, which is no error either
    pass


@pytest.mark.parametrize(
    ("layers", "experts", "count", "step"), [(6, 12, 67, 1), (11, 12, 62, 2), (2, 4, 7, 1), (1, 1, 1, None)]
)
def test_budgets_go_from_one_a_layer_to_all_in_a_bounded_number(layers, experts, count, step):
    grid = budgets(layers, experts)
    assert (grid[0], grid[-1], len(grid)) == (layers, layers * experts, count)
    assert grid == sorted(set(grid))
    if step:
        assert set(np.diff(grid)[:-1]) <= {step}
        assert ("in steps of" in (said := lab_sweep.describe(layers, experts))) == (step > 1)
        assert step == 1 or f"in steps of {step}" in said


def test_a_sweep_gives_the_scores_of_rebuilt_models(page, loaded):
    page.button(key="sweep").click().run()
    assert not page.exception
    assert not page.get("progress")
    compared = page.selectbox(key=FIRST).options  # those that the sweep scored just now are among them
    assert len(compared) >= 9
    done = tried(page)
    by_budget = {a.plan.budget: a for a in done.values() if a.setting.allocation == GLOBAL}
    assert set(by_budget) == set(range(2, 9))
    assert {a.setting.number for a in done.values() if a.setting.allocation == PER_LAYER} == {1, 2, 3, 4}
    for budget in (2, 5, 8):
        one = by_budget[budget]
        expected = evaluate(prune(loaded.model, one.plan), loaded.tokenizer, load_probe("sst2"))
        assert one.score == pytest.approx(expected.score)
        assert one.interval == pytest.approx(expected.interval)
        assert one.n == expected.n == 480


def test_pareto_best_points_are_named_in_table_chart_and_words(page):
    page.button(key="sweep").click().run()
    attempts = [a for a in tried(page).values() if not a.setting.is_control]
    best = []
    for a in attempts:
        costs = (a.cost.encoder_flops, -a.score)
        others = [(b.cost.encoder_flops, -b.score) for b in attempts]
        if not any(o[0] <= costs[0] and o[1] <= costs[1] and o != costs for o in others):
            best.append(a)
    shown = table(page)
    names = " = ".join(shown["setting"])
    assert {a.plan.key() for a in best} == {a.plan.key() for a in attempts if a.setting.text in names}
    assert len(shown) == len({a.plan.key() for a in best})
    assert list(shown["#"]) == list(range(1, len(shown) + 1))
    costs = shown["FLOPs, encoder / model"].str.partition("%")[0].astype(float)
    assert costs.is_monotonic_increasing
    assert set(shown["n"]) == {attempts[0].n}
    ring = next(trace for trace in curve(page)["data"] if trace["name"] == "Pareto-best")
    assert ring["text"] == [f"#{i}" for i in shown["#"]]
    chart = next(c for c in page.get("plotly_chart") if "against cost" in c.proto.spec)
    alt = chart.proto.alt
    for setting in shown["setting"]:
        assert setting in alt
    assert "no other one has at least this accuracy" in texts_of(page)


def test_the_curve_has_words_while_a_sweep_runs_too(cache, page, monkeypatch):
    drawn, draw = [], DeltaGenerator.plotly_chart
    monkeypatch.setattr(
        DeltaGenerator,
        "plotly_chart",
        lambda place, fig, **options: (drawn.append(options), draw(place, fig, **options)),
    )
    page.button(key="sweep").click().run()
    assert not page.exception
    live = [options["alt"] for options in drawn if options["key"].startswith("sweep-")]
    assert live
    assert all(alt.startswith("Scatter of score against cost") for alt in live)


def test_moving_a_control_leaves_what_is_done_and_starts_nothing(page, monkeypatch):
    """The run that a moved slider ends is mid-sweep; Streamlit ends it where it next draws."""
    from streamlit.runtime.scriptrunner_utils.exceptions import StopException

    real, evaluated, closed = LiveEvaluator.sweep, [], []

    def interrupted(self, plans, pause=lambda: None):
        try:
            for found in real(self, plans, pause):
                evaluated.append(found)
                yield found
                if len(evaluated) == 3:
                    raise StopException
        finally:
            closed.append(True)

    monkeypatch.setattr(lab_beside, "section", lambda *_: None)  # which sweeps over its own draws
    monkeypatch.setattr(LiveEvaluator, "sweep", interrupted)
    before = len(tried(page))
    page.button(key="sweep").click().run()
    assert not page.exception
    assert closed == [True]
    assert len(tried(page)) >= before + 3
    page.slider(key="budget").set_value(6).run()
    assert not page.exception
    assert len(evaluated) == 3  # nothing was queued
    assert not page.get("progress")
    assert "Pareto-best" in {trace["name"] for trace in curve(page)["data"]}


def test_pausing_ends_a_sweep_within_a_batch(cache, loaded, stats):
    """`pause` is where Streamlit ends a run: no plan is finished after it, and no batch either."""
    data = load_probe("sst2")
    wanted = lab_sweep.points(Setting(GLOBAL, 2), stats)
    batches = len(measurements.live_evaluator(loaded, data).batches)
    assert batches > 2
    calls = []

    def moved(progress):
        calls.append(progress)
        if len(calls) == batches + 2:  # in the middle of the second plan
            raise Interrupted

    seen = []
    with pytest.raises(Interrupted):
        seen.extend(lab_sweep.run(loaded, data, wanted, moved))
    assert len(calls) == batches + 2
    kept = [plan for _, plan in wanted if lab.recall(loaded, data, plan) is not None]
    assert len({plan.key() for plan in kept}) == 1
    assert len(list(cache.glob("*"))) == 1


def test_a_superseded_evaluation_stops_its_generator(cache, loaded, stats, monkeypatch):
    data = load_probe("sst2")
    real, log = LiveEvaluator.stream, []

    def logged(self, plan):
        try:
            for estimate in real(self, plan):
                log.append(estimate.n)
                yield estimate
        finally:
            log.append("closed")

    monkeypatch.setattr(LiveEvaluator, "stream", logged)
    plan = lab.plan_of(Setting(GLOBAL, 3), stats)

    def drawn(estimate):
        """As a moved slider does, where the page draws the first estimate."""
        assert not estimate.complete
        raise Interrupted

    with pytest.raises(Interrupted):
        drawn(next(iter(lab.stream(loaded, data, plan))))
    assert log[1:] == ["closed"]
    assert lab.recall(loaded, data, plan) is None


def test_reopening_computes_nothing(page, open_page, tiny_checkpoint, monkeypatch):
    page.button(key="sweep").click().run()
    before = scores(page)
    forget()

    def refuse(*args, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr("shrp.pruning.live.LiveEvaluator", refuse)
    monkeypatch.setattr("shrp.analysis.usage.measure_usage", refuse)
    monkeypatch.setattr("shrp.evaluation.evaluate.evaluate_stream", refuse)
    again = open_page("pruning_lab", tiny_checkpoint)
    assert not again.exception
    assert scores(again) == before
    assert table(again).equals(table(page))


def test_results_cut_short_on_disk_are_computed_again(page, open_page, cache, tiny_checkpoint):
    score = page.metric[0].value
    for file in cache.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    forget()
    again = open_page("pruning_lab", tiny_checkpoint)
    assert not again.exception
    assert again.metric[0].value == score
    data, loaded = load_probe("sst2"), checkpoints.load(tiny_checkpoint)
    assert ResultsStore(cache.parent).evaluation(loaded.fingerprint, data, ROUTED) is not None  # written anew


def test_a_folder_that_cannot_be_written_is_said_and_breaks_nothing(
    monkeypatch, tmp_path, open_page, tiny_checkpoint
):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SHRP_CACHE", str(blocked))
    forget()
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    assert "not kept on disk" in texts_of(at)
    at.button(key="sweep").click().run()
    assert not at.exception
    assert len(scores(at)) == 11


def test_the_curve_can_leave_the_threshold_out(page, loaded):
    page.button(key="sweep").click().run()
    data, routed = load_probe("sst2"), evaluate(loaded.model, loaded.tokenizer, load_probe("sst2"))
    plain = {row.setting: row.accuracy for row in table(page).itertuples()}
    page.checkbox(key="sweep_matched").check().run()
    assert not page.exception
    assert "Scores are with matched answer shares" in texts_of(page)
    assert "answer shares matched; scores stored" in curve(page)["layout"]["title"]["subtitle"]["text"]
    shown = table(page)
    assert {row.setting: row.accuracy for row in shown.itertuples()} != plain
    plans = {a.setting.text: a.plan for a in tried(page).values()}
    for row in shown.itertuples():
        plan = plans[re.sub(r" = [^,]*", "", row.setting)]  # of settings that are one plan, the first
        found = lab.recall(loaded, data, plan)
        moved = shifted(found, data, matching_shift(found.logits, routed.logits))
        assert row.accuracy == score_text(moved.score, "accuracy")


def test_random_controls_come_as_mean_and_range(page):
    page.checkbox(key="sweep_controls").check().run()
    page.button(key="sweep").click().run()
    assert not page.exception
    drawn = [a for a in tried(page).values() if a.setting.is_control]
    assert {(a.setting.number, a.setting.seed) for a in drawn} == {
        (m, seed) for m in (1, 2, 3) for seed in lab_sweep.DRAWS
    }
    trace = next(t for t in curve(page)["data"] if t["name"].startswith("random control drawn here"))
    ones = [a.score for a in drawn if a.setting.number == 1]
    assert trace["customdata"][0][0].endswith("mean and range of 3 draws")
    assert f"{100 * min(ones):.1f}–{100 * max(ones):.1f}%" == trace["customdata"][0][1]
    assert not any("random" in name for name in table(page)["setting"])


def test_cost_choice_moves_the_axis_and_the_pareto_table(page):
    page.button(key="sweep").click().run()
    assert curve(page)["layout"]["xaxis"]["title"]["text"].startswith("encoder FLOPs")
    page.segmented_control(key="curve_of").set_value("Whole model").run()
    page.segmented_control(key="curve_cost").set_value("Parameters").run()
    assert not page.exception
    assert curve(page)["layout"]["xaxis"]["title"]["text"].startswith("whole-model parameters")
    assert "at no more model parameters" in texts_of(page)


def test_two_stores_of_one_folder_share_their_results(cache, loaded, stats):
    data, plan = load_probe("sst2"), lab.plan_of(Setting(PER_LAYER, 1), stats)
    *_, last = lab.stream(loaded, data, plan)
    other = ResultsStore(cache.parent).evaluation(loaded.fingerprint, data, plan.key())
    assert other.score == last.score
    pd.testing.assert_frame_equal(other.to_frame(), last.to_frame())


def test_a_pareto_best_setting_is_taken_by_its_button(page, loaded):
    page.button(key="sweep").click().run()
    best = table(page)
    last = best.iloc[-1]
    page.button(key=f"use-{last['#']}").click().run()
    assert not page.exception
    head = last["setting"].split(" = ")[0].split(",")[0]  # `4 a layer`, or `3 in all`
    number, unit = head.split(" ", 1)
    assert page.segmented_control(key="keep").value == (PER_LAYER if unit == "a layer" else GLOBAL)
    assert page.slider(key="per_layer" if unit == "a layer" else "budget").value == int(number)
    assert page.segmented_control(key="select").value == "Usage"


def test_nothing_is_taken_where_edits_by_hand_would_be_laid_over_it(open_page, tiny_checkpoint):
    """Also edits that change nothing at this setting, as an expert that is pinned where all are kept."""
    at = open_page("pruning_lab", tiny_checkpoint, keep=PER_LAYER, per_layer=4, plan="2p1")
    at.button(key="sweep").click().run()
    assert not at.exception
    assert len(table(at)) > 1
    assert not [button for button in at.button if str(button.key).startswith("use-")]


def test_a_plan_whose_outputs_are_no_numbers_ends_a_sweep_in_words(cache, open_page, save_tiny):
    folder = save_tiny("whole")
    loaded = checkpoints.load(folder)
    layer = expert_layers(loaded.model)[1]
    with torch.no_grad():
        layer.qkv_weight[0] = float("nan")  # of an expert that no router takes, but a random draw does
        layer.router.dense.bias[0] = -1e4
    checkpoints.save(loaded.model, loaded.tokenizer, loaded.info, folder.parent / "spoilt")
    at = open_page("pruning_lab", folder.parent / "spoilt", sweep_controls="true")
    assert not at.error
    at.button(key="sweep").click().run()
    assert not at.exception
    assert any("not all finite numbers" in error.value for error in at.error)
    assert not at.get("progress")
    assert curve(at)  # with what was scored before


def test_a_control_that_is_the_same_plan_is_not_taken_in_its_place(page, loaded):
    page.segmented_control(key="select").set_value("Random (control)").run()
    page.slider(key="budget").set_value(8).run()  # all experts, however they are drawn
    page.segmented_control(key="select").set_value("Usage").run()
    page.button(key="sweep").click().run()
    for number in table(page)["#"]:
        page.button(key=f"use-{number}").click().run()
        assert page.segmented_control(key="select").value == "Usage"
