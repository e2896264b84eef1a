"""The Compare page on tiny checkpoints, against figures made without it."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.paired import agreement, flip_table, paired_difference
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import figure, links, plainly
from ui import data_sources, differences, plan_url
from ui.compare.sides import TEACHER, Choice, labelled, measure, read_alike
from ui.pair_tabs import CHANGED, LOST
from ui.prunings import PRUNED
from ui.text import p_text, points, points_interval, score_text

SST2 = load_probe("sst2")
SIDE_PRUNED, SIDE_TEACHER = labelled("tiny", PRUNED), labelled("tiny", TEACHER)
TEST = "Paired test"


@pytest.fixture
def token(save_tiny):
    """Another checkpoint of the same task, next to `tiny_checkpoint`."""
    return save_tiny("zz-token", routing="token")


def of(folder, plan=None):
    """A checkpoint's evaluation, made without the page."""
    loaded = checkpoints.load(folder)
    model = loaded.model if plan is None else prune(loaded.model, plan)
    return evaluate(model, loaded.tokenizer, SST2)


def usage(folder):
    loaded = checkpoints.load(folder)
    return measure_usage(loaded.model, loaded.tokenizer, SST2)


def ranked(at):
    return next(t.value for t in at.table if "difference from the best" in t.value)


def assert_compares(at, a, b):
    """The verdict, the table and McNemar's test are those of the two evaluations."""
    assert not at.error
    change, bounds = paired_difference(b, a)
    assert differences.below_or_above(change, "accuracy", "").strip() in plainly(at)
    assert points_interval(bounds, "accuracy") in plainly(at)
    table = ranked(at)
    scores = dict(zip(table["model"].str[0], table["accuracy"], strict=True))
    assert scores == {"A": score_text(a.score, "accuracy"), "B": score_text(b.score, "accuracy")}
    assert p_text(agreement(a, b).p_value) in table["McNemar"].tolist()
    counts, cells = agreement(a, b), next(t.value for t in at.table if "B right" in t.value)
    assert cells.iloc[0, 0].startswith(f"{counts.both:,} ")
    assert cells.iloc[1, 0].startswith(f"{counts.only_b:,} ")


def test_both_sides_are_as_they_are_until_a_person_asks(open_page, tiny_checkpoint, token, save_tiny):
    """Choosing another checkpoint for B compares it as it is, whatever B was before."""
    at = open_page("compare", tiny_checkpoint)
    assert at.selectbox(key="b").value == "zz-token"
    assert_compares(at, of(tiny_checkpoint), of(token))
    at.selectbox(key="checkpoint").set_value("zz-token").run()
    assert at.selectbox(key="b").value == "tiny"  # what nobody touched follows the sidebar
    assert_compares(at, of(token), of(tiny_checkpoint))
    at.selectbox(key="checkpoint").set_value("tiny").run()
    third = save_tiny("zzz", top_k=2)
    at.selectbox(key="b").set_value(SIDE_PRUNED).run()
    at.slider(key="b_budget").set_value(2).run()
    assert_compares(at, of(tiny_checkpoint), of(tiny_checkpoint, plan_from(usage(tiny_checkpoint), budget=2)))
    at.selectbox(key="b").set_value("zzz").run()
    assert_compares(at, of(tiny_checkpoint), of(third))
    assert not [one for one in at.slider if one.key.startswith("b_")]


def test_without_another_checkpoint_b_is_the_dense_teacher(open_page, tiny_checkpoint, tiny_model):
    alone = open_page("compare", tiny_checkpoint)  # which is not known yet
    assert alone.main.info
    assert not alone.dataframe
    loaded = checkpoints.load(tiny_checkpoint)
    dense = evaluate(tiny_model(seed=3), loaded.tokenizer, SST2)
    reference.write(tiny_checkpoint, {SST2.fingerprint: reference.from_evaluation(dense, "t")})
    at = open_page("compare", tiny_checkpoint)
    assert at.selectbox(key="b").value == SIDE_TEACHER
    assert_compares(at, of(tiny_checkpoint), dense)


def test_more_models_are_ranked_and_tested_in_pairs(open_page, tiny_checkpoint, token, save_tiny):
    third = save_tiny("zzz", top_k=2)
    at = open_page("compare", tiny_checkpoint, b="zz-token", more="zzz")
    models = {"A": of(tiny_checkpoint), "B": of(token), "C": of(third)}
    best = max(models, key=lambda letter: models[letter].score)
    table = ranked(at)
    assert table["model"].iloc[0][0] == best
    assert table["accuracy"].tolist() == [
        score_text(score, "accuracy") for score in sorted((m.score for m in models.values()), reverse=True)
    ]
    pairs = next(frame.value for frame in at.dataframe if "pair" in frame.value).set_index("pair")
    assert set(pairs.index) == {"B − A", "C − A", "C − B"}
    change, bounds = paired_difference(models["C"], models["A"])
    assert pairs.loc["C − A", "difference"] == points(change, "accuracy")
    assert pairs.loc["C − A", "95% CI"] == points_interval(bounds, "accuracy")
    p = agreement(models["A"], models["C"]).p_value
    assert pairs.loc["C − A", "corrected"] == p_text(min(1.0, 3 * p))


def test_two_prunings_have_their_own_controls(open_page, tiny_checkpoint):
    sides = {"a": SIDE_PRUNED, "a_budget": 3, "b": SIDE_PRUNED, "b_keep": "In each layer", "b_per_layer": 2}
    at = open_page("compare", tiny_checkpoint, **sides, b_select="Random (control)")
    stats = usage(tiny_checkpoint)
    plans = plan_from(stats, budget=3), plan_from(stats, per_layer=2, selection="random")
    scores = [of(tiny_checkpoint, plan) for plan in plans]
    assert set(ranked(at)["accuracy"]) == {score_text(one.score, "accuracy") for one in scores}


def test_tabs_are_of_the_two_sides(open_page, tiny_checkpoint, token):
    at = open_page("compare", tiny_checkpoint, compare_tab=CHANGED)
    table = next(frame.value for frame in at.dataframe if "p A" in frame.value)
    assert len(table) == len(flip_table(of(tiny_checkpoint), of(token), SST2))
    for sides, looks in (({}, ("circle", "circle-open")), ({"a": SIDE_PRUNED, "a_budget": 3}, ("square", "circle"))):
        drawn = figure(open_page("compare", tiny_checkpoint, compare_tab=LOST, **sides), "Accuracy by")["data"]
        assert tuple(series["marker"]["symbol"] for series in drawn[:2]) == looks  # by what a side is


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({"budget": 3, "plan": "2p3"}, {"budget": 3, "edits": plan_url.decode("2p3")}),
        (
            {"keep": "In each layer", "per_layer": 2, "select": "Random (control)"},
            {"per_layer": 2, "selection": "random"},
        ),
    ],
    ids=("edited", "random"),
)
def test_the_labs_pruning_goes_to_side_b(open_page, tiny_checkpoint, params, options):
    at = open_page("pruning_lab", tiny_checkpoint, **params)
    asked, plan = links(at.main)["Compare"], plan_from(usage(tiny_checkpoint), **options)
    fresh = open_page("compare", tiny_checkpoint, **{k: v for k, v in asked.items() if k != "checkpoint"})
    assert_compares(fresh, of(tiny_checkpoint), of(tiny_checkpoint, plan))
    fresh.selectbox(key="b").set_value("tiny").run()
    assert "b_plan" not in fresh.query_params


def test_a_pruned_checkpoint_can_be_compared_but_not_pruned(open_page, tiny_checkpoint, tiny_static_checkpoint):
    at = open_page("compare", tiny_checkpoint, b="tiny-static")
    assert_compares(at, of(tiny_checkpoint), of(tiny_static_checkpoint))
    options = at.selectbox(key="b").options
    assert labelled("tiny", PRUNED) in options
    assert labelled("tiny-static", PRUNED) not in options


def test_other_tasks_broken_and_missing_checkpoints_are_refused(open_page, tiny_checkpoint, save_tiny):
    save_tiny("words", task="cola")
    broken = save_tiny("broken")
    (broken / "model.safetensors").write_bytes(b"no")
    for name in ("words", "broken", "gone"):
        at = open_page("compare", tiny_checkpoint, b=name)
        assert name in at.main.warning[0].value
        assert name not in at.selectbox(key="b").options
        assert not at.dataframe
    shutil.rmtree(broken)  # meanwhile
    at.run()
    assert at.selectbox(key="b").value != "broken"


def test_regression_has_the_bootstrap_only(open_page, save_tiny, tmp_path):
    rng = np.random.default_rng(0)
    texts = [[f"w{i} w{j}" for i, j in rng.integers(20, size=(40, 2))] for _ in range(2)]
    frame = pd.DataFrame({"sentence1": texts[0], "sentence2": texts[1], "label": rng.uniform(0, 5, 40)})
    (tmp_path / "glue" / "stsb").mkdir(parents=True)
    frame.to_parquet(tmp_path / "glue" / "stsb" / "validation.parquet")
    folder = save_tiny("numbers", task="stsb", num_labels=1)
    save_tiny("others", task="stsb", num_labels=1, top_k=2)
    for tab, more in ((TEST, {}), (TEST, {"more": "others"}), (LOST, {})):
        pruned = {"b": labelled("numbers", PRUNED), "b_budget": 2, "compare_tab": tab}
        at = open_page("compare", folder, data_dir=tmp_path / "glue", **pruned, **more)
        assert not at.error
        pairs = [frame.value for frame in at.dataframe if "pair" in frame.value]
        assert [len(frame) for frame in pairs] == [3] * len(more)
        assert all("McNemar" not in frame for frame in [*pairs, ranked(at)])
        assert len(at.table) == 1  # nobody is right or wrong


def test_without_labels_there_are_only_disagreements(open_page, tiny_checkpoint, save_tiny, monkeypatch):
    bare = TextData(TASKS["sst2"], "my sentences", SST2.texts[:80])
    monkeypatch.setattr(data_sources, "load_dataset", lambda source, task: bare)
    for tab in (LOST, CHANGED):
        at = open_page("compare", tiny_checkpoint, b=SIDE_PRUNED, b_budget=2, compare_tab=tab)
        assert not at.error
        assert "of 80 examples" in plainly(at)
    save_tiny("zzz", top_k=2)
    at = open_page("compare", tiny_checkpoint, b=SIDE_PRUNED, b_budget=2, more="zzz")
    assert plainly(at).count("of 80 examples") == 2  # B and C, each against A


def test_all_sides_read_as_much_of_an_example(save_tiny, cache):
    loaded = checkpoints.load(save_tiny("one"))
    texts = tuple((" ".join(f"w{(i + j) % 20}" for j in range(18)),) for i in range(40))
    data = TextData(TASKS["sst2"], "long ones", texts, np.arange(40) % 2)
    short, long = (
        Choice(f"{tokens}", replace(loaded, info=replace(loaded.info, reads=tokens), fingerprint=f"{tokens}"))
        for tokens in (8, 16)
    )
    assert read_alike([long, long], data) == (None, "")
    assert read_alike([short, long], data)[0] == 16
    expected = evaluate(loaded.model, loaded.tokenizer, data, max_length=16)
    for choice in (short, long):
        np.testing.assert_allclose(measure(choice, data, 16).evaluation.logits, expected.logits, atol=1e-5)
