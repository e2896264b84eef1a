"""What the attribution tests share."""

import pytest

from shrp.analysis.attribution import instance
from shrp.data.tasks import TASKS

SST2, MRPC, STSB = TASKS["sst2"], TASKS["mrpc"], TASKS["stsb"]
TEXT = ("w1 w20 w33, w4 w50 w17",)


@pytest.fixture(scope="module")
def routed(tiny_routed):
    return tiny_routed("bert", layers=(0, 1, 2))


@pytest.fixture(scope="module")
def token_routed(tiny_routed):
    return tiny_routed("bert", layers=(0, 2), routing="token", top_k=2)


@pytest.fixture(scope="module")
def made(tiny_tokenizer):
    return lambda model, text=TEXT, task=SST2: instance.prepare(model, tiny_tokenizer, task, text)
