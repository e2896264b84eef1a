"""A checkpoint's tokenizer reads the files of its own folder alone, whatever its settings ask for."""

import json

import pytest

from shrp import checkpoint
from shrp.errors import CheckpointError

SECRET = "correct-horse"


@pytest.fixture
def saved(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    """A routed checkpoint's folder."""
    return checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / "saved")


@pytest.fixture
def secret(tmp_path):
    """A file of the machine's that is none of the checkpoint's."""
    path = tmp_path / "secret.env"
    path.write_text(f"{SECRET}\n\n[UNK]\n")
    return path


def put(folder, name, entries):
    """Write further settings into a file of a tokenizer's."""
    file = folder / name
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | entries))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "entries",
    [
        lambda path: {"tokenizer_class": "BertTokenizer", "vocab": path, "unk_token": ""},
        lambda path: {"tokenizer_class": "MPNetTokenizer", "vocab_file": path},
        lambda path: {"init_inputs": [path]},
        lambda path: {"tokenizer_file": path},
        lambda path: {"merges": path},
        lambda path: {"gguf_file": path},
        lambda path: {"fast_tokenizer_files": [path]},
        lambda path: {"tokenizer_object": path},
        lambda path: {"sudachi_kwargs": {"sudachi_config_path": path}},
        lambda path: {"extra": [{"sp_model_kwargs": {"model_file": path}}]},
    ],
)
def test_no_other_file_is_read_as_a_vocabulary(saved, secret, name, entries):
    put(saved, name, entries(str(secret)))
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(saved)
    assert f"{name} has an entry" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_without_the_check_the_file_would_be_read(saved, secret, monkeypatch):
    """So that the test above can fail: the settings do what they are refused for."""
    monkeypatch.setattr(checkpoint, "refuse_paths", lambda folder: None)
    tokens = json.loads((saved / "tokenizer.json").read_text())["model"]["vocab"]
    secret.write_text("\n".join([*list(tokens)[:-1], SECRET]))
    (saved / "tokenizer.json").unlink()
    (saved / "vocab.txt").write_text("[UNK]\n")
    put(saved, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "vocab": str(secret)})
    assert SECRET in checkpoint.load(saved).tokenizer.get_vocab()


def test_settings_that_name_no_file_are_no_matter(saved):
    harmless = {"name_or_path": "/somewhere/else", "special_tokens_map_file": None, "tokenizer_file": None}
    put(saved, "tokenizer_config.json", harmless | {"never_split": None, "sp_model_kwargs": {}})
    assert len(checkpoint.load(saved).predict(["a b"])) == 1


def test_settings_that_are_no_json_are_left_to_their_reader(saved):
    (saved / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        checkpoint.load(saved)
