"""A folder with checkpoints of known scores and the files that commands read."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.data.sources import load_file
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune


@pytest.fixture(scope="session")
def place(tmp_path_factory, tiny_model, tiny_routed, tiny_tokenizer, save_model, tiny_data, tiny_info):
    """A routed, a static and a dense checkpoint, a base encoder, and CSV files.

    The labels of `data.csv` are the routed model's answers, but for every sixth: so its prunings beat a majority-class
    baseline. The columns of `own.csv` have other names.
    """
    root = tmp_path_factory.mktemp("cli")
    routed, data = tiny_routed(seed=4), tiny_data(60, 1)
    logits = evaluate(routed, tiny_tokenizer, data).logits
    shift = float(np.median(logits[:, 1] - logits[:, 0]))
    with torch.no_grad():
        routed.classifier.bias[1] -= shift
    answers = logits[:, 1] - logits[:, 0] > shift
    labels = np.where(np.arange(60) % 6, answers, ~answers).astype(np.int64)
    frame = replace(data, labels=labels).to_frame()
    frame.to_csv(root / "data.csv", index=False)
    frame.rename(columns={"sentence": "review", "label": "mood"}).to_csv(root / "own.csv", index=False)
    frame.drop(columns="label").to_csv(root / "unlabelled.csv", index=False)
    for name, n, seed in (("train", 48, 0), ("validation", 24, 1)):
        tiny_data(n, seed).to_frame().drop(columns="slice").to_csv(root / f"{name}.csv", index=False)
    known = [load_file(root / "data.csv", "sst2", slice_column=column) for column in (None, "slice")]
    usage = measure_usage(routed, tiny_tokenizer, known[0]).shares()
    scores = tuple(
        {"model": "dense teacher", "kind": "teacher", "data": one.name, "data_fingerprint": one.fingerprint}
        | {"metric": "accuracy", "score": 0.75, "n": 60}
        for one in known
    )
    info = tiny_info(usage={str(k): v.tolist() for k, v in usage.items()}, scores=scores)
    checkpoint.save(routed, tiny_tokenizer, info, root / "routed", history=[{"epoch": 0, "stage": 2}])
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), root / "other")
    for m in (1, 2):
        plan = make_plan(usage, per_layer=m)
        checkpoint.save(prune(routed, plan), tiny_tokenizer, tiny_info(plan=plan), root / f"static{m}")
    checkpoint.save(tiny_model(), tiny_tokenizer, tiny_info(layers=()), root / "dense")
    save_model(tiny_model(dropout=0.1).base_model, root / "encoder")
    return root


@pytest.fixture
def known(place):
    """The routed checkpoint and the data of `data.csv` with slices."""
    return checkpoint.load(place / "routed"), load_file(place / "data.csv", "sst2", slice_column="slice")


@pytest.fixture
def on_data(place):
    """Options for `data.csv` with slices."""
    return ("--data", place / "data.csv", "--slice-column", "slice")


@pytest.fixture
def failed():
    """Checks that a command ended with code 1 and one sentence on stderr that matches some words."""

    def check(result, words=""):
        code, out, err = result
        text = " ".join(err.split())
        assert code == 1, err
        assert out == ""
        assert "Traceback" not in err
        assert text.startswith("error: ")
        assert text.count("error:") == 1
        assert len(text) < 600
        assert re.search(words, text), text

    return check
