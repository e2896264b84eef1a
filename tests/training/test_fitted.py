"""Expanders that start fitted to the dense layer."""

import math

import pytest
import torch

from shrp.data.batching import collate, encode
from shrp.families.families import FAMILIES, encoder_layers
from shrp.model import convert as conversion
from shrp.model.config import ShrpConfig
from shrp.model.convert import _sample, convert_layer, fit_expander
from shrp.model.gates import record_routing, use_gates
from shrp.training import loop
from shrp.training.config import TrainConfig
from shrp.training.loop import train


@pytest.mark.parametrize(("expander_init", "fitted"), [("least_squares", [2, 1]), ("random", [])])
def test_an_expander_is_fitted_once_as_its_layer_is_converted_where_that_is_asked_for(
    tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch, expander_init, fitted
):
    model, found, real = tiny_model(), [], fit_expander
    before = list(encoder_layers(model))

    def watched(model, index, dense, batches):
        batches = list(batches)
        assert dense is before[index]
        assert sum(len(batch["input_ids"]) for batch in batches) == 6  # of its epoch alone
        real(model, index, dense, batches)
        found.append(index)

    monkeypatch.setattr(loop, "fit_expander", watched)
    options = {"epoch_size": 6, "batch_size": 4, "precision": "fp32", "expander_init": expander_init}
    config = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=1, **options)
    data = tiny_data(16), tiny_data(4, seed=1)
    train(config, model, tiny_info(layers=()), tiny_tokenizer, *data, tmp_path)
    assert found == fitted


def test_an_expander_is_fitted_on_the_first_256_examples_of_a_longer_epoch(
    tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch
):
    class Enough(Exception):
        pass

    def watched(model, index, dense, batches):
        assert sum(len(batch["input_ids"]) for batch in batches) == 256
        raise Enough

    monkeypatch.setattr(loop, "fit_expander", watched)
    config = TrainConfig(ShrpConfig((2,)), expander_init="least_squares", precision="fp32")
    data = tiny_data(300), tiny_data(4, seed=1)
    with pytest.raises(Enough):
        train(config, tiny_model(), tiny_info(layers=()), tiny_tokenizer, *data, tmp_path)


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


def test_a_dense_layer_that_works_in_chunks_is_fitted_alike(tiny_model, tiny_tokenizer, tiny_data):
    encoded = encode(tiny_tokenizer, tiny_data(40).texts)
    batches = [collate(tiny_tokenizer, encoded, range(i, i + 20)) for i in (0, 20)]
    fitted = []
    for chunk in (0, 1):  # tokens a chunk, none for 0
        model = tiny_model("bert", chunk_size_feed_forward=chunk)
        dense = encoder_layers(model)[2]
        assert dense.chunk_size_feed_forward == chunk
        convert_layer(model, 2, ShrpConfig((2,)))
        fit_expander(model, 2, dense, batches)
        fitted.append(encoder_layers(model)[2].expander.state_dict())
    for name, values in fitted[0].items():
        torch.testing.assert_close(fitted[1][name], values, rtol=1e-4, atol=1e-5)


def test_of_very_many_tokens_a_fit_takes_some(tiny_model, tiny_tokenizer, tiny_data, monkeypatch):
    """As good as of a quarter of them, where what all would need does not go into the memory."""
    encoded = encode(tiny_tokenizer, tiny_data(60).texts)
    batches = [collate(tiny_tokenizer, encoded, range(i, i + 20)) for i in (0, 20, 40)]
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    seen = []

    def fitted(most):
        monkeypatch.setattr(conversion, "_MOST", most)
        model = tiny_model()
        dense = encoder_layers(model)[2]
        convert_layer(model, 2, ShrpConfig((2,)))
        layer = encoder_layers(model)[2]
        with layer.expander.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1])):
            fit_expander(model, 2, dense, batches)
        return layer

    layer = fitted(2**28)
    assert seen == [tokens]
    few = fitted(tokens * layer.num_experts * layer.hidden_size // 4 + 1)
    assert seen[1] == math.ceil(tokens / 4)
    apart = few.expander.norm.bias - layer.expander.norm.bias
    assert 0 < apart.norm() < 0.3 * layer.expander.norm.bias.norm()


def test_a_fitted_expander_is_near_the_best_linear_map(tiny_model, tiny_tokenizer, tiny_data):
    """What it adds leaves little more of the dense layer's update than the best affine map of the experts' outputs."""
    model = tiny_model()
    encoded = encode(tiny_tokenizer, tiny_data(60).texts)
    batches = [collate(tiny_tokenizer, encoded, range(i, i + 20)) for i in (0, 20, 40)]
    dense = encoder_layers(model)[2]
    convert_layer(model, 2, ShrpConfig((2,)))
    layer = encoder_layers(model)[2]
    samples = [_sample(model.eval(), 2, layer, dense, batch) for batch in batches]
    outputs = torch.cat([one[0] for one in samples], 1)  # (H, N, dh)
    update = torch.cat([one[1] for one in samples]).expand(len(outputs), -1, -1)
    fit_expander(model.train(), 2, dense, batches)
    assert model.training
    with torch.no_grad():
        left = (layer.expander(outputs) - update).square().mean()
    known = torch.cat([outputs, torch.ones_like(outputs[..., :1])], -1).flatten(0, 1)
    best = torch.linalg.lstsq(known, update.flatten(0, 1)).solution
    least = (known @ best - update.flatten(0, 1)).square().mean()
    at_first = (update - update.mean((0, 1))).square().mean()
    assert left < least + 0.3 * (at_first - least)
