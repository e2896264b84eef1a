"""ONNX exports: the same logits as PyTorch, whatever the batch, and a folder that serves without torch."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizing
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import base_config, load_base
from shrp.data.tasks import TASKS
from shrp.errors import CheckpointError, ExportError
from shrp.export import graph
from shrp.export import onnx as exporting
from shrp.export.onnx import export_folder, export_onnx, hub_tokenizer
from shrp.pruning.plan import LayerPlan, PruningPlan, make_plan
from shrp.pruning.prune import prune
from tests.conftest import LIKE_MODERNBERT

ROOT = Path(__file__).parents[2]
PLAN = make_plan({1: [0.1, 0.4, 0.3, 0.2]}, per_layer=2)
VNNI = torch.cpu._is_vnni_supported()
FILES = ["config.json", "model.onnx", "predict.py", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Each model is traced once, which takes seconds whatever its size: another export of it gets that graph."""
    made, trace = {}, exporting.write_graph

    def write_graph(model, names, path):
        known = f"{model} {names}", *(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        if known not in made:
            trace(model, names, path)
            made[known] = path.read_bytes()
        path.write_bytes(made[known])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "write_graph", write_graph)
        yield


@pytest.fixture(scope="module")
def static(tiny_routed):
    """A static model: layer 0 dense, 2 experts in layer 1."""
    return lambda: prune(tiny_routed(layers=(1,), num_hidden_layers=2), PLAN)


@pytest.fixture(scope="module")
def info(tiny_info):
    return tiny_info(layers=(1,), plan=PLAN)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, static, tiny_tokenizer, info):
    """Folder of an export of `static()`, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export_folder(static(), tiny_tokenizer, info, folder, made_from="abc")
    return folder


def difference(model, path, batches, types=False):
    """Largest difference in logits between a model and its graph, on any of some batches."""
    session, worst = graph.open_graph(path), 0.0
    for inputs in batches:
        inputs = inputs | {"token_type_ids": torch.zeros_like(inputs["input_ids"])} if types else inputs
        feed = {one.name: inputs[one.name].numpy() for one in session.get_inputs()}
        with torch.no_grad():
            reference = model(**inputs).logits.numpy()
        (logits,) = session.run(None, feed)
        assert logits.shape == reference.shape
        assert np.isfinite(logits).all()
        assert np.isfinite(reference).all()
        worst = max(worst, np.abs(logits - reference).max())
    return worst


def change(path, name, to):
    """Put other weights in the place of those of a graph whose name ends so: quicker than another trace."""
    graph = onnx.load(path)
    (one,) = (weights for weights in graph.graph.initializer if weights.name.endswith(name))
    one.CopyFrom(numpy_helper.from_array(to(numpy_helper.to_array(one)), one.name))
    onnx.save(graph, path)


def batches(tiny_inputs):
    """One input and many, short and long, padded on the right, on the left and not at all."""
    for seed, lengths in enumerate([(2,), (31,), (6, 6), (9, 5, 7, 3, 9, 6), (30, 2, 11), (1, 1)]):
        yield tiny_inputs(lengths, seed)
    yield {name: tensor.flip(1) for name, tensor in tiny_inputs((8, 3, 5), 9).items()}


@pytest.fixture(scope="module")
def models(static, tiny_model, tiny_routed):
    """Models of every kind of graph: tracing one takes 5 to 10 s, whatever its size, so that one stands for several."""
    kept = LayerPlan((0, 3), (0.5, 0.5))
    alone, last = PruningPlan(((0, kept),), untied=True), PruningPlan(((1, kept),))
    small, kinds = {"layers": (1,), "num_hidden_layers": 2}, LIKE_MODERNBERT["layer_types"][:2]
    one = {"layers": (0,), "num_hidden_layers": 1, "self_path": True, "num_labels": 1}
    return {
        "bert": static,
        "untied roberta of numbers, with types": lambda: prune(tiny_routed("roberta", **one), alone),
        "deberta-v2": lambda: prune(tiny_routed("deberta-v2", **small), last),
        "mpnet": lambda: prune(tiny_routed("mpnet", **small), last),
        "modernbert": lambda: prune(tiny_routed("modernbert", layer_types=kinds, **small), last),
        "distilbert": lambda: tiny_model("distilbert", n_layers=1),
    }


KINDS = ("bert", "untied roberta of numbers, with types", "deberta-v2", "mpnet", "modernbert", "distilbert")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_pytorchs_logits_on_any_batch(
    kind, models, tiny_tokenizer, with_types, tiny_inputs, tmp_path
):
    model, types = models[kind]().train(), "types" in kind
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    report = export_onnx(model, with_types if types else tiny_tokenizer, tmp_path / "m.onnx")
    assert model.training  # it was left as it was
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])
    model.eval()
    assert report["path"] == str(tmp_path / "m.onnx")
    assert report["bytes"] == Path(report["path"]).stat().st_size
    assert report["inputs"] == ["input_ids", "attention_mask", *["token_type_ids"] * types]
    assert report["max_difference"] < 1e-4
    assert (report["label_agreement"] is None) == ("numbers" in kind)
    assert report["checked"] == 498
    assert not report["int8"]
    assert difference(model, Path(report["path"]), batches(tiny_inputs), types) < 1e-4
    # A mask that did nothing would pass only where logits do not depend on it.
    inputs = tiny_inputs()
    ignored = inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}
    with torch.no_grad():
        assert (model(**inputs).logits - model(**ignored).logits).abs().max() > 1e-2


def test_the_graph_is_one_that_runtimes_fuse_and_knows_no_machine(exported):
    graph = onnx.load(exported / "model.onnx")
    counts = Counter(node.op_type for node in graph.graph.node)
    assert counts["Softmax"] == counts["Gelu"] == 2
    assert counts["LayerNormalization"] == 1 + 2 + 2  # embeddings, dense layer, static layer
    assert counts["Sum"] == 1 + 2 + 1  # what LayerNorms read of embeddings and residuals
    assert not {"IsNaN", "Where", "Erf", "If"} & set(counts)
    assert {node.domain for node in graph.graph.node} == {""}
    content = (exported / "model.onnx").read_bytes()
    assert str(ROOT).encode() not in content
    assert b".py" not in content
    shapes = {i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.graph.input}
    assert shapes == {name: ["batch", "tokens"] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize(("vnni", "largest"), [(True, 127), (False, 64)])
def test_int8_quantises_every_product_with_weights(
    static, tiny_tokenizer, tiny_inputs, tiny_logits, tmp_path, monkeypatch, vnni, largest
):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    model = static()
    report = export_onnx(model, tiny_tokenizer, tmp_path / "m.onnx", int8=True)
    assert report["int8"]
    graph = onnx.load(report["path"]).graph
    weights = [numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(one.astype(int)).max() for one in weights) == largest
    kinds = Counter(node.op_type for node in graph.node)
    # The dense layer; QKV and Expander; pooler and classifier.
    assert kinds["MatMulInteger"] == 6 + 2 + 2
    assert (report["sentences"], report["compared_on"]) == (480, "probe/sst2")
    if vnni and not VNNI:
        return  # sums of such large products overflow here
    assert report["label_agreement"] > 0.9
    assert report["max_difference"] > 1e-4
    inputs = tiny_inputs((9,) * 64, seed=7)
    session = onnxruntime.InferenceSession(report["path"], providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: ids.numpy() for name, ids in inputs.items()})
    expected = tiny_logits(model.eval(), inputs).numpy()
    assert np.abs(found - expected).max() > 1e-4  # quantised, and still the model
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("by", "words"), [(1e-3, "differ from PyTorch's by"), (float("nan"), "not finite")])
def test_what_differs_from_pytorch_is_not_written(static, tiny_tokenizer, tmp_path, monkeypatch, by, words):
    right = exporting.write_graph

    def wrong(model, names, path):
        right(model, names, path)
        change(path, "classifier.bias", lambda bias: bias + np.float32(by))

    monkeypatch.setattr(exporting, "write_graph", wrong)
    with pytest.raises(ExportError, match=words):
        export_onnx(static(), tiny_tokenizer, tmp_path / "out" / "m.onnx")
    assert not list((tmp_path / "out").iterdir())


def test_what_one_file_can_not_hold_is_refused_at_once(static, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_MOST_BYTES", 1000)
    monkeypatch.setattr(exporting, "write_graph", None)
    with pytest.raises(ExportError, match="an ONNX file holds less than 2"):
        export_onnx(static(), tiny_tokenizer, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_routed_model_is_refused_with_the_remedy(tiny_routed, tiny_tokenizer, tmp_path):
    with pytest.raises(ExportError, match="--per-layer, --budget or --plan"):
        export_onnx(tiny_routed(), tiny_tokenizer, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_hugging_faces_tools_know_the_family_the_labels_and_the_tokens(exported, static):
    config, own = AutoConfig.from_pretrained(exported), static().config
    for name in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert getattr(config, name) == getattr(own, name)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.label2id == {"negative": 0, "positive": 1}
    assert config.architectures == ["BertForSequenceClassification"]
    tokenizer = AutoTokenizer.from_pretrained(exported)
    texts = ["w1 w2", " ".join(["w3"] * 50)]
    options = {"padding": True, "truncation": True, "return_tensors": "np"}
    read = tokenizer(texts, **options)
    assert list(read) == ["input_ids", "attention_mask"]  # what the graph takes
    core = Tokenizer.from_file(str(exported / "tokenizer.json")).encode_batch(texts)
    np.testing.assert_array_equal(read["input_ids"], [one.ids for one in core])
    np.testing.assert_array_equal(read["attention_mask"], [one.attention_mask for one in core])
    assert (tokenizer.mask_token, tokenizer.pad_token) == ("[MASK]", "[PAD]")
    ours = json.loads((exported / "config.json").read_text())
    assert not {"format", "model", "labels", "inputs", "check", "task"} & set(own.to_diff_dict())
    assert ours["task"] == "sst2"


@pytest.mark.parametrize("kind", ["byte-level", "unigram", "without padding"])
def test_tokenizers_of_other_kinds_are_read_alike(tmp_path, kind):
    words = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "Ġa", "Ġjoy", "a", "joy", "▁a", "▁joy"]
    if kind == "unigram":
        core = Tokenizer(tokenizing.Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=3))
        core.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        core = Tokenizer(tokenizing.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.ByteLevel()
    core.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    special = {"unk_token": "<unk>", "mask_token": AddedToken("<mask>", lstrip=True, special=True)}
    special |= {} if kind == "without padding" else {"pad_token": "<pad>"}
    own = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    serving = exporting.serving_tokenizer(own, 8)
    serving.save(str(tmp_path / "tokenizer.json"))
    config = hub_tokenizer(own, 8, ("input_ids", "attention_mask"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    read = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a joy", "a joy a <mask> joy a a joy a joy", "joy"]
    found = read(texts, padding=True, truncation=True, return_tensors="np")
    expected = serving.encode_batch(texts)
    np.testing.assert_array_equal(found["input_ids"], [one.ids for one in expected])
    np.testing.assert_array_equal(found["attention_mask"], [one.attention_mask for one in expected])
    assert len(read) == len(own)  # no token that the graph has no embedding for


def test_an_export_is_no_base_to_train_from(exported):
    for load in (load_base, lambda base, task: base_config(base)):
        with pytest.raises(CheckpointError, match="is an export to ONNX"):
            load(str(exported), TASKS["sst2"])


BLOCKED = "import sys, runpy\nfor name in ('torch', 'transformers', 'shrp', 'onnx', 'scipy'): sys.modules[name] = None\n"


def predicted(folder, texts, piped=False):
    """Labels and probabilities that the folder's script prints, as rows of fields."""
    run = [sys.executable, "-c", f"{BLOCKED}runpy.run_path(sys.argv.pop(1), run_name='__main__')"]
    run += [str(folder / "predict.py"), *([] if piped else texts)]
    stdin = "".join(f"{text}\n" for text in texts) if piped else ""
    done = subprocess.run(run, cwd=folder.parent, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_script_serves_an_export_without_torch(exported, static, tiny_tokenizer, info, tiny_data, tmp_path):
    loaded = checkpoint.load(checkpoint.save(static(), tiny_tokenizer, info, tmp_path / "static"))
    texts = [text for (text,) in tiny_data(20).texts] + [" ".join(["w3"] * 50)]
    right = loaded.predict(texts)
    assert right["prediction"].nunique() == 2
    found = predicted(exported, texts)  # with the standard library, numpy, onnxruntime and tokenizers alone
    assert [label for label, _ in found] == right["prediction"].tolist()
    shares = [row[f"p({row['prediction']})"] for _, row in right.iterrows()]
    assert [float(share) for _, share in found] == pytest.approx(shares, abs=1e-4)


def test_only_an_earlier_export_is_replaced(exported, static, tiny_tokenizer, info, tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    beside = shutil.copytree(exported, tmp_path / "beside")
    (beside / "mine.txt").write_text("mine")
    save = (static(), tiny_tokenizer, info)
    for place in (tmp_path / "notes", beside, beside / "mine.txt", ROOT / "checkpoints" / "sst2-6of12"):
        with pytest.raises(ExportError, match="exists and is not an earlier export"):
            export_folder(*save, place)
    monkeypatch.chdir(tmp_path)
    for nameless in (Path(), Path("..")):
        with pytest.raises(CheckpointError, match="is no name for a result"):
            export_folder(*save, nameless)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"
    (beside / "mine.txt").unlink()
    before = (beside / "config.json").read_text()
    export_folder(*save, beside, made_from="another", check=False)
    assert (beside / "config.json").read_text() != before
    assert sorted(file.name for file in beside.iterdir()) == FILES
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]

    def meanwhile(*args):
        (beside / "mine.txt").write_text("mine")
        return write_graph(*args)

    write_graph = exporting.write_graph
    monkeypatch.setattr(exporting, "write_graph", meanwhile)
    with pytest.raises(ExportError, match="exists and is not an earlier export"):
        export_folder(*save, beside, check=False)
    assert (beside / "mine.txt").read_text() == "mine"


# Of two kinds of tokens, with graphs that are made quickly, from here to the end of the file


def test_the_script_takes_pairs_and_gives_numbers(quick_graphs, tiny_model, with_types, tiny_info, tmp_path):
    info = replace(tiny_info(layers=()), task=TASKS["stsb"])
    model = tiny_model(num_hidden_layers=1, num_labels=1)
    export_folder(model, with_types, info, tmp_path / "numbers", check=False)
    ((found,),) = predicted(tmp_path / "numbers", ["w1 w2\tw3"], piped=True)
    with torch.no_grad():
        logits = model(**with_types("w1 w2", "w3", return_tensors="pt")).logits
    assert float(found) == pytest.approx(float(logits), abs=1e-4)
