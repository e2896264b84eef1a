"""A checkpoint's tokenizer reads the files of its own folder alone, whatever its settings ask for."""

import base64
import struct

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.checkpoints.tokenizer_files import check_files, check_made, check_parts
from shrp.data.tasks import TASKS
from shrp.errors import CheckpointError, ShrpError
from shrp.families.families import FAMILIES
from tests.conftest import edit_json

SECRET = "correct-horse"


@pytest.mark.parametrize(
    "entries",
    [
        lambda path: {"tokenizer_class": "BertTokenizer", "vocab": path, "unk_token": ""},
        lambda path: {"tokenizer_class": "MPNetTokenizer", "vocab_file": path},
        lambda path: {"init_inputs": [path]},
        lambda path: {"mask_token": "\ud800"},  # which could not be written again
        lambda path: {"tokenizer_file": path},
        lambda path: {"merges": path},
        lambda path: {"gguf_file": path},
        lambda path: {"fast_tokenizer_files": [path]},
        lambda path: {"tokenizer_object": path},
        lambda path: {"sudachi_kwargs": {"sudachi_config_path": path}},
        lambda path: {"extra": [{"sp_model_kwargs": {"model_file": path}}]},
    ],
)
def test_no_other_file_is_read_as_a_vocabulary(saved, tmp_path, entries):
    secret = tmp_path / "secret.env"  # of the machine's
    secret.write_text(f"{SECRET}\n\n[UNK]\n")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # which is read first
        edit_json(saved / name, **entries(str(secret)))
        with pytest.raises(CheckpointError) as raised:
            checkpoint.load(saved)
        assert f"{name} has an entry" in str(raised.value)
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "asked", ["ProcessorMixin", "BertModel", "ByT5Tokenizer", "MarianTokenizer", ["x"], {"x": 1}, 7]
)
def test_no_other_class_is_asked_to_read_the_folder(saved, name, asked):
    if name == "config.json":
        edit_json(saved / "tokenizer_config.json", tokenizer_class=None)
    edit_json(saved / name, tokenizer_class=asked)
    with pytest.raises(CheckpointError, match="asks for the class"):
        checkpoint.load(saved)


def test_an_installed_dictionary_is_no_path(saved):
    edit_json(saved / "tokenizer_config.json", mecab_kwargs={"mecab_dic": "unidic_lite"})
    assert len(checkpoint.load(saved).predict(["a b"])) == 1
    edit_json(saved / "tokenizer_config.json", mecab_kwargs={"mecab_dic": "ipadic", "mecab_option": "-d /etc"})
    with pytest.raises(CheckpointError, match="mecab_kwargs"):
        checkpoint.load(saved)


BEFORE_5 = ("Bert", "Roberta", "Electra", "DistilBert", "MPNet", "Camembert", "XLMRoberta")
TAKEN = {f"{family}Tokenizer{kind}" for family in BEFORE_5 for kind in ("", "Fast")}
TAKEN |= {"PreTrainedTokenizerFast", "GPT2TokenizerFast", *(TOKENIZER_MAPPING_NAMES[kind] for kind in FAMILIES)}


def test_tokenizers_of_the_families_are_taken(saved):
    """As transformers wrote their names before version 5, and as it has them by the model's type now."""
    edit_json(saved / "config.json", tokenizer_class="SomebodysTokenizer")  # which then doesn't count
    for name in TAKEN:
        edit_json(saved / "tokenizer_config.json", tokenizer_class=name)
        check_files(saved)


def test_a_tokenizer_that_no_checkpoint_could_have_is_refused_before_training(saved):
    class Other(PreTrainedTokenizerFast):
        pass

    with pytest.raises(ShrpError, match="tokenizers of the class Other are not read"):
        check_made(Other(tokenizer_object=checkpoint.load(saved).tokenizer.backend_tokenizer))


def table(units, texts=b"a\0"):
    """A table of characters, as a file has it, of a trie of so many units."""
    return base64.b64encode(struct.pack(f"<{1 + len(units)}I", 4 * len(units), *units) + texts)


BOMB = {"type": "Replace", "pattern": {"String": "."}, "content": "a" * 200}
NORMALIZERS = (
    *(
        {"type": "Precompiled", "precompiled_charsmap": one.decode()}
        for one in (b"AAAA", table([300 << 10] * 256), table([0] * 256, b"a" * 500 + b"\0"))
    ),
    {"type": "Sequence", "normalizers": [BOMB] * 3},
    {"type": "Sequence", "normalizers": [{"type": "NFKD"}] * 2},
    {"type": "Prepend", "prepend": "a" * 2000},
    {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a"},
    {"type": "Unknown"},
)
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
TEMPLATE = {"single": [{"Sequence": {"id": "A", "type_id": 0}}] * 99, "pair": [], "special_tokens": {}}
PADDING = {"direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("normalizer", value) for value in NORMALIZERS),
        ("pre_tokenizer", SPLIT),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "__", "prepend_scheme": "always", "split": True}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 9}),
        ("post_processor", {"type": "TemplateProcessing"} | TEMPLATE),
        ("decoder", {"type": "CTC"}),
        ("decoder", {"type": "WordPiece", "prefix": "#" * 200, "cleanup": True}),
        ("padding", {"strategy": {"Fixed": 10**9}} | PADDING),
        ("truncation", {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 9}),
        ("added_tokens", [{"id": 0, "content": "a" * 2000, "special": True}]),
        ("model", []),
        ("model", {"type": "Unigram", "unk_id": 3, "vocab": [["a", 0.0]]}),
        ("model", {"type": "WordLevel", "unk_token": "a", "vocab": {"a" * 2000: 0}}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_parts_that_could_blow_up_or_panic_are_refused_before_a_tokenizer_is_made(saved, part, value, monkeypatch):
    edit_json(saved / "tokenizer.json", **{part: value})
    monkeypatch.setattr("shrp.checkpoints.checkpoint.AutoTokenizer", None)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        checkpoint.load(saved)
    with pytest.raises(ShrpError):
        load_base(str(saved), TASKS["sst2"])


def test_a_panic_is_an_error_like_others(saved, monkeypatch):
    """Of a part that no check knows, as where the library changes."""
    monkeypatch.setattr("shrp.checkpoints.tokenizer_files.check_parts", lambda found: "")
    edit_json(saved / "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(CheckpointError):
        checkpoint.load(saved)


def test_tables_that_sentencepiece_compiles_are_taken():
    from sentencepiece import SentencePieceNormalizer, sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(SentencePieceNormalizer(rule_name="nmt_nfkc").serialized_model_proto())
    compiled = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    normalizer = {"type": "Precompiled", "precompiled_charsmap": compiled}
    assert check_parts({"normalizer": normalizer}) == ""


def test_settings_of_another_type_are_refused_in_words(saved):
    edit_json(saved / "tokenizer_config.json", tokenizer_class=None, extra_special_tokens="[X]")
    with pytest.raises(CheckpointError, match="has no usable tokenizer: a part of its settings"):
        checkpoint.load(saved)
