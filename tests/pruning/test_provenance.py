"""What a pruned checkpoint says of how it came to be, and by what a result of the command line can be traced."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import card
from shrp.checkpoints.card_pruning import pruned
from shrp.checkpoints.score_rows import score_row, share_of
from shrp.data.sources import load_file, load_probe
from shrp.data.tasks import TASKS, custom_task
from shrp.errors import ExportError, PlanError
from shrp.evaluation import evaluate as evaluation
from shrp.evaluation.evaluate import evaluate
from shrp.model.config import ShrpConfig
from shrp.model.convert import layer_kinds
from shrp.pruning.plan import make_plan
from shrp.training.config import TrainConfig
from ui.describe import training_facts


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_tokenizer, tiny_data, tiny_routed, tiny_info):
    """A folder with data files and a routed checkpoint, whose teacher's score on them and the probe set is known."""
    root = tmp_path_factory.mktemp("pruned")
    for name, n, seed in (("train", 32, 0), ("validation", 24, 1)):
        tiny_data(n, seed, sliced=False).to_frame().to_csv(root / f"{name}.csv", index=False)
    data, model = load_file(root / "validation.csv", "sst2"), tiny_routed()
    shares = measure_usage(model, tiny_tokenizer, data).shares()
    scores = tuple(
        {"model": "dense teacher", "kind": "teacher", "data": of.name, "data_fingerprint": of.fingerprint}
        | {"metric": "accuracy", "score": 0.8, "n": len(of), "interval": None, "interval_is": "95%"}
        for of in (data, load_probe("sst2"))
    )
    training = {"train_data": "train.csv", "train_examples": 32, "validation_data": "validation.csv"}
    usage = {str(layer): share.tolist() for layer, share in shares.items()}
    info = tiny_info(usage=usage, scores=scores, training=training)
    checkpoint.save(model, tiny_tokenizer, info, root / "routed")
    return root


def pruned_to(shrp, place, out, *options, source="routed"):
    """Prune, and return the result and what the command printed as JSON."""
    code, printed, err = shrp("prune", place / source, "--out", out, *options, "--json")
    assert code == 0, err
    return checkpoint.load(out), json.loads(printed), " ".join(err.split())


def own_rows(loaded):
    return [row for row in loaded.info.scores if row["kind"] != "teacher"]


def test_cards_and_facts_of_different_prunings_differ(shrp, place, tmp_path):
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    plain, _, _ = pruned_to(shrp, place, tmp_path / "a", "--per-layer", 1)
    further = ("--budget", 3, "--recover", 1, "--combination", "mean", "--epoch-size", 16, *files)
    recovered, _, _ = pruned_to(shrp, place, tmp_path / "b", *further)
    text = card("a", plain)
    assert (
        "Pruned to 1 expert in each of 2 layers (2 in all), picked by usage, weighted by usage, usage as"
        in text
    )
    assert "as the routed checkpoint has it from validation.csv." in text
    assert "After pruning" not in text
    (layer, of), *_ = plain.info.plan.layers
    assert f"| {layer} | 1 | {of.experts[0]} (1.00) |" in text
    text = card("b", recovered)
    counts = ", ".join(f"{layer}: {n}" for layer, n in recovered.info.plan.keep_counts().items())
    assert f"Pruned to 3 experts in all (by layer {counts}), picked by usage, weighted alike" in text
    assert "After pruning trained on train.csv (32 examples, 16 an epoch at most, 1 epoch, seed 0, " in text
    assert "validated on validation.csv. Learning rates 0.0001 and" in text

    facts = dict(training_facts(plain.info.training))  # as the app asks, without the plan
    assert facts["pruned to"] == "1 expert in each converted layer"
    assert facts["experts"].startswith("picked by usage, weighted by usage")
    assert not any(name.startswith("after pruning") for name in facts)
    facts = dict(training_facts(recovered.info.training, plan=recovered.info.plan))
    assert facts["pruned to"] == f"3 experts in all (by layer {counts})"
    assert facts["after pruning, trained on"] == "train.csv, n = 32"
    assert facts["after pruning, validated on"] == "validation.csv"
    assert facts["after pruning, epochs"] == "1, of at most 16 examples"
    assert facts["after pruning, learning rate, pretrained"] == "0.0001"


def test_how_experts_were_picked_is_said_of_every_selection(shrp, place, tmp_path):
    on = ("--data", place / "validation.csv", "--per-layer", 2)
    measured = {}
    for selection in ("gate_norm", "random"):
        options = (*on, "--selection", selection, "--seed", 3)
        measured[selection], _, _ = pruned_to(shrp, place, tmp_path / selection, *options)
    said = {name: pruned(loaded.info) for name, loaded in measured.items()}
    assert (
        "picked by gate x output norm, weighted by usage, measured on validation.csv (n = 24)."
        in said["gate_norm"]
    )
    # Which data weighted the experts that were drawn, and their seed, no plan says.
    assert (
        "picked at random (seed 3), weighted by usage, usage counted on validation.csv (n = 24)"
        in said["random"]
    )
    plan = measured["gate_norm"].info.plan
    (tmp_path / "mine.json").write_text(json.dumps(plan.to_dict()))
    given, _, _ = pruned_to(shrp, place, tmp_path / "given", "--plan", tmp_path / "mine.json")
    assert "weighted by usage, as a plan from a file (mine.json) says." in pruned(given.info)
    assert "pruned to" in dict(training_facts(given.info.training, plan=plan))
    odd = tmp_path / "\udcff.json"  # a name that is not Unicode, as Linux allows
    odd.write_text(json.dumps(plan.to_dict()))
    assert pruned_to(shrp, place, tmp_path / "odd", "--plan", odd)[0].info.training["pruning"]["plan_file"]


def test_a_checkpoint_that_says_little_of_its_pruning_is_read(shrp, place, tmp_path):
    loaded, _, _ = pruned_to(shrp, place, tmp_path / "a", "--per-layer", 1)
    known = {name: value for name, value in loaded.info.training.items() if name != "pruning"}
    for training in (
        known,  # of an earlier version
        known | {"pruning": "by hand"},
        known | {"pruning": {"selection": 3, "seed": "x", "budget": None, "per_layer": True}},
        known | {"recovery": {"epochs": "many", "train_data": "x", "train_examples": 3}},
    ):
        info = replace(loaded.info, training=training)
        assert "Pruned to 1 expert in each of 2 layers (2 in all), picked by usage" in pruned(info)
        assert "After pruning" not in card("a", replace(loaded, info=info))
        assert "experts" not in dict(training_facts(training))
        assert dict(training_facts(training, plan=info.plan))["experts"].startswith("picked by usage")
    assert pruned(replace(loaded.info, plan=None)) == ""


@pytest.mark.parametrize(
    ("options", "name", "label", "kind"),
    [
        (("--budget", 3), "probe/sst2", "static, 3 in all", "static"),
        (("--budget", 3, "--data", "mine"), "validation.csv", "static, 3 in all", "static"),
        (("--budget", 3, "--selection", "random"), "probe/sst2", "random experts, 3 in all", "control"),
        (
            ("--per-layer", 1, "--data", "mine", "--match-shares"),
            *("validation.csv", "static, 2 in all, shares matched", "static"),
        ),
        (("--per-layer", 1, "--recover", "mine"), "validation.csv", "static, 2 in all, recovered", "static"),
    ],
)
def test_what_is_written_is_scored_on_the_data_at_hand(shrp, place, tmp_path, options, name, label, kind):
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    if "--recover" in options:
        options = (*options[:-1], 1, *files)
    options = [place / "validation.csv" if option == "mine" else option for option in options]
    loaded, printed, err = pruned_to(shrp, place, tmp_path / "out", *options)
    data = load_probe("sst2") if name.startswith("probe") else load_file(place / name, "sst2")
    [row] = own_rows(loaded)
    # What was written, so after float16 too.
    found = evaluate(loaded.model, loaded.tokenizer, data, max_length=loaded.info.max_length)
    expected = score_row(label, kind, [found], 0.8)
    expected |= {"data_fingerprint": data.fingerprint, "max_length": 128, "budget": loaded.info.plan.budget}
    expected |= {"recovered": True} if "--recover" in options else {}
    assert row == expected
    assert printed["scores"] == [row]
    assert "not scored" not in err
    chosen = loaded.info.training.get("chosen_on", {"data_fingerprint": None})
    assert (chosen["data_fingerprint"] == row["data_fingerprint"]) == ("--data" in options)
    text = card("out", loaded)
    control = "control: " * (kind == "control")
    assert f"| {control}{label} | {row['score']:.4f} |" in text
    if name.startswith("probe"):  # on the validation data there is the teacher's row alone
        assert "Only the dense teacher was scored on these data, not this model." in text


def test_a_recovery_beside_data_of_its_own_is_scored_on_both(shrp, place, tmp_path):
    files = ("--train-file", place / "validation.csv", "--validation-file", place / "validation.csv")
    options = ("--per-layer", 1, "--data", place / "train.csv", "--recover", 1, *files)
    loaded, _, _ = pruned_to(shrp, place, tmp_path / "out", *options)
    assert [row["data"] for row in own_rows(loaded)] == ["train.csv", "validation.csv"]


def test_the_score_is_of_the_weights_as_they_are_stored(shrp, place, tmp_path, monkeypatch):
    """A tiny model's answers hardly ever turn on the rounding to float16, so its weights are looked at."""
    scored, real = [], evaluation.evaluate_stream

    def seen(model, *args, **options):
        scored.append({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *args, **options)

    monkeypatch.setattr(evaluation, "evaluate_stream", seen)
    for name, options in (("half", ()), ("full", ("--full-precision",))):
        loaded, _, _ = pruned_to(shrp, place, tmp_path / name, "--per-layer", 1, *options)
        stored = loaded.model.state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in scored[-1].items())
    first, second = scored
    assert not all(torch.equal(value, second[name]) for name, value in first.items())


def test_people_see_the_score(shrp, place, tmp_path):
    code, out, err = shrp("prune", place / "routed", "--out", tmp_path / "out", "--per-layer", 1)
    assert code == 0, err
    assert "static, 2 in all" in out
    assert "of teacher" in out


def test_where_there_is_nothing_to_score_on_it_is_said(
    shrp, place, tmp_path, tiny_routed, tiny_tokenizer, tiny_info, monkeypatch
):
    frame = pd.read_csv(place / "validation.csv")
    frame[["sentence"]].to_csv(tmp_path / "bare.csv", index=False)
    bare = ("--per-layer", 1, "--data", tmp_path / "bare.csv")
    loaded, printed, err = pruned_to(shrp, place, tmp_path / "a", *bare)
    assert own_rows(loaded) == printed["scores"] == []
    assert (
        "not scored: bare.csv has no column of labels; --label-column names it; `python -m shrp evaluate`"
        in err
    )
    usage = {"1": [0.25] * 4, "2": [0.25] * 4}
    for name, task, said in (
        ("moods", custom_task("moods", ("sentence",), ("sunny", "bleak")), "'moods', is one of your own"),
        ("qnli", TASKS["qnli"], "There is no probe set for 'qnli'"),
    ):
        info = replace(tiny_info(usage=usage), task=task)
        checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / name)
        out = tmp_path / f"{name}-pruned"
        loaded, printed, err = pruned_to(shrp, tmp_path, out, "--per-layer", 1, source=name)
        assert own_rows(loaded) == printed["scores"] == []
        assert "not scored: " in err
        assert said in err

    def too_large(*_, **__):
        raise RuntimeError("out of memory\nand more")
        yield

    monkeypatch.setattr(evaluation, "evaluate_stream", too_large)
    loaded, _, err = pruned_to(shrp, place, tmp_path / "b", "--per-layer", 1)
    assert own_rows(loaded) == []
    assert "not scored: out of memory; " in err


def test_a_share_of_a_score_that_is_not_above_0_is_none(shrp, place, tmp_path):
    assert share_of(0.4, 0.8) == 0.5
    assert share_of(-0.4, 0.8) == -0.5
    for nothing in (-0.0267, 0.0, float("nan"), None):
        assert share_of(-0.0277, nothing) is None
    loaded = checkpoint.load(place / "routed")
    data = load_file(place / "validation.csv", "sst2")
    found = evaluate(loaded.model, loaded.tokenizer, data)
    row = score_row("routed", "routed", [found], -0.0267)
    assert "retained" not in row
    rows = [dict(one) | {"score": -0.0267} for one in loaded.info.scores]
    # As earlier versions stored it.
    rows.append(row | {"score": -0.0277, "retained": 1.038, "data_fingerprint": data.fingerprint})
    info = replace(loaded.info, scores=tuple(rows))
    text = card("x", replace(loaded, info=info))
    assert "103.8%" not in text
    assert "| routed | -0.0277 |" in text
    assert " | – | " in text.split("| routed | -0.0277 |")[1].splitlines()[0]
    checkpoint.save(loaded.model, loaded.tokenizer, info, tmp_path / "negative")
    command = ("evaluate", tmp_path / "negative", "--data", place / "validation.csv")
    result = json.loads(shrp(*command, "--json")[1])
    assert (result["teacher"], result["retained"]) == (-0.0267, None)
    assert shrp(*command)[0] == 0


def test_numbers_can_be_traced(shrp, place):
    data, loaded = load_file(place / "validation.csv", "sst2"), checkpoint.load(place / "routed")
    for command in ("evaluate", "usage"):
        for options, length in (((), 32), (("--max-length", 7), 7)):  # 32 is all that the tokenizer takes
            on = ("--data", place / "validation.csv", "--json", *options)
            code, out, err = shrp(command, place / "routed", *on)
            assert code == 0, err
            assert json.loads(out)["provenance"] == {
                "checkpoint_fingerprint": loaded.fingerprint,
                "data": "validation.csv",
                "data_fingerprint": data.fingerprint,
                "n": 24,
                "max_length": length,
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
                "device": "cpu",
            }


def test_a_control_has_no_routers_to_balance():
    for control, told in (("none", True), ("uniform", False), ("dropped", False), ("narrow", False)):
        shrp = ShrpConfig((1, 2), control=control, narrow_to=int(control == "narrow"))
        facts = dict(training_facts({"config": TrainConfig.named("paper", shrp=shrp).to_dict()}))
        assert ("balance loss, weight" in facts) == told


def test_a_control_without_routers_is_pruned_by_a_plan_alone(
    shrp, tmp_path, monkeypatch, tiny_routed, tiny_tokenizer, tiny_info
):
    model, info = tiny_routed(control="uniform"), tiny_info(control="uniform")
    checkpoint.save(model, tiny_tokenizer, info, tmp_path / "control")
    command = ("prune", tmp_path / "control", "--out", tmp_path / "out")
    for options in (("--per-layer", 1), ("--per-layer", 1, "--data", "probe"), ("--encoder-params", "30%")):
        code, _, err = shrp(*command, *options)
        assert (code, "no usage to choose experts by" in " ".join(err.split())) == (1, True), err
    plan = make_plan({1: np.ones(4), 2: np.ones(4)}, per_layer=2)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    assert shrp(*command, "--plan", tmp_path / "plan.json")[0] == 0
    made = checkpoint.load(tmp_path / "out")
    assert made.info.plan.budget == 4
    loaded = checkpoint.load(tmp_path / "control")
    with pytest.raises(PlanError, match="no usage to prune by; give a plan"):
        loaded.prune(per_layer=1)
    assert loaded.prune(plan).info.plan == plan
    given = []

    def taken(model, tokenizer, info, folder, **options):
        given.append((layer_kinds(model), info.plan))
        raise ExportError("enough")  # tracing is not what is asked about

    monkeypatch.setattr("shrp.export.onnx.export_folder", taken)
    exported = ("export", tmp_path / "control", "--plan", tmp_path / "plan.json", "--out", tmp_path / "onnx")
    code, _, err = shrp(*exported)
    assert (code, "enough" in err, given) == (1, True, [(["dense", "static", "static"], plan)])
