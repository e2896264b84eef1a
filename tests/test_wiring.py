"""The numbers that docs/method.md states are those that the code computes with."""

from pathlib import Path

import pytest

from shrp.analysis import importance
from shrp.model.config import ShrpConfig
from shrp.pruning import select
from shrp.training import config as training_config
from shrp.training import general
from shrp.training.config import TrainConfig
from studies import depths

ROOT = Path(__file__).parents[1]
STATED = {
    "paper": {
        "learning_rate": 3e-5,
        "new_learning_rate": 5e-4,
        "balance": 0.1,
        "distill_logits": 0.0,
        "distill_hidden": 0.0,
        "expander_init": "random",
        "dropout": True,
    },
    "retain": {
        "learning_rate": 1e-4,
        "new_learning_rate": 1e-3,
        "balance": 0.1,
        "distill_logits": 0.5,
        "distill_hidden": 1.0,
        "expander_init": "least_squares",
        "dropout": False,
    },
}
"""Recipe -> what its page says of it."""
SHARED = {"temperature": 2.0, "swap": 0.0, "exploration": 0.0, "order": (), "freeze_dense": False}
"""What both have, most of it that an option is off."""


def written(rate):
    """A rate as the page writes it: `3e-5`."""
    digits, power = f"{rate:e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def test_the_page_itself_names_the_rates():
    page = " ".join((ROOT / "docs" / "method.md").read_text(encoding="utf-8").split())
    paper, retain = (TrainConfig.named(name, shrp=ShrpConfig((1,))) for name in ("paper", "retain"))
    on_texts, further = general.GeneralConfig(ShrpConfig((1,))), [*general.RECOVERY_RATES.values()]
    task = [*depths.DEPTHS[1].rates.values()]
    for said in (
        f"`paper` learns at {written(paper.learning_rate)}, new weights at {written(paper.new_learning_rate)}",
        f"`retain`: {written(retain.learning_rate)} for pretrained",
        f"{written(retain.new_learning_rate)} for new weights",
        f"converting on texts {written(on_texts.learning_rate)} and {written(on_texts.new_learning_rate)}",
        f"learns on at {written(further[0])} and {written(further[1])} on texts",
        f"and at {written(task[0])} and {written(task[1])} on the task",
        f"on at most {importance.ABLATED} inputs",
        f"on at most {select.TEXTS} texts in batches of {select.BATCH}",
    ):
        assert said in page, said


@pytest.mark.parametrize("recipe", list(STATED))
def test_a_recipe_is_what_the_method_page_says(recipe):
    assert set(training_config.RECIPES) == set(STATED)
    config = TrainConfig.named(recipe, shrp=ShrpConfig((1,)))
    wanted = STATED[recipe] | SHARED
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_rates_on_texts_and_at_eleven_of_twelve_layers_are_those_that_the_method_page_says():
    on_texts = general.GeneralConfig(ShrpConfig((1,)))
    found = {
        "converting on texts": (on_texts.learning_rate, on_texts.new_learning_rate, on_texts.balance),
        "pruned, on texts": tuple(general.RECOVERY_RATES.values()),
        "at 6 of 12": depths.DEPTHS[0].rates,
        "at 11 of 12": depths.DEPTHS[1].rates,
    }
    assert found == {
        "converting on texts": (2e-4, 1e-3, 0.1),
        "pruned, on texts": (5e-4, 2e-3),
        "at 6 of 12": {},
        "at 11 of 12": {"learning_rate": 4e-4, "new_learning_rate": 3e-3},
    }


def test_experts_are_fitted_and_knocked_out_on_a_part_of_the_inputs(
    tiny_routed, tiny_tokenizer, tiny_data, monkeypatch
):
    assert (importance.ABLATED, select.TEXTS, select.BATCH, select.WARM_UP) == (512, 512, 16, 32)
    monkeypatch.setattr(importance, "ABLATED", 8)
    model, data, done = tiny_routed(), tiny_data(12), []
    sizes = importance.ablation(model, tiny_tokenizer, data, progress=lambda *step: done.append(step))
    assert done == [(8, 8)]
    first = next(importance.blocks(data, 12))[:8]  # in an order that mixes the classes
    wanted = importance.knock_outs(model, tiny_tokenizer, data, first).sizes()
    for layer, size in wanted.items():
        assert sizes[layer] == pytest.approx(size, rel=1e-4)
