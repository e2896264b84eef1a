import ast
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from shrp.analysis.usage import UsageWarning
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import history_text
from shrp.data.sources import load_probe
from shrp.evaluation.costs import cost, dense_cost, static_cost
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from tests.app.conftest import ROOT
from tests.app.helpers import HISTORY, SCORES, row, specs, texts_of
from ui import state
from ui.overview import checks, latency
from ui.overview.cliff import cliff_warning
from ui.text import count, plain


@pytest.fixture
def full(save_tiny):
    """A checkpoint with scores, controls and a history."""
    return save_tiny(
        "full",
        scores=SCORES,
        history="".join(json.dumps(line) + "\n" for line in HISTORY),
        usage=HISTORY[-1]["usage"],
        training={
            "train_data": "glue/sst2 train",
            "train_examples": 6920,
            "validation_data": "glue/sst2 validation",
            "epochs": 3,
            "seconds": 75.0,
            "config": {"stage2_epochs": 1, "learning_rate": 3e-5, "seed": 0, "shrp": {"layers": [1, 2]}},
        },
    )


def test_a_checkpoint_without_scores_says_so_and_is_measured(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    assert not at.exception
    assert at.title[0].value == "tiny"
    said = texts_of(at)
    assert "No scores were stored" in said
    assert "Nothing was stored about how this checkpoint was trained" in said
    loaded = checkpoints.load(tiny_checkpoint)
    result = evaluate(loaded.model, loaded.tokenizer, load_probe("sst2"))
    assert f"accuracy {result.score:.1%}" in said
    assert f"n = {result.n}" in said


def test_a_score_far_below_the_teachers_is_a_cliff(open_page, save_tiny):
    probe = load_probe("sst2")
    row = {
        **{
            "model": "dense teacher",
            "kind": "teacher",
            "data": "probe/sst2",
            "metric": "accuracy",
            "score": 0.99,
        },
        **{"interval": [0.4, 1.0], "n": 480, "data_fingerprint": probe.fingerprint},
    }
    page = open_page("overview", save_tiny("taught", scores=(row,)))
    assert not page.exception
    (warned,) = [one.value for one in page.warning if "Accuracy cliff" in one.value]
    assert "of 99.0%" in warned
    assert "a score whose 95% interval ends below 80% counts" in warned
    loaded = checkpoints.load(save_tiny("other"))
    found = evaluate(loaded.model, loaded.tokenizer, probe)

    def said(score, interval=(math.nan, math.nan), teacher=0.9, cut=128):
        rows = (row | {"score": teacher, "max_length": cut},)
        known = replace(loaded, info=replace(loaded.info, scores=rows))
        return cliff_warning(known, probe, replace(found, score=score, interval=interval))

    assert "counts" in said(0.71)
    unscored = replace(
        loaded, info=replace(loaded.info, scores=({"model": "dense teacher", "kind": "teacher"},))
    )
    assert cliff_warning(unscored, probe, found) == ""
    assert "counts" in said(0.65, (0.6, 0.71))
    assert not said(0.65, (0.6, 0.73))  # within chance of four fifths
    assert not said(0.72)
    assert not said(0.71, cut=20)  # of texts of which more was left out
    # Where a constant answer, 50% here, has most of what the teacher has.
    assert "a constant answer has 50.0%" in said(0.5, (0.45, 0.549), teacher=0.55)
    assert not said(0.5, (0.45, 0.551), teacher=0.55)  # within chance of the teacher's
    assert not said(0.501, (0.45, 0.549), teacher=0.55)
    assert not said(0.5, (0.45, 0.55), teacher=0.5)


def test_which_class_is_taken_for_which(open_page, tiny_checkpoint):
    page = open_page("overview", tiny_checkpoint)
    loaded, data = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    found = evaluate(loaded.model, loaded.tokenizer, data)
    (frame,) = [one.value for one in page.dataframe if "taken for positive" in one.value]
    assert frame["class"].tolist() == ["negative", "positive"]
    for true, name in enumerate(frame["class"]):
        for taken, other in enumerate(frame["class"]):
            both = (found.labels == true) & (found.predictions == taken)
            assert frame.set_index("class").loc[name, f"taken for {other}"] == both.sum()
    rows = found.by_class()
    assert [text.split(" ")[0] for text in frame["recall"]] == [f"{100 * r:.1f}%" for r in rows["recall"]]
    assert frame["precision"].tolist() == [f"{100 * r:.1f}%" if r == r else "" for r in rows["precision"]]


def test_costs_name_their_denominators(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    model = checkpoints.load(tiny_checkpoint).model
    mine, dense = cost(model), dense_cost(model)
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["Encoder parameters"] == f"{mine.encoder_params / dense.encoder_params:.1%}"
    assert shown["Encoder FLOPs"] == f"{mine.encoder_flops / dense.encoder_flops:.1%}"
    assert shown["Model parameters"] == f"{mine.model_params / dense.model_params:.1%}"
    assert f"{count(mine.model_params)} of {count(dense.model_params)}" in texts_of(at)


def test_latency_is_measured_on_demand_beside_the_flops(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    at.number_input(key="latency_each").set_value(3).run()
    at.button(key="measure-latency").click().run()
    assert not at.exception
    times = next(d.value for d in at.dataframe if "median_ms" in d.value)
    assert times["name"].tolist() == 2 * ["dense", "routed", "static, 3 a layer"]
    assert times["batch"].tolist() == 3 * [1] + 3 * [8]
    for quartiles, median in zip(times["quartiles"], times["median_ms"], strict=True):
        low, high = map(float, quartiles.split(" to "))
        assert low - 0.1 <= median <= high + 0.1
    model = checkpoints.load(tiny_checkpoint).model
    tokens = int(times["tokens"].iloc[0])
    share = cost(model, tokens).model_flops / dense_cost(model, tokens).model_flops
    assert times["FLOPs of dense"].iloc[1] == pytest.approx(100 * share)
    assert times["speed against dense"].iloc[3] == pytest.approx(1)


def test_latency_of_a_pruned_checkpoint_needs_no_plan(open_page, tiny_static_checkpoint):
    at = open_page("overview", tiny_static_checkpoint)
    at.button(key="measure-latency").click().run()
    assert not at.exception
    assert set(next(d.value for d in at.dataframe if "median_ms" in d.value)["name"]) == {"dense", "static"}


def test_scores_stand_beside_their_controls_and_a_tie_is_said(open_page, full):
    at = open_page("overview", full)
    assert not at.exception
    assert next(m.value for m in at.metric if m.label == "Accuracy") == "89.0%"
    said = texts_of(at)
    assert "95% interval 87.0–91.0%, n = 872" in said
    assert "“random experts, 1 a layer” (60.0%) scores below “static, 1 a layer”" in said
    assert (
        "“layers dropped, 5 epochs” (88.5%) scores above “static, 1 a layer”, shows no significant difference from “routed”"
        in said
    )
    assert any("1 is above" in warning.value for warning in at.warning)
    names = {trace.get("name") for spec in specs(at) for trace in spec["data"]}
    assert {"dense teacher", "SHRP, routed", "SHRP, static", "control"} <= names


def test_a_stranger_s_control_is_no_link(open_page, save_tiny):
    """Its name is told where it is not compared with anything, too."""
    evil = "random experts [free](https://example.org)"
    folder = save_tiny("strange", scores=(*SCORES, row(evil, "control", 0.5, per_layer=3, budget=6)))
    at = open_page("overview", folder)
    assert not at.exception
    (said,) = (one.value for one in at.warning if "Not compared" in one.value)
    assert evil in plain(said)
    assert "[free](" not in said


def test_each_scored_model_s_size_stands_beside_its_score(open_page, full):
    at = open_page("overview", full)
    model = checkpoints.load(full).model
    shares = {
        "dense teacher": dense_cost(model),
        "routed": cost(model),
        "static, 1 a layer": static_cost(model, 2, 2),
        "layers dropped, 5 epochs": dense_cost(model, dropped=2),
    }
    labels = {label for spec in specs(at) for label in spec["layout"]["yaxis"].get("categoryarray", ())}
    (table,) = (d.value for d in at.dataframe if "whole model" in d.value)
    table = table.set_index("model")
    for name, price in shares.items():
        found = price.relative_to(dense_cost(model))
        assert table.loc[name, "encoder parameters"] == f"{found['encoder_params']:.1%}"
        assert table.loc[name, "whole model"] == f"{found['model_params']:.1%}"
        assert table.loc[name, "encoder FLOPs"] == f"{found['encoder_flops']:.1%}"
        assert f"{name} · {found['encoder_params']:.1%}" in labels


def test_a_stored_score_stands_beside_a_constant_answers(open_page, save_tiny):
    folder = save_tiny("floor", scores=tuple(line | {"constant": 0.6} for line in SCORES))
    at = open_page("overview", folder)
    assert not at.exception
    assert "n = 872, glue/sst2 validation" in texts_of(at)
    assert "; a constant answer has 60.0%" in texts_of(at)
    (said,) = (warning.value for warning in at.warning if "constant answer" in warning.value)
    assert plain(said).startswith("“random experts, 1 a layer” (60.0%) is not above a constant answer")
    assert any(
        "dashed: a constant answer" in spec["layout"]["title"]["text"] + str(spec) for spec in specs(at)
    )
    far = save_tiny("far", scores=tuple(line | {"constant": 0.1} for line in SCORES))
    titles = [str(spec["layout"]["title"]) for spec in specs(open_page("overview", far))]
    assert any(
        "a constant answer has 10.0%" in title for title in titles
    )  # and no line that presses all together
    assert not any("dashed: a constant answer" in title for title in titles)


def test_every_chart_and_table_has_a_text_alternative(open_page, full, tiny_static_checkpoint):
    pages = [open_page("overview", full)]
    usage = open_page("expert_usage", full)
    pages.append(usage.button_group(key="parts").set_value(["inputs", "words"]).run())
    pages += [open_page(page, tiny_static_checkpoint) for page in ("overview", "expert_usage", "routing")]
    for at in pages:
        assert not at.exception
        shown = [*at.dataframe, *at.get("plotly_chart")]
        assert shown
        assert all(len(element.proto.alt) > 20 for element in shown), at


def of_stats(*kinds, too_few=0):
    found = [UsageWarning(kind, 2, f"layer 2 is odd: {kind}.") for kind in kinds]
    return SimpleNamespace(warnings=lambda: found, too_few=too_few)


@pytest.mark.parametrize(
    ("stats", "healthy", "warned", "passed", "captioned"),
    [
        (
            of_stats("collapse"),
            True,
            "**Collapse** in 1 of 2 converted layers on probe/sst2 (n = 480)",
            "",
            "Collapse:",
        ),
        (of_stats(), True, "", "No failure signature of routing on probe/sst2, n = 480", "Collapse:"),
        (
            of_stats(),
            False,
            "",
            "of routing in the trained model (see above for its training) on",
            "Collapse:",
        ),
        (of_stats(too_few=100), True, "", "", "n = 480 inputs of probe/sst2 are too few to tell collapse"),
    ],
)
def test_what_is_wrong_with_its_routing_is_told(
    stats, healthy, warned, passed, captioned, tiny_checkpoint, monkeypatch
):
    told = {"warning": [], "success": [], "caption": []}
    for kind, said in told.items():
        monkeypatch.setattr(checks.st, kind, lambda text, icon=None, said=said: said.append(text))
    selection = SimpleNamespace(data=load_probe("sst2"), checkpoint=checkpoints.load(tiny_checkpoint))
    checks._show_warnings(selection, stats, healthy)
    for kind, part in (("warning", warned), ("success", passed), ("caption", captioned)):
        assert len(told[kind]) == bool(part), kind
        assert part in "".join(told[kind]).replace("\\", "")


def test_training_is_told_and_a_collapse_in_it_is_a_warning(open_page, full):
    at = open_page("overview", full)
    said = texts_of(at)
    warned = [one.value.replace("\\", "") for one in at.warning]
    assert any("expert 0 took 97% already in stage 1" in one for one in warned)
    assert "glue/sst2 train, n = 6,920" in said
    assert "3 (2 converting, 1 after)" in said
    assert "1 min 15 s" in said
    assert "layer 2: expert 0 took 97% already in stage 1 (epoch 1" in said
    titles = [spec["layout"]["title"]["text"] for spec in specs(at)]
    assert "Training, epoch by epoch" in titles


def test_the_picked_data_set_of_the_scores_is_in_the_link(open_page, save_tiny):
    other = [line | {"data": "probe/sst2", "n": 480} for line in SCORES]
    folder = save_tiny("two", scores=(*SCORES, *other))
    at = open_page("overview", folder, scored_on="probe/sst2")
    assert not at.exception
    assert "Accuracy on probe/sst2" in [spec["layout"]["title"]["text"] for spec in specs(at)]


def test_scores_open_on_the_data_that_the_checkpoint_itself_was_scored_on(open_page, save_tiny):
    """As the lab saves a pruning: the teacher's rows of two data sets, its own of the second."""
    rows = [
        row("dense teacher", "teacher", 0.9, data=data) for data in ("glue/sst2 validation", "probe/sst2")
    ]
    rows.append(row("static, 3 in all", "static", 0.8, data="probe/sst2", budget=3))
    plan = make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}, counts={1: 1, 2: 2})
    at = open_page("overview", save_tiny("pruned", plan=plan, scores=tuple(rows)))
    assert not at.exception
    assert "Accuracy on probe/sst2" in [spec["layout"]["title"]["text"] for spec in specs(at)]


def test_the_data_picked_for_one_checkpoint_is_not_carried_to_another(open_page, save_tiny):
    sets = ("glue/sst2 validation", "probe/sst2")
    rows = [row("routed", "routed", 0.9, data=data) for data in sets]
    first, _ = save_tiny("first", scores=tuple(rows)), save_tiny("second", scores=tuple(rows[::-1]))
    at = open_page("overview", first)

    def shown():
        assert not at.exception
        (title,) = [t for s in specs(at) if (t := s["layout"]["title"]["text"]).startswith("Accuracy on")]
        return title.removeprefix("Accuracy on ")

    assert shown() == sets[0]
    at.button_group(key="scored_on").set_value(sets[1]).run()
    assert shown() == sets[1]
    at.button_group(key="scored_on").set_value(sets[0]).run()
    at.selectbox(key="checkpoint").set_value("second").run()
    assert shown() == sets[1]  # its own first, though the other was picked for the first
    at.run()
    assert shown() == sets[1]
    at.button_group(key="scored_on").set_value(sets[0]).run()
    assert shown() == sets[0]


def test_a_static_checkpoint_shows_what_it_keeps(open_page, tiny_static_checkpoint):
    at = open_page("overview", tiny_static_checkpoint)
    assert not at.exception
    said = texts_of(at)
    assert "2 of 3 layers keep 1 to 2 of 4 experts, 3 in all" in said
    kept = {trace["name"]: len(trace["x"]) for trace in specs(at)[0]["data"]}
    assert kept == {"dense layer, not converted": 1, "expert kept": 3, "expert removed": 5}


@pytest.mark.parametrize("damage", ["weights", "config", "json", "history"])
def test_a_damaged_checkpoint_is_told_in_words(open_page, tiny_checkpoint, damage):
    if damage == "weights":
        with open(tiny_checkpoint / "model.safetensors", "r+b") as file:
            file.truncate(500)
    elif damage == "config":
        (tiny_checkpoint / "config.json").write_text('{"shrp": {"format_version": 99}, "model_type": "bert"}')
    elif damage == "json":
        (tiny_checkpoint / "config.json").write_text("{")
    else:
        (tiny_checkpoint / "history.jsonl").write_text("{nonsense\n")
    at = open_page("overview", tiny_checkpoint)
    assert not at.exception
    expected = {
        "weights": "truncated",
        "config": "format version 99",
        "json": "not readable JSON",
        "history": "not readable JSON lines",
    }
    assert expected[damage] in at.error[0].value.replace("\\", "")
    assert (at.title[0].value == "tiny") if damage == "history" else not at.metric


MINIMAL = (
    [{"epoch": 0, "stage": 1}],
    [{"epoch": 0, "stage": 2, "validation_score": 0.5, "metric": "accuracy", "validation_n": 9}],
    [
        {"epoch": 0, "stage": 1, "usage": {"2": [0.5, 0.5, 0, 0]}},
        {"epoch": 0, "stage": 1, "usage": {"2": [1, 0, 0, 0]}},
    ],
)


@pytest.mark.parametrize("history", MINIMAL)
def test_a_history_of_the_least_that_is_needed_is_shown(open_page, save_tiny, history):
    folder = save_tiny("least", history=history_text(history))
    at = open_page("overview", folder)
    assert not at.exception
    titles = [spec["layout"]["title"]["text"] for spec in specs(at)]
    assert "Training, epoch by epoch" in titles
    at = open_page("expert_usage", folder)
    assert not at.exception
    assert not at.error


LACKING = (
    ({"epoch": 0}, "each row of the checkpoint's history must have an epoch and a stage"),
    ({"epoch": 0, "stage": 2, "validation_score": 0.5}, "must have its metric and validation_n too"),
)


@pytest.mark.parametrize(("row", "said"), LACKING)
def test_a_history_that_lacks_something_is_refused_in_words(open_page, save_tiny, row, said):
    folder = save_tiny("lacking", history=history_text([row]))
    at = open_page("overview", folder)
    assert not at.exception
    assert said in at.error[0].value.replace("\\", "").replace("\u2060", "")
    at = open_page("expert_usage", folder)
    assert not at.exception
    assert said in at.error[0].value.replace("\\", "").replace("\u2060", "")


def test_no_checkpoint_at_all_says_how_to_make_one(open_page):
    at = open_page("overview")
    assert not at.exception
    assert "There is no checkpoint yet" in at.info[0].value
    assert "shrp train" in at.code[0].value


def test_nonsense_in_the_link_falls_back(open_page, tiny_checkpoint):
    at = open_page(
        "overview", tiny_checkpoint, checkpoint="../../etc", source="<b>", scored_on="x", latency_each="1e999"
    )
    assert not at.exception
    assert at.title[0].value == "tiny"
    assert at.selectbox(key="source").value == "probe"


def test_names_and_descriptions_are_shown_as_text(open_page, save_tiny):
    scores = (row("<img src=x onerror=alert(1)> **bold**", "routed", 0.8),)
    at = open_page("overview", save_tiny("a_b *c* :smile: <i>", scores=scores))
    assert not at.exception
    assert "*c*" not in at.title[0].value
    assert ":smile:" not in at.title[0].value
    for chart in at.get("plotly_chart"):
        assert "<img" not in chart.proto.spec


def test_a_checkpoint_that_changes_on_disk_is_loaded_anew(open_page, tiny_checkpoint, save_tiny):
    assert "a tiny one" in texts_of(open_page("overview", tiny_checkpoint))
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["shrp"]["base_model"] = "quite another base"
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    assert "quite another base" in texts_of(open_page("overview", tiny_checkpoint))


def test_data_that_change_on_disk_are_read_anew(open_page, tiny_checkpoint, tmp_path):
    file = tmp_path / "data" / "sst2" / "validation.parquet"
    file.parent.mkdir(parents=True)
    for n in (3, 5):
        pd.DataFrame({"sentence": ["w1 w2"] * n, "label": [0] * n}).to_parquet(file)
        at = open_page("overview", tiny_checkpoint, data_dir=tmp_path / "data", source="glue")
        assert f"n = {n})" in texts_of(at)


def test_two_checkpoints_of_one_name_are_told_apart(monkeypatch, tmp_path, tiny_checkpoint):
    import os
    import shutil

    from ui import loaders

    other = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(tiny_checkpoint, other)
    monkeypatch.setattr(loaders, "SHIPPED", tiny_checkpoint.parent)
    monkeypatch.setenv("SHRP_CHECKPOINTS", os.pathsep.join(map(str, (other.parent, tiny_checkpoint.parent))))
    assert list(loaders.discover_all()) == ["tiny", "tiny (elsewhere)"]
    assert loaders.path_of("tiny (elsewhere)") == other


def test_checkpoints_are_in_the_order_in_which_people_count(open_page, tiny_checkpoint, save_tiny):
    for name in ("6of12", "11of12"):
        save_tiny(name)
    at = open_page("overview", tiny_checkpoint)
    assert at.selectbox(key="checkpoint").options == ["6of12", "11of12", "tiny"]


def test_the_app_imports_nothing_heavy_that_it_does_not_need():
    code = (
        "import sys, ui.state, ui.overview.checks, ui.overview.score_views, ui.expert.details;"
        "import ui.usage.history_figures;"
        "print([m for m in ('shrp.training.loop', 'datasets', 'sklearn', 'captum') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_app_opens_with_the_readmes_checkpoint_and_broken_ones_come_last(open_page, save_tiny):
    first = save_tiny("a-first")
    save_tiny(state.START)
    (first.parent / "0-broken").mkdir()
    (first.parent / "0-broken" / "config.json").write_text("{")
    at = open_page("overview", first, checkpoint=state.START)
    assert at.sidebar.selectbox(key=state.CHECKPOINT).options == [state.START, "a-first", "0-broken"]
    assert at.sidebar.selectbox(key=state.CHECKPOINT).value == state.START


def test_every_input_stands_with_its_answer_and_is_searched(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint, answers="wrong")
    assert not at.exception
    shown = next(frame.value for frame in at.dataframe if "prediction" in frame.value)
    probe, model = load_probe("sst2"), checkpoints.load(tiny_checkpoint)
    right = evaluate(model.model, model.tokenizer, probe).correct
    assert len(shown) == (~right).sum()
    assert set(shown["correct"]) == {"✗"}
    at.text_input(key="answers_with").set_value("never").run()
    found = next(frame.value for frame in at.dataframe if "prediction" in frame.value)
    assert 0 < len(found) < len(shown)
    assert found["the text"].str.contains("never", case=False).all()
    at.text_input(key="answers_with").set_value("no such word").run()
    assert not at.exception
    assert "0 of n = 480 inputs of probe/sst2." in texts_of(at)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"data": "glue/sst2 validation"}, "Not of the picked data, probe/sst2"),
        (
            {"data": "probe/sst2", "data_fingerprint": "0" * 16},
            "Of other inputs than the picked probe/sst2 has",
        ),
        ({"data": "probe/sst2", "data_fingerprint": load_probe("sst2").fingerprint}, ""),
        ({"data": "probe/sst2"}, ""),  # of before fingerprints were stored
    ],
)
def test_a_stored_score_says_where_it_is_not_of_the_picked_data(open_page, save_tiny, stored, said):
    at = open_page("overview", save_tiny("scored", scores=(row("routed", "routed", 0.8) | stored,)))
    assert not at.exception
    told = [text for text in (e.value.replace("\\", "") for e in at.caption) if "measured below" in text]
    assert [text.partition(":")[0] for text in told] == ([said] if said else [])


def test_whoever_waits_for_another_ones_timing_may_move_on(tiny_checkpoint):
    class Gone(Exception):
        pass

    def waiting():
        raise Gone

    loaded = checkpoints.load(tiny_checkpoint)
    with latency._ONE_AT_A_TIME, pytest.raises(Gone):
        latency.measure(loaded, {}, waiting=waiting)
    assert not latency._ONE_AT_A_TIME.locked()


@pytest.mark.parametrize("page", sorted((ROOT / "pages").glob("*.py")), ids=lambda page: page.stem)
def test_a_page_imports_the_shared_state_before_anything_else(page):
    """Its module's lock lets one session import transformers, whose modules two threads at once get half of."""
    imports = [
        node for node in ast.parse(page.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    first = next(node for node in imports if getattr(node, "module", "") != "__future__")
    assert ast.unparse(first) == "from ui import state"
