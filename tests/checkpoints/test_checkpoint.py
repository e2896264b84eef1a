"""Checkpoints: round trips, atomic writing, and what is refused, each in one sentence."""

import copy
import json
import os
import shutil
import sys
from dataclasses import replace
from unittest.mock import DEFAULT, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shrp.checkpoints import checkpoint, saving
from shrp.checkpoints.base import load_base
from shrp.checkpoints.card import training_facts
from shrp.checkpoints.info import CheckpointInfo, discover, shapes_in
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError, PlanError
from shrp.evaluation.evaluate import evaluate
from shrp.families.families import FAMILIES
from shrp.model.config import ShrpConfig
from shrp.model.convert import layer_kinds
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import edit_json

USAGE = {1: np.array([0.1, 0.6, 0.0, 0.3]), 2: np.array([0.2, 0.15, 0.4, 0.25])}


def edit(folder, **section):
    """Change entries of what a checkpoint's config says of SHRP."""
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", shrp=config["shrp"] | section)


def refusal(folder):
    """The message with which a folder is refused; it is one plain sentence that names the place."""
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(folder)
    text = str(raised.value)
    assert folder.name in text
    assert "Traceback" not in text
    return text


ROW = {"data": "made", "metric": "accuracy", "n": 7}
ROUND_TRIPS = [("bert", kind) for kind in ("dense", "routed", "token", "top2", "static")]
ROUND_TRIPS += [(family, "extended") for family in sorted(FAMILIES)]


@pytest.mark.parametrize(("family", "kind"), ROUND_TRIPS)
def test_round_trip(family, kind, tmp_path, tiny_model, tiny_routed, tiny_info, tiny_tokenizer, tiny_inputs, tiny_logits):
    options = {"token": {"routing": "token"}, "top2": {"top_k": 2}, "extended": {"self_path": True}}.get(kind, {})
    info = tiny_info(**options)
    model = tiny_routed(family, **options)
    if kind == "dense":
        model, info = tiny_model(family), tiny_info(layers=())
    if static := kind in ("static", "extended"):
        plan = replace(make_plan(USAGE, budget=5), untied=kind == "extended")
        model, info = prune(model, plan), tiny_info(plan=plan, **options)
    inputs, expected = tiny_inputs(), tiny_logits(model, tiny_inputs())
    folder = checkpoint.save(model, tiny_tokenizer, info, tmp_path / "model")
    files = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == files
    loaded = checkpoint.load(folder)
    assert torch.equal(tiny_logits(loaded.model, inputs), expected)
    assert loaded.info == info
    assert layer_kinds(loaded.model) == layer_kinds(model)
    assert (loaded.is_static, loaded.model.training, type(loaded.model)) == (static, False, type(model))
    assert {(p.dtype, p.requires_grad) for p in loaded.model.parameters()} == {(torch.float32, True)}
    text = "w3 w9 unknown w40"
    assert loaded.tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]

    half = checkpoint.save(model, tiny_tokenizer, info, tmp_path / "half", dtype=torch.float16)
    stored = load_file(half / "model.safetensors").values()
    assert {value.dtype for value in stored if value.is_floating_point()} == {torch.float16}
    stored = checkpoint.load(half).model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(stored[name], value.half().float() if value.is_floating_point() else value)


def test_info_keeps_everything(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    rows = (ROW | {"model": "routed", "kind": "routed", "score": 0.5, "interval": [0.1, 0.9]},)
    info = tiny_info(training={"epochs": 3}, scores=rows, usage={"1": [0.5, 0.5, 0, 0]})
    epochs = [{"epoch": 0, "stage": 2}]
    folder = checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "a", history=epochs)
    assert checkpoint.read_config(folder)[1] == info
    assert checkpoint.info_if_ours(folder) == info
    assert checkpoint.read_history(folder) == epochs
    data = json.loads((folder / "config.json").read_text())
    assert data["architectures"] == ["ShrpBertForSequenceClassification"]
    assert data["shrp"]["format_version"] == 1
    (folder / "history.jsonl").write_text("{broken")
    with pytest.raises(CheckpointError, match=r"history\.jsonl"):
        checkpoint.read_history(folder)
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), folder)  # an earlier one is replaced whole
    assert checkpoint.load(folder).info == tiny_info()
    assert not (folder / "history.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("moment", ["weights", "tokenizer", "history", "swap", "first swap"])
def test_a_failure_midway_leaves_the_old_one_whole(
    saved, moment, monkeypatch, tiny_routed, tiny_tokenizer, tiny_info, tiny_inputs, tiny_logits
):
    bytes_before = {path.name: path.read_bytes() for path in saved.iterdir()}
    full = OSError(28, "No space left on device")
    in_rust = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    swaps = {"first swap": [full], "swap": [DEFAULT, full]}
    if moment == "weights":
        monkeypatch.setattr(saving, "save_file", Mock(side_effect=in_rust))
    elif moment == "tokenizer":
        monkeypatch.setattr(type(tiny_tokenizer), "save_pretrained", Mock(side_effect=full))
    elif moment == "history":
        monkeypatch.setattr(saving, "history_text", Mock(side_effect=full))
    else:
        monkeypatch.setattr(saving.os, "replace", Mock(wraps=os.replace, side_effect=[*swaps[moment], *[DEFAULT] * 9]))
    with pytest.raises(
        CheckpointError, match=r"saved cannot be written: .*No (space left on device|such file)"
    ):
        checkpoint.save(tiny_routed(seed=5), tiny_tokenizer, tiny_info(), saved, history=[{"epoch": 0}])
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == bytes_before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    assert torch.equal(
        tiny_logits(checkpoint.load(saved).model, tiny_inputs()), tiny_logits(tiny_routed(), tiny_inputs())
    )


def test_what_is_to_be_new_replaces_nothing_that_came_meanwhile(saved, tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    before = checkpoint.fingerprint(saved)
    with pytest.raises(CheckpointError, match="exists already; choose another folder"):
        checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), saved, new=True)
    assert checkpoint.fingerprint(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]  # and nothing beside it
    (tmp_path / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("empty", "not-there", "link"):
        checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / name, new=True)
        assert layer_kinds(checkpoint.load(tmp_path / name).model) == ["dense", "routed", "routed"]


def test_what_is_not_a_checkpoint_is_not_overwritten(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    for file in ("notes/thesis.txt", "file", "other/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text('{"name": "mine"}')
    for name in ("notes", "file", "other"):
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / name)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == '{"name": "mine"}'
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / "file" / "below")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(saved, kept):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "truncated" in refusal(saved)
    found = discover(saved.parent)["saved"]
    assert isinstance(found, CheckpointError)
    assert "truncated" in str(found)


def test_weights_in_halves(saved, tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    whole, folder = checkpoint.load(saved), tmp_path / "halves"
    checkpoint.save(whole.model, tiny_tokenizer, whole.info, folder, halves=True)
    files = [folder / name for name in ("model.safetensors", "model-2.safetensors")]
    assert max(file.stat().st_size for file in files) < 0.75 * sum(file.stat().st_size for file in files)
    assert shapes_in(folder) == shapes_in(saved)
    state = checkpoint.load(folder).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    before = checkpoint.fingerprint(folder)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    assert checkpoint.fingerprint(folder) != before
    assert "truncated" in refusal(folder)
    assert isinstance(discover(tmp_path)["halves"], CheckpointError)


def test_a_pickle_in_the_folder_is_never_opened(saved):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(saved / "exploded"),))

    for name in ("pytorch_model.bin", "training_args.bin"):
        torch.save(Bomb(), saved / name)
    checkpoint.load(saved)
    assert not (saved / "exploded").exists()
    (saved / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(saved)
    assert isinstance(discover(saved.parent)["saved"], CheckpointError)
    (saved / "pytorch_model.bin").replace(saved / "model.safetensors")  # a pickle under a harmless name
    assert "not a safetensors file" in refusal(saved)
    assert not (saved / "exploded").exists()


def test_code_beside_the_config_is_not_run(saved, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    code = f"open({str(saved / 'ran')!r}, 'w').close()\n" + (
        "from transformers import BertConfig as Evil, BertForSequenceClassification as EvilModel\n"
        "from transformers import PreTrainedTokenizerFast as EvilTokenizer\n"
    )
    (saved / "evil.py").write_text(code)
    places = {
        "AutoConfig": "evil.Evil",
        "AutoModel": "evil.EvilModel",
        "AutoModelForSequenceClassification": "evil.EvilModel",
        "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
    }
    edit_json(saved / "config.json", auto_map=places)
    modules = set(sys.modules)
    checkpoint.load(saved)
    assert not (saved / "ran").exists()
    edit_json(saved / "tokenizer_config.json", auto_map=places)
    checkpoint.load(saved)  # it is ignored there as well
    assert not (saved / "ran").exists()
    assert not any("evil" in name for name in set(sys.modules) - modules)


@pytest.mark.parametrize(
    "section",
    [
        *({"format_version": version} for version in (0, 2, "1", None)),
        *({"layers": layers} for layers in (None, [1, 1], ["x"], [float("inf")])),
        *({"task": None}, {"task": {"name": "x"}}, {"plan": {"layers": {"1": {}}}}, {"plan": [1]}),
        *({"routing": "psychic"}, {"top_k": "two"}),
        *({"usage": 5}, {"training": 5}, {"scores": 5}),
    ],
    ids=str,
)
def test_sections_that_cannot_be_read(saved, section):
    edit(saved, **section)
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(saved)
    assert "Error(" not in str(raised.value)  # Python's words
    assert isinstance(discover(saved.parent)[saved.name], CheckpointError)
    assert checkpoint.info_if_ours(saved) is None


def test_what_is_no_checkpoint(tmp_path, tiny_model):
    tiny_model().base_model.save_pretrained(tmp_path / "plain")
    assert "classification head" in refusal(tmp_path / "plain")
    assert "there is no" in refusal(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    assert "no config.json" in refusal(tmp_path / "bare")


@pytest.mark.parametrize("content", [b"{not json", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, b"[]"])
def test_what_is_no_object(saved, content):
    (saved / "config.json").write_bytes(content)
    assert "config.json" in refusal(saved)


NAMES = ["NoSuchModel", "GPT2LMHeadModel", "BertConfig", "PreTrainedModel", "BertModel", "__version__", "os.system"]


@pytest.mark.parametrize(
    ("top", "section", "words"),
    [
        *(({"architectures": [name]}, {}, "must name one transformers class") for name in (*NAMES, 7)),
        *(({"architectures": names}, {}, "must name one") for names in ([], NAMES, NAMES[0], 5, {"a": 1}, None)),
        ({"architectures": ["BertForTokenClassification"]}, {}, "not ['BertForTokenClassification']"),
        *(({"model_type": name}, {}, "distilbert") for name in ("gpt2", "t5", None, ["bert"], {})),
        ({"num_hidden_layers": 10**8}, {}, "is not a number from 0 to"),
        ({"num_labels": 2 * 10**9}, {}, "is not a number from 0 to"),
        ({"hidden_size": "wide"}, {}, "does not describe"),
        ({}, {"layers": [1, 7]}, "layers are 0 to 2"),
        ({}, {"top_k": 5}, "only 4 experts"),
        ({}, {"layers": [2]}, "does not fit"),
        ({}, {"task": TASKS["mnli"].to_dict()}, "has a model of 2 outputs and a task, 'mnli', that needs 3"),
    ],
    ids=str,
)
def test_configs_that_do_not_describe_the_model(saved, top, section, words):
    edit_json(saved / "config.json", **top)
    edit(saved, **section)
    assert words in refusal(saved)


NAME = "bert.encoder.layer.1.qkv_bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(NAME), NAME),
        (lambda state: state.update(surplus=torch.zeros(3)), "surplus"),
        (lambda state: state.update({NAME: state[NAME][:2].clone()}), NAME),
        (lambda state: state.update({NAME: state[NAME].to(torch.int8)}), f"{NAME} is of torch.int8"),
    ],
    ids=["missing", "history", "shape", "quantised"],
)
def test_tensors_that_do_not_fit(saved, change, words):
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, saved / "model.safetensors")
    assert words in refusal(saved)


@pytest.mark.parametrize("gone", [("tokenizer.json", "tokenizer_config.json"), ()])
def test_a_missing_or_broken_tokenizer(saved, gone):
    (saved / "tokenizer.json").write_text("{}")
    for name in gone:
        (saved / name).unlink()
    assert "no usable tokenizer" in refusal(saved)


def test_a_tokenizer_with_more_tokens_than_the_model_embeds(saved, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens([f"new{i}" for i in range(3)])
    tokenizer.save_pretrained(saved)
    rows = load_file(saved / "model.safetensors")["bert.embeddings.word_embeddings.weight"].shape[0]
    assert f"{len(tokenizer):,} tokens and a model that embeds {rows:,}" in refusal(saved)


@pytest.mark.parametrize("token", ["w3", None])
def test_a_tokenizer_with_an_id_beyond_the_embeddings(saved, token):
    """It has as few tokens as the model embeds, but a larger number for one, here no common one."""
    file = saved / "tokenizer.json"
    data = json.loads(file.read_text())
    unknown = token or data["model"]["unk_token"]
    data["model"]["vocab"][unknown] = 9999
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != unknown]
    file.write_text(json.dumps(data))
    (saved / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert "has a tokenizer of 10,000 tokens" in refusal(saved)


def test_a_tokenizer_gives_no_types_that_the_model_does_not_know(tmp_path, tiny_model, with_types, tiny_info):
    """A BERT tokenizer beside a RoBERTa: the second text's type has no embedding there."""
    assert 1 in with_types("w1", "w2")["token_type_ids"]
    dense = tiny_model("roberta", type_vocab_size=1)
    info = replace(tiny_info(layers=()), task=TASKS["mrpc"])
    folder = checkpoint.save(dense, with_types, info, tmp_path / "pairs")
    loaded = checkpoint.load(folder)
    assert "token_type_ids" not in loaded.tokenizer.model_input_names
    data = TextData(TASKS["mrpc"], "made", (("w1 w2", "w3"), ("w4", "w5 w6")), np.array([0, 1]))
    assert np.isfinite(evaluate(loaded.model, loaded.tokenizer, data).logits).all()
    dense.save_pretrained(tmp_path / "base")
    with_types.save_pretrained(tmp_path / "base")
    model, its, _ = load_base(str(tmp_path / "base"), TASKS["mrpc"])
    assert np.isfinite(evaluate(model, its, data).logits).all()


def test_what_is_loaded_stays_though_its_file_is_written_over(saved, tiny_inputs, tiny_logits):
    loaded = checkpoint.load(saved)
    before = tiny_logits(loaded.model, tiny_inputs())
    file = saved / "model.safetensors"
    size = file.stat().st_size
    with open(file, "r+b") as weights:  # in place, as `cp` does
        weights.seek(size // 2)
        weights.write(b"\0" * (size - size // 2))
    assert torch.equal(tiny_logits(loaded.model, tiny_inputs()), before)


@pytest.mark.parametrize("what", ["replaced", "gone"])
def test_a_checkpoint_that_changes_while_it_is_read(saved, tmp_path, monkeypatch, what):
    real = checkpoint.reference.read

    def read(*args):
        if what == "gone":
            shutil.rmtree(saved)
            return {}
        shutil.copytree(saved, tmp_path / "next")
        edit(tmp_path / "next", base_model="another")
        saving.put_in_place(tmp_path / "next", saved)
        return real(*args)

    monkeypatch.setattr(checkpoint.reference, "read", read)
    said = "was replaced while it was read" if what == "replaced" else "can't be read any more"
    assert said in refusal(saved)
    monkeypatch.undo()
    if what == "replaced":
        assert checkpoint.load(saved).info.base_model == "another"


def test_discover_lists_good_and_broken_ones(saved, tiny_model):
    root = saved.parent
    for name in ("another", ".hidden", "broken"):
        shutil.copytree(saved, root / name)
    (root / "broken" / "model.safetensors").write_bytes(b"short")
    (root / "empty").mkdir()
    (root / "README.md").write_text("text")
    tiny_model().save_pretrained(root / "plain")
    found = discover(root)
    assert list(found) == ["another", "broken", "plain", "saved"]
    good = {name for name, info in found.items() if isinstance(info, CheckpointInfo)}
    assert good == {"another", "plain", "saved"}
    assert found["saved"].config == ShrpConfig((1, 2), expander_gain=1.0)
    assert found["saved"].task == TASKS["sst2"]
    assert discover(root / "nowhere") == {}


def test_fingerprint_follows_the_bytes(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    seen = [checkpoint.fingerprint(saved)]
    assert checkpoint.fingerprint(copy) == seen[0] == checkpoint.load(saved).fingerprint
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.append(checkpoint.fingerprint(copy))
    assert len(set(seen)) == 4
    (copy / "history.jsonl").write_text("")
    assert checkpoint.fingerprint(copy) == seen[-1]


def test_a_checkpoint_is_pruned_saved_and_read_again(tiny_routed, tiny_tokenizer, tiny_info, tiny_data, tmp_path):
    rows = tuple(ROW | {"model": kind, "kind": kind, "score": 0.9} for kind in ("teacher", "routed"))
    usage = {str(layer): share.tolist() for layer, share in USAGE.items()}
    info = tiny_info(usage=usage, scores=rows)
    loaded = checkpoint.load(checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "routed"))
    small = loaded.prune(make_plan(loaded.info.usage, per_layer=2))
    assert (small.is_static, loaded.is_static) == (True, False)
    assert [row["kind"] for row in small.info.scores] == ["teacher"]
    assert small.info.training["pruned_from"] == loaded.fingerprint
    counted = loaded.prune(make_plan(loaded.usage(tiny_data()).shares(), per_layer=2), tiny_data())
    facts = [dict(training_facts(one.info.training, one.info.plan))["experts"] for one in (counted, small)]
    assert ["made 0 (n = 40)" in text for text in facts] == [True, False]
    assert small.fingerprint != loaded.fingerprint
    again = checkpoint.load(checkpoint.save(small.model, small.tokenizer, small.info, tmp_path / "small"))
    assert again.evaluate(tiny_data()).score == small.evaluate(tiny_data()).score
    assert loaded.prune(per_layer=2).info.plan == small.info.plan
    for none in ({}, {"plan": small.info.plan, "budget": 3}, {"per_layer": 1, "budget": 3}):
        with pytest.raises(PlanError, match="one of them"):
            loaded.prune(**none)
    with pytest.raises(PlanError, match="no layer of this model has a router"):
        small.prune(per_layer=1)
    saved = checkpoint.load(loaded.prune(budget=3).save(tmp_path / "mine", dtype=torch.float16))
    assert saved.info.plan.budget == 3
    before = loaded.evaluate(tiny_data()).logits
    with torch.no_grad():
        for parameter in small.model.parameters():
            parameter.zero_()
    assert np.array_equal(loaded.evaluate(tiny_data()).logits, before)  # its weights are its own


def test_an_info_that_does_not_describe_the_model_is_not_saved(tiny_routed, tiny_model, tiny_tokenizer, tiny_info, tmp_path):
    plan = make_plan(USAGE, per_layer=2)
    pruned = prune(tiny_routed(), plan)
    for model, info, said in (
        (pruned, tiny_info(), r"pruned layers are \[1, 2\].*plan for \[\]"),
        (tiny_routed(), tiny_info(plan=plan), r"pruned layers are \[\].*plan for \[1, 2\]"),
        (tiny_routed(), tiny_info(layers=(2,)), r"converted layers are \[1, 2\].*\[2\]"),
        (tiny_model(), tiny_info(), r"converted layers are \[\].*\[1, 2\]"),
    ):
        with pytest.raises(CheckpointError, match=said):
            checkpoint.save(model, tiny_tokenizer, info, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()


def test_answers_to_texts_are_those_of_an_evaluation(saved, tiny_data):
    loaded, data = checkpoint.load(saved), tiny_data()
    frame = loaded.predict([text for (text,) in data.texts])
    assert list(frame) == ["sentence", "prediction", "p(negative)", "p(positive)"]
    found = loaded.evaluate(data)
    assert list(frame["prediction"]) == [TASKS["sst2"].label_names[i] for i in found.predictions]
    assert np.allclose(frame[["p(negative)", "p(positive)"]], found.probabilities)
    for texts, said in (
        ("one text", "a list of texts"),
        (["fine", None], "input 2 is no text"),
        ([float("nan")], "input 1 is no text"),
        (pd.DataFrame({"sentence": ["a"]}), "a column of them"),
        ([("two", "texts")], "has 1 text"),
        ([], "no examples"),
    ):
        with pytest.raises(DataError, match=said):
            loaded.predict(texts)


def test_data_of_another_task_are_refused(saved):
    data = TextData(TASKS["cola"], "other", (("a",),), np.array([0]))
    with pytest.raises(DataError, match="data of cola, and the model is for sst2"):
        checkpoint.load(saved).evaluate(data)
