"""A few seconds of the reliability campaign (`python -m tests.campaign`), and that it goes on where it was."""

import json
import sys

import pytest

from tests.campaign import __main__ as campaign
from tests.campaign.world import make


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("campaign"))


TRIALS = {"damaged_checkpoint": 15, "damaged_zip": 8, "odd_plan": 40, "tables": 1, "texts": 1}


@pytest.mark.parametrize("part", TRIALS)
def test_nothing_fails(world, part):
    found = [campaign.outcome(world, part, 0, number) for number in range(TRIALS[part])]
    assert not [one["failed"] for one in found if one["failed"]]
    assert sum(one["right"] for one in found) > 0


def test_what_fails_is_told_and_tried_again_and_what_is_done_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SHRP_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["campaign", "--part", "odd_plan", "--part", "texts", "--json"])
    asked, told = [], []

    def trials(part, seed, done, seconds):
        asked.append((part, sorted(done)))
        for number in {0, 1, 2} - done:
            failed = "hangs" if (number, len(asked)) == (1, 1) else ""
            yield {"part": part, "trial": number, "right": 1, "refused": 1, "failed": failed, "seconds": 1.0}

    monkeypatch.setattr(campaign, "trials", trials)
    for _ in range(2):
        campaign.main()
        told.append({row["part"]: row["failed"] for row in json.loads(capsys.readouterr().out)["parts"]})
    assert asked == [("odd_plan", []), ("texts", []), ("odd_plan", [0, 2]), ("texts", [0, 1, 2])]
    assert told == [{"odd_plan": 1, "texts": 0}, {"odd_plan": 0, "texts": 0}]
