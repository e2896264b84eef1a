"""`python -m shrp knock-out` says what the functions behind it find, and refuses what can't be asked."""

import json

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.importance import blocks, head_knock_outs, knock_outs, merge, worth_by_group
from shrp.analysis.knock_out import joint, knock_out_effect
from shrp.checkpoints import checkpoint
from shrp.data.slices import groups_by
from shrp.data.sources import load_file
from shrp.data.text_data import pairs_of
from shrp.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_routed, tiny_tokenizer, tiny_data, tiny_info):
    """A folder with a routed checkpoint and a CSV file with slices and minimal pairs."""
    root = tmp_path_factory.mktemp("knock-out")
    frame = tiny_data(40, 1).to_frame().sort_values("label", kind="stable")
    frame["twin"] = [
        *range((frame["label"] == "negative").sum()),
        *range((frame["label"] == "positive").sum()),
    ]
    frame.to_csv(root / "data.csv", index=False)
    for name, how in (
        ("routed", {"layers": (0, 1, 2)}),
        ("partly", {}),
        ("dense", {"layers": ()}),
    ):
        checkpoint.save(tiny_routed(**how), tiny_tokenizer, tiny_info(**how), root / name)
    return root


@pytest.fixture
def options(place):
    return (
        place / "routed",
        *("--data", place / "data.csv", "--slice-column", "slice", "--pair-column", "twin"),
    )


@pytest.fixture
def known(place):
    loaded = checkpoint.load(place / "routed")
    return loaded, load_file(place / "data.csv", "sst2", slice_column="slice", pair_column="twin")


def test_experts_taken_away_together(shrp, options, known):
    loaded, data = known
    code, out, err = shrp("knock-out", *options, "--expert", "2.1", "--expert", "1.0", "--json")
    assert code == 0, err
    told = json.loads(out)
    before = evaluate(loaded.model, loaded.tokenizer, data)

    def taken(*cells):
        return knock_out_effect(loaded.model, loaded.tokenizer, data, before, cells)

    both = taken((1, 0), (2, 1))
    assert told["experts"] == ["1.0", "2.1"]
    assert (told["n"], told["affected"], told["flipped"]) == (40, len(both.affected), both.flipped)
    assert (told["score"], told["without"]) == (before.score, both.after.score)
    assert told["change"] == pytest.approx(both.after.score - before.score)
    assert [row["slice"] for row in told["slices"]] == sorted(set(data.slices))
    expected = joint(both, [taken((1, 0)), taken((2, 1))], pairs_of(data))
    assert told["worth"]["together"] == pytest.approx(expected.together, abs=1e-6)
    alone = {"1.0": taken((1, 0)), "2.1": taken((2, 1))}
    assert told["worth"]["alone"] == {
        name: pytest.approx(one.changes().mean(), abs=1e-6) for name, one in alone.items()
    }
    assert len({round(value, 5) for value in told["worth"]["alone"].values()}) == 2
    assert told["worth"]["sum"] == pytest.approx(sum(told["worth"]["alone"].values()))
    assert told["worth"]["beyond_the_sum"] == pytest.approx(expected.beyond, abs=1e-6)
    low, high = expected.interval
    ends = None if low != low else [pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6)]
    assert told["worth"]["beyond_the_sum_interval"] == ends
    assert told["provenance"]["checkpoint_fingerprint"] == loaded.fingerprint
    code, out, err = shrp("knock-out", *options, "--expert", "2.1", "--expert", "1.0")
    assert "beyond the sum" in out
    assert "without 1.0, 2.1" in out
    code, out, err = shrp("knock-out", *options, "--expert", "2.1", "--expert", "2.1")
    assert code == 0, err
    assert "beyond the sum" not in out  # one, named twice


def test_every_expert_in_turn_and_for_whom_it_matters(shrp, options, known):
    loaded, data = known
    code, out, err = shrp("knock-out", *options, "--by", "slice", "--inputs", 32, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["n"], told["of"]) == (32, 40)
    parts = [knock_outs(loaded.model, loaded.tokenizer, data, rows) for rows in blocks(data, 32)]
    found = merge(parts)
    experts, expected = pd.DataFrame(told["experts"]), found.table(data, None)
    assert len(experts) == 12
    np.testing.assert_allclose(experts["effect"], expected["effect"], atol=1e-6)
    groups = pd.DataFrame(told["groups"])
    by_slice = worth_by_group(found, data, groups_by("slice", data))
    np.testing.assert_allclose(groups["lost"], by_slice["lost"], atol=1e-6)
    assert groups["group"].tolist() == by_slice["group"].tolist()
    assert len(told["beyond_chance"]) == (groups["q"].fillna(1) <= 0.05).sum()
    code, out, err = shrp("knock-out", *options)
    assert code == 0, err
    assert "every expert in turn, n = 40 of 40" in " ".join(out.split())


@pytest.mark.parametrize(("name", "layers"), [("dense", 3), ("partly", 1)])
def test_every_head_in_turn_and_for_whom_it_matters(shrp, place, options, name, layers):
    asked = (place / name, *options[1:], "--heads", "--by", "class")
    code, out, err = shrp("knock-out", *asked, "--inputs", 32, "--json")
    assert code == 0, err
    told, loaded = json.loads(out), checkpoint.load(place / name)
    data = load_file(place / "data.csv", "sst2", slice_column="slice", pair_column="twin")
    assert (told["n"], told["of"]) == (32, 40)
    assert "experts" not in told
    found = head_knock_outs(loaded.model, loaded.tokenizer, data, next(blocks(data, 32)))
    heads, expected = pd.DataFrame(told["heads"]), found.table(data, None)
    assert heads[["layer", "head"]].to_numpy().tolist() == [[i, h] for i in range(layers) for h in range(4)]
    np.testing.assert_allclose(heads["effect"], expected["effect"], atol=1e-6)
    assert heads["effect_interval"].notna().all()
    groups = pd.DataFrame(told["groups"])
    by_class = worth_by_group(found, data, groups_by("class", data))
    np.testing.assert_allclose(groups["lost"], by_class["lost"], atol=1e-6)
    of_use = {"expert", "usage", "uses", "effect_per_use", "effect_per_use_interval"}
    assert not of_use & ({*heads} | {*groups} | {key for row in told["beyond_chance"] for key in row})
    code, out, err = shrp("knock-out", *asked)
    assert code == 0, err
    assert "every head in turn, n = 40 of 40" in " ".join(out.split())
    assert "lost without the head, by class" in " ".join(out.split())
    assert "expert" not in out
    assert "usage" not in out


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("partly", ("--heads", "--expert", "1.0"), "--heads is for every head in turn; leave --expert out"),
        ("partly", ("--heads", "--by", "answer"), "heads can be told apart by class"),
        ("routed", ("--heads",), "no dense layer, so there is no head of one"),
        ("dense", (), "no routed layer, so there is no expert to knock out; its dense layers have heads"),
    ],
)
def test_what_has_no_such_heads_or_experts_is_said_in_words(shrp, place, options, name, asked, said):
    code, out, err = shrp("knock-out", place / name, *options[1:], *asked)
    assert code == 1
    assert out == ""
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--expert", "9"), "LAYER.EXPERT"),
        (("--expert", "a.b"), "LAYER.EXPERT"),
        (("--expert", "1." + "9" * 5000), "LAYER.EXPERT"),
        (("--expert", "7.0"), "layer 7 has no router"),
        (tuple(x for e in range(4) for x in ("--expert", f"1.{e}")), "all experts of layer 1"),
        (("--expert", "1.0", "--by", "slice"), "--by is for every expert in turn; leave --expert out"),
        (("--expert", "1.0", "--inputs", 9), "--inputs is for every expert in turn; leave --expert out"),
        (("--by", "answer"), "class, slice or length"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(shrp, options, asked, said):
    code, out, err = shrp("knock-out", *options, *asked)
    assert code == 1
    assert out == ""
    assert said in " ".join(err.split())


@pytest.mark.parametrize("asked", [(), ("--expert", "1.0")])
def test_without_routers_or_slices_it_says_so(shrp, place, options, asked):
    code, _, err = shrp("knock-out", place / "dense", *options[1:], *asked)
    assert code == 1
    assert "no routed layer" in " ".join(err.split())
    code, _, err = shrp("knock-out", place / "routed", "--data", place / "data.csv", "--by", "slice")
    assert code == 1
    assert "no slices" in " ".join(err.split())


def test_without_labels_it_tells_what_is_known(shrp, place):
    frame = pd.read_csv(place / "data.csv").drop(columns="label")
    frame.to_csv(place / "bare.csv", index=False)
    options = (place / "routed", "--data", place / "bare.csv")
    code, out, err = shrp("knock-out", *options, "--expert", "2.1", "--expert", "1.0")
    assert code == 0, err
    assert "mean logits" in out
    assert "nan" not in out
    code, out, err = shrp("knock-out", *options, "--inputs", 8)
    assert code == 0, err
    assert "nan" not in out
    code, out, err = shrp("knock-out", *options, "--slice-column", "slice", "--by", "slice")
    assert code == 1
    assert "no labels" in err
