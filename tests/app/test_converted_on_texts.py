"""The pages on an encoder that `shrp convert` makes: it learned on unlabelled text and has seen no task."""

import pytest

from shrp.data.tasks import TEXTS
from shrp.pruning.plan import make_plan

CONVERSION = {
    "config": {"shrp": {"layers": [1, 2]}, "conversion_size": 2500, "final_size": 20_000, "seed": 3},
    "texts": 80_000,
    "precision": "fp32",
}
HISTORY = [
    {"epoch": epoch, "stage": 1, "converted_layer": layer, "texts": 2500, "distill_hidden_loss": 0.5}
    | {"balance_loss": 0.1, "usage": {"2": [0.97, 0.01, 0.01, 0.01]}, "seconds": 3.0}
    for epoch, layer in enumerate((2, 1, None))
]
OF = {"task": TEXTS, "history": HISTORY}
PLAN = make_plan({1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}, per_layer=1)


@pytest.mark.parametrize("pruned", [False, True])
def test_every_page_opens(open_page, save_tiny, pruned):
    further = {"recovery": {"final_size": 60_000}} if pruned else {}
    folder = save_tiny("on-texts", plan=PLAN if pruned else None, training=CONVERSION | further, **OF)
    at = open_page("overview", folder)
    for page in ("overview", "expert_usage", "routing", "pruning_lab", "compare"):
        at.switch_page(f"pages/{page}.py").run()
        assert not at.error
        assert any(box.icon == ":material/school:" for box in at.info)
