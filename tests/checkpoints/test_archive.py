"""Zip files of checkpoints: what is taken, and a sentence for each kind that is not."""

import io
import shutil
import stat
import struct
import zipfile
from types import SimpleNamespace

import pytest

from shrp.checkpoints import archive as unpacking
from shrp.checkpoints.archive import MB, unpack
from shrp.errors import CheckpointError

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 8, "history.jsonl": b"{}\n"}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return buffer


def refusal(archive, folder, **limits):
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(unpacking, name, limit)
        with pytest.raises(CheckpointError) as caught:
            unpack(archive, folder)
    return str(caught.value)


@pytest.mark.parametrize("top", ["", "my model", "modèle"])
def test_a_checkpoint_is_unpacked_flat_or_from_one_folder(tmp_path, top):
    prefix = f"{top}/" if top else ""
    entries = {prefix: b""} if top else {}
    entries |= {prefix + name: content for name, content in FILES.items()}
    entries |= {f"__MACOSX/{prefix}._config.json": b"x", f"{prefix}.DS_Store": b"x"}
    others = ("training_args.bin", "modeling.py", "inner.zip", "optimizer.pt", "no-suffix")
    entries |= {prefix + name: b"x" for name in others}  # stay in the archive
    assert unpack(zipped(entries), tmp_path) == top
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "outside") for name in ("../config.txt", "a/../../b.txt", "/etc/notes.txt", "C:/notes.txt", "a//b.txt")),
        ("a\\b.txt", "backslash"),
        ("notes\n.txt", "control character"),
        ("one/two/notes.txt", "one folder deep"),
        ("other/notes.txt", "several folders"),
        ("naïve.txt", "letters A to Z"),
        ("-x.json", "letters A to Z"),
        ("CONFIG.json", "twice"),
    ],
)
def test_a_name_that_is_not_taken(tmp_path, name, said):
    inside = tmp_path / "inside"
    inside.mkdir()
    assert said in refusal(zipped(FILES | {name: b"x"}), inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert not list(inside.iterdir())  # refused before anything is written


def test_the_same_name_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = zipped([*FILES.items(), ("config.json", b"[]")])
    assert "twice" in refusal(archive, tmp_path)


@pytest.mark.parametrize(("kind", "said"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "not a plain file")])
def test_links_and_devices(tmp_path, kind, said):
    entry = zipfile.ZipInfo("vocab.txt")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    assert said in refusal(zipped([*FILES.items(), (entry, b"/etc/passwd")]), tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_archive_of_something_else(tmp_path, missing):
    files = {name: content for name, content in FILES.items() if name != missing}
    assert f"no {missing}" in refusal(zipped(files), tmp_path)


def test_a_bomb_is_seen_from_its_directory(tmp_path):
    bomb = zipped(FILES | {"model.safetensors": bytes(8 * MB)})
    assert "to 1, as no checkpoint's" in refusal(bomb, tmp_path)
    assert "at most 7 MB" in refusal(bomb, tmp_path, RATIO=1e9, TOTAL=7 * MB)
    assert not list(tmp_path.iterdir())
    text = zipped(FILES | {"vocab.txt": bytes(2 * MB)}, zipfile.ZIP_STORED)
    assert "at most 1 MB" in refusal(text, tmp_path, TEXT=MB)


def test_a_size_that_lies_is_found_while_unpacking(tmp_path):
    data = zipped({**FILES, "model.safetensors": bytes(3 * MB)}).getvalue()
    size, less = struct.pack("<I", 3 * MB), struct.pack("<I", 1000)
    assert size in data
    assert "damaged" in refusal(io.BytesIO(data.replace(size, less)), tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < MB


def test_too_many_entries_are_refused_before_the_directory_is_read(tmp_path, monkeypatch):
    archive = zipped(FILES | {f"{i}.txt": b"" for i in range(60)})
    forged = bytearray(archive.getvalue())
    struct.pack_into("<HH", forged, len(forged) - 22 + 8, 3, 3)
    assert "63 entries" in refusal(io.BytesIO(forged), tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "63 entries" in refusal(archive, tmp_path)
    assert not list(tmp_path.iterdir())


def encrypted(data):
    first, *entries = data.split(b"PK\x01\x02")
    return first + b"".join(b"PK\x01\x02" + one[:4] + b"\1" + one[5:] for one in entries)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:], "Zip64"),
        (encrypted, "without a password"),
        (lambda data: zipped(FILES, zipfile.ZIP_LZMA).getvalue(), "stored or deflated"),
        (lambda data: data[:-30], "not a zip archive"),
        (lambda data: data.replace(bytes(range(256)), bytes(256)), "damaged"),
        *((lambda _, it=it: it, "not a zip archive") for it in (b"", b"PK", b"not a zip" * 99, b"PK\5\6")),
    ],
)
def test_an_archive_that_is_not_read(tmp_path, change, words):
    assert words in refusal(io.BytesIO(change(zipped(FILES, zipfile.ZIP_STORED).getvalue())), tmp_path)


def test_what_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=64 * MB))
    assert "more than is free; nothing was unpacked" in refusal(zipped(FILES), tmp_path)
    assert not list(tmp_path.iterdir())
