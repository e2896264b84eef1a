"""Files are written whole, and readable by others as the umask allows."""

import os
import stat
from unittest.mock import Mock

import pytest

from shrp.files import as_others, new_folder, write_text


def test_a_text_takes_the_place_of_what_was_there_or_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "card.md"
    write_text(file, "één")
    write_text(file, "two")
    assert file.read_text(encoding="utf-8") == "two"
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "three")
    assert [path.name for path in tmp_path.iterdir()] == ["card.md"]
    assert file.read_text(encoding="utf-8") == "two"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
@pytest.mark.parametrize(("umask", "file", "folder"), [(0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_permissions_are_those_that_new_files_have(tmp_path, umask, file, folder):
    private = tmp_path / "private"
    private.touch(mode=0o600)
    before = os.umask(umask)
    try:
        write_text(tmp_path / "x", "x")
        as_others(private)
        made = new_folder(tmp_path / "made")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "x", private, made)]
    assert modes == [file, file, folder]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([made.name, "private", "x"])
