"""The pages on what `shrp convert` makes, and on a task's static checkpoint that came of it."""

import json
from dataclasses import replace

import pytest

from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.tasks import TEXTS
from shrp.pruning.plan import make_plan
from tests.app.helpers import HISTORY, row, texts_of

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


@pytest.fixture
def static(save_tiny):
    """A task's checkpoint that was pruned before it saw the task."""
    name = "static, 1 a layer, pruned on texts"
    later = [line | {"epoch": epoch, "stage": 2, "usage": {}} for epoch, line in enumerate(HISTORY[:2], 3)]
    return save_tiny(
        "small",
        plan=PLAN,
        history=lines([*ON_TEXTS, *(line | {"converted_layer": None} for line in later)]),
        scores=(row("dense teacher", "teacher", 0.9), row(name, "static", 0.8, budget=2, recovered=True)),
        training={
            "config": {"stage2_epochs": 2, "balance": 0.1, "dropout": False, "freeze_dense": False},
            "train_data": "glue/sst2 train",
            "train_examples": 6920,
            "validation_data": "glue/sst2 validation",
            "epochs": 2,
            "teacher": {"epochs": 3, "config": {"learning_rate": 5e-5}},
            "converted": CONVERSION | FURTHER,
        },
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_an_encoder_that_has_seen_no_task(open_page, encoder, page):
    at = open_page(page, encoder)
    assert not at.exception
    assert not at.error
    assert ("nothing has trained its head" in texts_of(at)) == (page != "results")
    if page == "overview":
        said = texts_of(at)
        assert "Converted on 80,000 unlabelled texts, 2,500 for each of 2 layers and 20,000 for all" in said
        assert "expert 0 took 97% already in stage 1 (epoch 0, on unlabelled texts; above 90%)" in said


def test_a_static_checkpoint_says_that_it_was_converted_and_pruned_on_texts(open_page, static):
    at = open_page("overview", static)
    assert not at.exception
    said = texts_of(at)
    assert "pruned there by usage on them, and trained on with 60,000" in said
    assert "| epochs on the task | 2 |" in said
    assert "balance loss" not in said


def test_it_says_so_where_a_tasks_usage_chose_its_experts(open_page, save_tiny, static):
    found = checkpoints.load(static)
    made = CONVERSION | FURTHER | {"usage_of": "sst2"}
    training = dict(found.info.training) | {"converted": made}
    folder = save_tiny("chosen", plan=PLAN, training=training)
    at = open_page("overview", folder)
    assert "pruned to the experts that a routed model of sst2 uses most, and trained on with" in texts_of(at)


def test_no_command_is_said_to_draw_its_experts_at_random(open_page, save_tiny, static):
    found = checkpoints.load(static)
    training = dict(found.info.training) | {"converted": CONVERSION | FURTHER | {"selection": "random"}}
    at = open_page("overview", save_tiny("drawn", plan=PLAN, training=training))
    assert "pruned to experts drawn at random, and trained on with 60,000" in texts_of(at)


def test_what_was_pruned_after_the_task_says_nothing_else(open_page, save_tiny):
    training = {"config": {"stage2_epochs": 2}, "train_data": "glue/sst2 train", "train_examples": 6920}
    folder = save_tiny("late", plan=PLAN, training=training | {"epochs": 2, "converted": CONVERSION})
    at = open_page("overview", folder)
    assert "Converted on 80,000 unlabelled texts" in texts_of(at)
    assert "pruned there" not in texts_of(at)


@pytest.mark.parametrize(
    "stored", [{}, {"texts": 5}, CONVERSION | {"recovery": None}, {"config": None, "texts": 5}]
)
def test_what_a_strangers_checkpoint_stores_breaks_no_page(open_page, save_tiny, stored):
    training = {"config": {"stage2_epochs": 2}, "train_data": "theirs", "train_examples": 1, "epochs": 2}
    for name, odd in (("odd", {"converted": stored}), ("odder", stored)):
        at = open_page("overview", save_tiny(name, plan=PLAN, training=training | odd))
        assert not at.exception


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"converted": 3}, "'converted' of its training can't be 3"),
        ({"config": {"shrp": {"layers": 5}}}, "'layers' of its training config can't be 5"),
        ({"config": {"shrp": {"layers": ["all"]}}}, "'layers' of its training config can't be ['all']"),
        ({"config": {"order": [[2]]}}, "'order' of its training config can't be [[2]]"),
        ({"converted": {"texts": "many"}}, "'texts' of its conversion on texts can't be 'many'"),
        ({"converted": {"texts": 5, "recovery": {}}}, "'recovery' of its conversion on texts can't be {}"),
        ({"converted": {"texts": 5, "usage_of": 3}}, "'usage_of' of its conversion on texts can't be 3"),
        (
            {"converted": {"texts": 5, "recovery": {"final_size": 5, "seed": "x"}}},
            "'seed' of its conversion on texts's recovery can't be 'x'",
        ),
    ],
)
def test_what_it_stores_in_a_wrong_form_is_refused_in_words(open_page, save_tiny, training, said):
    at = open_page("overview", save_tiny("odd", plan=PLAN, training=training))
    assert not at.exception
    assert said in texts_of(at)


@pytest.mark.parametrize("page", PAGES[1:])
def test_every_page_opens_on_it(open_page, static, page):
    at = open_page(page, static)
    assert not at.exception
    assert not at.error


def test_where_only_the_history_tells_of_texts_every_page_does_too(open_page, save_tiny):
    after = [
        {"epoch": epoch, "stage": 2, "converted_layer": None, "validation_n": 872, "seconds": 4.0}
        | {"metric": "accuracy", "validation_score": 0.8, "usage": {"2": [0.7, 0.1, 0.1, 0.1]}}
        for epoch in (3, 4)
    ]
    training = {
        "config": {"shrp": {"layers": []}, "stage2_epochs": 2, "balance": 0.1},
        "epochs": 2,
        "seconds": 8.0,
    }
    training |= {
        "train_data": "glue/sst2 train",
        "train_examples": 9,
        "validation_data": "glue/sst2 validation",
    }
    folder = save_tiny("earlier", history=lines([*ON_TEXTS, *after]), training=training)
    at = open_page("overview", folder)
    said = texts_of(at)
    assert "| layers | Converted on unlabelled texts, 2 layers with 7,500 texts in all |" in said
    assert "| epochs on the task | 2 |" in said
    assert "| time on the task |" in said
    assert "balance loss" not in said
    at = open_page("expert_usage", folder)
    assert not at.exception
    spec = " ".join(
        json.loads(chart.proto.spec)["layout"]["title"]["subtitle"]["text"]
        for chart in at.get("plotly_chart")
        if "epoch by epoch" in chart.proto.spec
    )
    assert "unlabelled texts, then" in spec.replace("<br>", " ")
