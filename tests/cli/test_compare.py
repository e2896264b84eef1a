"""`python -m shrp compare` says what the functions behind it find, and refuses what can't be compared."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.routes import usage_distances
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.data.slices import parse_slices, sliced_by_words
from shrp.data.sources import load_file
from shrp.data.tasks import custom_task
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.paired import agreement, by_group, flip_table, paired_difference
from shrp.pruning.overlap import kept_alike
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune

USAGE = {1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_routed, tiny_tokenizer, tiny_data, tiny_info):
    """A folder with two routed checkpoints, two prunings of one, one of another task, and CSV files."""
    root = tmp_path_factory.mktemp("compare")
    frame = tiny_data(60, 1).to_frame()
    frame.to_csv(root / "data.csv", index=False)
    frame.drop(columns="label").to_csv(root / "unlabelled.csv", index=False)
    routed, other = tiny_routed(), tiny_routed(seed=3)
    checkpoint.save(routed, tiny_tokenizer, tiny_info(), root / "routed")
    checkpoint.save(other, tiny_tokenizer, tiny_info(), root / "other")
    for m in (1, 2):
        plan = make_plan(USAGE, per_layer=m)
        checkpoint.save(prune(routed, plan), tiny_tokenizer, tiny_info(plan=plan), root / f"kept{m}")
    info = tiny_info()
    task = custom_task("moods", ("sentence",), ("bad", "good"))
    checkpoint.save(
        routed,
        tiny_tokenizer,
        type(info)(config=info.config, task=task, base_model="tiny"),
        root / "moods",
    )
    return root


def compared(shrp, place, first, second, *given, data="data.csv"):
    slices = () if data == "unlabelled.csv" or "--slice" in given else ("--slice-column", "slice")
    code, out, err = shrp(
        "compare", place / first, place / second, "--data", place / data, *slices, *given, "--json"
    )
    assert code == 0, err
    return json.loads(out)


def evaluations(place, *names):
    data = load_file(place / "data.csv", "sst2", slice_column="slice")
    loaded = [checkpoint.load(place / name) for name in names]
    return data, loaded, [evaluate(one.model, one.tokenizer, data) for one in loaded]


def test_two_models_are_paired(shrp, place, tmp_path):
    told = compared(shrp, place, "routed", "other", "--flips", tmp_path / "flips.csv")
    data, loaded, (before, after) = evaluations(place, "routed", "other")
    change, ends = paired_difference(after, before)
    assert told["change"] == pytest.approx(change)
    assert told["change_interval"] == pytest.approx(ends)
    found = agreement(before, after)
    assert told["right"] == {
        **{"both": found.both, "only_first": found.only_a},
        **{"only_second": found.only_b, "neither": found.neither},
    }
    assert told["mcnemar_p"] == pytest.approx(found.p_value)
    for name, one, side in (("first", before, loaded[0]), ("second", after, loaded[1])):
        assert told[name]["score"] == pytest.approx(one.score)
        shares = cost(side.model).relative_to(dense_cost(side.model))
        assert told[name]["encoder_params"] == pytest.approx(shares["encoder_params"])
        assert told["provenance"][name]["checkpoint_fingerprint"] == side.fingerprint
    for by in ("class", "slice"):
        frame = by_group(before, after, by)
        assert [row["group"] for row in told[f"by_{by}"]] == list(frame["group"])
        assert [row["change"] for row in told[f"by_{by}"]] == pytest.approx(list(frame["change"]))
    flipped = flip_table(before, after, data)
    assert len(flipped) == sum(told["flipped"].values()) > 0
    assert list(pd.read_csv(tmp_path / "flips.csv")["index"]) == list(flipped["index"])
    stats = [measure_usage(one.model, one.tokenizer, data) for one in loaded]
    distances = usage_distances(*stats)
    assert [row["distance"] for row in told["usage"]] == pytest.approx(list(distances["distance"]))
    assert "kept" not in told


def test_slices_by_words_take_the_place_of_the_columns(shrp, place):
    told = compared(shrp, place, "routed", "other", "--slice", "some: w1, w2, w3")
    data = sliced_by_words(load_file(place / "data.csv", "sst2"), parse_slices("some: w1, w2, w3"))
    assert {row["group"]: row["n"] for row in told["by_slice"]} == dict(Counter(data.slices))
    assert len(told["by_slice"]) == 2
    assert {one["slice_words"] for one in told["provenance"].values()} == {"some: w1, w2, w3"}


def test_of_two_prunings_what_both_keep_is_told(shrp, place):
    told = compared(shrp, place, "kept1", "kept2")
    plans = [checkpoint.load(place / name).info.plan for name in ("kept1", "kept2")]
    frame = kept_alike(*plans, 4)
    assert [(row["layer"], row["both"]) for row in told["kept"]] == [
        (row.layer, row.both) for row in frame.itertuples()
    ]
    assert "usage" not in told
    assert told["first"]["encoder_params"] < told["second"]["encoder_params"]


def test_a_model_and_its_pruning_have_no_experts_to_compare(shrp, place):
    told = compared(shrp, place, "routed", "kept2")
    assert not {"usage", "kept"} & set(told)


def test_of_data_without_labels_what_flips_is_left(shrp, place):
    told = compared(shrp, place, "routed", "other", data="unlabelled.csv")
    assert told["change"] is None
    assert not {"right", "mcnemar_p", "by_class", "by_slice"} & set(told)
    _, _, (before, after) = evaluations(place, "routed", "other")
    assert told["flipped"] == {"no label": int(np.sum(before.predictions != after.predictions))}
    code, _, err = shrp("compare", place / "routed", place / "other", "--data", place / "unlabelled.csv")
    assert code == 0
    assert "no labels" in err


def test_the_text_names_data_and_denominators(shrp, place):
    code, out, err = shrp("compare", place / "routed", place / "kept1", "--data", place / "data.csv")
    assert code == 0, err
    assert "n = 60" in out
    assert "of the dense encoder's, for one input of 128 tokens" in " ".join(out.split())
    assert "the second minus the first" in out
    assert "McNemar's p" in " ".join(out.split())
    size = (place / "kept1" / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} " in out


def test_equal_models_differ_nowhere(shrp, place):
    told = compared(shrp, place, "routed", "routed")
    assert told["change"] == 0
    assert told["flipped"] == {}
    assert {row["distance"] for row in told["usage"]} == {0.0}


def test_what_can_t_be_compared_is_refused(shrp, place):
    code, out, err = shrp("compare", place / "routed", place / "moods")
    assert code == 1
    assert "only checkpoints of one kind compare" in " ".join(err.split())
    assert not out
    code, _, err = shrp(
        "compare",
        place / "routed",
        place / "other",
        "--data",
        place / "data.csv",
        "--flips",
        place / "data.csv",
    )
    assert code == 1
    assert "exists already" in err
