"""Where each expert matters: planted effects are found, others are not, and rare experts are not tested."""

import numpy as np
import pytest

from shrp.analysis.importance import FEWEST, KnockOuts, beyond_chance, worth_by_group
from shrp.data.slices import SLICE, groups_by
from shrp.data.text_data import TextData
from shrp.evaluation.metrics import worth
from tests.analysis.attribution.conftest import SST2

N = 120


def data_of(labels, slices, pairs=None):
    texts = tuple((f"w{i}",) for i in range(len(labels)))
    return TextData(SST2, "some", texts, labels, tuple(slices), pairs=pairs)


def effects(labels, change, fires):
    """Knock-outs of a layer of experts whose change of the true class's logit `(N, H)` is given."""
    n, experts = change.shape
    outputs = np.zeros((n, SST2.num_labels), dtype=np.float32)
    knocked = np.broadcast_to(outputs[:, None, None], (n, 1, experts, SST2.num_labels)).copy()
    for expert in range(experts):
        knocked[np.arange(n), 0, expert, labels] -= change[:, expert]
    return KnockOuts(SST2, (3,), np.arange(n), outputs, knocked, fires[:, None], fires[:, None])


@pytest.fixture
def planted():
    """An expert that helps in slice a alone, one that helps everywhere, one that does nothing, and one hardly used."""
    rng = np.random.default_rng(0)
    labels, slices = rng.integers(2, size=N), ["a"] * 30 + ["b"] * 50 + ["c"] * 40
    change = np.zeros((N, 4), dtype=np.float32)
    fires = rng.random((N, 4)) < 0.5
    fires[:, 3] = np.arange(N) < FEWEST - 1
    noise = rng.normal(0, 0.1, (N, 4)).astype(np.float32)
    change[:30, 0] = 1.0
    change[:, 1] = 0.5
    change[:, 3] = 2.0
    data = data_of(labels, slices)
    return data, effects(labels, (change + noise) * fires, fires)


def test_what_an_expert_is_worth_to_each_slice(planted):
    data, found = planted
    done = []
    frame = worth_by_group(
        found, data, groups_by(SLICE, data), progress=lambda *step: done.append(step)
    ).set_index(["expert", "group"])
    assert len(frame) == 12
    assert done[-1][0] == done[-1][1] >= 2000
    lost = worth(SST2, found.base, data.labels)[:, None] - worth(SST2, found.knocked_out[:, 0], data.labels)
    for expert, group, rows in ((0, "a", slice(0, 30)), (1, "c", slice(80, 120))):
        cell, others = frame.loc[expert, group], np.delete(lost[:, expert], rows)
        assert cell["lost"] == pytest.approx(lost[rows, expert].mean())
        assert cell["elsewhere"] == pytest.approx(others.mean())
        assert cell["difference"] == pytest.approx(lost[rows, expert].mean() - others.mean())
        assert cell["uses"] == found.fires[rows, 0, expert].sum()
        assert cell["n"] == rows.stop - rows.start
    assert frame.loc[3, ["p", "q"]].isna().all(axis=None)  # too few inputs to tell
    sure = beyond_chance(frame.reset_index())
    assert sure[["expert", "group"]].to_numpy()[0].tolist() == [0, "a"]
    assert set(sure["expert"]) == {0}  # an expert that helps everywhere is not significant
    assert (frame["q"].dropna() >= frame["p"].dropna() - 1e-12).all()
