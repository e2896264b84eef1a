"""Where each expert matters: planted effects are found, others are not, and what can't be told is not."""

from dataclasses import replace

import numpy as np
import pytest

from shrp.analysis import importance
from shrp.analysis.importance import FEWEST, KnockOuts, beyond_chance, count_tests, worth_by_group
from shrp.data.slices import SLICE, groups_by
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.metrics import worth
from tests.analysis.attribution.helpers import SST2
from ui.attribution import figures

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
    assert set(sure["expert"]) == {0}  # that helps everywhere tells no slice
    assert (frame["q"].dropna() >= frame["p"].dropna() - 1e-12).all()


def test_chance_finds_little_and_pairs_are_dealt_as_one():
    """Both inputs of a minimal pair change alike: dealt one by one, their slices would seem to differ far too often."""
    rng, experts = np.random.default_rng(1), 100
    labels, slices = np.tile([0, 1], N // 2), np.repeat(rng.permutation(["a", "b"] * (N // 4)), 2)
    change = np.repeat(rng.normal(size=(N // 2, experts)), 2, axis=0).astype(np.float32)
    data = data_of(labels, slices, tuple(str(i // 2) for i in range(N)))
    found, groups = effects(labels, change, np.ones((N, experts), dtype=bool)), groups_by(SLICE, data)
    together, alone = (
        (worth_by_group(found, of, groups).groupby("expert")["p"].min() <= 0.05).sum()
        for of in (data, replace(data, pairs=None))
    )
    assert together <= 12  # 5 are expected; by the binomial distribution more than 12 come once in 700 times
    assert alone > 12


def test_of_two_groups_each_expert_is_tested_once():
    """One that all of a class use helps that class: one finding, though both rows say it."""
    labels = np.repeat([0, 1], N // 2)
    change = np.zeros((N, 8), dtype=np.float32)
    change[:, 0] = labels
    fires = np.zeros((N, 8), dtype=bool)
    fires[labels == 1, 0] = True
    fires[::2, 1:5] = True
    data = data_of(labels, ["all"] * N)
    frame = worth_by_group(effects(labels, change, fires), data, groups_by("class", data))
    assert count_tests(frame) == 5
    sure = beyond_chance(frame)
    assert sure[["expert", "group"]].to_numpy().tolist() == [[0, "positive"]]
    mine = frame[frame["expert"] == 0]
    assert mine["q"].nunique() == 1
    assert mine["q"].iloc[0] == pytest.approx(5 * mine["p"].iloc[0])  # of five, not of ten


def test_the_map_shows_what_is_beyond_chance_even_where_it_is_never_used():
    """The class that an expert never serves is as unlike the others as the one that it serves alone."""
    labels, slices = np.tile([0, 1], N // 2), np.repeat(["a", "b", "b_", "b "], N // 4)
    rng = np.random.default_rng(0)
    change, fires = rng.normal(0, 0.01, (N, 20)).astype(np.float32), np.ones((N, 20), dtype=bool)
    change[slices == "a", 0], fires[:, 0] = 0.05, slices == "a"
    change[:, 1:] *= 100 * rng.permutation(np.arange(1, 20))  # much larger, and for nobody in particular
    change[~fires] = 0
    data = data_of(labels, slices)
    frame = worth_by_group(effects(labels, change, fires), data, groups_by(SLICE, data))
    sure = beyond_chance(frame)
    assert (0, "a") in set(zip(sure["expert"], sure["group"], strict=True))
    drawn, used = figures.where_columns(frame, sure)
    assert used == 20
    assert (3, 0) in drawn
    trace = figures.where_map(frame, drawn, "t", "s").data[0]
    column = list(trace.x).index("3·0")
    bold = {group: "<b>" in str(row[column]) for group, row in zip(trace.y, trace.text, strict=True)}
    assert len(bold) == 4  # names that look alike have a row each
    assert any(bold.values())
    for group, row in zip(frame["group"].unique(), trace.text, strict=True):
        cell = frame[(frame["expert"] == 0) & (frame["group"] == group)].iloc[0]
        assert ("<b>" in str(row[column])) == (cell["q"] <= 0.05)
        assert bool(row[column]) == (cell["uses"] > 0 or cell["q"] <= 0.05)


def test_a_part_of_the_data_and_one_group_alone(planted):
    data, found = planted
    part = KnockOuts(
        found.task,
        found.layers,
        found.rows[:30],
        *(getattr(found, name)[:30] for name in ("base", "knocked_out", "top1", "fires")),
    )
    frame = worth_by_group(part, data, groups_by(SLICE, data))
    assert frame["group"].unique().tolist() == ["a"]
    assert frame[["elsewhere", "difference", "p", "q"]].isna().all(axis=None)
    assert beyond_chance(frame).empty
    with pytest.raises(DataError, match="no labels"):
        worth_by_group(found, replace(data, labels=None), groups_by(SLICE, data))


def test_a_model_s_knock_outs(routed, tiny_data, tiny_tokenizer):
    data = tiny_data(24)
    found = importance.knock_outs(routed, tiny_tokenizer, data, np.arange(24))
    frame = worth_by_group(found, data, groups_by("class", data))
    assert frame["uses"].sum() == found.fires.sum()
    assert not frame.loc[frame["uses"] == 0, "lost"].any()


def test_worth_is_the_margin_of_the_true_class_or_minus_the_error():
    outputs = np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 5.0]], dtype=np.float32)
    three = replace(SST2, label_names=("a", "b", "c"), metrics=("accuracy",))
    assert worth(three, outputs, np.array([1, 0])).tolist() == [2.0, -3.0]
    stacked = worth(three, np.stack([outputs, -outputs], 1), np.array([1, 0]))
    assert stacked.tolist() == [[2.0, -3.0], [-3.0, -2.0]]
    assert outputs[0, 1] == 3.0  # left as it was
    assert worth(TASKS["stsb"], np.array([[2.0], [5.0]]), np.array([3.0, 5.0])).tolist() == [-1.0, 0.0]
