import numpy as np
import pytest
import torch

from shrp.analysis.attribution import tokens
from shrp.analysis.attribution.instance import against
from shrp.data.tasks import TASKS
from shrp.errors import DataError
from tests.analysis.attribution.helpers import direct

MNLI = TASKS["mnli"]
PAIR = ("w1 w20 w33, w4", "w50 w17")


@pytest.fixture
def one(made, tiny_routed):
    return made(tiny_routed("bert", layers=(0, 2), num_labels=3, top_k=2), PAIR, MNLI)


def test_it_is_the_one_logit_less_the_other(one, tiny_tokenizer):
    with torch.no_grad():
        both = one.outputs(one.embeddings)[0]
        lead = against(one, 2, 0).outputs(one.embeddings.repeat(3, 1, 1))
    assert lead.shape == (3, 1)
    np.testing.assert_allclose(lead, float(both[2] - both[0]), atol=1e-4)
    logits = direct(one.model, tiny_tokenizer, PAIR)[list(one.columns)]
    np.testing.assert_allclose(lead[0], float(logits[2] - logits[0]), atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "integrated", "ablation"])
def test_scores_of_words_are_those_of_the_one_less_those_of_the_other(one, method):
    scores = {
        "gradient": tokens.input_x_gradient,
        "integrated": tokens.integrated_gradients,
        "ablation": tokens.ablate_words,
    }[method]
    of_one, of_other, lead = scores(one, 1), scores(one, 2), scores(against(one, 1, 2), 0)
    np.testing.assert_allclose(lead.scores, of_one.scores - of_other.scores, atol=1e-5)
    assert np.abs(of_other.scores).max() > 1e-3
    assert lead.full == pytest.approx(of_one.full - of_other.full, abs=1e-5)


@pytest.mark.parametrize("both", [(1, 1), (0, 3), (-1, 0)])
def test_what_are_no_two_classes_is_refused(one, both):
    with pytest.raises(DataError, match=r"two different classes of 'mnli' \(0 \(entailment\), 1 \(neutral\)"):
        against(one, *both)
