import pytest

from ui.text import file_name


@pytest.mark.parametrize(
    ("name", "file"),
    [("tiny", "tiny"), ("mine (yours 2)", "mine-yours-2"), ("$(rm -r /)", "rm--r"), ("--", "shrp")],
)
def test_a_name_of_a_file_means_nothing_to_a_shell(name, file):
    assert file_name(name) == file
