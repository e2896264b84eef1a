"""Tiny models of every supported family, a word tokenizer and learnable data: nothing is downloaded."""

import copy
import gc
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: the tests need no network
os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # what is trained is asked for outputs there
# In what tests start too: they share the cores already, and a process with threads cannot be forked.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest

from shrp.checkpoints.info import MODEL_TYPES, CheckpointInfo
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.model.config import ShrpConfig

# PyTorch and transformers are imported where they are used: the process that hands out the tests needs neither.
HIDDEN, HEADS, LAYERS, VOCABULARY, POSITIONS = 24, 4, 3, 60, 40
LIKE_DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_buckets": 4,  # so that distances from 3 on share them
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
"""What makes a DebertaV2Config one of a small DeBERTa-v3."""
EAGER = ("deberta-v2", "mpnet")
"""Families whose attention transformers computes without a fused kernel."""
LIKE_MODERNBERT = {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "local_attention": 4}
"""Local attention that leaves tokens out of short inputs."""
MODERNBERT_DROPOUTS = ("embedding_dropout", "mlp_dropout", "attention_dropout", "classifier_dropout")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [f"w{i}" for i in range(VOCABULARY - len(SPECIAL))]


@pytest.fixture(scope="session", autouse=True)
def one_number_format():
    """What `auto` comes to is a short timing's, which another process on the same cores may turn."""
    from shrp.training import device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_measured", lambda: "fp32")
        yield


BROWSER, LONG = "tests/browser/", ("test_jobs.py", "test_processes.py", "test_alternatives.py", "test_onnx.py")
"""What begins first: the tests in the browser, which wait for the app more than they compute, and the files that take long."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (not item.nodeid.startswith(BROWSER), item.path.name not in LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n` a file's tests stay together, and so do all in the browser: while one process waits, another computes."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return BROWSER if nodeid.startswith(BROWSER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # files keep their order
    return Scheduling(config, log)


def pytest_collection():
    gc.disable()  # while all is imported


def pytest_collection_finish():
    """Keep what has been imported out of garbage collections, of which a training run asks for one an epoch."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect():
    """What a file's tests leave behind, a traced graph above all, is kept out of them too."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_results(tmp_path_factory):
    """Results that the app keeps on disk go to a folder of this run, not to the one of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHRP_CACHE", str(tmp_path_factory.mktemp("results")))
        yield


@pytest.fixture(scope="module")
def quick_graphs():
    """Graphs for ONNX by PyTorch's older exporter, in a twentieth of the time, for tests of what is done with a graph."""
    import torch

    from shrp.export import graph
    from shrp.export import onnx as exporting

    def write_graph(model, names, path):
        tensors = {name: torch.zeros(3, 7, dtype=torch.long) for name in names}
        tensors["attention_mask"][:, :5] = 1
        axes = {name: {0: "batch", 1: "tokens"} for name in names}
        options = {"input_names": names, "output_names": ["logits"], "dynamic_axes": axes, "opset_version": 18}
        with graph._quiet(), torch.no_grad():
            logits = graph._Logits(model, names).eval()
            torch.onnx.export(logits, tuple(tensors.values()), str(path), dynamo=False, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "write_graph", write_graph)
        yield


@pytest.fixture(params=sorted({*MODEL_TYPES} - {"camembert", "xlm-roberta", "ernie"}))
def tiny_family(request):
    """The name of each family in turn whose adapter or model is no other's: RoBERTa's are two more, and BERT's one."""
    return request.param


@pytest.fixture(params=["eager", "sdpa"])
def tiny_attention(request, tiny_family):
    """The name of each attention implementation in turn that transformers has for the family."""
    if request.param == "sdpa" and tiny_family in EAGER:
        pytest.skip(f"transformers has no fused attention for {tiny_family}")
    return request.param


def made_once(build):
    """A factory's models are made once: what it returns is a copy, and the random numbers that follow are the same."""
    import torch

    made = {}

    def copied(*args, **options):
        if (asked := repr((args, sorted(options.items())))) not in made:
            made[asked] = build(*args, **options), torch.get_rng_state()
        model, state = made[asked]
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    return copied


@pytest.fixture(scope="session")
def tiny_model():
    """A factory of dense classifiers with weights large enough for outputs to differ plainly."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    def build(family="bert", *, attn=None, seed=0, num_labels=2, dropout=0.0, **config):
        shared = {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 0,
            "initializer_range": 0.3,
            "num_labels": num_labels,
        }
        if family == "distilbert":
            shared |= {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 48}
            shared |= {"dropout": dropout, "attention_dropout": dropout, "seq_classif_dropout": dropout}
        else:
            shared |= {
                "hidden_size": HIDDEN,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "intermediate_size": 48,
                "hidden_dropout_prob": dropout,
                "attention_probs_dropout_prob": dropout,
            }
        if family == "modernbert":
            shared |= LIKE_MODERNBERT | dict.fromkeys(MODERNBERT_DROPOUTS, dropout)
        if family == "electra":
            shared["embedding_size"] = 16
        if family == "deberta-v2":
            shared |= LIKE_DEBERTA_V3
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(family, **shared | config),
            attn_implementation=attn or ("eager" if family in EAGER else "sdpa"),
        )
        # Biases start at 0 and LayerNorms at the identity, where a forgotten copy would go unseen.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
            if family == "deberta-v2":
                # No positions are added to its tokens: of a padding token at 0 nothing is left for a LayerNorm.
                model.get_input_embeddings().weight[0].normal_(std=0.3)
        return model.eval()

    return made_once(build)


@pytest.fixture(scope="session")
def tiny_routed(tiny_model, tiny_inputs):
    """A factory of converted classifiers whose routers are sure of themselves and differ between inputs."""
    import torch

    from shrp.model.convert import convert, expert_layers
    from shrp.model.gates import record_routing

    def build(family="bert", *, layers=(1, 2), routing="sequence", top_k=1, self_path=False, **options):
        model = tiny_model(family, **options)
        config = ShrpConfig(layers, routing, top_k, expander_gain=1.0, self_path=self_path)
        convert(model, config)
        with torch.no_grad():
            for index, layer in expert_layers(model).items():
                layer.router.dense.weight.normal_(std=2.0)
                if self_path:
                    layer.self_path.weight.normal_(std=0.3)
                # What all inputs have in common must not decide, or all would go the same way.
                with record_routing() as record:
                    model(**tiny_inputs((9,) * 50, seed=99))
                layer.router.dense.bias -= record.probs(index).log().mean(0)
        return model.eval()

    return made_once(build)


@pytest.fixture(scope="session")
def tiny_inputs():
    """A factory of random batches, padded on the right to the longest of `lengths`."""
    import torch

    def build(lengths=(9, 5, 7, 3, 9, 6), seed=0):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(len(SPECIAL), VOCABULARY, (len(lengths), max(lengths)), generator=generator)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        return {"input_ids": ids * mask, "attention_mask": mask}

    return build


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """One token a word, with `[CLS]` and `[SEP]` around."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def with_types(tiny_tokenizer):
    """The tokenizer, giving the types of tokens too."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    return tokenizer


@pytest.fixture(scope="session")
def save_model(tiny_tokenizer):
    """`save_model(model, folder, *labels) -> str(folder)`: as transformers saves a model, with these names of its outputs."""

    def save(model, folder, *labels):
        if labels:
            model.config.id2label = dict(enumerate(labels))
            model.config.label2id = {name: i for i, name in enumerate(labels)}
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def tiny_data():
    """A factory of SST-2-shaped data whose label is whether low or high words are the more frequent."""

    def build(n=40, seed=0, task=TASKS["sst2"], sliced=True):
        rng = np.random.default_rng(seed)
        half, texts, labels = len(WORDS) // 2, [], []
        for i in range(n):
            own = rng.integers(half, size=rng.integers(2, 9)) + half * (i % 2)
            texts.append((" ".join(WORDS[w] for w in (*own, rng.integers(len(WORDS)))),))
            labels.append(i % 2)
        slices = tuple("short" if len(text.split()) < 6 else "long" for (text,) in texts) if sliced else None
        return TextData(task, f"made {seed}", tuple(texts), np.array(labels), slices)

    return build


@pytest.fixture(scope="session")
def tiny_info():
    """A factory of the infos that go with `tiny_routed` models."""

    def build(layers=(1, 2), routing="sequence", top_k=1, self_path=False, **fields):
        config = ShrpConfig(layers, routing, top_k, expander_gain=1.0, self_path=self_path)
        return CheckpointInfo(config, TASKS["sst2"], base_model="tiny", **fields)

    return build


@pytest.fixture
def saved(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    """The folder `saved` of a routed checkpoint."""
    from shrp.checkpoints import checkpoint

    info = tiny_info(usage={"1": [0.1, 0.6, 0.0, 0.3], "2": [0.2, 0.15, 0.4, 0.25]})
    return checkpoint.save(tiny_routed(), tiny_tokenizer, info, tmp_path / "saved")


@pytest.fixture(scope="session")
def tiny_logits():
    """`(model, inputs) -> logits`, without gradients."""
    import torch

    def run(model, inputs):
        with torch.no_grad():
            return model(**inputs).logits

    return run


@pytest.fixture
def shrp(monkeypatch, capsys):
    """`shrp("evaluate", folder, ...) -> (exit code, stdout, stderr)`, in this process."""
    from shrp import cli

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["shrp", *map(str, args)])
        monkeypatch.delenv("COLUMNS", raising=False)  # by which tables would be as wide as a terminal is
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def told(shrp):
    """`told("evaluate", folder, ...)`: the JSON object that a command prints."""

    def run(*args):
        code, out, err = shrp(*args, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return run


@pytest.fixture
def eager_switching():
    """Threads take turns far more often than usual, so that a shared state would be seen."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def edit_json(file, **changes):
    """Change entries of a JSON file, which may not be there yet; `...` takes one out."""
    entries = (json.loads(file.read_text()) if file.exists() else {}) | changes
    file.write_text(json.dumps({name: value for name, value in entries.items() if value is not ...}))


def counted_flops(model, tokens):
    """FLOPs of the matrix products of a real forward pass on one random example, by torch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    from shrp.evaluation.timing import model_inputs

    counter = FlopCounterMode(
        display=False,  # torch's counter passes over the fused attention kernel for CPUs
        custom_mapping={
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
                lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
            )
        },
    )
    with torch.no_grad(), counter:
        model(**model_inputs(model, 1, tokens))
    return counter.get_total_flops()
