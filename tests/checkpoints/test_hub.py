"""Checkpoints load the Hugging Face way; plain classifiers open as they are."""

import pytest
import torch
from transformers import (
    AutoModelForNextSentencePrediction,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    pipeline,
)

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import MODEL_TYPES, discover
from shrp.data.tasks import TASKS
from shrp.errors import CheckpointError
from shrp.families.families import FAMILIES
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import edit_json

USAGE = {1: [0.1, 0.6, 0.0, 0.3], 2: [0.2, 0.15, 0.4, 0.25]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_routed, tiny_tokenizer, tiny_info):
    """The folders of a routed and a static checkpoint."""
    plan, root = make_plan(USAGE, budget=5), tmp_path_factory.mktemp("made")
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), root / "routed")
    checkpoint.save(prune(tiny_routed(), plan), tiny_tokenizer, tiny_info(plan=plan), root / "static")
    return [root / "routed", root / "static"]


@pytest.fixture(params=[0, 1], ids=["routed", "static"])
def folder(request, folders):
    """A converted checkpoint's folder; not to be changed."""
    return folders[request.param]


def test_the_model_types_are_those_of_the_families():
    assert set(MODEL_TYPES) == set(FAMILIES)


def test_the_auto_class_gives_the_logits_of_load(folder, tiny_inputs, tiny_logits):
    expected = tiny_logits(checkpoint.load(folder).model, tiny_inputs())
    options = {"output_loading_info": True}
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    assert torch.equal(tiny_logits(model, tiny_inputs()), expected)
    assert (model.training, model.dtype, any(report.values())) == (False, torch.float32, False)
    half, report = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16, **options)
    assert (half.dtype, any(report.values())) == (torch.bfloat16, False)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "distilbert"])
def test_what_transformers_saves_of_it_loads_again(
    family, tmp_path, tiny_routed, tiny_tokenizer, save_model, tiny_info, tiny_inputs, tiny_logits
):
    first = checkpoint.save(tiny_routed(family), tiny_tokenizer, tiny_info(), tmp_path / "first")
    model = checkpoint.load(first).model
    save_model(model, tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert torch.equal(tiny_logits(again, tiny_inputs()), tiny_logits(model, tiny_inputs()))
    assert checkpoint.load(tmp_path / "again").info == checkpoint.load(first).info


def test_a_pipeline_classifies(folder):
    loaded = checkpoint.load(folder)
    (found,) = pipeline("text-classification", model=str(folder))("w1 w2 w3")
    row, names = loaded.predict(["w1 w2 w3"]).iloc[0], loaded.info.task.label_names
    assert found["label"] == loaded.model.config.id2label[names.index(row["prediction"])]
    assert found["score"] == pytest.approx(max(row[f"p({name})"] for name in names))


def test_no_other_auto_class_and_no_unknown_option_is_taken(folders):
    folder, _ = folders
    with pytest.raises(ValueError, match="ShrpBertConfig"):
        AutoModelForNextSentencePrediction.from_pretrained(folder)
    for options in ({"key_mapping": {"a": "b"}}, {"num_labels": 7}, {"device_map": "auto"}):
        with pytest.raises(ValueError, match=r"key_mapping|outputs|device_map"):
            AutoModelForSequenceClassification.from_pretrained(folder, **options)


def test_the_familys_own_class_does_not_load_random_layers(folder):
    with pytest.raises(ValueError, match="import shrp"):
        BertForSequenceClassification.from_pretrained(folder)


@pytest.fixture
def plain(tmp_path, tiny_model, save_model):
    """A factory of folders as `save_pretrained` writes them."""

    def build(labels=(), **options):
        model = tiny_model(num_labels=len(labels) or 2, **options)
        save_model(model, tmp_path / "plain", *labels)
        return tmp_path / "plain", model

    return build


@pytest.mark.parametrize(
    ("labels", "task", "names"),
    [
        (("NEGATIVE", "POSITIVE"), "sst2", TASKS["sst2"].label_names),
        (("a", "b", "c"), "plain", ("a", "b", "c")),
        ((), "plain", ("LABEL_0", "LABEL_1")),
        (("score",), "plain", ()),
    ],
)
def test_a_plain_classifier_opens_with_the_task_of_its_labels(plain, labels, task, names, tiny_inputs, tiny_logits):
    folder, model = plain(labels)
    loaded = checkpoint.load(folder)
    assert (loaded.info.task.name, loaded.info.task.label_names) == (task, names)
    assert (loaded.info.config.layers, loaded.info.training["adopted"]) == ((), True)
    assert torch.equal(tiny_logits(loaded.model, tiny_inputs()), tiny_logits(model, tiny_inputs()))
    assert discover(folder.parent)["plain"].task == loaded.info.task
    assert checkpoint.info_if_ours(folder) is None
    assert len(loaded.predict(["w1 w2"])) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["BertModel"]},
        {"architectures": None},
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": ["a"]},
        {"id2label": {"0": "a", "1": "a"}},
    ],
)
def test_a_plain_model_that_is_no_classifier_is_refused(plain, change):
    folder, _ = plain()
    edit_json(folder / "config.json", **change)
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)
