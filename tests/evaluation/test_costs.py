"""Costs by formula against the method's reference figures, the real tensors and torch's own FLOP counter."""

import math

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    GPT2Config,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from shrp.errors import PlanError, ShrpError, UnsupportedModelError
from shrp.evaluation import costs as measure
from shrp.families.families import FAMILIES, encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.layers import StaticLayer
from shrp.model.partial import Skip
from shrp.pruning.plan import LayerPlan, PruningPlan
from shrp.pruning.prune import prune
from tests.conftest import LIKE_DEBERTA_V3

TOKENS = 9
SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "num_labels": 2,
}
DISTILBERT_SIZES = {
    "vocab_size": 60,
    "dim": 24,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": 20,
    "num_labels": 2,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "camembert": CamembertConfig(**SIZES),
    "ernie": ErnieConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=10),
    "distilbert": DistilBertConfig(**DISTILBERT_SIZES),
    "deberta-v2": DebertaV2Config(**SIZES, **LIKE_DEBERTA_V3),
    "mpnet": MPNetConfig(**SIZES),
}
PLAN = PruningPlan(((1, LayerPlan((2,), (1.0,))), (2, LayerPlan((0, 3), (0.5, 0.5)))))


def classifier(family="bert", auto=AutoModelForSequenceClassification, attention=None):
    torch.manual_seed(0)
    attention = attention or FAMILIES[family].attention
    return auto.from_config(CONFIGS[family], attn_implementation=attention).eval()


def routed(family="bert", **options):
    return convert(classifier(family), ShrpConfig((1, 2), **options)).eval()


VARIANTS = {
    "dense": classifier,
    "sequence": routed,
    "sequence-top2": lambda family: routed(family, top_k=2),
    "token": lambda family: routed(family, routing="token"),
    "static": lambda family: prune(routed(family), PLAN),  # m = 1 and m = 2, one layer dense
}


def assert_counted(model, tokens=TOKENS):
    cost = measure.cost(model, tokens)
    assert cost.model_params == measure.counted_params(model)
    assert cost.encoder_params == measure.counted_params(encoder_layers(model))
    assert cost.model_flops == measure.counted_flops(model, tokens)
    return cost


def bert_base(replacements):
    """BERT-base on the meta device, with some layers replaced by `make(index)`."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(BertConfig())
        for index, layer in replacements.items():
            encoder_layers(model)[index] = layer(index)
    return model


@pytest.mark.parametrize("of", ["encoder_params", "model_params", "encoder_flops", "model_flops"])
def test_the_largest_budget_that_a_share_of_the_dense_model_allows(of):
    model = routed()
    dense, layers, experts = measure.dense_cost(model), 2, model.config.num_attention_heads
    shares = {
        kept: measure.static_cost(model, layers, kept).relative_to(dense)[of]
        for kept in range(layers, layers * experts + 1)
    }
    for kept, share in shares.items():
        assert measure.largest_budget(model, share, of) == kept
        if kept > layers:
            assert measure.largest_budget(model, share - 0.001, of) == kept - 1
        assert measure.largest_budget(model, round(share, 3), of) == kept  # as it is printed
    assert measure.largest_budget(model, 1.0, of) == layers * experts
    with pytest.raises(PlanError, match=f"the smallest pruning, .* has {shares[layers]:.1%} of the "):
        measure.largest_budget(model, shares[layers] / 2, of)
    for none in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(PlanError, match="above 0 and at most 1"):
            measure.largest_budget(model, none, of)
    with pytest.raises(PlanError, match="no routed layer"):
        measure.largest_budget(classifier(), 0.5, of)
    with pytest.raises(PlanError, match="a cost is one of"):
        measure.largest_budget(model, 0.5, "latency")


def static(m):
    return lambda index: StaticLayer(layer=index, hidden_size=768, head_size=64, heads=range(m))


def test_reference_layers_of_bert_base():
    assert round(measure.dense_layer_params(768, 3072) / 1e6, 3) == 7.088
    params = {m: measure.static_layer_params(768, 64, m) for m in (1, 2, 4, 12)}
    assert params == {1: 200_640, 2: 348_288, 4: 643_584, 12: 1_824_768}
    # method.md's figures lack one of the two LayerNorms (2 x 768) that its steps 4 and 5 describe.
    one_norm_less = {m: round((count - 2 * 768) / 1e6, 3) for m, count in params.items()}
    assert one_norm_less == {1: 0.199, 2: 0.347, 4: 0.642, 12: 1.823}
    router = measure.expert_layer_params(768, 12) - params[12]
    assert router == 768 * 12 + 12


@pytest.mark.parametrize(("layers", "m", "share"), [(range(6, 12), 2, 0.525), (range(1, 12), 1, 0.109)])
def test_reference_encoder_parameters_kept_of_bert_base(layers, m, share):
    model = bert_base(dict.fromkeys(layers, static(m)))
    kept = measure.cost(model).relative_to(measure.dense_cost(model))
    assert round(kept["encoder_params"], 3) == share
    assert kept["model_params"] > kept["encoder_params"]  # embeddings are not compressed


def test_reference_flops_kept_of_bert_base():
    model = bert_base(dict.fromkeys(range(1, 12), static(1)))
    kept = measure.cost(model, tokens=128).relative_to(measure.dense_cost(BertConfig(), tokens=128))
    assert round(kept["encoder_flops"], 3) == 0.110


def test_dense_bert_base_in_whole():
    cost = measure.dense_cost(BertConfig(), tokens=128)
    assert cost.encoder_params == 12 * 7_087_872
    assert cost.model_params == 109_483_778  # bert-base-uncased with a head of two labels
    # Per token and layer: 4 d^2 + 2 d ff for the projections, 2 T d for attention; pooler and head once.
    products = 128 * 12 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768)
    assert cost.encoder_flops == 2 * products
    assert cost.model_flops == 2 * (products + 768**2 + 768 * 2)


def test_every_supported_family_is_covered():
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", CONFIGS)
def test_formula_equals_what_runs(family, variant):
    assert_counted(VARIANTS[variant](family))


@pytest.mark.parametrize("family", CONFIGS)
def test_the_encoder_is_what_dropping_every_layer_removes(family):
    model = classifier(family)
    cost = measure.cost(model, TOKENS)
    for index in range(3):
        encoder_layers(model)[index] = Skip(FAMILIES[family])
    assert cost.encoder_flops == cost.model_flops - measure.counted_flops(model, TOKENS)
    assert cost.encoder_params == cost.model_params - measure.counted_params(model)


@pytest.mark.parametrize("tokens", [1, 2, 16])
def test_formula_equals_what_runs_at_other_lengths(tokens):
    for variant in ("dense", "sequence", "token", "static"):
        assert_counted(VARIANTS[variant]("electra"), tokens)


def test_eager_and_fused_attention_count_alike():
    fused, eager = (measure.counted_flops(classifier(attention=kind), TOKENS) for kind in ("sdpa", "eager"))
    assert fused == eager


@pytest.mark.parametrize(
    "auto",
    [AutoModel, AutoModelForTokenClassification, AutoModelForQuestionAnswering, AutoModelForMaskedLM],
)
@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "mpnet"])
def test_other_heads_and_bare_encoders(family, auto):
    assert_counted(classifier(family, auto))


def test_a_head_of_unknown_cost_is_refused():
    with pytest.raises(UnsupportedModelError, match="BertForPreTraining"):
        measure.cost(classifier(auto=AutoModelForPreTraining))


def test_a_family_without_an_adapter_is_refused():
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        measure.dense_cost(GPT2Config())


def test_only_top_1_sequence_routing_computes_fewer_experts():
    one, two, token = (
        measure.cost(VARIANTS[kind]("bert"), TOKENS) for kind in ("sequence", "sequence-top2", "token")
    )
    assert one.encoder_params == two.encoder_params == token.encoder_params
    assert one.encoder_flops < two.encoder_flops < token.encoder_flops
    router = 2 * 24 * 4
    assert token.encoder_flops - two.encoder_flops == 2 * (TOKENS - 1) * router  # two layers


@pytest.mark.parametrize("family", CONFIGS)
def test_dense_cost_of_a_converted_model_its_config_and_the_original_agree(family):
    original = measure.cost(classifier(family), TOKENS)
    assert measure.dense_cost(CONFIGS[family], TOKENS) == original
    for variant in VARIANTS.values():
        assert measure.dense_cost(variant(family), TOKENS) == original


def test_dense_cost_of_a_config_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    measure.dense_cost(CONFIGS["bert"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_plan_cost_is_that_of_the_pruned_model(family, routing):
    model = routed(family, routing=routing)
    assert measure.plan_cost(model, PLAN, TOKENS) == measure.cost(prune(model, PLAN), TOKENS)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_static_model_costs_as_much_however_its_experts_are_spread(family):
    for counts in ({1: 1, 2: 3}, {1: 2, 2: 2}):
        plan = PruningPlan(tuple((i, LayerPlan(tuple(range(m)), (1 / m,) * m)) for i, m in counts.items()))
        pruned = prune(routed(family), plan)
        assert measure.static_cost(classifier(family), 2, 4, TOKENS) == measure.cost(pruned, TOKENS)
        assert measure.static_cost(pruned, 2, 4, TOKENS) == measure.cost(pruned, TOKENS)


def test_plan_cost_refuses_what_prune_refuses():
    with pytest.raises(PlanError, match="no routed layer"):
        measure.plan_cost(classifier(), PLAN)
    elsewhere = PruningPlan(((0, LayerPlan((1,), (1.0,))),))
    with pytest.raises(PlanError, match="converted layers are"):
        measure.plan_cost(routed(), elsewhere)


def test_a_tied_tensor_counts_once():
    model = classifier(auto=AutoModelForMaskedLM)
    table = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is table
    assert measure.counted_params(model) == sum(tensor.numel() for tensor in set(model.parameters()))


def test_counting_needs_evaluation_mode():
    with pytest.raises(ShrpError, match="eval"):
        measure.counted_flops(routed().train(), TOKENS)


def test_relative_to():
    base = measure.Cost(100, 400, 1000, 2000, 128)
    assert measure.Cost(10, 310, 110, 1110, 128).relative_to(base) == {
        "encoder_params": 0.1,
        "model_params": 0.775,
        "encoder_flops": 0.11,
        "model_flops": 0.555,
    }
    assert set(base.relative_to(base).values()) == {1.0}
    assert math.isnan(base.relative_to(measure.Cost(0, 300, 0, 1000, 128))["encoder_params"])
    with pytest.raises(ShrpError, match="128 and 64"):
        base.relative_to(measure.Cost(100, 400, 1000, 2000, 64))


@pytest.mark.parametrize("call", [measure.cost, measure.dense_cost, measure.counted_flops])
def test_tokens_must_be_positive(call):
    with pytest.raises(ShrpError, match="tokens must be 1 or more"):
        call(classifier(), tokens=0)
