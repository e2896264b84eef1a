import threading

import numpy as np
import torch

from shrp.analysis import importance
from shrp.analysis.attribution import experts, tokens, trust


def everything(one, data, tokenizer):
    results = [
        tokens.input_x_gradient(one, 1),
        tokens.integrated_gradients(one, 1, steps=16),
        tokens.ablate_words(one, 1),
    ]
    coalitions = experts.Coalitions(one, 1)
    checks = trust.check(one, results[1:2], 1, steps=8)
    return [
        *(result.scores for result in results),
        experts.zero_experts(coalitions).values,
        experts.next_experts(coalitions).values,
        experts.shapley_values(coalitions).values,
        np.array([[c.infidelity, c.sensitivity] for c in checks if c.method != trust.ALIKE]),
        importance.knock_outs(one.model, tokenizer, data, range(4)).knocked_out,
    ]


def test_a_shared_model_is_left_as_it_was_and_threads_do_not_mix(routed, made, tiny_data, tiny_tokenizer):
    for parameter in routed.parameters():
        assert parameter.requires_grad
    before = {name: value.clone() for name, value in routed.state_dict().items()}
    data = tiny_data(4)
    texts = [("w1 w2 w3",), ("w50 w40 w30 w20",), ("w9",), ("w11 w12 w13 w14 w15 w16",)]
    alone = {text: everything(made(routed, text), data, tiny_tokenizer) for text in texts}
    wrong, errors = [], []

    def work(text):
        try:
            for _ in range(2):
                now = everything(made(routed, text), data, tiny_tokenizer)
                if not all(np.allclose(a, b, atol=1e-4) for a, b in zip(now, alone[text], strict=True)):
                    wrong.append(text)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not wrong
    assert all(parameter.grad is None for parameter in routed.parameters())
    assert not routed.training
    for name, value in routed.state_dict().items():
        assert torch.equal(value, before[name])
