"""`python -m shrp pairs` says of minimal pairs what the library finds."""

import json

import numpy as np
import pytest

from shrp.analysis.pairs_patched import KINDS, patch_pairs
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig

ROWS = "w1 w2 w3,0,a\nw1 w9 w3,1,a\nw4 w5,0,b\nw6 w5,1,b\nw7,0,c\nw7 w8,1,c\n"


@pytest.fixture
def folder(tmp_path, tiny_routed, tiny_tokenizer):
    info = CheckpointInfo(ShrpConfig((1, 2), expander_gain=1.0), TASKS["sst2"], base_model="tiny")
    return checkpoints.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "routed")


def test_what_is_told_is_what_the_library_finds(shrp, folder, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence,label,twin\n{ROWS}")
    options = "pairs", folder, "--data", file, "--pair-column", "twin"
    code, out, err = shrp(*options, "--json")
    assert code == 0, err
    told, loaded = json.loads(out), checkpoints.load(folder)
    data = load_file(file, "sst2", pair_column="twin")
    found = patch_pairs(loaded.model, loaded.tokenizer, data, max_length=loaded.info.max_length)
    assert (told["n"], told["left_out"]) == (found.n, found.left_out) == (2, 1)
    frame = found.table()
    assert [row["part"] for row in told["layers"]] == pytest.approx(frame["part"].tolist(), abs=1e-3)
    ends = [row["part_interval"] or [np.nan, np.nan] for row in told["layers"]]
    np.testing.assert_allclose(ends, frame[["low", "high"]], atol=1e-3)
    code, out, err = shrp(*options)
    assert code == 0, err
    assert told["of"] == "logit of the greater label less that of the smaller one"
    said = " ".join(out.split())
    assert "n = 2 minimal pairs, in both directions; 1 more with other numbers of tokens are left out" in said
    assert "drawn of" not in said
    assert all(kind in out for kind in KINDS)
    assert "100.0%" in out  # of what differs, below all layers
    with file.open("a") as rows:
        rows.writelines(f"w{i} w{label},{label},n{i}\n" for i in range(4) for label in (0, 1))
    said = " ".join(shrp(*options, "--most", 4)[1].split())
    assert "n = 4 minimal pairs, in both directions; 1 more with" in said
    assert "drawn of 6" in said


def test_data_without_pairs_are_refused(shrp, folder):
    code, _, err = shrp("pairs", folder)
    assert code == 1
    assert "has no minimal pairs" in err
