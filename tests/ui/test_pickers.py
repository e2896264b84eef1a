"""Names that Markdown would change are picked from a list, which shows them as they stand."""

import pytest

from ui import pickers

PLAIN = (
    "negative",
    "not_equivalent",
    "glue/sst2 validation",
    "4 stars",
    "my file (1)",
    "très bien",
    "1.5 to 2",
)
OTHER = ("*", "$10-$20", "a _b_ c", "1. good", "1) good", "- x", "a -- b", "www.example.com", ":smile:")
OTHER += ("[a](b)", "a`b`", "# a", "1.", "")


@pytest.mark.parametrize("name", PLAIN + OTHER)
def test_which_names_stand_side_by_side(name):
    assert bool(pickers._PLAIN.fullmatch(name)) == (name in PLAIN)
