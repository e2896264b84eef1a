"""Costs by formula against the method's reference figures, the real tensors and torch's own FLOP counter."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
)

from shrp.evaluation import costs as measure
from shrp.evaluation.layer_params import dense_layer_params, expert_layer_params, static_layer_params
from shrp.families.families import encoder_layers
from shrp.model.layers import ExpertLayer, StaticLayer
from shrp.pruning.plan import LayerPlan, PruningPlan
from shrp.pruning.prune import prune
from tests.conftest import counted_flops

TOKENS = 9
PLAN = PruningPlan(((1, LayerPlan((2,), (1.0,))), (2, LayerPlan((0, 3), (0.5, 0.5)))))


@pytest.fixture
def variants(tiny_model, tiny_routed):
    """Models of each kind, by name: `variants["dense"](family)`."""
    return {
        "dense": tiny_model,
        "sequence": tiny_routed,
        "sequence-top2": lambda family: tiny_routed(family, top_k=2),
        "token": lambda family: tiny_routed(family, routing="token"),
        "static": lambda family: prune(tiny_routed(family), PLAN),
        "sequence, self path": lambda family: tiny_routed(family, self_path=True),
        "static, both": lambda family: prune(tiny_routed(family, self_path=True), replace(PLAN, untied=True)),
    }


def assert_counted(model, tokens=TOKENS):
    cost = measure.cost(model, tokens)
    assert cost.model_params == measure.counted_params(model)
    assert cost.encoder_params == measure.counted_params(encoder_layers(model))
    assert cost.model_flops == counted_flops(model, tokens)
    return cost


def bert_base(replacements):
    """BERT-base on the meta device, with some layers replaced by `make(index)`."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(BertConfig())
        for index, layer in replacements.items():
            encoder_layers(model)[index] = layer(index)
    return model


def static(m):
    shape = {"hidden_size": 768, "num_experts": 12, "routing": "sequence", "top_k": 1}
    return lambda index: StaticLayer(ExpertLayer(layer=index, **shape), range(m))


def test_reference_layers_of_bert_base():
    assert round(dense_layer_params(768, 3072) / 1e6, 3) == 7.088
    params = {m: static_layer_params(768, 64, m) for m in (1, 2, 4, 12)}
    assert params == {1: 200_640, 2: 348_288, 4: 643_584, 12: 1_824_768}
    # method.md's figures lack one of the two LayerNorms (2 x 768) that its steps 4 and 5 describe.
    one_norm_less = {m: round((count - 2 * 768) / 1e6, 3) for m, count in params.items()}
    assert one_norm_less == {1: 0.199, 2: 0.347, 4: 0.642, 12: 1.823}
    router = expert_layer_params(768, 12) - params[12]
    assert router == 768 * 12 + 12


@pytest.mark.parametrize(("layers", "m", "share"), [(range(6, 12), 2, 0.525), (range(1, 12), 1, 0.109)])
def test_reference_encoder_parameters_kept_of_bert_base(layers, m, share):
    model = bert_base(dict.fromkeys(layers, static(m)))
    kept = measure.cost(model).relative_to(measure.dense_cost(model))
    assert round(kept["encoder_params"], 3) == share
    assert round(kept["encoder_flops"], 2) == round(share, 2)
    assert kept["model_params"] > kept["encoder_params"]  # embeddings are not compressed


def test_dense_bert_base_in_whole():
    cost = measure.dense_cost(bert_base({}), tokens=128)
    assert cost.encoder_params == 12 * 7_087_872
    assert cost.model_params == 109_483_778  # bert-base-uncased with a head of two labels
    # Per token and layer: 4 d^2 + 2 d ff for the projections, 2 T d for attention; pooler and head once.
    products = 128 * 12 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768)
    assert cost.encoder_flops == 2 * products
    assert cost.model_flops == 2 * (products + 768**2 + 768 * 2)


def test_formula_equals_what_runs(variants, tiny_family):
    for variant in variants if tiny_family == "bert" else ("dense", "token", "static, both"):
        assert_counted(variants[variant](tiny_family))


@pytest.mark.parametrize(
    "auto", [AutoModel, AutoModelForTokenClassification, AutoModelForQuestionAnswering, AutoModelForMaskedLM]
)
@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "mpnet"])
def test_other_heads_and_bare_encoders(tiny_model, family, auto):
    assert_counted(auto.from_config(tiny_model(family).config).eval())


def test_dense_cost_of_a_converted_model_is_that_of_the_original(variants, tiny_family):
    original = measure.cost(variants["dense"](tiny_family), TOKENS)
    for variant in ("sequence", "static, both"):
        assert measure.dense_cost(variants[variant](tiny_family), TOKENS) == original


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "mpnet"])
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_plan_cost_is_that_of_the_pruned_model(tiny_routed, family, routing):
    for plan in (PLAN, replace(PLAN, untied=True)):
        model = tiny_routed(family, routing=routing, self_path=plan.untied)
        assert measure.plan_cost(model, plan, TOKENS) == measure.cost(prune(model, plan), TOKENS)


def test_relative_to():
    base = measure.Cost(100, 400, 1000, 2000)
    found = measure.Cost(10, 310, 110, 1110).relative_to(base)
    assert found == {"encoder_params": 0.1, "model_params": 0.775, "encoder_flops": 0.11, "model_flops": 0.555}
    assert set(base.relative_to(base).values()) == {1.0}
    assert math.isnan(base.relative_to(measure.Cost(0, 300, 0, 1000))["encoder_params"])
