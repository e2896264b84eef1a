"""What softens stage 1: swapping layers, routers that explore, Expanders fitted to the dense layer."""

import copy

import pytest
import torch

from shrp.batching import collate, encode
from shrp.config import ShrpConfig
from shrp.convert import convert_layer, layer_kinds
from shrp.errors import TrainingError
from shrp.expander_init import fit_expander
from shrp.families import FAMILIES, encoder_layers
from shrp.routing import record_routing, straight_through, top_k_gates, use_gates
from shrp.schedules import Swap, explore
from shrp.train import train
from shrp.training_config import RECIPES, TrainConfig


def test_swap_runs_the_dense_layer_as_often_as_told_and_never_in_evaluation():
    dense, new = torch.nn.Identity(), torch.nn.Linear(4, 4)
    x = torch.randn(2, 3, 4)
    swap = Swap(dense, new, 1.0)
    assert torch.equal(swap.train()(x), x)
    assert torch.equal(swap.eval()(x), new(x))
    swap.train().probability = 0.0
    assert torch.equal(swap(x), new(x))
    swap.probability = 0.3
    torch.manual_seed(0)
    share = sum(torch.equal(swap(x), x) for _ in range(500)) / 500
    assert 0.2 < share < 0.4


def test_without_noise_a_router_goes_its_own_way_and_with_it_elsewhere_but_still_learns():
    probs = torch.tensor([[0.5, 0.3, 0.2]]).repeat(400, 1).requires_grad_()
    own = top_k_gates(probs, 1)
    assert explore(0.0, 1)(0, probs, own) is None
    torch.manual_seed(0)
    tried = explore(1.0, 1)(0, probs, own)
    # At scale 1 the Gumbel trick draws each expert as often as its probability says.
    assert torch.allclose(tried.mean(0), probs[0], atol=0.08)
    (tried * torch.arange(3.0)).sum().backward()
    assert probs.grad.abs().sum() > 0
    assert torch.equal(straight_through(own, probs), own)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_a_fitted_expander_is_closer_to_the_dense_layer_than_a_fresh_one(
    family, tiny_model, tiny_tokenizer, tiny_data
):
    model = tiny_model(family)
    encoded = encode(tiny_tokenizer, tiny_data(40).texts)
    batches = [collate(tiny_tokenizer, encoded, range(i, i + 20)) for i in (0, 20)]
    held_out = collate(tiny_tokenizer, encode(tiny_tokenizer, tiny_data(30, seed=7).texts), range(30))
    dense = encoder_layers(model)[2]
    with torch.no_grad():
        wanted = model(**held_out, output_hidden_states=True).hidden_states[3]
    convert_layer(model, 2, ShrpConfig((2,)))
    errors = []
    for fit in (False, True):
        if fit:
            fit_expander(model, 2, dense, batches)
        found = []
        for expert in range(4):  # the router is as good as random at the start
            with (
                torch.no_grad(),
                use_gates({2: torch.eye(4)[expert]}),
                record_routing(hidden_states=True) as r,
            ):
                model(**held_out)
            found.append((r.hidden_states[2] - wanted)[held_out["attention_mask"].bool()].square().mean())
        errors.append(float(torch.stack(found).mean()))
    assert errors[1] < 0.8 * errors[0]
    assert not dense.training
    assert encoder_layers(model)[2] is not dense
    norm = dense.get_submodule(FAMILIES[family].last_norm)
    assert not norm._forward_pre_hooks


@pytest.mark.parametrize(
    "options", [{"swap": 0.5}, {"exploration": 1.0}, {"expander_init": "least_squares"}], ids=str
)
def test_each_option_trains_resumes_and_leaves_an_ordinary_model(
    options, tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path
):
    config = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=1, batch_size=8, precision="fp32", **options)
    plain = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=1, batch_size=8, precision="fp32")
    teacher, results = tiny_model(), {}
    for name, each in (("with", config), ("again", config), ("plain", plain)):
        results[name], _, _ = train(
            each,
            copy.deepcopy(teacher),
            tiny_info(layers=()),
            tiny_tokenizer,
            tiny_data(24),
            tiny_data(8, seed=1),
            tmp_path / name,
        )
    assert layer_kinds(results["with"]) == ["dense", "routed", "routed"]
    weights = {name: model.state_dict() for name, model in results.items()}
    assert weights["with"].keys() == weights["plain"].keys()
    assert all(torch.equal(weights["with"][key], weights["again"][key]) for key in weights["with"])
    assert any(not torch.equal(weights["with"][key], weights["plain"][key]) for key in weights["with"])


def test_stage_2_alone_explores_nothing(tiny_routed, tiny_tokenizer, tiny_data, tiny_info, tmp_path):
    results = []
    for noise in (0.0, 1.0):
        config = TrainConfig(stage2_epochs=1, batch_size=8, precision="fp32", exploration=noise)
        data = tiny_data(24), tiny_data(8, seed=1)
        model, _, _ = train(
            config, tiny_routed(), tiny_info(), tiny_tokenizer, *data, tmp_path / f"noise-{noise}"
        )
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_named_recipe_takes_further_values_and_an_unknown_one_is_refused():
    config = TrainConfig.named("retain", shrp=ShrpConfig((3,)), seed=4, learning_rate=2e-4)
    assert config.distill_hidden == RECIPES["retain"]["distill_hidden"]
    assert (config.learning_rate, config.seed) == (2e-4, 4)
    assert not TrainConfig.named("paper").distils
    with pytest.raises(TrainingError, match="paper, retain"):
        TrainConfig.named("best")
