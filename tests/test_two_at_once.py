"""Many sessions on one cached model at once: every result is the one that it is alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from shrp.analysis.attention import layer_attention
from shrp.analysis.attribution import experts, tokens
from shrp.analysis.attribution.instance import prepare
from shrp.analysis.explore import explore, what_if
from shrp.analysis.importance import Prefix, knock_out_effect
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.evaluation.evaluate import evaluate
from shrp.model.forcing import AS_ROUTED, Force, ForcedRoute
from shrp.model.gates import force_experts, knock_out, record_routing, use_gates
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from tests.arrays import arrays
from ui import loaders

LAYERS, EXPERTS, SESSIONS = (1, 2), 4, 6
TEXTS = ("w1 w20 w33 w4 w50", "w7 w7 w41 w3", "w12 w30 w2 w54 w9 w18 w25")
ATOL = 1e-5
"""Rounding: what an evaluator has kept of earlier plans decides in which order it adds."""


def make_jobs(checkpoint, data, inputs):
    """What sessions do: name -> function of no arguments, whose result is the same each time that it is called."""
    model, tokenizer, task = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task
    instances = [prepare(model, tokenizer, task, (text,)) for text in TEXTS]
    usage, before = measure_usage(model, tokenizer, data).shares(), evaluate(model, tokenizer, data)
    live, prefix = LiveEvaluator(model, tokenizer, data, batch_size=24), Prefix(model)

    def forward(gates=None, **options):
        """Two passes under one record, so that a pass of another session among them would be seen."""
        with torch.inference_mode(), use_gates(gates) if gates else nullcontext(), record_routing(**options) as record:
            logits = [model(**inputs).logits for _ in range(2)]
        return logits, record.traces, record.hidden_states

    def estimates(budget):
        """The slider moves on after the first estimate, and comes back later."""
        plan = make_plan(usage, budget=budget)
        with closing(live.stream(plan)) as dropped:
            first = next(dropped)
        return [first, *live.stream(plan)]

    def explored(place, route):
        return explore(model, tokenizer, task, [(TEXTS[place],)], route=route)

    return {
        "as routed": forward,
        "norms and hidden states": partial(forward, hidden_states=True, output_norms=True),
        "forced": partial(forward, force_experts({1: 1, 2: 2}, EXPERTS), hidden_states=True),
        "knocked out": partial(forward, knock_out({1: 2, 2: 1})),
        "integrated gradients": partial(tokens.integrated_gradients, instances[0], 1, steps=12),
        "word ablation": partial(tokens.ablate_words, instances[2], 1),
        "Shapley values": lambda: experts.shapley_values(experts.Coalitions(instances[2], 1), budget=64),
        "what if": lambda: what_if(model, tokenizer, task, (TEXTS[0],)),
        "explored": partial(explored, 1, AS_ROUTED),
        "explored, forced": partial(explored, 2, ForcedRoute((Force(1, 2), Force(2, 0)))),
        "attention 1": partial(layer_attention, model, tokenizer, (TEXTS[0],), 1),
        "live 3": partial(estimates, 3),
        "live routed": partial(live.evaluate, None),
        "evaluated": partial(evaluate, model, tokenizer, data),
        "knocked out on data": partial(knock_out_effect, model, tokenizer, data, before, [(1, 2)], prefix=prefix),
    }


def differences(found, alone):
    """What of a result is not as it was alone; empty when all is."""
    found, alone = dict(found), dict(alone)
    if found.keys() != alone.keys():
        return [f"other parts: {sorted(found.keys() ^ alone.keys())}"]
    same = {name: value.shape == alone[name].shape for name, value in found.items()}
    near = partial(np.allclose, rtol=0, atol=ATOL, equal_nan=True)
    return [name for name in found if not (same[name] and near(found[name], alone[name]))]


@pytest.mark.parametrize("routing", ["sequence", "token"])
def test_sessions_at_once_do_not_mix(
    routing, tmp_path, tiny_routed, tiny_tokenizer, tiny_info, tiny_data, tiny_inputs, eager_switching
):
    model, info = (make(layers=LAYERS, routing=routing) for make in (tiny_routed, tiny_info))
    folder = checkpoints.save(model, tiny_tokenizer, info, tmp_path / "tiny")
    checkpoint = loaders.load_folder(folder)
    jobs = make_jobs(checkpoint, tiny_data(90), tiny_inputs())
    alone = {name: list(arrays(job())) for name, job in jobs.items()}
    assert all(alone.values())
    # Results that agree by chance would hide a mix-up.
    assert len({alone[name][0][1].tobytes() for name in ("as routed", "forced", "knocked out")}) == 3
    weights = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    start = threading.Barrier(SESSIONS)

    def session(number):
        wrong = [] if loaders.load_folder(folder) is checkpoint else ["the model is another one"]
        start.wait(60)
        for name in np.random.default_rng(number).permutation(list(jobs)):
            try:
                wrong += [f"{name}: {part}" for part in differences(arrays(jobs[name]()), alone[name])]
            except Exception as error:  # what a person would see as a failure of their own request
                wrong.append(f"{name}: {type(error).__name__}: {error}")
        return wrong

    with ThreadPoolExecutor(SESSIONS) as pool:
        wrong = [line for found in pool.map(session, range(SESSIONS)) for line in found]
    assert not wrong, f"{len(wrong)} parts of {SESSIONS * len(jobs)} jobs, such as {wrong[:8]}"
    # Nothing is left behind on what all sessions share.
    assert all(torch.equal(value, weights[name]) for name, value in checkpoint.model.state_dict().items())
    assert all(parameter.grad is None for parameter in checkpoint.model.parameters())
    assert not checkpoint.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checkpoint.model.modules())
