"""A few seconds of the reliability campaign (`python -m tests.campaign`), and that it goes on where it was."""

import json
import sys

import pytest

from tests.campaign import __main__ as campaign
from tests.campaign import running
from tests.campaign.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World.make(tmp_path_factory.mktemp("campaign"))


TRIALS = {"damaged_checkpoint": 15, "damaged_zip": 8, "odd_plan": 40, "tables": 1, "texts": 1}
"""Many threads at once are in `test_two_at_once`."""


@pytest.mark.parametrize("part", TRIALS)
def test_nothing_fails(world, part):
    found = [running.judged(world, part, 0, number) for number in range(TRIALS[part])]
    assert not [one["failed"] for one in found if one["failed"]]
    assert sum(one["right"] for one in found) > 0


def test_what_fails_is_told_and_tried_again_and_what_is_done_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SHRP_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["campaign", "--part", "odd_plan", "--part", "memory", "--json"])
    asked, told = [], []

    def trials(part, seed, done, seconds):
        asked.append((part, sorted(done)))
        for number in {0, 1, 2} - done:
            fails = (number, len(asked)) == (1, 1)
            yield running.outcome(part, number, 1.0, [] if fails else ["right", "a refusal"], "hangs" * fails)

    monkeypatch.setattr(running, "trials", trials)
    for _ in range(2):
        campaign.main()
        rows = json.loads(capsys.readouterr().out)["parts"]
        told.append({row["part"]: [row[name] for name in ("trials", "right", "refused", "failed")] for row in rows})
    assert asked == [("odd_plan", []), ("memory", []), ("odd_plan", [0, 2]), ("memory", [0, 1, 2])]
    assert told == [{"odd_plan": [3, 2, 2, 1], "memory": [3, 3, 3, 0]}, {name: [3, 3, 3, 0] for name in told[0]}]
