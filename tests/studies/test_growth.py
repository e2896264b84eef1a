"""Growth with the number of examples: what a row says; the sizes that show it are for the command."""

import pytest

from shrp.checkpoints import checkpoint
from studies import growth


@pytest.mark.parametrize("kind", growth.WORK)
def test_a_row_has_the_time_and_memory_of_each_example(tmp_path, kind, tiny_routed, tiny_info, tiny_tokenizer):
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / "routed")
    row = growth.measured(kind, 130, folder, small=kind == "usage")
    assert (row["work"], row["n"]) == (kind, 130)
    assert row["us_per_example"] == pytest.approx(1e6 * row["cpu_seconds"] / 130)
    assert row["cpu_seconds"] > 0
    assert row["bytes_per_example"] >= 0
