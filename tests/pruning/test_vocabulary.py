"""A trimmed vocabulary tokenizes the texts it was trimmed for as before; other words split into smaller pieces."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from shrp.checkpoints import checkpoint
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError, UnsupportedModelError
from shrp.evaluation.costs import cost, dense_cost
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.vocabulary import vocabulary_of, with_vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]")
LETTERS = (*"abcdefghijklmnopqrstuvwxyz", "é", "☃")
WORDS = ("the", "film", "drags", "never", "joy", "lock", "lo", "##ck", "##ft", "##ing", "snow", "rare")
PIECES = (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS)
TEXTS = (("the film never drags",), ("The film locks joy",), ("the loft drags never",))


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ids = [(name, PIECES.index(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def kept_of(tokenizer, **options):
    found = vocabulary_of(tokenizer, TEXTS, **options)
    return found, {PIECES[i] for i in found.kept}


def test_kept_is_what_texts_need_and_what_other_words_fall_into(tokenizer):
    found, kept = kept_of(tokenizer)
    assert found.size == len(PIECES)
    assert (np.diff(found.kept) > 0).all()
    assert {"the", "film", "drags", "never", "joy", "lock", "##s", "lo", "##ft"} <= kept
    assert not kept & {"rare", "snow", "##ck", "##ing", "[unused0]"}
    assert set(SPECIAL) - {"[unused0]"} <= kept
    assert {"z", "##z"} <= kept
    assert not kept & {"☃", "##☃", "é"}  # neither ASCII nor in the texts
    assert "☃" in {PIECES[i] for i in vocabulary_of(tokenizer, [("a ☃",)]).kept}


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "ernie", "mpnet"])
def test_predictions_on_the_texts_it_was_trimmed_for_stay(tokenizer, tiny_model, family):
    model = tiny_model(family, vocab_size=len(PIECES), pad_token_id=0)
    before = copy.deepcopy(model.state_dict())
    found, kept = kept_of(tokenizer)
    smaller, words = with_vocabulary(model, tokenizer, found)
    data = TextData(TASKS["sst2"], "mine", (*TEXTS, ("loft film",), ("joy",)), np.array([0, 1, 0, 1, 0]))
    one, other = evaluate(model, tokenizer, data), evaluate(smaller, words, data)
    assert np.array_equal(one.logits, other.logits)
    assert np.ptp(one.logits) > 1e-3  # so that equal says something
    assert smaller.config.vocab_size == len(kept) == len(words)
    assert words.get_vocab() == {piece: i for i, piece in enumerate(p for p in PIECES if p in kept)}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert model.config.vocab_size == len(PIECES)
    assert words.tokenize("snow loft") == ["s", "##n", "##o", "##w", "lo", "##ft"]  # "snow" is not in the texts
    assert words.convert_ids_to_tokens(words("lo", "joy")["input_ids"]) == ["[CLS]", "lo", "[SEP]", "joy", "[SEP]"]
    assert words.pad_token_id == smaller.config.pad_token_id == 0


def test_costs_are_held_against_the_whole_vocabulary(tokenizer, tiny_routed):
    plan = make_plan({1: [1, 0, 0, 0], 2: [1, 0, 0, 0]}, per_layer=1)
    model = prune(tiny_routed(vocab_size=len(PIECES), pad_token_id=0), plan)
    found, kept = kept_of(tokenizer)
    smaller, _ = with_vocabulary(model, tokenizer, found)
    assert dense_cost(smaller) == dense_cost(model)
    gone = (len(PIECES) - len(kept)) * model.config.hidden_size
    assert cost(smaller).model_params == cost(model).model_params - gone
    assert cost(smaller).encoder_params == cost(model).encoder_params


def test_what_can_not_be_trimmed_is_refused(tokenizer, tiny_tokenizer):
    with pytest.raises(UnsupportedModelError, match="a vocabulary of WordLevel can't be trimmed"):
        vocabulary_of(tiny_tokenizer, TEXTS)
    with pytest.raises(DataError, match="no texts"):
        vocabulary_of(tokenizer, [])
    slow = SimpleNamespace()  # has no core of the fast kind
    with pytest.raises(UnsupportedModelError, match="without a fast form"):
        vocabulary_of(slow, TEXTS)


def test_the_command_writes_a_checkpoint_and_reports_what_changed(told, tmp_path, tokenizer, tiny_routed, tiny_info):
    usage = {1: [0.6, 0.2, 0.1, 0.1], 2: [0.1, 0.4, 0.3, 0.2]}
    model = tiny_routed(vocab_size=len(PIECES), pad_token_id=0)
    checkpoint.save(model, tokenizer, tiny_info(usage=usage), tmp_path / "routed")
    pd.DataFrame({"sentence": [text for (text,) in TEXTS]}).to_csv(tmp_path / "texts.csv", index=False)
    texts = ["the film never drags", "the snow", "joy", "the rare film"]
    frame = pd.DataFrame({"sentence": texts, "label": ["negative", "positive"] * 2})
    frame.to_csv(tmp_path / "data.csv", index=False)
    files = ("--texts", tmp_path / "texts.csv", "--data", tmp_path / "data.csv", "--out", tmp_path / "small")
    found = told("trim-vocabulary", tmp_path / "routed", *files)
    before, after = checkpoint.load(tmp_path / "routed"), checkpoint.load(tmp_path / "small")
    kept = len(after.tokenizer)
    assert (found["kept"], found["size"]) == (kept, len(PIECES))
    counted = {"kept": kept, "size": len(PIECES), "common": 0}
    assert after.info.training["vocabulary"] == counted | {"counted_on": "texts.csv", "counted_n": 3}
    assert found["missing"] == pytest.approx(2 / 10)
    shares = [cost(one.model).relative_to(dense_cost(one.model))["model_params"] for one in (before, after)]
    assert [found["model_params_before"], found["model_params"]] == pytest.approx(shares)
    assert shares[1] < shares[0]
    data = TextData(TASKS["sst2"], "known", TEXTS, np.array([0, 1, 0]))
    outputs = [one.evaluate(data).logits for one in (before, after)]
    np.testing.assert_allclose(*outputs, atol=0.01)  # float16
    (row,) = after.info.scores
    assert (row["kind"], row["score"]) == ("routed", found["score"])
    assert after.info.usage == before.info.usage
