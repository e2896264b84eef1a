"""Where it hurts, and the test of two settings, on the pruning lab's page and in their sentences."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.attribution.instance import against, prepare
from shrp.analysis.attribution.tokens import ablate_words
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate, summarise
from shrp.evaluation.paired import LOST, Agreement, agreement, by_group, flip_table
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import specs, texts_of, upload, values
from ui.lab import compare as lab_compare
from ui.lab import group_figures as lab_group_figures
from ui.lab import hurts as lab_hurts
from ui.lab import reference as lab_reference
from ui.lab import sides as lab_sides
from ui.lab.reference import ROUTED, TEACHER

SST2 = TASKS["sst2"]


@pytest.fixture
def loaded(tiny_checkpoint):
    return checkpoints.load(tiny_checkpoint)


@pytest.fixture
def teacher(loaded, tiny_model):
    """The outputs of a dense model on the probe set, put beside the checkpoint."""
    probe = load_probe("sst2")
    found = evaluate(tiny_model(seed=3), loaded.tokenizer, probe)
    reference.write(loaded.path, {probe.fingerprint: reference.from_evaluation(found, "t")})
    return found


@pytest.fixture
def pruned_by(loaded):
    """`pruned_by(budget)`: the evaluation that the page must show for a budget, made without it."""
    data = load_probe("sst2")
    usage = measure_usage(loaded.model, loaded.tokenizer, data)

    def evaluated(budget):
        return evaluate(prune(loaded.model, plan_from(usage, budget=budget)), loaded.tokenizer, data)

    return evaluated


def metric(at, start):
    return next(m.value for m in at.metric if m.label.startswith(start))


def flips_of(at):
    return next(d.value for d in at.dataframe if "p pruned" in d.value)


def test_a_teacher_s_outputs_on_texts_cut_elsewhere_are_not_held_against_anything(loaded, teacher):
    probe = load_probe("sst2")
    known = checkpoints.load(loaded.path)
    row = {
        "kind": "teacher",
        "data": probe.name,
        "data_fingerprint": probe.fingerprint,
        "score": 0.9,
        "n": 480,
    }

    def cut_at(outputs, scored):
        one = replace(known.teacher[probe.fingerprint], cut=outputs)
        info = replace(known.info, scores=(row | {"max_length": scored},))
        return replace(known, teacher={probe.fingerprint: one}, info=info)

    assert lab_reference.teacher_on(cut_at(128, 20), probe) is not None  # the outputs say so themselves
    assert lab_reference.teacher_on(cut_at(0, 128), probe) is not None
    for cut in ((20, 128), (0, 20)):
        assert lab_reference.teacher_on(cut_at(*cut), probe) is None
        why = lab_reference.why_no_teacher(cut_at(*cut), probe)
        assert "cut elsewhere than here, at 128 tokens" in why


def test_losses_flips_and_test_are_against_the_teacher_where_it_is_known(
    open_page, tiny_checkpoint, teacher, pruned_by
):
    at = open_page("pruning_lab", tiny_checkpoint, budget="2")
    assert not at.exception
    text, pruned = texts_of(at), pruned_by(2)
    assert "The reference is the dense teacher" in text
    frame = by_group(teacher, pruned, "slice")
    assert f"n = {frame.loc[0, 'n']}" in text
    assert str(frame.loc[0, "group"]).replace("_", " ") in text
    flipped = int((teacher.predictions != pruned.predictions).sum())
    assert f"{flipped:,} of {pruned.n:,} predictions flip" in text
    counts = agreement(teacher, pruned)
    assert metric(at, "McNemar") == lab_compare.p_text(counts.p_value)
    assert metric(at, "B − A").startswith(f"{100 * (pruned.score - teacher.score):+.1f}".replace("-", "−"))
    table = at.table[0].value
    assert table.loc["A right", "B wrong"].startswith(f"{counts.only_a:,} (")
    assert table.loc["A wrong", "B right"].startswith(f"{counts.only_b:,} (")
    assert "only comparison so far" in text
    names = [trace["name"] for spec in specs(at) for trace in spec["data"] if trace.get("name")]
    assert TEACHER in names


def test_without_the_teacher_the_routed_model_is_the_reference(open_page, tiny_checkpoint, loaded, pruned_by):
    at = open_page("pruning_lab", tiny_checkpoint, budget="2")
    assert not at.exception
    text = texts_of(at)
    assert "The reference is the routed model, evaluated here: the checkpoint carries no outputs" in text
    assert at.selectbox(key=lab_sides.FIRST).value == ROUTED
    counts = agreement(evaluate(loaded.model, loaded.tokenizer, load_probe("sst2")), pruned_by(2))
    assert metric(at, "McNemar") == lab_compare.p_text(counts.p_value)


def test_what_the_data_lack_comes_after_what_they_have(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint)
    assert [tab.label for tab in at.tabs][:4] == ["By slice", "By class", "By length", "Flipped predictions"]
    rows = b"".join(b"w%d w1,%s\n" % (i, (b"negative", b"positive")[i % 2]) for i in range(12))
    upload(at, "table", "mine.csv", b"sentence,label\n" + rows)
    assert not at.exception
    assert [tab.label for tab in at.tabs][:4] == ["By class", "By length", "By slice", "Flipped predictions"]


def test_a_broken_file_is_a_warning(open_page, tiny_checkpoint):
    (tiny_checkpoint / reference.FILE).write_bytes(b"nonsense")
    at = open_page("pruning_lab", tiny_checkpoint)
    assert not at.exception
    assert not at.error
    assert any("truncated" in warning.value for warning in at.warning)
    assert "teacher's outputs can't be used" in texts_of(at)


def test_tried_settings_can_be_compared_and_are_counted(open_page, tiny_checkpoint, pruned_by):
    at = open_page("pruning_lab", tiny_checkpoint, budget="2")
    at.slider(key="budget").set_value(6).run()
    box = at.selectbox(key=lab_sides.FIRST)
    # The same plan may be known by two names, from a slider and from a sweep.
    earlier = next(one for one in box.options if one.startswith(("2 in all, usage", "1 a layer, usage")))
    box.select(earlier).run()
    assert not at.exception
    counts = agreement(pruned_by(2), pruned_by(6))
    assert metric(at, "McNemar") == lab_compare.p_text(counts.p_value)
    assert "3 comparisons so far" in texts_of(at)
    assert "p < 0.016 as a difference (Bonferroni, 0.05 / 3)" in texts_of(at)
    at.selectbox(key=lab_sides.SECOND).select(earlier).run()
    assert "A and B are the same" in texts_of(at)


def test_filters_leave_the_rows_that_they_name(open_page, tiny_checkpoint, teacher):
    at = open_page("pruning_lab", tiny_checkpoint, budget="2")
    whole = flips_of(at)
    at.multiselect(key=lab_hurts.DIRECTION).select(LOST).run()
    at.multiselect(key=lab_hurts.CLASSES).select("negative").run()
    assert not at.exception
    left = flips_of(at)
    assert 0 < len(left) < len(whole)
    assert set(left["label"]) == {"negative"}
    assert set(left[f"{TEACHER} → pruned"]) == {"negative → positive"}
    assert f"{len(left):,} of {len(whole):,} shown" in texts_of(at)
    assert (left["p teacher"] > left["p pruned"]).all()  # both of the class negative


def frame_of(changes, counts, low=-0.05, high=0.05):
    frame = pd.DataFrame({"group": [f"s_{i}" for i in range(len(changes))], "n": counts, "change": changes})
    frame["change low"], frame["change high"] = frame["change"] + low, frame["change"] + high
    for who, score in (("reference", 0.8), ("other", 0.8 + frame["change"])):
        frame[who], frame[f"{who} low"], frame[f"{who} high"] = score, score - 0.1, score + 0.1
    return frame


def test_the_summary_names_the_worst_and_what_is_too_small():
    text = lab_group_figures.summary(frame_of([-0.2, 0.0, 0.1], [40, 12, 40]), "slice", "accuracy")
    assert "Largest loss: **s 0**, −20.0 points of accuracy (95% interval −25.0 to −15.0, n = 40)." in text
    assert "excludes 0: 1 of 3 slices; such gains: 1." in text
    assert "1 of the slices (marked ⚠) have under 30 inputs" in text
    text = lab_group_figures.summary(frame_of([0.01], [40]), "class", "recall")
    assert text.startswith("No class loses; smallest gain")
    many = lab_group_figures.summary(frame_of([-0.01] * 12, [40] * 12), "slice", "accuracy")
    assert "Of the 12 that have an interval about 0.6 do by chance alone." in many


def test_the_figure_has_the_largest_loss_on_top_and_marks_small_groups():
    frame = frame_of([-0.2, 0.0], [12, 40])
    fig = lab_group_figures.losses_by_group(frame, "slice", "accuracy", ("<teacher>", "pruned"), "a<b")
    reference_dots, pruned, clear, open_ones = fig.data
    assert pruned.x.tolist() == pytest.approx([60, 80])
    assert clear.x.tolist() == pytest.approx([-20])
    assert open_ones.x.tolist() == pytest.approx([0])
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1]  # the first is on top
    assert fig.layout.yaxis.ticktext == ("s 0 (n = 12, few ⚠)", "s 1 (n = 40)")
    assert set(reference_dots.y) & set(pruned.y) == set()
    assert "a&lt;b, n = 52 in all" in fig.layout.title.subtitle.text
    assert "<teacher>" not in "".join(reference_dots.text)


FAR, NEAR = Agreement(50, 25, 5, 20, 0.0003), Agreement(50, 5, 9, 36, 0.42)


@pytest.mark.parametrize(
    ("counts", "bounds", "words"),
    [
        (FAR, (-0.3, -0.1), "right on 30 of 100 inputs of d: **A\\*** on 25, **B** on 5."),
        (FAR, (-0.3, -0.1), "excludes 0: chance alone hardly explains it; were both right as often"),
        (FAR, (-0.3, -0.1), "in under 0.1% of samples (McNemar's test)."),
        (NEAR, (-0.1, 0.2), "**A\\*** on 5, **B** on 9"),
        (NEAR, (-0.1, 0.2), "holds 0: these data don't tell them apart"),
        (NEAR, (-0.1, 0.2), "in 42.0% of samples (McNemar's test)."),
        (
            Agreement(50, 5, 14, 31, 0.064),
            (0.01, 0.2),
            "in 6.4% of samples (McNemar's test), so it is a borderline case.",
        ),
        (
            Agreement(50, 0, 0, 50, 1.0),
            (-0.03, 0.03),
            "right on exactly the same inputs on d (n = 100); inputs",
        ),
        (Agreement(50, 0, 0, 50, 1.0), (-0.03, 0.03), "as common as 3.0% elsewhere"),
    ],
)
def test_the_verdict_on_classes(counts, bounds, words):
    text = lab_compare.verdict(("A*", "B"), "accuracy", "d", 100, 0.0, bounds, counts)
    assert words in text
    assert "As to right and wrong" not in text


def test_another_metrics_verdict_is_by_its_own_interval_though_right_and_wrong_tell_nothing():
    """As where a threshold has moved: as many are right, and the correlation of answers with labels is another."""
    text = lab_compare.verdict(("A", "B"), "matthews", "d", 100, -0.1, (-0.2, -0.05), NEAR)
    assert (
        "excludes 0: chance alone hardly explains it. As to right and wrong alone, which is not Matthews"
        in text
    )
    text = lab_compare.verdict(("A", "B"), "f1", "d", 100, -0.1, (-0.2, 0.05), FAR)
    assert "these data don't tell them apart" in text
    unknown = lab_compare.verdict(("A", "B"), "f1", "d", 100, float("nan"), (float("nan"),) * 2, FAR)
    assert "has no interval, so nothing can be said of it" in unknown


@pytest.mark.parametrize(
    ("difference", "bounds", "words"),
    [
        (-0.1, (-0.2, 0.01), "can't be told apart here"),
        (-0.1, (-0.2, -0.01), "**A** is better"),
        (0.1, (0.01, 0.2), "**B** is better"),
        (float("nan"), (float("nan"),) * 2, "nothing can be said"),
    ],
)
def test_the_verdict_on_regression(difference, bounds, words):
    assert words in lab_compare.verdict(("A", "B"), "pearson", "d", 9, difference, bounds, None)


def test_many_comparisons_ask_for_more():
    assert "count only p < 0.05 as a difference." in lab_compare.many_comparisons(1, True)
    assert "p < 0.005 as a difference (Bonferroni, 0.05 / 10)" in lab_compare.many_comparisons(10, True)
    assert "p < 0.016 as a difference (Bonferroni, 0.05 / 3)" in lab_compare.many_comparisons(3, True)
    assert "p < 0.00005 as" in lab_compare.many_comparisons(1000, True)
    assert "one interval in 20" in lab_compare.many_comparisons(10, False)
    assert lab_compare.p_text(0.00001) == "p < 0.001"
    assert lab_compare.p_text(0.0414) == "p = 0.041"


def test_a_teacher_of_other_size_is_not_used(loaded):
    data = TextData(SST2, "made", (("a",), ("b",)), np.array([0, 1]))
    wrong = reference.Reference("made", np.zeros((5, 2), np.float32))
    loaded.teacher[data.fingerprint] = wrong
    routed = summarise(data, np.arange(2), np.eye(2, dtype=np.float32), True)
    assert lab_reference.teacher_on(loaded, data) is None
    (found,) = lab_reference.references(loaded, data, routed)
    assert (found.name, found.evaluation) == (ROUTED, routed)


def test_losses_are_held_against_the_routed_model_where_that_is_picked(
    open_page, tiny_checkpoint, teacher, pruned_by
):
    at = open_page("pruning_lab", tiny_checkpoint, budget="2", hurts_against=ROUTED)
    assert not at.exception
    assert "what differs from it is due to the pruning alone" in texts_of(at)
    column = f"{ROUTED} → pruned"
    assert any(column in frame.value for frame in at.dataframe)
    at.button_group(key=lab_hurts.AGAINST).set_value([TEACHER]).run()
    assert not at.exception
    assert "The reference is the dense teacher" in texts_of(at)


def test_below_a_picked_flip_stand_the_words_of_the_routed_and_the_pruned_model(
    open_page, tiny_checkpoint, loaded, teacher, monkeypatch
):
    data = load_probe("sst2")
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, data), budget=3)
    models = {"routed": loaded.model, "pruned": prune(loaded.model, plan)}
    evaluations = [evaluate(model, loaded.tokenizer, data) for model in models.values()]
    alike = evaluations[0].predictions == evaluations[1].predictions
    flips = flip_table(teacher, evaluations[1], data)["index"].to_numpy()
    place = int(np.flatnonzero(alike[flips])[0])  # an input on which only the teacher parts from both
    monkeypatch.setattr(lab_hurts, "_table", lambda frame, data, names: [place])
    at = open_page("pruning_lab", tiny_checkpoint, budget=3, hurts="Flipped predictions")
    assert not at.exception
    (spec,) = [one for one in specs(at) if "adds to the logit" in one["layout"]["title"]["text"]]
    answer = int(evaluations[1].predictions[flips[place]])
    for trace, (name, model) in zip(spec["data"], models.items(), strict=True):
        assert trace["name"] == name
        lead = against(prepare(model, loaded.tokenizer, SST2, data.texts[flips[place]]), answer, 1 - answer)
        assert values(trace["x"]) == pytest.approx(ablate_words(lead, 0).scores, abs=1e-4)
    said = texts_of(at)
    assert "the words below a picked flip are of the routed model and of the pruned one" in said
    answers = SST2.label_names[answer]
    assert re.search(rf"Routed answers {answers} \([\d.]+%\), pruned {answers} \([\d.]+%\)\.", said)
