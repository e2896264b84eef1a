"""Trainings in two processes, as a launcher starts them: the same as in one, and begun in one."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from shrp import cli
from shrp.checkpoints import checkpoint
from shrp.training.runs import Run, run_folder
from tests.processes import fork, free_port


def run(commands):
    """One of several processes: commands one after the other, as if nothing had been trained in it yet."""
    AcceleratorState._reset_state(reset_partial_state=True)
    for arguments in commands:
        sys.argv[1:] = map(str, arguments)
        try:
            cli.main()
        except SystemExit as end:
            if end.code:
                raise


def test_two_processes_go_on_with_a_run_and_end_as_one_does(shrp, place, tmp_path, monkeypatch):
    # 46 or 11 examples in batches of 5, so shares are unequal; the last batch has one, too few to share.
    shared = {"batch_size": 5, "max_length": 16, "precision": "fp32"}
    task = shared | {"epoch_size": 46, "dropout": False, "stage2_epochs": 1}
    scored = {"per_layer": [], "random_draws": 0, "full_precision": True}
    configs = {
        "train": {"teacher": task | {"stage2_epochs": 2}, "training": task, **scored},
        "convert": {"training": shared | {"conversion_size": 11, "final_size": 16}},
    }
    files = ["--train-file", place / "train.csv", "--validation-file", place / "validation.csv", "--task", "sst2"]
    (tmp_path / "shards").mkdir()
    for part, rows in pd.read_csv(place / "train.csv").groupby(np.arange(48) // 20):
        rows.to_parquet(tmp_path / "shards" / f"{part}.parquet")
    texts = ["--texts", tmp_path / "shards", "--text-column", "sentence"]

    def command(name, out):
        (tmp_path / f"{name}.json").write_text(json.dumps(configs[name]))
        options = [*(files if name == "train" else texts), "--config", tmp_path / f"{name}.json", "--layers", "1,2"]
        return [name, "--base", place / "encoder", *options, "--out", tmp_path / f"{name}-{out}"]

    for name in configs:
        code, _, err = shrp(*command(name, "one"))
        assert code == 0, err
        assert "training in 1 process\n" in err
    keep = Run.keep

    def killed(*args):
        keep(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "keep", killed)
    for name in configs:  # after the teacher's first epoch, and the first conversion
        assert shrp(*command(name, "two"))[0] == 130
    monkeypatch.undo()
    both, port = [command(name, "two") for name in configs], str(free_port())
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}  # as torchrun says it
    started = [fork(lambda: run(both), tmp_path / f"{rank}.log", RANK=str(rank), **shared) for rank in range(2)]
    for process in started:
        process.join()
    told = [(tmp_path / f"{rank}.log").read_text() for rank in range(2)]
    assert [process.exitcode for process in started] == [0, 0], told
    assert told[0].count("training in 2 processes\n") == 3  # the teacher's is one
    for name in configs:
        one, two = (checkpoint.load(tmp_path / f"{name}-{out}") for out in ("one", "two"))
        assert not run_folder(two.path).exists()
        rows = [checkpoint.read_history(path) for path in (one.path, two.path)]
        for row, other in zip(*rows, strict=True):
            assert row["balance_loss"] > 0 or row["stage"] == 2
            assert other["usage"] == row["usage"]
            losses = {key: value for key, value in row.items() if key.endswith("loss")}
            assert {key: other[key] for key in losses} == pytest.approx(losses, abs=3e-6)
        weights = two.model.state_dict()
        for key, value in one.model.state_dict().items():
            if key.endswith(("key.bias", "qkv_bias")):  # the keys' make no difference, and rounding moves them
                continue
            torch.testing.assert_close(weights[key], value, atol=3e-5, rtol=0, msg=key)
