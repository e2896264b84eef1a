import io

import pandas as pd
import pytest

from shrp.data.tabular import csv_options, distinct


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["sentence"], ["sentence"]),
        (["input"], ["input (text)"]),
        (["input", "input (text)"], ["input (text)", "input (text) (text)"]),
        (["a", "a", "a"], ["a", "a (text)", "a (text 2)"]),
    ],
)
def test_names_are_told_apart_from_reserved_ones_and_each_other(names, found):
    assert distinct(names, ("input", "index")) == found


@pytest.mark.parametrize("text", ["a\rb", 'a\r\nb,"c"', "a\nb", "plain"])
def test_any_text_comes_back_from_a_csv(text):
    frame = pd.DataFrame({"text": [text, "x"], "label": ["y", "z"], "n": [1, 2]})
    written = frame.to_csv(index=False, **csv_options(frame))
    assert pd.read_csv(io.StringIO(written, newline="")).equals(frame)
    assert written.startswith('"') == ("\r" in text)
