"""The teacher's kept outputs equal its own, and training on them equals training on the teacher."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shrp.data.batching import collate
from shrp.errors import TrainingError
from shrp.model.config import ShrpConfig
from shrp.training import teacher as kept_teacher
from shrp.training.config import TrainConfig
from shrp.training.examples import Examples
from shrp.training.loop import train
from shrp.training.teacher import CachedTeacher, LiveTeacher


def examples_of(data, tokenizer, digest="a"):
    return Examples(TrainConfig(), data.texts, None, digest, tokenizer, 32)


@pytest.fixture
def asked(tiny_model, tiny_tokenizer, tiny_data, tmp_path):
    """A teacher, its examples, and `(rows, hidden, model, digest) -> CachedTeacher` on one folder."""
    model, data = tiny_model(), tiny_data(30)

    def make(rows=range(30), hidden=True, model=model, digest="a"):
        cached = CachedTeacher(
            tmp_path, model, examples_of(data, tiny_tokenizer, digest), np.array(rows), hidden
        )
        cached.fill()
        return cached

    return model, examples_of(data, tiny_tokenizer).encoded, make


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


def test_a_filled_folder_is_read_and_the_teacher_not_run_again(
    asked, tiny_tokenizer, tiny_model, monkeypatch
):
    _, encoded, make = asked
    runs, real = [], CachedTeacher._run
    monkeypatch.setattr(CachedTeacher, "_run", lambda self, *a: runs.append(1) or real(self, *a))
    inputs = collate(tiny_tokenizer, encoded, [1, 2])
    first = make()([1, 2], inputs).logits
    assert torch.equal(make()([1, 2], inputs).logits, first)
    assert len(runs) == 1
    assert not torch.allclose(make(model=tiny_model(seed=5))([1, 2], inputs).logits, first)
    make(model=tiny_model(seed=5), digest="b")
    assert len(runs) == 3


def test_only_the_rows_of_a_run_are_kept_and_without_hidden_states_none_are(asked, tiny_tokenizer):
    _, encoded, make = asked
    kept = make(rows=[4, 9], hidden=False)
    assert kept([9], collate(tiny_tokenizer, encoded, [9])).hidden_states == ()
    with pytest.raises(KeyError):
        kept([5], collate(tiny_tokenizer, encoded, [5]))


def test_a_disk_without_room_for_the_outputs_is_refused(asked, monkeypatch):
    _, _, make = asked
    room = SimpleNamespace(free=kept_teacher.SPARE_BYTES)
    monkeypatch.setattr(kept_teacher.shutil, "disk_usage", lambda _: room)
    with pytest.raises(TrainingError, match="no room for them"):
        make()
    room.free = 2**60
    make()
    room.free = 0  # what is there already takes no more
    make()


def test_a_folder_for_several_runs_gives_the_same_training_as_asking_the_teacher(
    tiny_model, tiny_tokenizer, tiny_data, tiny_info, tmp_path, monkeypatch
):
    losses = {"distill_hidden": 1.0, "distill_logits": 0.5, "learning_rate": 3e-5}
    config = TrainConfig(ShrpConfig((2,)), stage2_epochs=1, conversion_size=8, precision="fp32", **losses)

    def history(name, **options):
        given = tiny_model(), tiny_info(layers=()), tiny_tokenizer, tiny_data(24), tiny_data(8, seed=1)
        return train(config, *given, tmp_path / name, **options)[2]

    kept = [history(name, teacher_outputs=tmp_path / "outputs") for name in ("a", "b")]
    history("own")
    for name in ("a", "b", "own"):
        assert not (tmp_path / f"{name}.run" / "teacher").exists()  # or not any more, once it is complete
    assert [row["loss"] for row in kept[0]] == [row["loss"] for row in kept[1]]
    monkeypatch.setattr(kept_teacher, "CACHE_BYTES", 0)  # nothing is kept, so every step asks
    asked = history("c")
    for name in ("loss", "distill_logits_loss", "distill_hidden_loss"):
        mine, theirs = ([row[name] for row in rows] for rows in (kept[0], asked))
        assert mine == pytest.approx(theirs, rel=1e-4)  # hidden states are kept in float16
