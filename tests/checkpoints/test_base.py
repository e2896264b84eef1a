"""The base of a training: whose head it has, and whether its weights are whole."""

import json
from dataclasses import replace

import pytest
from safetensors import torch as safetensors

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import TASKS, custom_task
from shrp.errors import ShrpError, TrainingError
from shrp.model.config import ShrpConfig

MOODS = custom_task("moods", ("review",), ("negative", "positive"))


@pytest.fixture
def base(tmp_path, tiny_model, tiny_tokenizer, save_model):
    """`base(*labels, **options)`: the folder of a classifier, of ours where a `task` is given."""

    def make(*labels, task=None, **options):
        folder = tmp_path / f"base-{len(list(tmp_path.iterdir()))}"
        model = tiny_model(seed=4, **options)
        if task is not None:
            checkpoint.save(model, tiny_tokenizer, CheckpointInfo(ShrpConfig(()), task), folder)
        else:
            save_model(model, folder, *labels)
        return folder

    return make


def trained(folder, task):
    return load_base(str(folder), task)[2]


def test_a_head_is_taken_for_the_tasks_by_its_labels(base):
    assert trained(base("NEGATIVE", "POSITIVE"), MOODS)
    assert not trained(base("bad", "good"), MOODS)
    # Labels that stand for any do not name somebody's own classes, or numbers.
    generic, scorer = base(), base(num_labels=1)
    assert not trained(generic, MOODS)
    assert trained(generic, replace(MOODS, label_names=("0", "1")))
    assert trained(generic, TASKS["sst2"])
    assert not trained(scorer, custom_task("stars", ("sentence",), regression=True))
    assert trained(scorer, TASKS["stsb"])


def test_a_teacher_of_one_file_is_one_of_another_but_not_of_another_task_of_glue(base):
    of_file, of_qnli = base(task=MOODS), base(task=TASKS["qnli"])
    assert trained(of_file, replace(MOODS, name="more"))  # a file's task is named after the file
    assert not trained(of_file, replace(MOODS, label_names=("no", "yes")))
    assert not trained(of_file, replace(MOODS, text_columns=("question", "answer")))
    assert trained(of_qnli, TASKS["qnli"])
    assert not trained(of_qnli, TASKS["rte"])  # whose labels have the same names


def test_another_tasks_head_is_replaced_by_one_of_the_task(base):
    for folder in (base("bad", "good"), base(task=replace(MOODS, label_names=("bad", "good")))):
        model, _, kept = load_base(str(folder), MOODS)
        assert not kept
        assert model.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("task", [MOODS, None])
def test_truncated_weights_are_refused(base, task):
    folder = base(task=task)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ShrpError, match="truncated or not a safetensors file"):
        load_base(str(folder), MOODS)


@pytest.mark.parametrize("change", ["fewer layers", "another prefix", "fewer positions"])
def test_weights_that_lack_a_part_of_the_encoder_are_refused(base, change):
    """Else a random encoder would be fine-tuned, or converted, without a word."""
    folder = base()
    config = json.loads((folder / "config.json").read_text())
    weights = safetensors.load_file(folder / "model.safetensors")
    if change == "fewer layers":
        config["num_hidden_layers"] += 1
    elif change == "fewer positions":
        config["max_position_embeddings"] += 8
    else:
        weights = {f"wrapped.{name}": value for name, value in weights.items()}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="a part of the encoder would be untrained"):
        load_base(str(folder), MOODS)
