import pytest

from shrp.columns import distinct


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
