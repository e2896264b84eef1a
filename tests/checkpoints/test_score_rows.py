"""Rows of scores: which are of the data at hand, and what their models cost, against models that are really built."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.score_rows import row_cost, rows_as_now, score_frame, with_shares
from shrp.evaluation.costs import cost, dense_cost
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import allocate, first_experts
from shrp.pruning.prune import prune


def row(model, kind, **facts):
    known = {"data": "validation.csv", "metric": "accuracy", "score": 0.8, "n": 24}
    return {"model": model, "kind": kind} | known | facts


def price(row, loaded):
    return row_cost(row, loaded.info, loaded.model)


def plan_of(budget):
    return first_experts(allocate({layer: [1.0] * 4 for layer in (1, 2)}, budget=budget))


@pytest.fixture
def routed(tiny_routed, tiny_tokenizer, tiny_info):
    return Checkpoint(Path("routed"), tiny_info(), tiny_routed(), tiny_tokenizer, "")


@pytest.fixture
def static(routed, tiny_tokenizer, tiny_info):
    plan = plan_of(5)
    return Checkpoint(Path("static"), tiny_info(plan=plan), prune(routed.model, plan), tiny_tokenizer, "")


def test_a_row_costs_what_its_model_does(routed, static, tiny_model, tiny_routed):
    def pruned(budget):
        return prune(routed.model, plan_of(budget))

    for found, model in (
        (row("dense teacher", "teacher"), tiny_model()),
        (row("static, 2 a layer", "static", per_layer=2), pruned(4)),
        (row("static, 5 in all", "static", budget=5), pruned(5)),
        (row("random experts, 1 a layer, fine-tuned", "control", per_layer=1, budget=2), pruned(2)),
        (row("no router, random experts, 1 a layer", "control", per_layer=1), pruned(2)),
        (row("layers dropped, 3 epochs", "control"), tiny_model(num_hidden_layers=1)),
    ):
        for loaded in (routed, static):
            assert price(found, loaded) == cost(model), (found["model"], loaded.path)
    assert price(row("routed", "routed"), routed) == cost(routed.model)


def test_a_row_that_does_not_tell_what_its_model_is_has_no_cost(routed, static):
    assert price(row("routed", "routed"), static) is None
    for kept in ({}, {"budget": 1}, {"budget": 9}, {"per_layer": 5}):
        assert price(row("static", "static", **kept), routed) is None


def test_shares_are_of_the_dense_model_and_unknown_ones_nan(routed):
    rows = [row("dense teacher", "teacher"), row("routed", "routed"), row("other", "static")]
    found = with_shares(score_frame(rows), routed.info, routed.model)
    share = cost(routed.model).relative_to(dense_cost(routed.model))
    assert found["encoder_params"].tolist()[:2] == [1.0, share["encoder_params"]]
    assert found["model_params"][1] == share["model_params"]
    assert found["encoder_flops"][1] == share["encoder_flops"]
    assert math.isnan(found["encoder_params"][2])
    assert with_shares(score_frame([]), routed.info, routed.model).empty


def test_data_are_known_by_what_they_hold_and_not_by_their_name(tiny_data):
    data = tiny_data(12, 0)
    here = {"model": "static", "kind": "static", "data": data.name, "data_fingerprint": data.fingerprint}
    other = here | {"data_fingerprint": tiny_data(12, 1).fingerprint}
    undated = {name: value for name, value in here.items() if name != "data_fingerprint"}
    info = CheckpointInfo(ShrpConfig((2, 3)), data.task, scores=(here, other, undated))
    renamed = replace(data, name="the same file elsewhere")
    for each in (data, renamed):
        assert rows_as_now(info, each, lambda: 5) == [here]


def test_rows_of_texts_that_were_cut_elsewhere_are_left_out(tiny_data):
    data = tiny_data(12, 0)
    rows = [{"data_fingerprint": data.fingerprint, "max_length": cut} for cut in (16, 64, 128)]
    info = CheckpointInfo(ShrpConfig((2, 3)), data.task, scores=tuple(rows))
    assert rows_as_now(info, data, lambda: 100, 128) == rows[2:]
    assert rows_as_now(info, data, lambda: 40, 128) == rows[1:]  # which cuts nothing
