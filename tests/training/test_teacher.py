"""The teacher's kept outputs are what it says, and training on them is training on the teacher."""

import copy
import errno
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shrp.data.batching import collate, encode
from shrp.errors import TrainingError
from shrp.model.config import ShrpConfig
from shrp.training import teacher as kept_teacher
from shrp.training.config import TrainConfig
from shrp.training.loop import train
from shrp.training.teacher import CachedTeacher, LiveTeacher, open_teacher


@pytest.fixture
def asked(tiny_model, tiny_tokenizer, tiny_data, tmp_path):
    """A teacher, its encoded data, and `(rows, hidden, identity) -> CachedTeacher` on one folder."""
    model, data = tiny_model(), tiny_data(30)
    encoded = encode(tiny_tokenizer, data.texts)

    def make(rows=range(30), hidden=True, model=model, **identity):
        cached = CachedTeacher(
            tmp_path, model, tiny_tokenizer, encoded, np.array(rows), hidden=hidden, identity=identity
        )
        cached.fill(None)
        return cached

    return model, encoded, make


def test_kept_outputs_are_the_teachers(asked, tiny_tokenizer):
    model, encoded, make = asked
    rows = [7, 3, 21, 3]
    inputs = collate(tiny_tokenizer, encoded, rows)
    live, kept = LiveTeacher(model, True)(rows, inputs), make()(rows, inputs)
    assert torch.allclose(kept.logits, live.logits, atol=1e-5)
    assert len(kept.hidden_states) == len(live.hidden_states) == 4
    real = inputs["attention_mask"].bool()
    for mine, theirs in zip(kept.hidden_states, live.hidden_states, strict=True):
        assert torch.allclose(mine[real].float(), theirs[real], atol=5e-3)  # float16 keeps 11 bits
        assert not mine[~real].any()


def test_a_filled_folder_is_read_and_not_asked_for_again(asked, tiny_tokenizer, tiny_model):
    _, encoded, make = asked
    rows = [1, 2]
    inputs = collate(tiny_tokenizer, encoded, rows)
    first = make(teacher="a")(rows, inputs).logits
    other = tiny_model(seed=5)
    assert torch.equal(make(model=other, teacher="a")(rows, inputs).logits, first)
    assert not torch.allclose(make(model=other, teacher="b")(rows, inputs).logits, first)


def test_only_the_rows_of_a_run_are_kept_and_without_hidden_states_none_are(asked, tiny_tokenizer):
    _, encoded, make = asked
    kept = make(rows=[4, 9], hidden=False)
    assert kept([9], collate(tiny_tokenizer, encoded, [9])).hidden_states == ()
    with pytest.raises(KeyError):
        kept([5], collate(tiny_tokenizer, encoded, [5]))


def test_as_many_other_rows_of_the_same_lengths_are_asked_for_anew(asked, tiny_tokenizer):
    model, encoded, make = asked
    by_length = {}
    for row, one in enumerate(encoded):
        by_length.setdefault(len(one["input_ids"]), []).append(row)
    first, second, third, fourth = next(rows for rows in by_length.values() if len(rows) >= 4)[:4]
    make(rows=[first, second])
    rows = [third, fourth]
    kept, inputs = make(rows=rows), collate(tiny_tokenizer, encoded, rows)
    assert torch.allclose(
        kept(rows, inputs).logits, LiveTeacher(model, False)(rows, inputs).logits, atol=1e-5
    )


@pytest.mark.parametrize("limit", [0, 2**30])
def test_training_asks_a_teacher_that_is_too_much_to_keep_anew(
    limit, tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(kept_teacher, "CACHE_BYTES", limit)
    config = TrainConfig(ShrpConfig((2,)), stage2_epochs=1, distill_hidden=1.0, precision="fp32")
    _, _, history = train(
        config,
        tiny_model(),
        tiny_info(layers=()),
        tiny_tokenizer,
        tiny_data(16),
        tiny_data(8, seed=1),
        tmp_path / "out",
    )
    assert (tmp_path / "out.run" / "teacher").is_dir() == (limit > 0)
    assert ("in every step" in caplog.text) == (limit == 0)
    assert all(row["distill_hidden_loss"] > 0 for row in history)


def test_a_disk_that_another_process_fills_meanwhile_ends_nothing(
    tiny_model, tiny_tokenizer, tiny_data, tmp_path, monkeypatch, caplog
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    model, encoded = tiny_model(), encode(tiny_tokenizer, tiny_data(30).texts)
    monkeypatch.setattr(kept_teacher.os, "posix_fallocate", full, raising=False)
    made = kept_teacher.open_teacher(
        tmp_path / "said",
        model,
        tiny_tokenizer,
        encoded,
        np.arange(30),
        hidden=True,
        identity={"teacher": "a"},
        bf16=False,
    )
    assert isinstance(made, LiveTeacher)
    assert "no room" in caplog.text
    assert not list((tmp_path / "said").glob("*.bin"))


def test_a_teacher_that_the_disk_has_no_room_for_is_asked_in_every_step_and_that_is_said(
    tiny_model, tiny_tokenizer, tiny_data, tmp_path, monkeypatch, caplog
):
    model, encoded = tiny_model(), encode(tiny_tokenizer, tiny_data(30).texts)
    options = {"hidden": True, "identity": {"teacher": "a"}, "bf16": False}
    asked = tmp_path / "said", model, tiny_tokenizer, encoded, np.arange(30)
    usage = SimpleNamespace(free=kept_teacher.SPARE_BYTES)
    monkeypatch.setattr(kept_teacher.shutil, "disk_usage", lambda _: usage)
    assert isinstance(open_teacher(*asked, **options), LiveTeacher)
    assert "no room for" in caplog.text
    assert not (tmp_path / "said" / "hidden.bin").exists()
    caplog.clear()
    usage.free += sum(len(row["input_ids"]) for row in encoded) * 4 * model.config.hidden_size * 2
    assert isinstance(open_teacher(*asked, **options), CachedTeacher)
    usage.free = 0  # what is there already takes no more
    assert isinstance(open_teacher(*asked, **options), CachedTeacher)
    assert not caplog.text


def test_a_run_that_goes_on_asks_the_teacher_as_it_began(
    tiny_model, tiny_tokenizer, tiny_data, tmp_path, monkeypatch
):
    model, encoded = tiny_model(), encode(tiny_tokenizer, tiny_data(30).texts)
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(kept_teacher.shutil, "disk_usage", lambda _: usage)

    def ask(name):
        asked = tmp_path / name, model, tiny_tokenizer, encoded, np.arange(30)
        options = {"hidden": True, "identity": {"teacher": "a"}, "bf16": False}
        return open_teacher(*asked, **options, settled=tmp_path / f"{name}.txt")

    assert isinstance(ask("full"), LiveTeacher)
    usage.free = 2**60
    assert isinstance(ask("full"), LiveTeacher)
    assert isinstance(ask("roomy"), CachedTeacher)
    shutil.rmtree(tmp_path / "roomy")
    usage.free = 0
    with pytest.raises(TrainingError, match=r"with which this run began, and .* has no room"):
        ask("roomy")
    usage.free = 2**60
    assert isinstance(ask("roomy"), CachedTeacher)


def test_a_folder_for_several_runs_gives_the_same_training_as_asking_the_teacher(
    tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch
):
    config = TrainConfig(
        ShrpConfig((2,)),
        stage2_epochs=1,
        distill_hidden=1.0,
        distill_logits=0.5,
        conversion_size=8,
        precision="fp32",
    )
    teacher = tiny_model()

    def history(name, **options):
        _, _, rows = train(
            replace(config, learning_rate=3e-5),
            copy.deepcopy(teacher),
            tiny_info(layers=()),
            tiny_tokenizer,
            tiny_data(24),
            tiny_data(8, seed=1),
            tmp_path / name,
            **options,
        )
        return rows

    kept = [history(name, teacher_outputs=tmp_path / "said") for name in ("a", "b")]
    for name in ("a", "b"):
        assert not (tmp_path / f"{name}.run" / "teacher").exists()
    assert [row["loss"] for row in kept[0]] == [row["loss"] for row in kept[1]]
    monkeypatch.setattr(kept_teacher, "CACHE_BYTES", 0)  # nothing is kept, so every step asks
    asked = history("c")
    for name in ("loss", "distill_logits_loss", "distill_hidden_loss"):
        mine, theirs = ([row[name] for row in rows] for rows in (kept[0], asked))
        assert mine == pytest.approx(theirs, rel=1e-4)  # hidden states are kept in float16


def test_one_who_reads_keeps_what_it_opened_when_another_fills_the_folder_anew(
    asked, tiny_tokenizer, tiny_model
):
    _, encoded, make = asked
    rows = [7, 3]
    inputs = collate(tiny_tokenizer, encoded, rows)
    first = make(teacher="a")
    before = [states.clone() for states in first(rows, inputs).hidden_states]
    other = make(rows=range(10), model=tiny_model(seed=5), teacher="b")
    assert all(torch.equal(a, b) for a, b in zip(first(rows, inputs).hidden_states, before, strict=True))
    assert not torch.equal(other(rows, inputs).hidden_states[1], before[1])


def test_two_threads_that_fill_one_folder_ask_the_teacher_once(asked, monkeypatch):
    _, _, make = asked
    asks, real = [], CachedTeacher._ask

    def slow(self, *args):
        asks.append(None)
        time.sleep(0.2)
        real(self, *args)

    monkeypatch.setattr(CachedTeacher, "_ask", slow)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: make(teacher="a"), range(2)))
    assert len(asks) == 1
    assert np.array_equal(made[0].logits, made[1].logits)
