"""Which of a checkpoint's rows of scores are of the data at hand."""

from dataclasses import replace

from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.score_rows import rows_as_now
from shrp.model.config import ShrpConfig


def test_data_are_known_by_what_they_hold_and_not_by_their_name(tiny_data):
    data = tiny_data(12, 0)
    here = {"model": "static", "kind": "static", "data": data.name, "data_fingerprint": data.fingerprint}
    other = here | {"data_fingerprint": tiny_data(12, 1).fingerprint}
    undated = {name: value for name, value in here.items() if name != "data_fingerprint"}
    info = CheckpointInfo(ShrpConfig((2, 3)), data.task, scores=(here, other, undated))
    renamed = replace(data, name="the same file elsewhere")
    for each in (data, renamed):
        assert rows_as_now(info, each, lambda: 5) == [here]


def test_rows_of_texts_that_were_cut_elsewhere_are_left_out(tiny_data):
    data = tiny_data(12, 0)
    rows = [{"data_fingerprint": data.fingerprint, "max_length": cut} for cut in (16, 64, 128)]
    info = CheckpointInfo(ShrpConfig((2, 3)), data.task, scores=tuple(rows))
    assert rows_as_now(info, data, lambda: 100, 128) == rows[2:]
    assert rows_as_now(info, data, lambda: 40, 128) == rows[1:]  # which cuts nothing
