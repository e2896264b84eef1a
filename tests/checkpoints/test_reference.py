"""The dense teacher's outputs beside a checkpoint: round trips, what is refused, and the command that makes them."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from shrp.checkpoints import checkpoint, reference
from shrp.checkpoints.reference import FILE, Reference
from shrp.data.tasks import TASKS
from shrp.errors import CheckpointError, DataError
from shrp.evaluation.evaluate import evaluate, evaluate_stream

SST2 = TASKS["sst2"]


@pytest.fixture(scope="module")
def data(tiny_data):
    return tiny_data(30)


def outputs(n=30, seed=0, teacher="t"):
    return Reference("made", np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32), teacher)


def test_an_evaluation_comes_back_as_it_was(tmp_path, tiny_model, tiny_tokenizer, data):
    model = tiny_model(seed=3)
    *_, streamed = evaluate_stream(model, tiny_tokenizer, data)
    reference.write(tmp_path, {data.fingerprint: reference.from_evaluation(streamed, "abc", 64)})
    (found,) = reference.read(tmp_path, SST2).values()
    assert (found.data, found.teacher, found.cut) == (data.name, "abc", 64)
    again, direct = found.evaluation(data), evaluate(model, tiny_tokenizer, data)
    np.testing.assert_allclose(again.logits, direct.logits, atol=1e-5)
    assert (again.score, again.interval) == (direct.score, direct.interval)
    assert again.slices == direct.slices
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o644


def test_other_data_are_refused(tiny_data):
    with pytest.raises(DataError, match=r"shape \[30, 2\].*needs \[12, 2\]"):
        outputs().evaluation(tiny_data(12))


@pytest.mark.parametrize(
    ("limit", "one", "words"),
    [
        (100, outputs(), "more than"),
        (10**6, Reference("mine", np.full((3, 2), np.nan, dtype=np.float32)), "not all finite"),
    ],
)
def test_what_would_not_be_read_is_not_written(tmp_path, monkeypatch, limit, one, words):
    monkeypatch.setattr(reference, "MAX_BYTES", limit)
    with pytest.raises(CheckpointError, match=words):
        reference.write(tmp_path, {"x": one})
    assert not list(tmp_path.iterdir())


ABOUT = json.dumps({"format_version": 1, "references": {"x": {"data": "d", "teacher": "t"}}})
GOOD = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({"x": np.zeros((4, 3), np.float32)}, {"shrp": ABOUT}, r"expected float32 of shape \[n, 2\]"),
        ({"x": np.zeros(4, np.float32)}, {"shrp": ABOUT}, "does not fit the task 'sst2'"),
        ({"x": np.zeros((0, 2), np.float32)}, {"shrp": ABOUT}, "does not fit the task"),
        ({"x": GOOD.astype(np.float64)}, {"shrp": ABOUT}, "are float64"),
        ({"x": np.full((4, 2), np.nan, np.float32)}, {"shrp": ABOUT}, "not finite"),
        ({"x": GOOD}, {"shrp": ABOUT.replace("1", "9", 1)}, "of version 9, not 1"),
        ({"x": GOOD}, {"shrp": "[1"}, "truncated or not"),
        ({"x": GOOD}, {"shrp": "[1]"}, "does not name the data"),
        ({"x": GOOD}, {"shrp": ABOUT[: ABOUT.index('{"data"')] + '"d"}}'}, "does not name the data"),
        ({"x": GOOD}, {}, "does not name the data"),
        ({"y": GOOD}, {"shrp": ABOUT}, "does not name the data"),
    ],
)
def test_a_broken_file_is_a_problem_of_the_checkpoint_not_its_end(saved, tensors, metadata, words):
    save_file(tensors, saved / FILE, metadata=metadata)
    with pytest.raises(CheckpointError, match=words):
        reference.read(saved, SST2)
    loaded = checkpoint.load(saved)
    assert loaded.teacher == {}
    assert FILE in loaded.problem
    assert "\n" not in loaded.problem


def test_truncated_and_huge_files(saved, monkeypatch):
    reference.write(saved, {"x": outputs()})
    (saved / FILE).write_bytes((saved / FILE).read_bytes()[:-7])
    assert "truncated" in checkpoint.load(saved).problem
    monkeypatch.setattr(reference, "MAX_BYTES", 50)
    assert "larger than" in checkpoint.load(saved).problem


def test_it_travels_with_a_checkpoint_and_leaves_its_fingerprint(saved, tmp_path):
    before = checkpoint.load(saved)
    assert (before.teacher, before.problem) == ({}, "")
    reference.write(saved, {"x": outputs()})
    loaded = checkpoint.load(saved)
    assert loaded.fingerprint == before.fingerprint
    parts = loaded.model, loaded.tokenizer, loaded.info
    again = checkpoint.load(checkpoint.save(*parts, tmp_path / "again", teacher=loaded.teacher))
    np.testing.assert_array_equal(again.teacher["x"].logits, outputs().logits)
    assert not (checkpoint.save(*parts, tmp_path / "bare") / FILE).exists()
