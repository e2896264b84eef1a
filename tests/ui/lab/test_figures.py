import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.attention import LayerAttention, model_attention
from shrp.analysis.explore import Exploration
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.costs import Cost
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.statistics import mcnemar
from shrp.pruning.plan import LayerEdit, PlanEdits, PruningPlan, make_plan
from ui import attention_figures
from ui.expert import attention as expert_profile_attention
from ui.lab import chance as lab_chance
from ui.lab import curve as lab_curve
from ui.lab import export as lab_export
from ui.lab import figures as lab_figures
from ui.lab import pareto as lab_pareto
from ui.lab import sides as lab_sides
from ui.lab import threshold as lab_threshold
from ui.lab import views as lab_views
from ui.lab.marks import Mark, marks_frame, teacher_mark
from ui.lab.work import (
    COMBINATIONS,
    FITTED,
    GLOBAL,
    PER_LAYER,
    SELECTIONS,
    Attempt,
    Setting,
    attempts_frame,
    plan_of,
)
from ui.overview import latency
from ui.routing import mosaic
from ui.store import ResultStore
from ui.theme import KIND_SYMBOLS

DENSE = Cost(1000, 2000, 10_000, 20_000, 128)
HALF = Cost(500, 1500, 4_000, 14_000, 128)
SST2 = TASKS["sst2"]
USAGE = {6: np.array([0.5, 0.3, 0.2, 0.0]), 9: np.array([0.1, 0.1, 0.7, 0.1])}


def heading(fig):
    return f"{fig.layout.title.text} {fig.layout.title.subtitle.text}"


def attempt(number=4, allocation=GLOBAL, **options):
    setting = Setting(allocation, number, **options)
    return Attempt(setting, make_plan(USAGE, budget=number), 0.8, (0.75, 0.85), 200, HALF)


def exploration(text="a <b>bold</b> film", token=False, seed=0):
    rng = np.random.default_rng(seed)
    tokens = ("[CLS]", *text.split(), "[SEP]")
    shape = (len(tokens), 4) if token else (4,)
    probs = {layer: rng.dirichlet(np.ones(4), size=shape[:-1] or None).astype(np.float32) for layer in (6, 9)}
    return Exploration(SST2, (text,), tokens, len(tokens), rng.normal(size=2), probs)


def test_kept_map_shows_weights_and_what_was_dropped():
    plan = make_plan(USAGE, budget=3)
    fig = lab_figures.kept_map(plan, 4, USAGE, "usage: n = 9")
    dropped, kept, cells, *_ = fig.data
    assert np.isfinite(kept.z).sum() == plan.budget
    np.testing.assert_allclose(np.nansum(kept.z, axis=1), 100)
    assert (np.isfinite(dropped.z) ^ np.isfinite(kept.z)).all()
    assert "3 of 8 experts" in heading(fig)
    assert "usage: n = 9" in heading(fig)
    assert "Top-1" in cells.hovertext[0]
    assert "Top-1" not in lab_figures.kept_map(plan, 4).data[2].hovertext[0]


def test_a_kept_map_may_have_empty_rows_so_that_two_line_up():
    plan = make_plan(USAGE, budget=3)
    mine = [layer for layer, _ in plan.layers]
    fig = lab_figures.kept_map(plan, 4, further=[mine[0] - 1, *mine])
    dropped, kept, cells, *_ = fig.data
    assert list(kept.y) == [f"layer {layer}" for layer in (mine[0] - 1, *mine)]
    assert np.isnan([kept.z[0], dropped.z[0]]).all()
    assert (np.isfinite(dropped.z[1:]) ^ np.isfinite(kept.z[1:])).all()
    assert {layer for layer, *_ in cells.customdata} == set(mine)
    assert "3 of 8 experts; grey: not kept; empty rows are not pruned" in heading(fig)


@pytest.mark.parametrize("picked", ["Random (control)", "Usage", "Fitted"])
@pytest.mark.parametrize(("origin", "said"), [("", "Plan from a file"), ("usage", "Usage")])
def test_a_plan_from_a_file_is_called_by_what_the_file_says(picked, origin, said):
    edits = PlanEdits(((6, LayerEdit(1, (0,), (), (1.0,))), (9, LayerEdit(1, (2,), (), (1.0,)))), origin)
    one = attempt(2, selection=picked, edits=edits, edited="edit 1: 2 in all", whole=True)
    assert not one.setting.is_control
    assert one.setting.text == f"edit 1: 2 in all (from 2 in all), {said.lower()}, as given"
    frame = attempts_frame([one], DENSE)
    assert frame[["selection", "combination", "control"]].values.tolist() == [[said, "as given", False]]
    mark = Mark("routed", "routed", 0.82, (0.8, 0.84), "95%", 200, HALF)
    fig = lab_curve.curve(frame, marks_frame([mark], DENSE), "encoder_flops", "accuracy", "data", "")
    assert f"{said.lower()}, as given" in {trace.name for trace in fig.data}
    if not origin:  # a layer was left to what is picked
        some = attempt(2, selection=picked, edits=edits, edited="edit 1: 2 in all").setting
        assert some.chosen_by[0] == picked
        assert some.is_control == (picked == "Random (control)")


@pytest.mark.parametrize(("control", "said"), [("none", "routed"), ("uniform", "no router")])
def test_a_model_without_a_router_is_not_called_routed(tiny_routed, tiny_tokenizer, control, said):
    model = tiny_routed(control=control)
    assert latency.own_name(SimpleNamespace(model=model)) == said
    layers = model_attention(model, tiny_tokenizer, ("w1 w2 w3",))
    assert [mosaic._kind(one) for one in layers] == ["dense", said, said]


@pytest.mark.parametrize("over", lab_curve.COSTS)
def test_curve_places_attempts_and_references(over):
    random = attempt(5, selection="Random (control)", seed=3)
    tried = attempts_frame([attempt(4), attempt(6), random], DENSE)
    marks = [
        Mark("routed", "routed", 0.82, (0.8, 0.84), "95%", 200, HALF),
        Mark("teacher", "teacher", 0.9, (0.87, 0.93), "95%", 200, DENSE),
        Mark("static, 2 a layer, recovered", "static", 0.85, (), "95%", 200, HALF, recovered=True),
    ]
    fig = lab_curve.curve(
        tried, marks_frame(marks, DENSE), over, "accuracy", "glue/<sst2>", attempt(4).setting.text
    )
    names = {trace.name: trace for trace in fig.data}
    assert set(names) == {
        "usage, usage weights: global budget",
        "random control drawn here, usage weights",
        "this setting",
        "routed model",
        "dense teacher",
        "static, stored score, recovered",
    }
    assert names["dense teacher"].x[0] == 100
    assert names["dense teacher"].y[0] == pytest.approx(90)
    assert list(names["this setting"].y) == [80]
    assert names["random control drawn here, usage weights"].mode == "markers"
    notes = " ".join(note.text for note in fig.layout.annotations)
    assert "90.0% at 100%" in notes
    low, high = fig.layout.xaxis.range
    assert low < names["this setting"].x[0] < high
    assert high < 100  # the teacher is beyond the right edge, so that the prunings are apart
    assert "%" in fig.layout.xaxis.title.text
    assert "dense" in fig.layout.xaxis.title.text
    assert "<sst2>" not in heading(fig)
    assert "n = 200" in heading(fig)


@pytest.mark.parametrize(("floor", "drawn"), [(0.5, False), (0.78, True), (0.95, True), (float("nan"), None)])
def test_the_curve_starts_at_what_scores_span_and_says_where_a_constant_answer_is(floor, drawn):
    marks = marks_frame([Mark("teacher", "teacher", 0.9, (0.87, 0.93), "95%", 200, DENSE)], DENSE)
    tried = attempts_frame([attempt(4), attempt(6)], DENSE)
    fig = lab_curve.curve(tried, marks, "encoder_flops", "accuracy", "data", floor=floor)
    ends = 100 * np.nanmin([tried["low"].min(), marks["low"].min()]), 93
    low, high = fig.layout.yaxis.range
    assert max(93, 100 * floor if drawn else 0) < high < 100
    assert low < min(ends[0], 100 * floor if drawn else 100) < low + 5
    (said,) = [n.text for n in fig.layout.annotations if "constant" in n.text] or [None]
    lines = [shape for shape in fig.layout.shapes if shape.y0 == pytest.approx(100 * floor)]
    assert (said is None) == (drawn is None)
    assert bool(lines) == bool(drawn)
    assert drawn is None or said == ("" if drawn else "↓ ") + f"a constant answer: {100 * floor:.1f}%"


def test_a_picked_setting_stays_when_the_slider_reaches_its_plan(monkeypatch):
    one, evaluation = attempt(2), SimpleNamespace(score=0.8)
    monkeypatch.setattr(lab_sides, "teacher_on", lambda checkpoint, data: None)
    monkeypatch.setattr(lab_sides.lab, "tried", lambda checkpoint, data: {"first": one})
    selection = SimpleNamespace(checkpoint=SimpleNamespace(fingerprint="f"), data=SimpleNamespace(task=SST2))

    def sides(picked):
        return lab_sides.sides(selection, one.setting, one.plan, evaluation, evaluation, picked)

    assert set(sides([])) == {lab_sides.ROUTED, lab_sides.CURRENT}
    name = lab_sides._name(one.plan)
    found = sides([name, None])
    assert set(found) == {lab_sides.ROUTED, lab_sides.CURRENT, name}
    assert found[name].key == found[lab_sides.CURRENT].key  # so A and B are known to be the same


def curve_of(tried, references=()):
    frames = attempts_frame(tried, DENSE), marks_frame(list(references), DENSE)
    return lab_curve.curve(*frames, next(iter(lab_curve.COSTS)), "accuracy", "d")


def test_every_selection_has_marks_of_its_own_whatever_else_was_tried():
    def marks(selections):
        tried = [
            attempt(4 + kind, allocation=allocation, selection=selection, combination=combination, **more)
            for selection in selections
            for combination in (COMBINATIONS if selection != FITTED else ("Fitted weights",))
            for kind, (allocation, more) in enumerate(
                ((GLOBAL, {}), (PER_LAYER, {}), (GLOBAL, {"edited": "edit"}))
            )
        ]
        return {
            trace.name: (trace.marker.symbol, trace.marker.color, trace.marker.line.width, trace.line.dash)
            for trace in curve_of(tried, [ROUTED]).data
            if trace.name != "routed model"
        }

    every = marks([name for name, kind in SELECTIONS.items() if kind != "random"])
    assert len(every) == 3 * 9
    assert len({*every.values()}) == len(every)
    symbols = {symbol for symbol, *_ in every.values()}
    assert len(symbols) == 3 * 5  # colour is not the only sign
    assert not symbols & {*KIND_SYMBOLS.values(), *lab_curve._SYMBOLS.values(), "diamond-open", "circle-open"}
    alone = marks(["Ablation"])
    assert alone == {name: mark for name, mark in every.items() if name in alone}


def test_random_draws_of_one_size_are_averaged_and_edited_ones_are_not():
    options = {"selection": "Random (control)", "seed": 0}
    drawn = [replace(attempt(5, **options | {"seed": seed}), score=0.7 + 0.1 * seed) for seed in (0, 1)]
    edited = [replace(attempt(5, **options, edited=f"edit {score}"), score=score) for score in (0.9, 0.5)]
    fig = curve_of([*drawn, *edited], [Mark("routed", "routed", 0.8, (), "95%", 50, HALF)])
    (trace,) = (trace for trace in fig.data if (trace.name or "").startswith("random control"))
    assert sorted(trace.y) == pytest.approx([50, 75, 90])


def test_a_reference_without_a_score_has_no_line():
    fig = curve_of([attempt(4)], [Mark("routed", "routed", float("nan"), (), "95%", 50, HALF)])
    assert "nan" not in " ".join(note.text for note in fig.layout.annotations)


ROUTED = Mark("routed", "routed", 0.4, (0.3, 0.5), "95%", 50, HALF)


def tried_frame(*rows):
    """Settings of (budget, score, encoder FLOPs), and what else a row needs."""
    found = []
    for place, (number, score, flops) in enumerate(rows):
        one = attempt(4 + place % 5)
        setting, price = Setting(GLOBAL, number), replace(HALF, encoder_flops=flops)
        found.append(
            replace(one, setting=setting, score=score, interval=(score - 0.02, score + 0.02), cost=price)
        )
    frame = attempts_frame(found, DENSE)
    return frame.assign(plan=[f"plan {number}" for number in frame["setting"]])


def test_many_budgets_are_a_line_in_a_band():
    frame = tried_frame(*[(n, 0.8 + 0.001 * n, 100 * n) for n in range(2, 40)])
    fig = lab_curve.curve(frame, marks_frame([ROUTED], DENSE), "encoder_flops", "accuracy", "d")
    band, line, _ = fig.data
    assert line.error_y.array is None
    assert len(line.x) == 38
    x, y = np.array(band.x), np.array(band.y)
    np.testing.assert_allclose(x[:38], x[38:][::-1])
    np.testing.assert_allclose(y[:38] - y[38:][::-1], 4)


def test_draws_of_one_size_are_their_mean_and_range():
    draws = []
    for seed, score in enumerate((0.6, 0.7, 0.5)):
        setting = Setting(PER_LAYER, 2, "Random (control)", seed=seed)
        draws.append(replace(attempt(4), setting=setting, score=score, interval=(score, score)))
    fig = lab_curve.curve(
        attempts_frame(draws, DENSE), marks_frame([ROUTED], DENSE), "encoder_flops", "accuracy", "d"
    )
    mark, _ = fig.data
    assert list(mark.y) == pytest.approx([60])
    assert list(mark.error_y.array) == pytest.approx([10])
    assert list(mark.error_y.arrayminus) == pytest.approx([10])
    assert "mean and range of 3 draws" in mark.customdata[0][0]


def test_pareto_keeps_what_no_other_beats():
    frame = tried_frame((2, 0.80, 100), (3, 0.79, 200), (4, 0.85, 300), (5, 0.85, 400), (6, 0.90, 500))
    best = lab_pareto.pareto(frame, "encoder_flops")
    assert list(best["setting"].str.split(" ").str[0]) == ["2", "4", "6"]
    assert list(best["number"]) == [1, 2, 3]
    equal = lab_pareto.pareto(tried_frame((2, 0.8, 100), (3, 0.8, 100)), "encoder_flops")
    assert len(equal) == 2
    assert lab_pareto.pareto(frame[:1], "encoder_flops").empty  # there is none to be better than
    assert len(lab_pareto.pareto(frame.assign(control=True), "encoder_flops")) == 0
    assert len(lab_pareto.pareto(frame.assign(score=np.nan), "encoder_flops")) == 0
    assert lab_pareto.pareto(attempts_frame([], DENSE), "encoder_flops").empty


def test_settings_that_are_one_plan_are_named_together():
    frame = tried_frame((2, 0.8, 100), (3, 0.8, 100), (4, 0.7, 200)).assign(plan=["one", "one", "other"])
    frame["setting"] = ["1 a layer, usage, plain mean", "2 in all, usage, plain mean", "4 in all"]
    assert list(lab_pareto.pareto(frame, "model_params")["setting"]) == [
        "1 a layer = 2 in all, usage, plain mean"
    ]
    frame["setting"] = ["1 a layer, usage, plain mean", "2 in all, usage, usage weights", "4 in all"]
    (name,) = lab_pareto.pareto(frame, "model_params")["setting"]
    assert name == "1 a layer, usage, plain mean = 2 in all, usage, usage weights"


def evaluated(wrong, n=200):
    labels = np.zeros(n, dtype=int)
    logits = np.tile(np.array([1.0, 0.0], dtype=np.float32), (n, 1))
    logits[list(wrong)] = [0.0, 1.0]
    data = TextData(SST2, "d", (("t",),) * n, labels, None)
    return summarise(data, np.arange(n), logits, True)


def test_gaps_say_what_chance_explains():
    best = evaluated(range(10))
    near, far = lab_pareto.gap(evaluated(range(9, 20)), best), lab_pareto.gap(evaluated(range(60)), best)
    assert near.difference == pytest.approx(-1 / 200)
    assert near.p_value == pytest.approx(mcnemar(evaluated(range(9, 20)).correct, best.correct))
    assert near.is_noise
    assert far.difference == pytest.approx(-50 / 200)
    assert far.interval[1] < 0
    assert not far.is_noise


def test_the_verdict_says_what_was_not_tested():
    frame = tried_frame((2, 0.80, 100), (4, 0.85, 300), (6, 0.90, 500))
    best = lab_pareto.pareto(frame, "encoder_flops")
    first, _, top = best["plan"]
    gap = lab_pareto.Gap(-0.1, (-0.2, -0.05), 0.001)
    said = lab_pareto.verdict(best, {first: gap}, "accuracy", "encoder_flops", frame)
    assert "the other one is below it by more than chance" in said
    assert "1 more could not be tested." in said
    said = lab_pareto.verdict(best, {top: gap}, "accuracy", "encoder_flops", frame)
    assert said.endswith("#3 scores highest; the others could not be tested against it.")


@pytest.mark.parametrize(
    ("highs", "words"),
    [
        ((0.1, 0.1), "none of the 2 others can be told from it"),
        ((-0.05, 0.1), "1 of the 2 others can't be told from it"),
        ((-0.05, -0.01), "all 2 others are below it by more than chance"),
    ],
)
def test_the_verdict_counts_what_cannot_be_told_from_the_best(highs, words):
    """By the interval that stands beside it, whatever the test says."""
    frame = tried_frame((2, 0.80, 100), (4, 0.85, 300), (6, 0.90, 500))
    best = lab_pareto.pareto(frame, "encoder_flops")
    gaps = {
        plan: lab_pareto.Gap(-0.1, (-0.2, high), 0.05)
        for plan, high in zip(best["plan"], (*highs, 0.1), strict=True)
    }
    text = lab_pareto.verdict(best, gaps, "accuracy", "encoder_flops", frame)
    assert words in text
    assert "of the 3 prunings" in text
    shown = lab_pareto.table(best, gaps, "accuracy")
    assert list(shown["accuracy"]) == ["80.0%", "85.0%", "90.0%"]
    assert shown["below the best, points"].iloc[-1] == "best"
    high = "+10.0" if highs[0] > 0 else "−5.0"
    assert shown["below the best, points"].iloc[0] == f"−10.0 (−20.0 to {high})"
    assert "#3 6 in all" in lab_pareto.in_words(best, "accuracy", "encoder_flops")


def test_what_is_not_above_a_constant_answer_is_never_what_to_take():
    frame = tried_frame((2, 0.50, 100), (4, 0.85, 300), (6, 0.90, 500))
    best = lab_pareto.pareto(frame, "encoder_flops")
    gaps = {plan: lab_pareto.Gap(-0.1, (-0.2, 0.1), 0.5) for plan in best["plan"]}
    text = lab_pareto.verdict(best, gaps, "accuracy", "encoder_flops", frame, 0.5)
    assert "none of the 2 others can be told from it" in text
    assert "above a constant answer, the cheapest of these is #2, 4 in all" in text
    text = lab_pareto.verdict(best, gaps, "accuracy", "encoder_flops", frame, 0.85)
    assert "can be told from it on these 200 inputs" in text
    assert ", and of these none is above a constant answer." in text
    assert "the cheapest" not in text
    text = lab_pareto.verdict(best, gaps, "accuracy", "encoder_flops", frame, 0.95)
    assert text.endswith("None of them is above a constant answer.")
    within = lab_pareto.cheapest_within(best, 0.55, "accuracy", "encoder_flops", floor=0.5)
    assert "within 1, 2 and 5: #2, 4 in all" in within  # though #1 has 50.0%


def test_the_cheapest_setting_is_named_for_each_loss_against_the_routed_model():
    frame = tried_frame((2, 0.80, 100), (4, 0.885, 300), (6, 0.90, 500))
    best = lab_pareto.pareto(frame, "encoder_flops")
    text = lab_pareto.cheapest_within(best, 0.9, "accuracy", "encoder_flops")
    assert "routed model's 90.0%" in text
    assert "Scores are without matched answer shares; other ways" in text
    matched = lab_pareto.cheapest_within(best, 0.9, "accuracy", "encoder_flops", True)
    assert "Scores are with matched answer shares; other ways" in matched
    numbers = lab_pareto.cheapest_within(best, 0.9, "pearson", "encoder_flops", None)
    assert numbers.endswith(". Other ways to choose experts are included once evaluated.")
    one, two = text.split(": ", 1)[1].split(". Scores")[0].split("; ")
    assert one.startswith("within 1: #3, 6 in all")
    assert two.startswith("within 2 and 5: #2, 4 in all")
    assert "within 1, 2 and 5: none" in lab_pareto.cheapest_within(best, 0.99, "accuracy", "encoder_flops")
    assert "within 0.01, 0.02 and 0.05: #1" in lab_pareto.cheapest_within(
        best, 0.5, "matthews", "encoder_flops"
    )
    assert lab_pareto.cheapest_within(best, float("nan"), "accuracy", "encoder_flops") == ""


def test_pruned_heads_are_one_series_of_their_own_whatever_their_size():
    name = "heads and neurons pruned to the size of"
    marks = [
        Mark(f"{name} {size}, 4 epochs", "control", 0.8, (0.7, 0.9), "95%", 200, HALF, recovered=True)
        for size in ("1 expert", "2 experts")
    ]
    marks.append(Mark("random experts, 1 a layer", "control", 0.7, (0.6, 0.8), "range of 3 draws", 200, HALF))
    fig = curve_of([], marks)
    (pruned,) = (trace for trace in fig.data if "heads" in str(trace.name))
    assert (pruned.name, list(pruned.text)) == ("control: heads and neurons pruned", ["1", "2"])
    (random,) = (trace for trace in fig.data if "random" in str(trace.name))
    assert pruned.marker.symbol != random.marker.symbol


def test_curve_of_nothing_tried_still_has_its_references():
    marks = [Mark("routed", "routed", 0.4, (0.3, 0.5), "95%", 50, HALF)]
    fig = lab_curve.curve(
        attempts_frame([], DENSE), marks_frame(marks, DENSE), "model_flops", "matthews", "d"
    )
    assert [trace.name for trace in fig.data] == ["routed model"]
    assert fig.data[0].y[0] == pytest.approx(0.4)


def test_settings_make_the_plans_that_they_name():
    stats = SimpleNamespace(shares=lambda: USAGE, gate_norm=lambda: {6: np.arange(4), 9: np.arange(4)})
    assert plan_of(Setting(GLOBAL, 3), stats).budget == 3
    assert plan_of(Setting(PER_LAYER, 2), stats).keep_counts() == {6: 2, 9: 2}
    assert dict(plan_of(Setting(PER_LAYER, 1, "Gate × norm"), stats).layers)[6].experts == (3,)
    mean = dict(plan_of(Setting(PER_LAYER, 2, combination="Plain mean"), stats).layers)
    assert mean[6].weights == (0.5, 0.5)
    random = Setting(PER_LAYER, 2, "Random (control)", seed=7)
    assert plan_of(random, stats).selection == "random"
    assert "random (control) 7" in random.text
    assert random.is_control
    assert not Setting(GLOBAL, 3).is_control


def test_marks_know_the_teacher():
    teacher = Mark("teacher", "teacher", 0.9, (), "95%", 9, DENSE)
    assert teacher_mark([teacher]) is teacher
    assert teacher_mark([]) is None


def test_plan_json_reads_back():
    plan = make_plan(USAGE, budget=5, selection="random", seed=1)
    assert PruningPlan.from_dict(json.loads(lab_export.plan_json(plan))) == plan


def test_points_are_signed_and_named():
    assert lab_views.points(-0.0123, "accuracy") == "−1.2 points"
    assert lab_views.points(0.0123, "matthews") == "+0.012"
    assert lab_views.points(float("nan"), "accuracy") == "–"


@pytest.mark.parametrize(("count", "named", "height"), [(3, True, 350), (60, True, 850), (512, False, 750)])
def test_an_attention_map_names_as_many_tokens_as_can_be_read_and_stays_on_a_screen(count, named, height):
    weights = np.full((1, count, count), 1 / count)
    special = np.zeros(count, dtype=bool)
    tokens = tuple(f"w{place}" for place in range(count))
    found = LayerAttention(4, "dense", (0,), ("some words",), tokens, count, special, weights, None)
    fig = attention_figures.heatmap(found, found.pattern(0), 0, "input 1")
    assert (fig.layout.xaxis.ticktext == tokens) == (fig.layout.yaxis.ticktext == tokens) == named
    assert fig.layout.height == height
    scale = fig.data[0]
    assert (scale.zmin, scale.zmax) == (0, pytest.approx(float(found.pattern(0).weights.max())))
    assert attention_figures.heatmap(found, found.pattern(0), 0, "input 1", 0.9).data[0].zmax == 0.9


@pytest.mark.parametrize(("k", "count"), [(1, 1), (2, 3)])
def test_tokens_are_counted_for_every_expert_that_they_take(k, count):
    probs = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.3, 0.4, 0.3]])
    weights, special = np.full((3, 3, 3), 1 / 3), np.zeros(3, dtype=bool)
    found = LayerAttention(4, "routed", (0, 1, 2), ("a b c",), ("a", "b", "c"), 3, special, weights, probs, k)
    assert expert_profile_attention.routed(found, 0).startswith(f"{count} of the input's 3 tokens are routed")


def test_store_drops_what_was_unused_for_longest():
    store = ResultStore(2)
    store.put("a", 1)
    store.put("b", 2)
    assert store.get("a") == 1
    store.put("c", 3)
    assert store.get("b") is None
    assert (store.get("a"), store.get("c")) == (1, 3)


def test_two_best_of_one_score_are_said_to_be_alike():
    frame = tried_frame((2, 0.90, 100), (3, 0.90, 100))
    frame["plan"] = ["a", "b"]
    best = lab_pareto.pareto(frame, "encoder_flops")
    gaps = {plan: lab_pareto.Gap(0.0, (-0.1, 0.1), 1.0) for plan in best["plan"]}
    said = lab_pareto.verdict(best, gaps, "accuracy", "encoder_flops", frame)
    assert said.endswith("#1 and #2 score the same at the same cost.")


def test_a_selection_is_held_against_random_draws_of_its_size():
    def row(kept, score, seed=None, **other):
        control = seed is not None
        return {
            **{
                "plan": f"{kept} {seed} {score}",
                "allocation": "Per layer",
                "edited": False,
                "control": control,
            },
            **{"selection": "Random (control)" if control else "Usage", "combination": "Usage weights"},
            **{"experts kept": kept, "seed": seed or 0, "score": score, **other},
        }

    rows = [row(2, 0.8), row(2, 0.7, 0), row(2, 0.9, 1), row(4, 0.9), row(4, 0.8, 0), row(4, 0.85, 1)]
    rows += [row(2, 0.99, 0, combination="Plain mean"), row(4, 0.99, 0, combination="Plain mean")]
    rows += [row(6, 0.9), row(8, 0.9, 0), row(4, 0.1, allocation="Global budget"), row(2, 0.0, edited=True)]
    (said,) = lab_chance.against_chance(pd.DataFrame(rows), "accuracy")
    assert said.startswith(
        "Against chance: usage (usage weights) is above the mean of 2 random draws (usage weights) at 1 of "
        "2 numbers of experts a layer (mean lead, accuracy: +3.8 points), and above the best draw at 1."
    )
    assert lab_chance.against_chance(pd.DataFrame([row(2, 0.8)]), "accuracy") == []
    # With one expert a layer a random draw is one plan by either combination, and a control of both.
    both = [row(1, 0.7, 0, plan="drawn"), row(1, 0.7, 0, plan="drawn", combination="Plain mean")]
    both += [row(1, 0.8, combination=name) for name in ("Usage weights", "Plain mean")]
    for said in (found := lab_chance.against_chance(pd.DataFrame(both), "accuracy")):
        assert "at 1 of 1 numbers of experts a layer" in said
    assert len(found) == 2
    # Two draws that keep the same experts by chance are two all the same.
    alike = [row(3, 0.75), *(row(3, 0.7, seed, plan="drawn") for seed in (0, 1))]
    assert "the mean of 2 random draws" in lab_chance.against_chance(pd.DataFrame(alike), "accuracy")[0]
    assert lab_chance.against_chance(pd.DataFrame(), "accuracy") == []


@pytest.mark.parametrize(
    ("routed", "pruned", "matched", "most"),
    [
        (0.70, 0.50, 0.62, True),
        (0.70, 0.50, 0.58, False),  # less than half of it
        (0.70, 0.695, 0.70, False),  # next to nothing
        (0.70, 0.72, 0.74, False),  # nothing is lost
        (0.70, 0.70, 0.72, False),
    ],
)
def test_most_of_a_loss_is_the_threshold_s_only_where_something_is_lost(
    routed, pruned, matched, most, monkeypatch
):
    ends = (0.01, 0.2)
    monkeypatch.setattr(lab_threshold.paired_results, "difference", lambda *_: (0.1, ends))
    one, other = (SimpleNamespace(score=score) for score in (pruned, routed))
    found = lab_threshold.Matched(np.zeros(2), SimpleNamespace(score=matched))
    assert lab_threshold.is_most(found, one, other) == most
    ends = (-0.01, 0.2)  # what comes back may be chance
    assert not lab_threshold.is_most(found, one, other)
