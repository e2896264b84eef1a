"""Many sessions on one cached model at once: every result is the one that it is alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

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
from shrp.model.forcing import Force, ForcedRoute
from shrp.model.gates import force_experts, knock_out, record_routing, use_gates
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from ui import loaders

LAYERS, EXPERTS, SESSIONS, ROUNDS = (1, 2), 4, 6, 1
TEXTS = ("w1 w20 w33 w4 w50", "w7 w7 w41 w3", "w12 w30 w2 w54 w9 w18 w25")
ATOL = 1e-5
"""Rounding: what an evaluator has kept of earlier plans decides in which order it adds."""


@pytest.fixture(params=["sequence", "token"])
def folder(request, tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    model = tiny_routed(layers=LAYERS, routing=request.param)
    info = tiny_info(layers=LAYERS, routing=request.param)
    return checkpoints.save(model, tiny_tokenizer, info, tmp_path / "tiny")


def of_record(record):
    """Everything that a record holds, as arrays."""
    found = {}
    for layer in record.layers:
        for i, trace in enumerate(record.traces[layer]):
            found |= {f"probs {layer} {i}": trace.probs, f"gates {layer} {i}": trace.gates}
            if trace.output_norms is not None:
                found[f"norms {layer} {i}"] = trace.output_norms
    found |= {f"hidden {layer}": hidden for layer, hidden in record.hidden_states.items()}
    return found


def of_exploration(found):
    parts = [("probs", found.probs), ("gates", found.gates)]
    return {"logits": found.logits} | {
        f"{name} {layer}": value for name, part in parts for layer, value in part.items()
    }


def make_jobs(checkpoint, data, inputs):
    """What sessions do: name -> function of no arguments, whose arrays are the same each time that it is called."""
    model, tokenizer, task = checkpoint.model, checkpoint.tokenizer, checkpoint.info.task
    instances = [prepare(model, tokenizer, task, (text,)) for text in TEXTS]
    usage = measure_usage(model, tokenizer, data).shares()
    before = evaluate(model, tokenizer, data)
    live, prefix = LiveEvaluator(model, tokenizer, data, batch_size=24), Prefix(model)

    def forward(**options):
        """Two passes under one record, so that a pass of another session among them would be seen."""
        with torch.inference_mode(), record_routing(**options) as record:
            logits = [model(**inputs).logits for _ in range(2)]
        return {"logits": torch.stack(logits)} | of_record(record)

    def under(source, **options):
        with use_gates(source):
            return forward(**options)

    def word_scores(method, place, output, **options):
        found = method(instances[place], output, **options)
        return {"scores": found.scores, "full": found.full, "reference": found.reference or 0.0}

    def shapley(place, output):
        found = experts.shapley_values(experts.Coalitions(instances[place], output), budget=64)
        return {"values": found.values, "fires": found.fires}

    def matrix(place, **options):
        found = what_if(model, tokenizer, task, (TEXTS[place],), **options)
        return {"base": found.base, "logits": found.logits}

    def explored(route, place):
        (found,) = explore(model, tokenizer, task, [(TEXTS[place],)], route=route)
        return of_exploration(found)

    def attention(layer, place):
        found = layer_attention(model, tokenizer, (TEXTS[place],), layer)
        return {"weights": found.weights, "probs": found.probs}

    def of_evaluation(found):
        return {"logits": found.logits, "score": found.score}

    def estimates(budget):
        """The slider moves on after the first estimate, and comes back later."""
        plan = make_plan(usage, budget=budget)
        with closing(live.stream(plan)) as dropped:
            first = next(dropped)
        *running, last = live.stream(plan)
        seen = {f"estimate {i}": found.score for i, found in enumerate([first, *running])}
        return of_evaluation(last) | seen

    def knocked_out(layer, expert):
        found = knock_out_effect(model, tokenizer, data, before, [(layer, expert)], prefix=prefix)
        return of_evaluation(found.after) | {"affected": found.affected}

    forced = ForcedRoute((Force(1, 2), Force(2, 0)))
    return {
        "as routed": forward,
        "norms and hidden states": lambda: forward(hidden_states=True, output_norms=True),
        "forced": lambda: under(force_experts({1: 1, 2: 2}, EXPERTS), hidden_states=True),
        "knocked out": lambda: under(knock_out({1: 2, 2: 1})),
        "integrated gradients": lambda: word_scores(tokens.integrated_gradients, 0, 1, steps=12),
        "word ablation": lambda: word_scores(tokens.ablate_words, 2, 1),
        "Shapley values": lambda: shapley(2, 1),
        "what if": lambda: matrix(0),
        "explored": lambda: explored(ForcedRoute(), 1),
        "explored, forced": lambda: explored(forced, 2),
        "attention 1": lambda: attention(1, 0),
        "live 3": lambda: estimates(3),
        "live routed": lambda: of_evaluation(live.evaluate(None)),
        "evaluated": lambda: of_evaluation(evaluate(model, tokenizer, data)),
        "knocked out on data": lambda: knocked_out(1, 2),
    }


def as_arrays(result):
    return {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in result.items()
    }


def differences(found, alone):
    """What of a result is not as it was alone; empty when all is."""
    if found.keys() != alone.keys():
        return [f"other parts: {sorted(found.keys() ^ alone.keys())}"]
    return [
        name
        for name, value in found.items()
        if value.shape != alone[name].shape
        or (value.dtype == bool and (value != alone[name]).any())
        or not np.allclose(value, alone[name], rtol=0, atol=ATOL)
    ]


def test_sessions_at_once_do_not_mix(folder, tiny_data, tiny_inputs, eager_switching):
    checkpoint, data = loaders.load_folder(folder), tiny_data(90)
    jobs = make_jobs(checkpoint, data, tiny_inputs())
    alone = {name: as_arrays(job()) for name, job in jobs.items()}
    # Results that agree by chance would hide a mix-up.
    logits = {alone[name]["logits"].tobytes() for name in ("as routed", "forced", "knocked out")}
    assert len(logits) == 3
    weights = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    start = threading.Barrier(SESSIONS)

    def session(number):
        same = loaders.load_folder(folder) is checkpoint
        order = np.random.default_rng(number)
        start.wait(60)
        wrong = [] if same else ["the model is another one"]
        for _ in range(ROUNDS):
            for place in order.permutation(len(jobs)):
                name = list(jobs)[place]
                try:
                    found = as_arrays(jobs[name]())
                    wrong += [f"{name}: {part}" for part in differences(found, alone[name])]
                except Exception as error:  # what a person would see as a failure of their own request
                    wrong.append(f"{name}: {type(error).__name__}: {error}")
        return wrong

    with ThreadPoolExecutor(SESSIONS) as pool:
        wrong = [line for found in pool.map(session, range(SESSIONS)) for line in found]
    assert not wrong, f"{len(wrong)} of {SESSIONS * ROUNDS * len(jobs)} jobs, such as {wrong[:8]}"
    # Nothing is left behind on what all sessions share.
    assert all(torch.equal(value, weights[name]) for name, value in checkpoint.model.state_dict().items())
    assert all(parameter.grad is None for parameter in checkpoint.model.parameters())
    assert not checkpoint.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checkpoint.model.modules())
