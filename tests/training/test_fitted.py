"""Expanders that start fitted to the dense layer."""

import pytest
import torch

from shrp.data.batching import collate, encode
from shrp.families.families import encoder_layers
from shrp.model.config import ShrpConfig
from shrp.model.convert import _sample, convert_layer, fit_expander
from shrp.training import loop
from shrp.training.config import TrainConfig
from shrp.training.loop import train


@pytest.mark.parametrize(
    ("options", "fitted"),
    [
        ({"expander_init": "least_squares", "epoch_size": 270}, [(2, 256), (1, 256)]),
        ({"expander_init": "random", "epoch_size": 6}, []),
    ],
)
def test_an_expander_is_fitted_on_the_first_256_examples_of_its_epoch_where_that_is_asked_for(
    tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch, options, fitted
):
    model, found = tiny_model(), []
    before = list(encoder_layers(model))

    def watched(model, index, dense, batches):
        batches = list(batches)
        assert dense is before[index]
        fit_expander(model, index, dense, batches)
        found.append((index, sum(len(inputs["input_ids"]) for inputs, _ in batches)))

    monkeypatch.setattr(loop, "fit_expander", watched)
    config = TrainConfig(ShrpConfig((1, 2)), stage2_epochs=0, precision="fp32", **options)
    data = tiny_data(300), tiny_data(4, seed=1)
    train(config, model, tiny_info(layers=()), tiny_tokenizer, *data, tmp_path)
    assert found == fitted


@pytest.fixture
def batches(tiny_tokenizer, tiny_data):
    """Model inputs of 60 examples, of which nothing else is known."""
    encoded = encode(tiny_tokenizer, tiny_data(60).texts)
    return [(collate(tiny_tokenizer, encoded, range(i, i + 20)), None) for i in (0, 20, 40)]


def fitted_layer(model, batches, index=2):
    """The model's new layer, and the dense one that it replaced."""
    dense = encoder_layers(model)[index]
    layer = convert_layer(model, index, ShrpConfig((index,)))
    fit_expander(model, index, dense, batches)
    return layer, dense


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_a_fitted_expander_is_near_the_best_linear_map(family, tiny_model, batches):
    """It leaves little more of the dense layer's residual update than the best affine map of the experts' outputs."""
    model = tiny_model(family)
    layer, dense = fitted_layer(model, batches)
    samples = [_sample(model, 2, layer, dense, *batch) for batch in batches]
    with torch.no_grad():
        outputs = torch.cat([one[0] for one in samples], 1)  # (H, N, dh)
        update = torch.cat([one[1] for one in samples]).expand(len(outputs), -1, -1)
        left = (layer.expander(outputs) - update).square().mean()
        known = torch.cat([outputs, torch.ones_like(outputs[..., :1])], -1).flatten(0, 1)
        best = torch.linalg.lstsq(known, update.flatten(0, 1)).solution
        least = (known @ best - update.flatten(0, 1)).square().mean()
        at_first = (update - update.mean((0, 1))).square().mean()
    assert left < least + 0.3 * (at_first - least)


@torch.no_grad()
def test_a_fit_from_what_enters_the_layer_is_that_of_a_whole_pass(tiny_model, batches):
    whole, _ = fitted_layer(tiny_model(), batches)
    model = tiny_model()
    states = [model.base_model(**inputs, output_hidden_states=True).hidden_states[2] for inputs, _ in batches]
    known = [(inputs, entering) for (inputs, _), entering in zip(batches, states, strict=True)]
    layer, _ = fitted_layer(model, known)
    for one, other in zip(layer.expander.parameters(), whole.expander.parameters(), strict=True):
        torch.testing.assert_close(one, other)
