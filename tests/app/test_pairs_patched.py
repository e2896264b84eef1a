"""Where the difference within minimal pairs passes, on Expert usage."""

import numpy as np
import pandas as pd
import pytest

from shrp.analysis.pairs_patched import KINDS, patch_pairs
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from tests.app.helpers import specs, texts_of, upload, values
from ui.usage import pairs_patched

ROWS = [(f"w{i} w{2 * i % 9} w{label}", label, i) for i in range(1, 9) for label in (0, 1)] + [
    ("w1 w2", 0, 20),
    ("w1 w2 w3", 1, 20),
]
OWN = "sentence,label,pair\n" + "".join(f"{text},{label},{pair}\n" for text, label, pair in ROWS)


def followed(open_page, folder):
    """Expert usage on data with pairs, their difference followed."""
    at = upload(open_page("expert_usage", folder), "table", "mine.csv", OWN.encode())
    assert not at.exception
    at.toggle(key=pairs_patched.FOLLOW).set_value(True).run()
    assert not at.exception
    return at


def figures(at):
    return [spec for spec in specs(at) if spec["layout"]["title"]["text"].startswith("How far states of one")]


def test_the_lines_are_what_the_library_finds(open_page, tiny_checkpoint):
    at = followed(open_page, tiny_checkpoint)
    assert not at.error
    (fig,) = figures(at)
    one = checkpoints.load(tiny_checkpoint)
    texts, labels, pairs = zip(*ROWS, strict=True)
    inputs = tuple((text,) for text in texts)
    data = TextData(TASKS["sst2"], "mine", inputs, np.array(labels), pairs=tuple(map(str, pairs)))
    found = patch_pairs(one.model, one.tokenizer, data)
    assert (found.n, found.left_out) == (8, 1)
    frame = found.table()
    assert [trace["name"] for trace in fig["data"]] == list(KINDS)
    for trace in fig["data"]:
        expected = 100 * frame.loc[frame["kind"] == trace["name"], "part"]
        np.testing.assert_allclose(values(trace["y"]), expected, atol=0.1)
    assert "n = 8 minimal pairs" in fig["layout"]["title"]["subtitle"]["text"].replace("<br>", " ")
    said = texts_of(at)
    assert pairs_patched.in_words(frame) in said
    assert "Left out: 1 of 9 pairs, whose inputs have other numbers of tokens" in said
    assert "Drawn at random" not in said
    assert "Measured is each input's logit of the greater label less that of the smaller one" in said


def test_of_many_pairs_some_are_drawn(open_page, save_tiny, monkeypatch):
    monkeypatch.setattr(pairs_patched, "_WORK", 1)
    monkeypatch.setattr(pairs_patched, "_FEWEST", 3)
    at = followed(open_page, save_tiny("drawn", layers=(0, 1)))
    assert "Drawn at random: 3 of the 8 others" in texts_of(at)
    assert "n = 3 minimal pairs" in figures(at)[0]["layout"]["title"]["subtitle"]["text"].replace("<br>", " ")


def test_models_without_routers_have_it_too_and_data_without_pairs_not(open_page, save_tiny, tiny_checkpoint):
    assert figures(followed(open_page, save_tiny("even", control="uniform")))
    at = open_page("expert_usage", tiny_checkpoint)
    assert "Where the difference within pairs" not in texts_of(at)


def frame_of(first, differ, others):
    rows = [
        (layer, kind, 5, part, np.nan, np.nan)
        for layer, parts in enumerate(zip(first, differ, others, strict=True))
        for kind, part in zip(KINDS, parts, strict=True)
    ]
    return pd.DataFrame(rows, columns=["layer", "kind", "n", "part", "low", "high"])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            ((0, 0, 0.9), (1, 0.6, 0), (0, 0.3, 0.1)),
            "The tokens that differ bring half of the way or more up to layer 1 (60.0%), the first token from layer 2 "
            "on (90.0%). All other tokens together bring most entering layer 1: 30.0%.",
        ),
        (
            ((0, 0.1), (0.4, 0.2), (0.7, 0.9)),
            "The tokens that differ bring less than half of the way, the first token 10.0% entering the last layer. "
            "All other tokens together bring most entering layer 1: 90.0%.",
        ),
        (
            ((0, 0.6, 0.2, 0.9), (1, 0.6, 0.3, 0.55), (-0.0001, -0.01, -0.01, -0.01)),
            "The tokens that differ bring half of the way or more up to layer 1 (60.0%), the first token from layer 3 "
            "on (90.0%). All other tokens together bring most entering layer 0: 0.0%.",
        ),
    ],
)
def test_what_is_said_of_them(parts, said):
    assert pairs_patched.in_words(frame_of(*parts)) == said
