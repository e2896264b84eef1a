"""Files are written whole, and others may read what whoever runs this lets them read."""

import os
import stat
import subprocess
import sys

import pytest

from shrp.files import write_text


def test_a_text_takes_the_place_of_what_was_there_or_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "card.md"
    write_text(file, "één")
    write_text(file, "two")
    assert file.read_text(encoding="utf-8") == "two"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "three")
    assert [path.name for path in tmp_path.iterdir()] == ["card.md"]
    assert file.read_text(encoding="utf-8") == "two"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_its_permissions_are_those_that_new_files_have(tmp_path, umask, mode):
    code = (
        f"import os; os.umask({umask}); from pathlib import Path; from shrp.files import UMASK, write_text; "
    )
    code += f"assert UMASK == {umask}; write_text(Path({str(tmp_path / 'x')!r}), 'x'); assert os.umask(0) == {umask}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode
