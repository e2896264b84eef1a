"""Names that Markdown would change are picked from a list, which shows them as they stand."""

import pytest

from ui import pickers


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *((name, True) for name in ("negative", "not_equivalent", "glue/sst2 validation", "4 stars", "a")),
        *((name, True) for name in ("mine.csv (20 of 40)", "my file (1)", "très bien", "1.5 to 2")),
        *((name, False) for name in ("*", "**", "$10-$20", "_x_", "a _b_ c", "1. good", "1) good", "- x")),
        *(
            (name, False)
            for name in ("a -- b", "www.example.com", ":smile:", "[a](b)", "a`b`", "# a", "1.", "")
        ),
    ],
)
def test_which_names_stand_side_by_side(name, plain):
    assert bool(pickers._PLAIN.fullmatch(name)) == plain
