"""The pages on what `shrp convert` makes."""

import json
from dataclasses import replace

import pytest

from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.tasks import TEXTS
from shrp.pruning.plan import make_plan

PAGES = ("overview", "expert_usage", "routing", "pruning_lab", "compare")
PLAN = make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}, per_layer=1)
CONVERSION = {
    "config": {"shrp": {"layers": [1, 2]}, "conversion_size": 2500, "final_size": 20_000, "seed": 3},
    "texts": 80_000,
    "precision": "fp32",
}
FURTHER = {"recovery": {"final_size": 60_000}}
ON_TEXTS = [
    {"epoch": epoch, "stage": 1, "converted_layer": layer, "texts": 2500, "distill_hidden_loss": 0.5}
    | {"balance_loss": 0.1, "usage": {"2": [0.97, 0.01, 0.01, 0.01]}, "seconds": 3.0}
    for epoch, layer in enumerate((2, 1, None))
]


def lines(rows):
    return "".join(json.dumps(line) + "\n" for line in rows)


@pytest.fixture(params=["routed", "pruned"])
def encoder(request, save_tiny):
    """An encoder that learned on texts and has seen no task."""
    pruned = request.param == "pruned"
    folder = save_tiny(
        "encoder",
        plan=PLAN if pruned else None,
        history=lines(ON_TEXTS),
        training=CONVERSION | (FURTHER if pruned else {}),
    )
    found = checkpoints.load(folder)
    return checkpoints.save(
        found.model,
        found.tokenizer,
        replace(found.info, task=TEXTS),
        folder.with_name("on-texts"),
        extra_files={checkpoints.HISTORY: lines(ON_TEXTS)},
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_an_encoder_that_has_seen_no_task(open_page, encoder, page):
    at = open_page(page, encoder)
    assert not at.exception
    assert not at.error
    assert any(box.icon == ":material/school:" for box in at.info)
