"""DeBERTa, whose heads project the distance of two tokens as they do the tokens: what reaches converted layers."""

import io

import pytest
import torch
from transformers import AutoConfig

from shrp.analysis.attention import layer_attention
from shrp.analysis.attribution.instance import prepare
from shrp.checkpoints import checkpoint
from shrp.checkpoints.base import load_base
from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.errors import UnsupportedModelError
from shrp.evaluation import costs as measure
from shrp.families.families import family_of
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.conftest import LIKE_DEBERTA_V3, counted_flops

SST2 = TASKS["sst2"]
H, SPAN = 4, LIKE_DEBERTA_V3["position_buckets"]


@pytest.fixture
def routed(tiny_routed):
    return tiny_routed("deberta-v2")


@pytest.mark.parametrize("kind", ["routed", "static"])
@pytest.mark.parametrize("words", [1, 25])  # distances nearer than the span, and far beyond it
def test_attention_maps_are_the_dense_heads(kind, words, tiny_model, tiny_tokenizer):
    model, text = tiny_model("deberta-v2"), (" ".join(f"w{i % 7}" for i in range(words)),)
    batch = collate(tiny_tokenizer, encode(tiny_tokenizer, [text]), [0])
    assert (batch["input_ids"].shape[1] > SPAN) == (words > 1)
    with torch.no_grad():
        heads = model(**batch, output_attentions=True).attentions[1][0]
    convert(model, ShrpConfig((1,)))
    if kind == "static":
        model = prune(model, make_plan({1: [0.1, 0.2, 0.3, 0.4]}, per_layer=2))
    shown = layer_attention(model, tiny_tokenizer, text, 1)
    assert shown.kind == kind
    assert len(shown.heads) == (2 if kind == "static" else H)
    kept = heads[list(shown.heads)]
    torch.testing.assert_close(torch.from_numpy(shown.weights), kept, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["routed", "static"])
def test_padding_on_either_side_changes_nothing(kind, routed, tiny_inputs, tiny_logits):
    model = routed
    if kind == "static":
        model = prune(model, make_plan({1: [0.4, 0.3, 0.2, 0.1], 2: [0.1, 0.2, 0.3, 0.4]}, per_layer=2))
    alone, padding = tiny_inputs((6,)), torch.zeros(1, 3, dtype=torch.long)
    wanted = tiny_logits(model, alone)
    right = {name: torch.cat([ids, padding], 1) for name, ids in alone.items()}
    torch.testing.assert_close(tiny_logits(model, right), wanted, atol=1e-5, rtol=1e-5)
    # The head reads the first place, which on the left is padding: the layers' outputs say it.
    left = {name: torch.cat([padding, ids], 1) for name, ids in alone.items()}
    with torch.no_grad():
        states = model(**left, output_hidden_states=True).hidden_states[-1][:, 3:]
        plain = model(**alone, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"conv_kernel_size": 3},
        {"share_att_key": False},
        {"pos_att_type": ["c2p"]},
        {"position_buckets": 300, "max_relative_positions": 400},
        {"relative_attention": False, "pos_att_type": None},
    ],
)
def test_other_variants_are_refused(other):
    config = AutoConfig.for_model("deberta-v2", **LIKE_DEBERTA_V3 | other)
    with pytest.raises(UnsupportedModelError):
        family_of(config)


@pytest.mark.parametrize("other", [{"position_buckets": -1}, {"embedding_size": 16}])
def test_variants_that_can_be_converted_cost_what_runs(other, tiny_model):
    model = tiny_model("deberta-v2", **other)
    del (config := model.config).max_relative_positions
    if other.get("position_buckets"):
        del config.position_buckets  # as in a config that never had them
    for kind in ("dense", "routed"):
        if kind == "routed":
            convert(model, ShrpConfig((1, 2))).eval()
        for tokens in (3, 9):
            assert measure.cost(model, tokens).model_flops == counted_flops(model, tokens)


def test_a_vocabulary_of_sentencepiece_is_read_kept_and_explained(tiny_model, tmp_path, tiny_info):
    """Of a folder as DeBERTa-v3 comes, without tokenizer.json."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(
            ["the plot never drags", "a good film is a triumph", "the ending is a mess"] * 50
        ),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
        **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
    )
    tiny_model("deberta-v2", vocab_size=80).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "spm.model").write_bytes(written.getvalue())
    settings = '{"do_lower_case": false, "vocab_type": "spm"}'
    (tmp_path / "base" / "tokenizer_config.json").write_text(settings)
    model, tokenizer, _ = load_base(str(tmp_path / "base"), SST2)
    text = ("the plot never drags",)
    expected = tokenizer(*text)["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(expected)[i] for i in (0, -1)] == ["[CLS]", "[SEP]"]
    convert(model, ShrpConfig((1, 2)))
    checkpoint.save(model, tokenizer, tiny_info(), tmp_path / "made")
    loaded = checkpoint.load(tmp_path / "made")
    assert loaded.tokenizer(*text)["input_ids"] == expected
    instance = prepare(loaded.model, loaded.tokenizer, SST2, text)
    assert [word.text for word in instance.words] == text[0].split()


# MPNet, whose encoder passes its layers a shared position bias


@pytest.mark.parametrize("kind", ["routed", "static"])
def test_the_bias_is_trained_through_converted_layers_in_bfloat16_too(kind, tiny_routed, tiny_inputs):
    model = tiny_routed("mpnet")
    if kind == "static":
        model = prune(model, make_plan({1: [0.4, 0.3, 0.2, 0.1], 2: [0.1, 0.2, 0.3, 0.4]}, per_layer=2))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**tiny_inputs()).logits.float().square().mean()
    loss.backward()
    assert model.base_model.encoder.relative_attention_bias.weight.grad.abs().sum() > 0
