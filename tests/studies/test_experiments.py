"""What the experiments' files say: tables over seeds, sentences that follow from the rows, files that are not ours."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from shrp.errors import DataError
from shrp.studies import ablations, experiments
from shrp.studies.balance import balance_findings, balance_frame
from shrp.studies.matching import matching_findings, matching_frame
from shrp.studies.rates import rates_findings, rates_frame
from studies.experiment_section import experiments_section


def scored(score, n=100):
    return {"metric": "matthews", "score": score, "interval": [score - 0.05, score + 0.05], "n": n}


@pytest.mark.parametrize("none", [None, [0.0, 0.0]])
def test_a_score_without_an_interval_has_no_ends(tmp_path, none):
    flat = {"score": 0.0, "interval": none}
    rows = {
        "topk": [row | flat for row in topk_rows(0, 1, {"1": [0], "2": [1]}, 0.3)],
        "sweep": [sweep_row("static", 2, 0.3) | flat, sweep_row("routed", None, 0.3)],
        "balance": [balance_row(0.1, 0.3, 0.2) | {"static": scored(0.0) | flat}],
    }
    for name, found in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": found}))
    topk, sweep, balance = (experiments.read(name, tmp_path) for name in rows)
    assert experiments.topk_scores(topk)[["low", "high"]].isna().all(axis=None)
    assert experiments.sweep_frame(sweep)["low"].isna().sum() == 1
    assert balance_frame(balance)[["static low", "static high"]].isna().all(axis=None)
    assert balance_frame(balance)["routed low"].notna().all()
    text = experiments_section(tmp_path)
    assert "0.000 (no interval)" in text
    assert "nan" not in text


def usage_row(seed, stage, examples, distance, mean=None):
    return {
        **{"task": "cola", "seed": seed, "layer": 6, "stage": stage, "step": None, "examples": examples},
        **{"distance": distance, "mean_distance": mean, "even_distance": 0.04, "effective": 9.0},
        **{"top_share": 0.3, "share": [0.3, 0.7], **scored(0.3)},
    }


def topk_rows(seed, k, used, score):
    price = {
        "teacher": 0.4,
        "experts": 4,
        "encoder_flops": 0.5,
        "encoder_params": 0.5,
        "retained": score / 0.4,
    }
    shared = {"task": "cola", "seed": seed, "top_k": k, **price}
    kept = {"kept": used, "used": used, "change": -0.1, "change_interval": [-0.2, 0.0]}
    return [
        {**shared, "model": "routed", "budget": None, **scored(score)},
        {**shared, "model": "static", "budget": 2, **scored(score - 0.1), **kept},
    ]


def sweep_row(model, budget, score, seed=0):
    return {
        **{"task": "cola", "seed": seed, "model": model, "budget": budget, "teacher": 0.4},
        **{"interval_is": "95%", "retained": score / 0.4, **scored(score)},
        **{"encoder_flops": 0.5 + 0.01 * (budget or 1), "encoder_params": 0.5},
    }


def balance_row(weight, top_share, static):
    usage = [
        {"epoch": e, "stage": s, "layer": 6, "effective": 1 / top_share, "top_share": top_share}
        for e, s in ((0, 1), (1, 2))
    ]
    return {
        **{"task": "cola", "seed": 0, "balance": weight, "metric": "matthews", "n": 100, "teacher": 0.4},
        **{"experts": 12, "per_layer": 2, "routed": scored(0.35), "static": scored(static), "usage": usage},
    }


def overhead_row(batch, ratio):
    times = {
        f"{name}{end}": 2.0 for name in ("routed_ms", "static_ms") for end in ("", "_low", "_high")
    }  # the page shows them, nothing is computed from them
    return {
        **{"geometry": "bert-base", "depth": "6of12", "batch": batch, "tokens": 16, "rounds": 9},
        **{"flop_ratio": 1.0002, "experts_chosen": 3.5, **times},
        **{"ratio": ratio, "ratio_low": ratio - 0.1, "ratio_high": ratio + 0.1},
    }


def matching_row(seed, exchange, kept, share, score, origin="random"):
    change = {} if exchange == "as drawn" else {"change": score / 0.4 - 0.5, "change_interval": [0.1, 0.3]}
    return {
        **{"task": "cola", "seed": seed, "origin": origin, "exchange": exchange, "teacher": 0.4},
        **{"layers": [] if exchange == "as drawn" else [2], "retained": score / 0.4, **scored(score)},
        **{"kept": {"2": kept, "10": 3}, "matching": {"2": share, "10": 0.02}},
        **{"matching_after": {"2": share + 0.05, "10": 0.02}, **change},
    }


def rates_row(model, times, score, seed=0):
    return {
        **{"task": "cola", "seed": seed, "depth": "11of12", "model": model, "times": times, "teacher": 0.4},
        **{"learning_rate": 4e-4 * times, "new_learning_rate": 3e-3 * times, "retained": score / 0.4},
        **scored(score),
    }


ROWS = {
    "layer": [
        *(usage_row(s, 1, 20, 0.6 + s / 10, mean=0.1) for s in (0, 1)),
        *(usage_row(s, 1, 900, 0.2 + s / 10, mean=0.05) for s in (0, 1)),
        *(usage_row(s, 2, 9000, 0.8) for s in (0, 1)),
    ],
    "topk": [
        *topk_rows(0, 1, {"6": [0], "7": [1]}, 0.4),
        *topk_rows(1, 1, {"6": [0], "7": [2]}, 0.2),
        *topk_rows(2, 1, {"6": [0], "7": [3]}, 0.3),
        *topk_rows(0, 3, {"6": [0], "7": [1]}, 0.35),
    ],
    "sweep": [
        sweep_row("routed", None, 0.35),
        *(sweep_row("static", b, 0.2 + 0.01 * b) for b in (6, 7, 8)),
        *(sweep_row("random", b, 0.28 - 0.01 * b) for b in (6, 7)),
    ],
    "balance": [balance_row(0.0, 0.95, 0.2), balance_row(0.1, 0.25, 0.3)],
    "overhead": [overhead_row(1, 1.4), overhead_row(32, 1.1)],
    "matching": [
        matching_row(2, "another", 4, 0.01, 0.22),
        matching_row(2, "put in", 1, 0.14, 0.36),
        matching_row(2, "as drawn", 8, 0.0, 0.2),
        matching_row(1, "as drawn", 1, 0.14, 0.38, origin="static"),
        matching_row(1, "taken out", 8, 0.0, 0.18, origin="static"),
    ],
    "rates": [
        *(rates_row("dropped", times, score) for times, score in ((2.0, 0.16), (0.5, 0.1), (1.0, 0.12))),
        *(rates_row("static", times, score) for times, score in ((1.0, 0.3), (2.0, 0.28))),
    ],
}


def file_of(name):
    """The text of an experiment's file."""
    settings = {"base": "a base", "recipe": "retain", "conversion_size": 1000, "epoch_size": 8000}
    if name == "matching":
        settings |= {"depth": "11of12", "per_layer": 1}
    if name == "rates":
        settings = {"base": "a base", "recipe": "retain", "of_table": True}
    return json.dumps(
        {
            "command": f"python -m studies.experiments {name}",
            "data": {"cola": {"validation": "glue/cola validation", "n": 100, "constant": 0.1}},
            "settings": {"cola": settings | {"stage2_epochs": 2, "freeze_dense": True}},
            "machine": {"cpu": "a <processor>", "threads": 2},
            "rows": ROWS[name],
        }
    )


@pytest.fixture
def read(tmp_path):
    def go(name):
        (tmp_path / f"{name}.json").write_text(file_of(name))
        return experiments.read(name, tmp_path)

    return go


def test_what_a_file_is_of(read):
    assert read("layer").about("cola") == (
        "glue/cola validation, n = 100, a constant answer has 0.100; seeds 0, 1; a base, recipe retain, converted on "
        "the task; 1,000 training examples a converted layer, then 2 epochs of up to 8,000; dense layers frozen"
    )


def test_layer_is_averaged_over_seeds_and_told_from_first_to_last(read):
    frame = experiments.layer_frame(read("layer"))
    assert frame["distance"].tolist() == [pytest.approx(0.65), pytest.approx(0.25), pytest.approx(0.8)]
    assert frame.loc[0, ["low", "high", "seeds"]].tolist() == [0.6, 0.7, 2]
    assert frame["mean_distance"].isna().tolist() == [False, False, True]
    (sentence,) = experiments.layer_findings(frame)
    assert (
        "0.65 from uniform (total variation) at the first measurement, 0.25 at the end of stage 1 and 0.80"
        in sentence
    )
    assert "even picks would measure 0.04" in sentence
    peak = frame.iloc[:1].assign(distance=0.7, examples=500)
    middle = pd.concat([frame.iloc[:1], peak, frame.iloc[1:]], ignore_index=True)
    (sentence,) = experiments.layer_findings(middle)
    assert "0.70 at most within stage 1 (after 500 examples), 0.25 at the end" in sentence


def test_topk_overlap_stands_beside_chance_and_one_seed_has_none(read):
    found = read("topk")
    stability = experiments.topk_stability(found)
    whole = stability[stability["layer"] == "all"].iloc[0]
    assert whole["overlap"] == pytest.approx(
        1 / 3
    )  # one of three pairs (layer, expert), in each pair of seeds
    assert whole[["pairs", "seeds", "used"]].tolist() == [3, 3, 2]
    assert set(stability["top_k"]) == {1}
    first, second = experiments.topk_findings(experiments.topk_scores(found), stability)
    assert first.startswith(
        "On cola, Top-1's used kept sets overlap (Jaccard) over 3 seeds by 0.33 with 2 kept, 2 used (chance 0."
    )
    assert first.endswith(
        "its score is 0.300 at 50.0% of the encoder's FLOPs routed, 0.200 with 2 after pruning."
    )
    assert "one seed" in second


def test_topk_scores_have_the_range_of_seeds_or_the_interval_of_one(read):
    frame = experiments.topk_scores(read("topk")).set_index(["top_k", "model"])
    assert frame.loc[(1, "routed"), ["score", "low", "high"]].tolist() == [pytest.approx(0.3), 0.2, 0.4]
    assert frame.loc[(3, "routed"), ["low", "high"]].tolist() == [pytest.approx(0.3), pytest.approx(0.4)]


def test_sweep_counts_where_usage_beats_chance(read):
    (sentence,) = experiments.sweep_findings(experiments.sweep_frame(read("sweep")))
    assert "0.260 at 56.0% of the encoder's FLOPs (6 experts) and 0.280 at 58.0%" in sentence
    assert (
        "above random ones at 2 of 2 budgets; the mean over all of these is 0.050 above theirs." in sentence
    )
    assert "Random ones" not in sentence
    assert "stays" not in sentence


def test_sweep_tells_trainings_apart(read):
    found = read("sweep")
    other = [
        row | {"seed": 1, "score": row["score"] - 0.08 * (row["model"] == "static" and row["budget"] == 6)}
        for row in found.rows
    ]
    both = replace(found, rows=[*found.rows, *other])
    (sentence,) = experiments.sweep_findings(experiments.sweep_frame(both), both.rows)
    assert (
        "the mean over all of these is 0.030 above theirs (+0.050 and +0.010 in the 2 trainings)." in sentence
    )
    (sentence,) = experiments.sweep_findings(experiments.sweep_frame(found), found.rows)
    assert "trainings" not in sentence


def test_sweep_says_where_chance_wins_and_where_the_curve_is_flat():
    rows = [
        {"task": "cola", "model": model, "budget": budget, "score": score, "seeds": 1, "teacher": 0.4}
        | {"encoder_flops": 0.5}
        for model, scores in (("static", [0.1, 0.2, 0.3, 0.3, 0.3]), ("random", [0.2, 0.3, 0.1, 0.4]))
        for budget, score in zip((6, 8, 10, 12, 14), scores, strict=False)
    ]
    (sentence,) = experiments.sweep_findings(pd.DataFrame(rows))
    assert "Random ones score above at 6 to 8 and 12 experts in all." in sentence
    assert "From 10 on the score stays" in sentence


def test_balance_counts_collapses(read):
    frame = balance_frame(read("balance"))
    assert frame[["balance", "collapsed"]].to_numpy().tolist() == [[0, 1], [0.1, 0]]
    assert frame["effective 1"].tolist() == [pytest.approx(1 / 0.95), 4]
    (sentence,) = balance_findings(frame)
    assert (
        "more than 90% of a layer in stage 1, a collapse, in 1 of 1 seed at 0 (95.0% at most) and 0 of"
        in sentence
    )
    assert "Effective experts through stage 1: 1.1 and 4.0; after stage 2: " in sentence
    assert (
        "highest at 0.1 (0.300) and lowest at 0 (0.200): one training each, so the order may be chance."
        in sentence
    )


def test_balance_of_several_trainings_says_how_far_they_differ(read):
    found = read("balance")

    def with_static(scores):
        rows = [
            row | {"seed": seed, "static": row["static"] | {"score": score}}
            for row, pair in zip(found.rows, scores, strict=True)
            for seed, score in enumerate(pair)
        ]
        return balance_findings(balance_frame(replace(found, rows=rows)))[0]

    said = with_static([(0.1, 0.3), (0.2, 0.4)])
    assert "highest at 0.1 (0.300) and lowest at 0 (0.200): means of 2 trainings, which have " in said
    assert said.endswith("0.200 to 0.400 and 0.100 to 0.300, so the order may be chance.")


def test_overhead_names_both_ends(read):
    (sentence,) = experiments.overhead_findings(experiments.overhead_frame(read("overhead")))
    assert sentence.startswith("bert-base, 6 of 12 layers: routing takes 1.10 to 1.40 times as long")
    assert "the most at batch 1, 16 tokens (quartiles 1.30 to 1.50)" in sentence


@pytest.mark.parametrize("name", experiments.TITLES)
def test_files_that_are_missing_or_not_ours(name, tmp_path):
    assert experiments.read(name, tmp_path) is None
    for text in ("{", "[]", '{"rows": [{"task": "cola"}]}'):
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(DataError, match=f"studies.experiments {name}"):
            experiments.read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("layer", {"distance": "far"}),
        ("sweep", {"interval": [1]}),
        ("balance", {"usage": 3}),
        ("topk", {"task": 1}),
        ("matching", {"kept": [1]}),
        ("rates", {"times": "twice"}),
    ],
)
def test_cells_of_another_kind_are_named(name, cell, tmp_path):
    found = json.loads(file_of(name))
    found["rows"][0] |= cell
    (tmp_path / f"{name}.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=f"has a {next(iter(cell))} that can't be read"):
        experiments.read(name, tmp_path)


def test_exchanges_are_told_beside_the_pruning_that_they_change(read):
    found = read("matching")
    frame = matching_frame(found)
    assert list(frame["exchange"]) == ["as drawn", "taken out", "as drawn", "put in", "another"]
    assert list(frame["pruning"]) == ["SHRP"] * 2 + ["random experts"] * 3
    assert list(frame["what"]) == [
        "",
        "layer 2's expert 8 (matching: 0%) in place of 1 (14%)",
        "",
        "layer 2's expert 1 (matching: 14%) in place of 8 (0%)",
        "layer 2's expert 4 (matching: 1%) in place of 8 (0%)",
    ]
    assert list(frame["matching"]) == pytest.approx([0.19, 0.05, 0.05, 0.19, 0.06])
    assert frame["change"].isna().tolist() == [True, False, True, False, False]
    assert (frame["low"] < frame["retained"]).all()
    whole, first, second = matching_findings(frame)
    assert (
        "matching experts taken out -5.0 (1 training); a matching expert put in +40.0 (1 training)" in whole
    )
    assert first.startswith(
        "On cola, seed 1, SHRP keeps 95.0% (82.5 to 107.5) of the teacher's score; with layer 2's"
    )
    assert "SHRP" not in second
    assert "in place of 8 (0%), 90.0% (77.5 to 102.5), a change of +40.0 (+10.0 to +30.0) points" in second
    assert "11 of 12 layers, experts a layer: 1, trained as in the GLUE table" in found.about("cola")
    found.rows[0]["exchange"] = "turned over"
    with pytest.raises(DataError, match=r"benchmarks\.experiments matching"):
        matching_frame(found)
    found.rows[0]["exchange"] = "another"
    found.rows.pop(2)  # what the exchanges change
    with pytest.raises(DataError, match=r"studies.experiments matching"):
        matching_frame(found)


def test_kept_sets_that_are_no_sets_are_refused(read):
    found = read("topk")
    found.rows[1]["used"] = {"6": 3}
    with pytest.raises(DataError, match="kept experts wrongly"):
        experiments.topk_stability(found)


def test_the_ablation_over_seeds_and_with_the_interval_of_one():
    def row(variant, seed, score):
        models = {
            name: {"score": score, "interval": [score - 0.1, score + 0.1]} for name in ("routed", "static")
        }
        shared = {"task": "cola", "metric": "matthews", "n": 10, "teacher": 0.5}
        return {**shared, "variant": variant, "seed": seed, **models, "recovered": models["static"]}

    frame = ablations.frame_of([row("a", 0, 0.2), row("a", 1, 0.3), row("b", 0, 0.4)])
    assert frame["seeds"].tolist() == [2, 1]
    assert frame.loc[0, ["static retained", "static low", "static high"]].tolist() == pytest.approx(
        [0.5, 0.4, 0.6]
    )
    assert frame.loc[1, ["routed low", "routed high"]].tolist() == pytest.approx([0.6, 1.0])
    assert ablations.frame_of([]).empty
    with pytest.raises(DataError, match=r"benchmarks\.ablation"):
        ablations.frame_of([row("a", 0, 0.2) | {"static": 3}])


def test_models_are_told_at_the_table_s_rates_and_at_their_best(read, tmp_path):
    found = read("rates")
    frame = rates_frame(found)
    assert frame[["name", "times"]].to_numpy().tolist() == [
        ["SHRP, recovered", 1.0],
        ["SHRP, recovered", 2.0],
        ["layers dropped", 0.5],
        ["layers dropped", 1.0],
        ["layers dropped", 2.0],
    ]
    assert frame.loc[0, ["low", "retained", "high"]].tolist() == pytest.approx([0.625, 0.75, 0.875])
    assert frame["floor"].tolist() == [0.25] * 5
    (sentence,) = rates_findings(frame)
    assert sentence == (
        "On cola (11 of 12 layers, 1 seed) what is kept of the teacher's score: SHRP, recovered 75.0% (62.5 to 87.5) "
        "at the table's rates, the most of 2 tried; layers dropped 40.0% (27.5 to 52.5) at 2 times the table's rates, "
        "the most of 3 tried, and 30.0% (17.5 to 42.5) at the table's rates; a constant answer 25.0%. Each at its "
        "best, SHRP's lead over layers dropped is +35.0 points (+17.3 to +52.7; not paired; the best of several on the "
        "data that score them)."
    )
    ahead = [rates_row("random", 1.0, 0.36), rates_row("random", 1.0, 0.32, seed=1), *found.rows[3:]]
    (tmp_path / "rates.json").write_text(json.dumps({"rows": ahead}))
    frame = rates_frame(experiments.read("rates", tmp_path))
    random = frame[frame["model"] == "random"].iloc[0]
    assert random[["low", "retained", "high", "seeds"]].tolist() == pytest.approx([0.8, 0.85, 0.9, 2])
    assert frame["floor"].isna().all()  # a file from before says nothing of it
    # Of one training SHRP's 75.0%, of two random experts' 85.0%: not compared.
    (sentence,) = rates_findings(frame)
    assert sentence.endswith(
        "(11 of 12 layers, 2 seeds) what is kept of the teacher's score: random experts, recovered 85.0% (80.0 to "
        "90.0) at the table's rates."
    )
    frame = rates_frame(replace(found, rows=[ahead[0], *found.rows[3:]]))
    said = "SHRP's lead over random experts, recovered is -15.0 points (-32.7 to +2.7; not paired"
    assert said in rates_findings(frame)[0]
    rows = [ahead[0], rates_row("static", 1.0, 0.3, seed=1), *ahead[1:2], rates_row("static", 1.0, 0.3)]
    said = rates_findings(rates_frame(replace(found, rows=rows)))[0]
    assert "is -10.0 points (not paired)." in said  # of several seeds no interval is known
    alone = rates_findings(frame[frame["model"] == "static"])[0]
    assert "points" not in alone
