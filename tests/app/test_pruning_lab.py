"""The pruning lab on tiny checkpoints, against figures made without it."""

import gc
import io
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import StopException

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.checkpoints.info import usage_in
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation import calibration
from shrp.evaluation.calibration import answer_shares
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.paired import flip_table, paired_difference
from shrp.pruning import select
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from shrp.pruning.sweep import budgets, random_control
from tests.app.helpers import HISTORY, figure, forget, plainly, row, specs, texts_of, values
from ui import data_sources, differences, prunings
from ui.lab import save as lab_save
from ui.lab import selections as lab_selections
from ui.lab import verdict as lab_verdict
from ui.lab import view
from ui.text import percent, points, points_interval, score_text

SST2 = load_probe("sst2")


def scored(loaded, plan):
    """The library's own evaluation of a pruning."""
    return evaluate(prune(loaded.model, plan), loaded.tokenizer, SST2)


@pytest.fixture
def pruned_by(loaded, stats):
    """`pruned_by(**options)`: the same of the plan with these options."""
    return lambda **options: scored(loaded, plan_from(stats, **options))


@pytest.fixture
def routed(loaded):
    return evaluate(loaded.model, loaded.tokenizer, SST2)


@pytest.fixture
def page(open_page, tiny_checkpoint, cache):
    return lambda **params: open_page("pruning_lab", tiny_checkpoint, **{"budget": 3} | params)


@pytest.fixture
def sent(monkeypatch):
    """Kind and text, of a table its data, of all that pages send to the browser, in order."""
    found, enqueue = [], DeltaGenerator._enqueue

    def noting(self, kind, proto, *args, **options):
        found.append((kind, str(proto.arrow_data) if kind == "table" else getattr(proto, "body", "")))
        return enqueue(self, kind, proto, *args, **options)

    monkeypatch.setattr(DeltaGenerator, "_enqueue", noting)
    return found


def verdict(at):
    """The page's headline."""
    (said,) = (one.value for one in at.markdown if "experts" in one.value and "of 8" in one.value)
    return said.replace("**", "").replace("\\", "")


def changed(at):
    """The table of changed predictions."""
    return next(frame.value for frame in at.dataframe if "p pruned" in frame.value)


def now(at):
    """The current point of the curve: cost, score."""
    (trace,) = (t for t in figure(at, "by cost")["data"] if t.get("name", "").startswith("now"))
    return values(trace["x"])[0], values(trace["y"])[0]


def runs_in_memory():
    gc.collect()
    return sum(type(one) is view.Lab for one in gc.get_objects())


def test_the_verdict_follows_the_slider_with_the_paired_difference_from_the_routed_model(page, pruned_by, routed):
    at = page(budget=6)
    before = runs_in_memory()
    for budget in (3, 2, 5):
        at.slider(key="budget").set_value(budget).run()
        found = pruned_by(budget=budget)
        change, bounds = paired_difference(found, routed)
        assert verdict(at).startswith(f"{budget} of 8 experts: ")
        assert differences.below_or_above(change, "accuracy", "the routed model") in verdict(at)
        assert f"(95% CI {points_interval(bounds, 'accuracy')})" in verdict(at)
        assert now(at)[1] == pytest.approx(100 * found.score)
    assert runs_in_memory() <= before


@pytest.mark.parametrize("tab", [view.KEPT, view.LOST])
def test_nothing_stale_is_left_while_the_model_runs(page, monkeypatch, sent, tab):
    """What is on the page when the first batch runs: the new count and costs, no score, the rest grey."""
    at = page(lab_tab=tab)
    tables = [shown for shown in sent if shown[0] == "table"]
    seen, stream = [], LiveEvaluator.stream

    def watched(self, plan):
        seen.append(list(sent))
        yield from stream(self, plan)

    monkeypatch.setattr(LiveEvaluator, "stream", watched)
    sent.clear()
    at.slider(key="budget").set_value(7).run()
    (before,) = seen
    texts = [text for kind, text in before if kind == "markdown"]
    assert any("7 of 8 experts: estimating" in text for text in texts)
    assert [shown for shown in before if shown[0] == "table" and shown not in tables]  # the costs
    assert any("opacity: 0" in text and "lab-needs-score" in text for text in texts)
    assert not any("the routed model" in text for text in texts)
    # The curve is grey, not blank, until it is drawn again; so are all tabs that need the model.
    assert [kind for kind, _ in before].count("plotly_chart") == (tab == view.KEPT)
    assert not any("opacity: 0" in one.value for one in at.markdown)


def test_estimates_come_first_and_say_so(page, monkeypatch, sent):
    monkeypatch.setattr(view, "REDRAW", 0.0)
    page()
    sent.clear()
    at = page(budget=4)
    assert "Estimate from 64 of 480 examples" in next(text for _, text in sent if "Estimate" in text)
    assert "Estimate" not in verdict(at)


def test_other_controls_count(page, pruned_by, loaded):
    at = page()
    at.selectbox(key="keep").set_value("per_layer").run()
    at.slider(key="per_layer").set_value(3).run()
    assert now(at)[1] == pytest.approx(100 * pruned_by(per_layer=3).score)
    at.selectbox(key="select").set_value("gate_norm").run()
    norms = measure_usage(loaded.model, loaded.tokenizer, SST2, output_norms=True)
    plan = plan_from(norms, selection="gate_norm", per_layer=3)
    assert now(at)[1] == pytest.approx(100 * scored(loaded, plan).score)


def test_recorded_usage_is_that_of_the_checkpoint(open_page, save_tiny, page):
    usage = {"1": [0.1, 0.6, 0.2, 0.1], "2": [0.3, 0.1, 0.5, 0.1]}
    folder = save_tiny("recorded", usage=usage)
    at = open_page("pruning_lab", folder, budget=3, select="Recorded usage")
    loaded = checkpoints.load(folder)
    plan = make_plan(usage_in(loaded.info), budget=3)
    assert now(at)[1] == pytest.approx(100 * scored(loaded, plan).score)
    at = page(select="Recorded usage")  # which stores none
    assert at.error


def test_fitted_gates_are_fitted_once(cache, page, monkeypatch):
    monkeypatch.setattr(select, "STEPS", 24)
    at = page(select="Fitted gates")
    assert "Chosen by: fitted gates" in [one.proto.popover.label for one in at.get("popover")]
    monkeypatch.setattr(prunings, "GateFit", lambda *_, **__: pytest.fail("it is fitted again"))
    at.slider(key="budget").set_value(5).run()
    forget()  # as a restart does; the disk has it
    at.run()


@pytest.mark.parametrize(
    "asked", [{"budget": "9999"}, {"budget": "few", "select": "best", "keep": "<b>"}], ids=str
)
def test_a_value_that_the_address_asks_for_in_vain_is_said(page, asked):
    at = page(**asked)

    def said():
        warnings = [one.value.replace("\\", "") for one in at.main.warning]
        return [sum(f"**{value}**" in text for text in warnings) for value in asked.values()]

    assert said() == [1] * len(asked)
    at.run()
    assert said() == [1] * len(asked)
    at.slider(key="budget").set_value(6).run()
    at.selectbox(key="select").set_value("random").run()
    at.selectbox(key="keep").set_value("per_layer").run()
    assert not any(said())


def test_a_sweep_fills_the_curve_and_names_the_smallest_plan(page, pruned_by, routed, stats):
    at = page()
    assert len(values(figure(at, "by cost")["data"][0]["x"])) == 1
    at.toggle(key="sweep").set_value(True).run()
    expected = [pruned_by(budget=number) for number in budgets(2, 4)]
    (line,) = (t for t in figure(at, "by cost")["data"] if t.get("name") == "pruned, usage")
    np.testing.assert_allclose(values(line["y"]), [100 * one.score for one in expected])
    known = [(plan_from(stats, budget=number), one) for number, one in zip(budgets(2, 4), expected)]
    assert lab_verdict.smallest_text(known, len(known), routed, SST2, ()) in texts_of(at)


def test_next_to_the_smallest_plan_stands_what_such_plans_score_on_other_data(routed, stats):
    plan = plan_from(stats, budget=2)
    sizes = ((1, 0.6), (2, 0.8), (4, 0.9))
    rows = [row("pruned", "static", score, budget=budget) for budget, score in sizes]
    rows += [row("tuned", "static", 0.85, budget=2, recovered=True), row("routed", "routed", 0.95)]
    rows += [one | {"data": SST2.name, "score": 0.7} for one in rows]
    near = replace(routed, metrics=dict.fromkeys(routed.metrics, 1.0))
    said = lab_verdict.smallest_text([(plan, near)], 1, routed, SST2, rows)
    change, bounds = paired_difference(near, routed)
    numbers = points(change, "accuracy").removesuffix(" points"), points_interval(bounds, "accuracy")
    assert all(part in said for part in (*numbers, "2 experts", "80.0%", "95.0%"))
    assert not any(score in said for score in ("60.0%", "90.0%", "85.0%", "70.0%"))


def test_a_reload_goes_on_with_a_sweep_and_another_page_loses_nothing(page, monkeypatch):
    """A sweep that is broken off after two plans: what is left alone is evaluated later, in another session."""
    sweep, done = LiveEvaluator.sweep, []

    def broken(self, plans, pause=lambda: None):
        for i, pair in enumerate(sweep(self, plans, pause)):
            done.append(pair[0].key())
            yield pair
            if i == 1:
                raise StopException  # as Streamlit ends a run

    at = page()
    with monkeypatch.context() as patch:
        patch.setattr(LiveEvaluator, "sweep", broken)
        at.toggle(key="sweep").set_value(True).run()
    assert len(done) == 2

    def rest(self, plans, pause=lambda: None):
        done.extend(plan.key() for plan in plans)
        yield from sweep(self, plans, pause)

    monkeypatch.setattr(LiveEvaluator, "sweep", rest)
    other = page(sweep="true")  # its address is all that it has
    assert len(done) == len(set(done)) >= len(budgets(2, 4)) - 1
    (line,) = (t for t in figure(other, "by cost")["data"] if t.get("name") == "pruned, usage")
    assert len(values(line["x"])) == len(budgets(2, 4))


def test_a_click_on_the_curve_sets_the_slider(monkeypatch):
    clicked = {"selection": {"points": [{"customdata": [6]}]}}
    monkeypatch.setattr(view.st, "session_state", {"curve-1": clicked})
    view._take("curve-1", "budget", 2)
    assert view.st.session_state["budget"] == 6
    assert view.st.session_state["keep"] == "budget"


def test_what_is_lost_and_changed_is_that_of_the_two_evaluations(page, pruned_by, routed):
    found = pruned_by(budget=3)
    at = page(lab_tab=view.CHANGED)
    expected = flip_table(routed, found, SST2)
    for column in ("sentence", "direction"):
        assert changed(at)[column].tolist() == expected[column].tolist()
    at = page(lab_tab=view.LOST)
    groups = differences.by_group(routed, found, "slice")
    spec = figure(at, "by slice")
    changes = np.concatenate([values(t["x"]) for t in spec["data"] if t["name"].startswith("change")])
    np.testing.assert_allclose(np.sort(changes), np.sort(100 * groups["change"]), atol=1e-6)


def test_the_dense_teacher_is_compared_where_it_is_known(open_page, tiny_checkpoint, loaded, tiny_model, pruned_by):
    dense = evaluate(tiny_model(seed=3), loaded.tokenizer, SST2)
    reference.write(tiny_checkpoint, {SST2.fingerprint: reference.from_evaluation(dense, "t")})
    at = open_page("pruning_lab", tiny_checkpoint, budget=3, lab_tab=view.CHANGED, against="dense teacher")
    found = pruned_by(budget=3)
    gap = differences.below_or_above(found.score - dense.score, "accuracy", "the dense one")
    assert gap.replace(" points", "") in verdict(at)
    assert f"({points_interval(paired_difference(found, dense)[1], 'accuracy')})" in verdict(at)
    assert len(changed(at)) == len(flip_table(dense, found, SST2))


def test_selections_of_the_same_size_are_compared(page, pruned_by, stats, loaded, monkeypatch):
    monkeypatch.setattr(select, "STEPS", 24)
    at = page(lab_tab=view.COMPARED, all_selections="true")
    table = next(frame.value for frame in at.dataframe if "selection" in frame.value)
    scores = dict(zip(table["selection"], table["accuracy"], strict=True))
    plan = plan_from(stats, budget=3)
    drawn = [random_control(plan, stats.shares(), seed=seed) for seed in lab_selections.DRAWS]
    found = [scored(loaded, one).score for one in drawn]
    assert scores["Usage (now)"] == score_text(pruned_by(budget=3).score, "accuracy")
    assert scores["Random (control), mean of 3"] == score_text(float(np.mean(found)), "accuracy")
    assert {"Ablation", "Fitted gates", "Gate × norm"} <= set(table["selection"])


@pytest.mark.parametrize(
    ("draws", "better"), [([0.1, 0.2, 0.3], True), ([0.1, 0.2, 0.9], False), ([0.9, 0.9, 0.9], False)]
)
def test_better_than_chance_is_better_than_all_draws(draws, better):
    said = lab_selections.against_draws(SimpleNamespace(score=0.5), draws)
    assert f"{sum(one < 0.5 for one in draws)} of 3" in said
    assert ("not better" not in said) is better
    assert not lab_selections.against_draws(SimpleNamespace(score=0.5), [])


def test_the_threshold_is_calibrated_to_the_routed_model_and_both_models_confidence_is_told(page, pruned_by, routed):
    at = page(lab_tab=view.THRESHOLD)
    found = differences.matched(pruned_by(budget=3), routed, SST2)
    np.testing.assert_allclose(answer_shares(found.logits), answer_shares(routed.logits), atol=0.02)
    assert score_text(found.score, "accuracy") in plainly(at)
    for trace, one in zip(figure(at, "confident")["data"][1:], (routed, pruned_by(budget=3)), strict=True):
        error, frame = calibration.ece(one), calibration.reliability(one)
        numbers = percent(error.value), percent(error.by_chance), score_text(calibration.brier(one), "brier")
        assert all(number in plainly(at) for number in numbers)
        np.testing.assert_allclose(values(trace["x"]), 100 * frame["confidence"], rtol=1e-4)
        np.testing.assert_allclose(values(trace["y"]), 100 * frame["accuracy"])


def test_most_of_a_loss_is_the_threshold_only_where_much_comes_back():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(480, 2)).astype(np.float32)
    labels = logits.argmax(1)
    data = TextData(TASKS["sst2"], "made", tuple((f"{i}",) for i in range(480)), labels)
    routed = summarise(data, np.arange(480), logits, True)
    moved = summarise(data, np.arange(480), logits + np.float32([1.5, 0]), True)
    noise = summarise(data, np.arange(480), rng.normal(size=(480, 2)).astype(np.float32), True)
    for other, most in ((moved, True), (noise, False), (routed, False)):
        found = differences.matched(other, routed, data)
        assert differences.most_is_the_threshold(found, other, routed) is most


def test_data_without_labels_have_no_score(open_page, tiny_checkpoint, monkeypatch):
    bare = TextData(TASKS["sst2"], "my sentences", SST2.texts[:80])
    monkeypatch.setattr(data_sources, "load_dataset", lambda source, task: bare)
    at = open_page("pruning_lab", tiny_checkpoint, budget=2)
    for tab in view.TABS:
        at.session_state[view.TAB] = tab
        at.run()
        assert not at.error
    assert "80 examples" in plainly(at)


def test_a_pruned_checkpoint_shows_its_plan_and_leads_on(open_page, tiny_static_checkpoint, save_tiny):
    save_tiny("routed")
    save_tiny("of-another-task", task="cola")
    at = open_page("pruning_lab", tiny_static_checkpoint)
    assert [one.key for one in at.button if one.key.startswith("prune-")] == ["prune-routed"]
    (spec,) = specs(at)
    weights = values(spec["data"][1]["z"])
    assert np.isfinite(weights).sum() == 3
    at.button(key="prune-routed").click().run()
    assert at.selectbox(key="checkpoint").value == "routed"
    assert at.slider(key="budget").value == 4


def test_outputs_that_are_no_numbers_are_told_in_words(open_page, save_tiny):
    folder = save_tiny("broken")
    loaded = checkpoints.load(folder)
    with np.errstate(all="ignore"):
        loaded.model.classifier.weight.data.fill_(float("nan"))
        checkpoints.save(loaded.model, loaded.tokenizer, loaded.info, folder.parent / "nan")
    at = open_page("pruning_lab", folder.parent / "nan", budget=3)
    assert at.error
    assert not any("estimating" in one.value for one in at.markdown)


# Save


def test_the_zip_is_a_checkpoint_with_the_measured_score(save_tiny, tmp_path):
    loaded = checkpoints.load(save_tiny("trained", history=HISTORY))
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, SST2), budget=3)
    found = scored(loaded, plan)
    archive = lab_save.checkpoint_zip("mine", loaded, plan, found, SST2, SST2)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(tmp_path)
    read = checkpoints.load(tmp_path / "mine")
    assert read.info.plan.key() == plan.key()
    row = read.info.scores[-1]
    assert (row["score"], row["n"]) == (found.score, 480)
    np.testing.assert_allclose(evaluate(read.model, read.tokenizer, SST2).logits, found.logits, atol=0.02)
    assert read.info.training["chosen_on"]["n"] == 480
    assert len(checkpoints.read_history(tmp_path / "mine")) == len(HISTORY)
    folder = lab_save.write_checkpoint(tmp_path / "r", loaded, replace(plan, selection="random"), found, SST2, SST2)
    assert checkpoints.load(folder).info.scores[-1]["kind"] == "control"  # of random experts


def test_a_pruning_is_opened_as_a_checkpoint(page):
    at = page()
    at.button(key="open-pruned").click().run()
    assert at.selectbox(key="checkpoint").value == "tiny-pruned-3 (yours)"
