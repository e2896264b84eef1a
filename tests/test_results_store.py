"""Results on disk come back as they were, or not at all."""

import json
import os
import stat
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from shrp.analysis.usage import UsageStats
from shrp.data.tasks import get_task
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import summarise
from shrp.files import CACHE, cache_folder
from shrp.results_store import ResultsStore

CHECKPOINT, PLAN = "c" * 64, "p" * 16


def made(task="sst2", n=60, seed=0):
    rng, task = np.random.default_rng(seed), get_task(task)
    labels = rng.random(n) * 5 if task.is_regression else rng.integers(0, task.num_labels, n)
    texts = tuple(("a secret sentence",) * len(task.text_columns) for _ in range(n))
    return TextData(task, "made", texts, labels, ("plain", "other") * (n // 2))


def evaluated(data, seed=1):
    """An evaluation in a random order, as the live evaluator's are."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    logits = rng.normal(size=(len(data), data.task.num_labels)).astype(np.float32)
    return summarise(data, order, logits[order], True), logits


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "cache")


def files(store):
    return sorted(store.folder.glob("*.safetensors"))


@pytest.mark.parametrize("task", ["sst2", "cola", "mrpc", "mnli", "stsb", "unlabelled"])
def test_an_evaluation_comes_back_as_it_was(store, task):
    data = made("sst2" if task == "unlabelled" else task)
    if task == "unlabelled":
        data = TextData(data.task, data.name, data.texts)
    evaluation, logits = evaluated(data)
    assert store.evaluation(CHECKPOINT, data, PLAN) is None
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluation)
    found = ResultsStore(store.folder.parent).evaluation(CHECKPOINT, data, PLAN)
    np.testing.assert_array_equal(found.logits, logits)
    np.testing.assert_array_equal(found.indices, np.arange(len(data)))
    np.testing.assert_equal(found.interval, evaluation.interval)
    assert found.score == pytest.approx(evaluation.score, abs=1e-12, nan_ok=True)
    assert found.metrics == pytest.approx(evaluation.metrics, nan_ok=True)
    assert (found.n, found.total, found.metric, found.data) == (60, 60, evaluation.metric, "made")
    assert found.by_slice().equals(summarise(data, np.arange(60), logits, True).by_slice())


def test_each_part_of_the_key_counts_and_an_estimate_is_not_kept(store):
    data = made()
    evaluation, logits = evaluated(data)
    store.keep_evaluation(CHECKPOINT, data, PLAN, summarise(data, np.arange(9), logits[:9], True))
    assert store.evaluation(CHECKPOINT, data, PLAN) is None
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluation)
    for other in (("d" * 64, data, PLAN), (CHECKPOINT, made(seed=3), PLAN), (CHECKPOINT, data, "q" * 16)):
        assert store.evaluation(*other) is None
    assert store.evaluation(CHECKPOINT, data, PLAN) is not None


def usage_stats(data, norms):
    rng, n = np.random.default_rng(0), len(data)

    def by_layer(draw):
        return {layer: draw() for layer in (3, 7)}

    return UsageStats(
        data.name,
        "tokens",
        top1=by_layer(lambda: rng.integers(0, 9, (n, 4))),
        probs=by_layer(lambda: rng.random((n, 4)).astype(np.float32)),
        margins=by_layer(lambda: rng.random(n).astype(np.float32)),
        norms=by_layer(lambda: rng.random((n, 4)).astype(np.float32)) if norms else {},
        logits=rng.normal(size=(n, 2)).astype(np.float32),
        gates=by_layer(lambda: rng.random((n, 4))) if norms else {},
    )


@pytest.mark.parametrize("norms", [False, True])
def test_usage_comes_back_as_it_was(store, norms):
    data = made()
    stats = usage_stats(data, norms)
    store.keep_usage(CHECKPOINT, data, stats)
    found = store.usage(CHECKPOINT, data, 2, 4, norms=norms)
    assert found.unit == "tokens"
    for name in ("top1", "probs", "margins", "norms", "gates"):
        mine, theirs = getattr(stats, name), getattr(found, name)
        assert list(mine) == list(theirs)
        for layer in mine:
            np.testing.assert_array_equal(mine[layer], theirs[layer])
            assert mine[layer].dtype == theirs[layer].dtype
    np.testing.assert_array_equal(found.logits, stats.logits)
    assert store.usage(CHECKPOINT, data, 2, 4, norms=not norms) is None
    assert store.usage(CHECKPOINT, data, 2, 5, norms=norms) is None


def test_no_text_and_nothing_of_the_data_but_numbers_is_written(store):
    data = made()
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluated(data)[0])
    store.keep_usage(CHECKPOINT, data, usage_stats(data, True))
    assert len(files(store)) == 2
    for file in store.folder.iterdir():
        content = file.read_bytes()
        assert b"secret" not in content
        assert b"plain" not in content
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def rescore(file):
    with safe_open(file, framework="numpy") as stored:
        about, logits = json.loads(stored.metadata()["shrp"]), stored.get_tensor("logits")
    save_file({"logits": logits}, file, metadata={"shrp": json.dumps(about | {"score": 0.999})})


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "text": lambda file: file.write_text("not safetensors"),
    "altered score": rescore,
    "other tensors": lambda file: save_file({"x": np.zeros(3)}, file, metadata={"shrp": '{"key": {}}'}),
    "no metadata": lambda file: save_file({"logits": np.zeros((60, 2), dtype=np.float32)}, file),
    "deep metadata": lambda file: save_file({"x": np.zeros(3)}, file, metadata={"shrp": "[" * 100_000}),
    "huge": lambda file: os.truncate(file, 2**31),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a link": lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(file.with_suffix(".x"))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_counts_as_none_and_is_replaced(store, damage):
    data = made()
    evaluation, logits = evaluated(data)
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluation)
    (file,) = files(store)
    DAMAGES[damage](file)
    assert store.evaluation(CHECKPOINT, data, PLAN) is None
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluation)
    if damage == "a folder":
        assert store.problem  # a folder isn't ours to delete
        return
    np.testing.assert_array_equal(store.evaluation(CHECKPOINT, data, PLAN).logits, logits)


def test_what_was_used_longest_ago_goes_first(tmp_path):
    data = made()
    evaluation, _ = evaluated(data)
    (store := ResultsStore(tmp_path)).keep_evaluation(CHECKPOINT, data, "0", evaluation)
    store.limit = 10 * files(store)[0].stat().st_size
    now = time.time()
    for i in range(10):
        store.keep_evaluation(CHECKPOINT, data, f"{i}", evaluation)
        newest = max(files(store), key=lambda file: file.stat().st_mtime)
        os.utime(newest, (now - 1000 + i, now - 1000 + i))
    assert len(files(store)) == 10
    assert store.evaluation(CHECKPOINT, data, "0") is not None  # used again
    stranger = store.folder / "notes.txt"
    stranger.write_text("mine")
    store.keep_evaluation(CHECKPOINT, data, "new", evaluation)
    kept = {i for i in (*map(str, range(10)), "new") if store.evaluation(CHECKPOINT, data, i) is not None}
    assert {"0", "new", "9", "8", "7", "6"} <= kept  # no more goes than makes room
    assert not {"1", "2"} & kept
    assert stranger.exists()


def test_what_cannot_be_kept_breaks_nothing(tmp_path):
    data, blocked = made(), tmp_path / "file"
    blocked.write_text("")
    for store in (ResultsStore(blocked), ResultsStore(None), small := ResultsStore(tmp_path, limit=100)):
        store.keep_evaluation(CHECKPOINT, data, PLAN, evaluated(data)[0])
        assert store.evaluation(CHECKPOINT, data, PLAN) is None
        assert store.problem or store is small
    assert list(small.folder.iterdir()) == []


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv(CACHE, " ")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "shrp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "shrp"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "shrp"
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    assert cache_folder() is None


@pytest.mark.parametrize("place", ["results", "cache"])
@pytest.mark.parametrize(("mode", "taken"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_a_folder_that_everybody_may_write_to_is_not_used(tmp_path, place, mode, taken):
    folder = tmp_path / "cache"
    (folder / "results").mkdir(parents=True)
    (folder / "results" if place == "results" else folder).chmod(mode)
    data, store = made(), ResultsStore(folder)
    store.keep_evaluation(CHECKPOINT, data, PLAN, evaluated(data)[0])
    taken &= (place, mode) != ("results", 0o1777)  # its own folder has no need to be open
    assert (store.evaluation(CHECKPOINT, data, PLAN) is not None) == taken
    assert bool(store.problem) != taken
