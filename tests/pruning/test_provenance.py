"""What a pruned checkpoint records of how it was made."""

import json

import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import training_facts
from shrp.checkpoints.score_rows import score_row
from shrp.data.sources import load_file, load_probe
from shrp.evaluation.evaluate import evaluate

CALIBRATED = "static, 2 in all, threshold calibrated"


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


def told(info):
    return dict(training_facts(info.training, plan=info.plan))


def test_how_experts_were_chosen_is_recorded(shrp, place, tmp_path):
    on = ("--data", place / "validation.csv", "--per-layer", 2)
    for selection in ("gate_norm", "random"):
        found, _, _ = pruned_to(shrp, place, tmp_path / selection, *on, "--selection", selection)
        assert told(found.info)["experts"].endswith("validation.csv (n = 24)")
    plan = found.info.plan
    (tmp_path / "mine.json").write_text(json.dumps(plan.to_dict()))
    given, _, _ = pruned_to(shrp, place, tmp_path / "given", "--plan", tmp_path / "mine.json")
    assert given.info.plan == plan
    assert "(mine.json)" in told(given.info)["experts"]
    assert "pruned to" in told(given.info)
    odd = tmp_path / "\udcff.json"  # a name that is not Unicode, as Linux allows
    odd.write_text(json.dumps(plan.to_dict()))
    assert pruned_to(shrp, place, tmp_path / "odd", "--plan", odd)[0].info.training["pruning"]["plan_file"]


@pytest.mark.parametrize(
    ("options", "name", "label", "kind"),
    [
        (("--budget", 3), "probe/sst2", "static, 3 in all", "static"),
        (("--budget", 3, "--data", "mine"), "validation.csv", "static, 3 in all", "static"),
        (("--budget", 3, "--selection", "random"), "probe/sst2", "random experts, 3 in all", "control"),
        (("--budget", 2, "--data", "mine", "--calibrate"), "validation.csv", CALIBRATED, "static"),
        (("--budget", 2, "--fine-tune", "mine"), "validation.csv", "static, 2 in all, fine-tuned", "static"),
    ],
)
def test_what_is_written_is_scored_on_the_data_at_hand(shrp, place, tmp_path, options, name, label, kind):
    files = ("--train-file", place / "train.csv", "--validation-file", place / "validation.csv")
    if "--fine-tune" in options:
        options = (*options[:-1], 1, *files)
    options = [place / "validation.csv" if option == "mine" else option for option in options]
    loaded, printed, err = pruned_to(shrp, place, tmp_path / "out", *options)
    data = load_probe("sst2") if name.startswith("probe") else load_file(place / name, "sst2")
    [row] = [one for one in loaded.info.scores if one["kind"] != "teacher"]
    # What was written, so after float16 too.
    found = evaluate(loaded.model, loaded.tokenizer, data, max_length=loaded.info.max_length)
    expected = score_row(label, kind, [found], 0.8, data, 128) | {"budget": loaded.info.plan.budget}
    expected |= {"recovered": True} if "--fine-tune" in options else {}
    assert row == expected
    assert printed["scores"] == [row]
    assert printed["plan"] == loaded.info.plan.to_dict()
    assert printed["experts_kept"] == options[1]
    assert "not scored" not in err
    chosen = loaded.info.training.get("chosen_on", {"data_fingerprint": None})
    assert (chosen["data_fingerprint"] == row["data_fingerprint"]) == ("--data" in options)
    text = loaded.card("out")
    control = "control: " * (kind == "control")
    assert f"| {control}{label} | {row['score']:.4f} |" in text
    if name.startswith("probe"):  # on the validation data there is the teacher's row alone
        assert "Only the dense teacher was scored on these data, not this model." in text
