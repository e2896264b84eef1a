"""Everything that measures a model does so on the model's own device (a pretended one, see `pretend_gpu`)."""

import json
from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from shrp.analysis.attention import attention_roles, layer_attention
from shrp.analysis.attribution import experts, tokens, trust
from shrp.analysis.attribution.instance import prepare
from shrp.analysis.explore import explore, what_if
from shrp.analysis.importance import MEANINGS, Prefix, knock_out_effect, knock_outs
from shrp.analysis.routes import shuffle_routes
from shrp.analysis.usage import measure_usage
from shrp.analysis.words import count_tokens
from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import save
from shrp.data.tasks import TASKS
from shrp.evaluation.calibration import with_output_shift
from shrp.evaluation.evaluate import evaluate
from shrp.export.onnx import CONFIG, FORMAT
from shrp.model.forcing import Force, ForcedRoute
from shrp.model.gates import force_experts, knock_out, use_gates
from shrp.pruning import select
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import PruningPlan
from shrp.pruning.prune import prune
from shrp.pruning.select import GateFit
from tests.arrays import arrays
from tests.pretend_gpu import GPU, pretended_gpu

SST2 = TASKS["sst2"]
TEXT = ("w1 w20 w33, w4 w50. w17 w2 w41 w8",)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Fits of gates take a few steps, as where they are taken is asked, not how well they fit."""
    monkeypatch.setattr(select, "STEPS", 12)
    monkeypatch.setattr(select, "WARM_UP", 4)


PLANS = [
    PruningPlan.from_dict({"layers": {layer: {"experts": kept, "weights": [0.7, 0.3]} for layer in (1, 2)}})
    for kept in ([0, 2], [1, 3])
]


def of_words(model, tokenizer, data):
    one = prepare(model, tokenizer, SST2, TEXT)
    scores = [
        tokens.input_x_gradient(one, 1),
        tokens.integrated_gradients(one, 1, steps=4),
        tokens.ablate_words(one, 1),
    ]
    return scores, trust.check(one, scores, 1, steps=4)


def of_experts(model, tokenizer, data):
    one = prepare(model, tokenizer, SST2, TEXT)
    found = [experts.knock_out_scores(one, 1, meaning) for meaning in MEANINGS]
    coalitions = experts.Coalitions(one, 1)
    return [*found, experts.shapley_values(coalitions), experts.shapley_values(coalitions, budget=12)]


def knocked_out(model, tokenizer, data):
    rows = np.arange(12)
    found = [knock_outs(model, tokenizer, data, rows)]
    before, prefix = evaluate(model, tokenizer, data), Prefix(model)
    for taken in ([(1, 0)], [(1, 0), (2, 3)]):
        found.append(knock_out_effect(model, tokenizer, data, before, taken, prefix=prefix))
    with use_gates(knock_out({1: [0, 1]})):
        return found, evaluate(model, tokenizer, data)


def live(model, tokenizer, data):
    evaluator = LiveEvaluator(model, tokenizer, data)
    return [evaluator.evaluate(plan) for plan in (None, *PLANS)], [*evaluator.sweep(PLANS)]


def forced(model, tokenizer, data):
    route = ForcedRoute((Force(1, 2),))
    with use_gates(force_experts({1: 2}, 4)):
        told = evaluate(model, tokenizer, data)
    explored = explore(model, tokenizer, SST2, data.texts[:3], route=route)
    return told, explored, what_if(model, tokenizer, SST2, TEXT)


def used(model, tokenizer, data):
    stats = measure_usage(model, tokenizer, data, output_norms=True)
    return stats, shuffle_routes(model, tokenizer, data, stats, draws=1)


def pruned(model, tokenizer, data):
    static = prune(model, PLANS[0])
    return evaluate(static, tokenizer, data), layer_attention(static, tokenizer, TEXT, 1)


def shifted(model, tokenizer, data):
    return evaluate(with_output_shift(model, SST2, np.array([0.2, -0.2])), tokenizer, data)


def fitted(model, tokenizer, data):
    return GateFit(model, tokenizer, data, measure_usage(model, tokenizer, data).shares(), size=16).finish()


SEQUENCE = {
    "evaluate": evaluate,
    "words": of_words,
    "experts": of_experts,
    "knocked out": knocked_out,
    "live": live,
    "forced": forced,
    "used": used,
    "pruned": pruned,
    "shifted": shifted,
    "fitted": fitted,
    "attention roles": attention_roles,
    "attention": lambda model, tokenizer, _: layer_attention(model, tokenizer, TEXT, 1),
}
TOKEN = {name: SEQUENCE[name] for name in ("experts", "live")} | {
    "tokens": count_tokens,
    "forced": lambda model, tokenizer, _: what_if(model, tokenizer, SST2, TEXT),
}


def compared(model, tokenizer, data, measure):
    """What a measure gives for one model on the CPU and on a GPU."""
    here = list(arrays(measure(model, tokenizer, data)))
    with pretended_gpu():
        there = list(arrays(measure(model.to(GPU), tokenizer, data)))
    assert model.device == GPU
    return here, there


@pytest.mark.parametrize("measure", SEQUENCE)
def test_a_model_is_measured_where_it_is(tiny_routed, tiny_tokenizer, tiny_data, measure):
    check(*compared(tiny_routed("bert"), tiny_tokenizer, tiny_data(), SEQUENCE[measure]))


@pytest.mark.parametrize("measure", TOKEN)
def test_a_model_that_routes_tokens_is_too(tiny_routed, tiny_tokenizer, tiny_data, measure):
    model = tiny_routed("bert", routing="token", top_k=2)
    check(*compared(model, tiny_tokenizer, tiny_data(), TOKEN[measure]))


@pytest.mark.parametrize("measure", ["live", "attention"])
def test_so_is_every_family(tiny_routed, tiny_family, tiny_tokenizer, tiny_data, measure):
    check(*compared(tiny_routed(tiny_family), tiny_tokenizer, tiny_data(), SEQUENCE[measure]))


def check(here, there):
    assert len(here) > 1
    assert [name for name, _ in here] == [name for name, _ in there]
    for (name, one), (_, other) in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4, err_msg=name)


def on_both(shrp, *args):
    """A command's JSON on the CPU and on the device, without the devices in its provenance, which are checked."""
    found = []
    for device, options in (("cpu", ()), (str(GPU), ("--device", GPU))):
        with pretended_gpu() if options else nullcontext():
            code, out, err = shrp(*args, "--json", *options)
        assert code == 0, err
        told = json.loads(out)
        about = told["provenance"]
        sides = about.values() if "device" not in about else [about]
        assert {one.pop("device") for one in sides} == {device}
        found.append(list(arrays(told)))
    return found


def test_a_command_computes_where_it_is_told_to(shrp, saved, tiny_routed, tiny_tokenizer, tiny_info, tiny_data, tmp_path):
    tiny_data().to_frame().to_csv(tmp_path / "own.csv", index=False)
    other = save(tiny_routed(seed=5), tiny_tokenizer, tiny_info(), tmp_path / "other")
    for command in (("evaluate", saved), ("compare", saved, other)):
        check(*on_both(shrp, *command, "--data", tmp_path / "own.csv"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)."),
        MemoryError(),
    ],
    ids=str,
)
def test_a_full_memory_is_one_sentence(shrp, saved, monkeypatch, error):
    monkeypatch.setattr(checkpoint, "load", Mock(side_effect=error))
    code, _, err = shrp("evaluate", saved)
    assert (code, "Traceback" in err, "memory is full" in " ".join(err.split())) == (1, False, True)
    assert str(error)[:20] in " ".join(err.split())


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "meta", "hpu"])
def test_a_device_that_is_not_there_gets_a_sentence(shrp, saved, tmp_path, name):
    code, _, err = shrp("evaluate", saved, "--device", name)
    assert (code, f"'{name}'" in err, "Traceback" in err) == (1, True, False)
    (tmp_path / CONFIG).write_text(json.dumps({"format": FORMAT}))  # an export takes none
    code, _, err = shrp("evaluate", tmp_path, "--device", name)
    assert (code, "--device" in err, "Traceback" in err) == (1, True, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so none is pretended")
def test_what_is_pretended_fails_as_a_gpu_does():
    """Or the tests above would show nothing."""
    with pretended_gpu():
        there, here = torch.ones(2, 3, device=GPU), torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(RuntimeError, match="same device"):
            here[torch.zeros(1, dtype=torch.long, device=GPU)]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert there[torch.tensor([0])].device == GPU
        assert (there + there.cpu().to(GPU) * torch.tensor(2.0)).cpu().tolist() == [[3.0] * 3] * 2
