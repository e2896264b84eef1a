import pytest

from ui.text import distinct, file_name


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


@pytest.mark.parametrize(
    ("name", "file"),
    [("tiny", "tiny"), ("mine (yours 2)", "mine-yours-2"), ("$(rm -r /)", "rm--r"), ("--", "shrp")],
)
def test_a_name_of_a_file_means_nothing_to_a_shell(name, file):
    assert file_name(name) == file
