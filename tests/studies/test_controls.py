"""The controls that the studies train: layer dropping, no router, width pruning."""

from types import SimpleNamespace

import pytest
import torch

from shrp.checkpoints import checkpoint
from shrp.errors import CheckpointError, ShrpError
from shrp.evaluation.costs import cost, counted_params
from shrp.families.families import encoder_layers, family_of
from shrp.model.convert import new_parameters
from shrp.model.gates import use_gates
from shrp.pruning.plan import first_experts
from shrp.pruning.prune import prune
from studies.controls import annealed, drop_layer, no_router, self_path_alone, size_like, width_pruning
from studies.trainings import Trainings


def part(model, name, layer=1):
    return encoder_layers(model)[layer].get_submodule(getattr(family_of(model), name))


def pruned(model, inputs, experts=2, layer=1):
    return width_pruning(experts, [inputs])(model, layer)


def test_a_dropped_layer_leaves_a_shorter_dense_model(
    tiny_family, tiny_model, tiny_inputs, tiny_logits, tiny_info, tiny_tokenizer, tmp_path
):
    model, inputs = tiny_model(tiny_family), tiny_inputs()
    drop_layer(model, 2)
    drop_layer(model, 1)
    shorter = tiny_model(tiny_family)
    del encoder_layers(shorter)[1:]
    assert torch.equal(tiny_logits(model, inputs), tiny_logits(shorter, inputs))
    assert cost(model).encoder_params == counted_params(encoder_layers(model))
    folder = checkpoint.save(model, tiny_tokenizer, tiny_info(layers=()), tmp_path / "dropped")
    assert torch.equal(tiny_logits(checkpoint.load(folder).model, inputs), tiny_logits(model, inputs))


def test_a_teacher_that_lost_a_layer_has_hidden_states(tiny_model, tiny_inputs, tiny_info, tmp_path):
    teacher, shorter, inputs = tiny_model(), tiny_model(), tiny_inputs()
    teacher(**inputs, output_hidden_states=True)  # after which transformers takes copies of it for prepared
    drop_layer(shorter, 2)
    made = SimpleNamespace(teacher=SimpleNamespace(model=teacher, tokenizer=None), folder=tmp_path)
    found = Trainings.with_layers_of(made, shorter, tiny_info(layers=()), whole=True).model
    assert len(found(**inputs, output_hidden_states=True).hidden_states) == 3


def test_without_a_router_all_experts_have_equal_weight(tiny_routed, tiny_inputs, tiny_logits):
    model, inputs = tiny_routed(), tiny_inputs()
    with no_router():
        expected = tiny_logits(model, inputs)
    assert not torch.allclose(tiny_logits(model, inputs), expected, atol=1e-3)
    static = prune(model, first_experts({1: 4, 2: 4}))
    torch.testing.assert_close(tiny_logits(static, inputs), expected, atol=1e-5, rtol=1e-5)
    with no_router():
        model.train()(**inputs).logits.sum().backward()
    assert encoder_layers(model)[1].router.dense.weight.grad is None


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_a_mixture_becomes_a_choice(routing, tiny_routed, tiny_inputs, tiny_logits):
    model, inputs = tiny_routed(routing=routing), tiny_inputs()
    chosen = tiny_logits(model, inputs)
    with use_gates(lambda layer, probs, gates: probs):
        mixture = tiny_logits(model, inputs)
    with annealed(2):
        found = []
        for _ in range(3):
            found.append(tiny_logits(model, inputs))  # which takes no step
            model.train()(**inputs).logits.sum().backward()
            model.eval()
    torch.testing.assert_close(found[0], mixture)
    torch.testing.assert_close(found[2], chosen)
    assert not any(torch.allclose(found[1], one, atol=1e-4) for one in (mixture, chosen))
    assert encoder_layers(model)[1].router.dense.weight.grad.abs().sum() > 0


def test_a_self_path_alone_sees_one_token(tiny_model, tiny_inputs):
    model, inputs = tiny_model("bert"), tiny_inputs()
    layer = self_path_alone(model, 1)
    states = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.qkv.weight.normal_()
        before = layer(states)
        states[:, 3] += 1
        changed = (layer(states) - before).abs().amax((0, 2))
    assert changed[3] > 1e-3
    assert changed[[0, 1, 2, 4]].max() == 0
    assert cost(model).encoder_params == counted_params(encoder_layers(model))
    assert model(**inputs).logits.isfinite().all()


def test_what_adds_nothing_is_pruned_first(tiny_family, tiny_model, tiny_inputs, tiny_logits):
    model, inputs = tiny_model(tiny_family), tiny_inputs()
    if family_of(model).pre_norm:
        with pytest.raises(ShrpError, match="pre-norm"):
            pruned(model, inputs)
        return
    heads, neurons = size_like(24, 6, 2)
    assert heads == 1
    total = part(model, "up").out_features
    stay = torch.randperm(total)[:neurons].sort().values
    with torch.no_grad():
        for head in (0, 1, 3):
            part(model, "attention_out").weight[:, head * 6 : (head + 1) * 6] = 0
        part(model, "down").weight[:, [i for i in range(total) if i not in stay]] = 0
    before, up = tiny_logits(model, inputs), part(model, "up").weight[stay].clone()
    layer = pruned(model, inputs)
    assert layer.heads == (2,)
    assert torch.equal(layer.expander.up.weight, up)
    torch.testing.assert_close(tiny_logits(model, inputs), before, atol=1e-5, rtol=1e-5)
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == 4
    ends = {name.rpartition(".expander.")[2] for name in new_parameters(model)}
    assert ends == set(layer.expander.state_dict())


def test_kept_is_what_varies_and_not_what_is_large(tiny_model, tiny_inputs):
    """By weights alone head 3 and neuron 9 would be first, by the size of what they add head 1 and neuron 8."""
    model, inputs = tiny_model(), tiny_inputs()
    out, value, up, down = (part(model, name) for name in ("attention_out", "value", "up", "down"))
    with torch.no_grad():
        value.weight[18:] = value.bias[18:] = up.weight[9] = up.bias[9] = 0  # head 3 and neuron 9 add nothing
        out.weight[:, 18:] *= 1000
        down.weight[:, 9] *= 1000
        value.weight[6:12], value.bias[6:12] = 0, 100  # head 1 and neuron 8 add the same for every token
        up.weight[8], up.bias[8] = 0, 100
        out.weight[:, 12:18] *= 20  # head 2 and neuron 7 are left
        down.weight[:, 7] *= 50
    weight = down.weight[:, 7].clone()
    layer = pruned(model, inputs, experts=1)
    assert (layer.heads, layer.neurons) == ((2,), 1)
    assert torch.equal(layer.expander.down.weight[:, 0], weight)


@pytest.mark.parametrize("padding", [{"chunk_size_feed_forward": 3}, {}])
def test_neither_padding_nor_chunks_change_what_is_kept(tiny_model, tiny_inputs, padding):
    one, other = tiny_inputs((3, 3)), tiny_inputs((3, 3))
    if not padding:
        other = {name: torch.nn.functional.pad(value, (0, 12)) for name, value in other.items()}
    expected = pruned(tiny_model(), one).state_dict()
    for name, value in pruned(tiny_model(**padding), other).state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_what_cannot_be_pruned_is_refused(tiny_model, tiny_inputs, tiny_info, tiny_tokenizer, tmp_path):
    model = tiny_model()
    model.config.intermediate_size = 2
    with pytest.raises(ShrpError):
        pruned(model, tiny_inputs(), 4)
    model = tiny_model()
    pruned(model, tiny_inputs())
    with pytest.raises(CheckpointError):
        checkpoint.save(model, tiny_tokenizer, tiny_info(layers=(1,)), tmp_path / "made")
