"""A head of a dense layer that is knocked out adds nothing, and nothing else changes but what follows from it."""

import copy

import numpy as np
import torch

from shrp.analysis.importance import knock_outs
from shrp.data.batching import collate, encode
from shrp.evaluation.evaluate import label_columns
from shrp.families.families import encoder_layers, family_of

HEADS, SIZE = 4, 6


def outputs(model, tokenizer, data, rows):
    batch = collate(tokenizer, encode(tokenizer, [data.texts[i] for i in rows]), range(len(rows)))
    with torch.no_grad():
        return model(**batch).logits.numpy()[:, label_columns(model, data.task)]


def by_hand(model, layer, head):
    """A copy of the model whose `W_o` has zeros where the head's output is read."""
    found = copy.deepcopy(model)
    projection = encoder_layers(found)[layer].get_submodule(family_of(found).attention_out)
    with torch.no_grad():
        projection.weight[:, SIZE * head : SIZE * (head + 1)] = 0.0
    return found


def test_a_head_is_zeroed_as_by_zeros_in_the_output_projection(
    tiny_family, tiny_attention, tiny_model, tiny_data, tiny_tokenizer
):
    model, data, rows = tiny_model(tiny_family, attn=tiny_attention), tiny_data(8), np.array([5, 0, 3, 6])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules, done = [id(module) for module in model.modules()], []
    found = knock_outs(
        model, tiny_tokenizer, data, rows, progress=lambda *step: done.append(step), heads=True
    )
    assert found.layers == (0, 1, 2)
    assert found.knocked_out.shape == (4, 3, HEADS, 2)
    np.testing.assert_allclose(found.base, outputs(model, tiny_tokenizer, data, rows), atol=1e-5)
    for layer in range(3):
        for head in range(HEADS):
            expected = outputs(by_hand(model, layer, head), tiny_tokenizer, data, rows)
            np.testing.assert_allclose(found.knocked_out[:, layer, head], expected, atol=1e-5)
    assert np.abs(found.effects(1)).mean((0,)).min() > 1e-3  # each one of them does something
    assert found.fires.all()
    assert (found.top1 == 1).all()
    steps = np.cumsum([len(rows) * above for above in (3, 2, 1) for _ in range(HEADS)])  # layers that run
    assert done == [(step, steps[-1]) for step in steps]
    assert [id(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
