"""A trimmed vocabulary reads what it was trimmed for as before, at its smaller size; other words fall into pieces."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from shrp.checkpoints import checkpoint
from shrp.checkpoints.card import made
from shrp.checkpoints.card_pruning import trimmed
from shrp.checkpoints.score_costs import row_cost
from shrp.checkpoints.stored import check_training
from shrp.data.batching import token_counts
from shrp.data.sources import load_file
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError, UnsupportedModelError
from shrp.evaluation.costs import cost, dense_cost, plan_cost
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.pruning.vocabulary import can_be_trimmed, vocabulary_of, with_vocabulary
from ui.describe import summary_line, training_facts

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


def test_characters_are_kept_as_the_tokenizer_reads_them(tokenizer):
    core = tokenizer.backend_tokenizer
    core.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    vocabulary = {
        **core.get_vocab(),
        "\u0301": len(PIECES),
        "##\u0301": len(PIECES) + 1,
    }  # an accent by itself
    core.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    kept = set(vocabulary_of(tokenizer, [("né",)], min_count=9).kept.tolist())
    assert {vocabulary["\u0301"], vocabulary["##\u0301"]} <= kept
    assert vocabulary["☃"] not in kept


def test_rare_tokens_go_and_common_ones_stay_where_asked(tokenizer):
    assert "joy" not in kept_of(tokenizer, min_count=2)[1]
    assert {"the", "never"} <= kept_of(tokenizer, min_count=2)[1]
    upto = 1 + WORDS.index("snow")  # characters, special tokens and unused places don't count
    assert {"snow", "##ck"} <= kept_of(tokenizer, common=upto)[1]
    assert not {"rare", "[unused0]", "☃"} & kept_of(tokenizer, common=upto)[1]


def test_the_share_that_is_not_kept_is_told(tokenizer):
    found, _ = kept_of(tokenizer)
    assert found.missing(tokenizer, TEXTS) == 0
    assert found.missing(tokenizer, [("the rare film",), ("the snow",)]) == pytest.approx(2 / 5)
    assert np.isnan(found.missing(tokenizer, [("",)]))


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "ernie", "mpnet"])
def test_texts_that_it_was_trimmed_for_are_answered_as_before(tokenizer, tiny_model, family):
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


def test_other_words_fall_into_smaller_pieces(tokenizer, tiny_model):
    found, _ = kept_of(tokenizer)
    model = tiny_model(vocab_size=len(PIECES), pad_token_id=0)
    _, words = with_vocabulary(model, tokenizer, found)
    assert tokenizer.tokenize("snow loft") == ["snow", "lo", "##ft"]
    assert words.tokenize("snow loft") == ["s", "##n", "##o", "##w", "lo", "##ft"]
    pair = words("snow", "joy")["input_ids"]
    assert words.convert_ids_to_tokens(pair) == ["[CLS]", "s", "##n", "##o", "##w", "[SEP]", "joy", "[SEP]"]
    assert words.pad_token_id == model.config.pad_token_id == 0


def test_costs_are_held_against_the_whole_vocabulary(tokenizer, tiny_routed):
    model = prune(
        tiny_routed(vocab_size=len(PIECES), pad_token_id=0),
        make_plan({1: [1, 0, 0, 0], 2: [1, 0, 0, 0]}, per_layer=1),
    )
    found, kept = kept_of(tokenizer)
    smaller, _ = with_vocabulary(model, tokenizer, found)
    assert dense_cost(smaller) == dense_cost(model)
    gone = (len(PIECES) - len(kept)) * model.config.hidden_size
    assert cost(smaller).model_params == cost(model).model_params - gone
    assert cost(smaller).encoder_params == cost(model).encoder_params


def test_a_plans_cost_is_that_of_the_vocabulary_as_it_is(tokenizer, tiny_routed, tiny_info):
    plan = make_plan({1: [1, 0, 0, 0], 2: [1, 0, 0, 0]}, per_layer=2)
    routed, _ = with_vocabulary(
        tiny_routed(vocab_size=len(PIECES), pad_token_id=0), tokenizer, kept_of(tokenizer)[0]
    )
    assert plan_cost(routed, plan) == cost(prune(routed, plan))
    static = prune(routed, plan)
    row = {"kind": "static", "budget": plan.budget, "model": "static, 4 in all, vocabulary trimmed"}
    loaded = SimpleNamespace(info=tiny_info(plan=plan), model=static)
    assert row_cost(row, loaded) == cost(static)


def test_what_can_not_be_trimmed_is_refused(tokenizer, tiny_tokenizer):
    assert (can_be_trimmed(tokenizer), can_be_trimmed(tiny_tokenizer)) == (True, False)
    with pytest.raises(UnsupportedModelError, match="a vocabulary of WordLevel can't be trimmed"):
        vocabulary_of(tiny_tokenizer, TEXTS)
    with pytest.raises(DataError, match="no texts"):
        vocabulary_of(tokenizer, [])
    slow = SimpleNamespace()  # has no core of the fast kind
    assert not can_be_trimmed(slow)
    with pytest.raises(UnsupportedModelError, match="without a fast form"):
        vocabulary_of(slow, TEXTS)
    for wrong in ({"min_count": 0}, {"common": -1}):
        with pytest.raises(ValueError, match="once at least"):
            vocabulary_of(tokenizer, TEXTS, **wrong)


def test_a_padding_token_that_would_move_is_refused(tokenizer, tiny_model):
    model = tiny_model(vocab_size=len(PIECES), pad_token_id=PIECES.index("joy"))
    with pytest.raises(UnsupportedModelError, match="padding token's number would change"):
        with_vocabulary(model, tokenizer, kept_of(tokenizer)[0])


@pytest.mark.parametrize("kind", [processors.BertProcessing, processors.RobertaProcessing])
def test_tokens_that_are_added_get_their_new_ids(tokenizer, tiny_model, kind):
    tokenizer.backend_tokenizer.post_processor = kind(("[SEP]", 3), ("[CLS]", 2))
    found, _ = kept_of(tokenizer)
    _, words = with_vocabulary(tiny_model(vocab_size=len(PIECES), pad_token_id=0), tokenizer, found)
    assert words.convert_ids_to_tokens(words("joy")["input_ids"]) == ["[CLS]", "joy", "[SEP]"]


@pytest.fixture
def saved(tmp_path, tokenizer, tiny_routed, tiny_info):
    """A folder with a routed checkpoint, and files of texts and of data."""
    usage = {1: [0.6, 0.2, 0.1, 0.1], 2: [0.1, 0.4, 0.3, 0.2]}
    model = tiny_routed(vocab_size=len(PIECES), pad_token_id=0)
    checkpoint.save(model, tokenizer, tiny_info(usage=usage), tmp_path / "routed")
    pd.DataFrame({"sentence": [text for (text,) in TEXTS]}).to_csv(tmp_path / "texts.csv", index=False)
    texts = ["the film never drags", "the snow", "joy", "the rare film"]
    frame = pd.DataFrame({"sentence": texts, "label": ["negative", "positive"] * 2})
    frame.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path


def trim(shrp, folder, *options, source="routed"):
    texts = ("--texts", folder / "texts.csv")
    return shrp("trim-vocabulary", folder / source, *texts, "--data", folder / "data.csv", *options)


def test_the_command_writes_a_checkpoint_and_says_what_changed(shrp, saved):
    code, out, err = trim(shrp, saved, "--out", saved / "small", "--full-precision", "--json")
    assert code == 0, err
    told = json.loads(out)
    before, after = checkpoint.load(saved / "routed"), checkpoint.load(saved / "small")
    kept = len(after.tokenizer)
    assert (told["kept"], told["size"]) == (kept, len(PIECES))
    assert after.info.training["vocabulary"] == {
        **{"kept": kept, "size": len(PIECES), "min_count": 1, "common": 0},
        **{"counted_on": "texts.csv", "counted_n": 3},
    }
    assert told["missing"] == pytest.approx(2 / 10)
    shares = [cost(one.model).relative_to(dense_cost(one.model))["model_params"] for one in (before, after)]
    assert [told["model_params_before"], told["model_params"]] == pytest.approx(shares)
    assert shares[1] < shares[0]
    data = TextData(TASKS["sst2"], "known", TEXTS, np.array([0, 1, 0]))
    assert np.array_equal(before.evaluate(data).logits, after.evaluate(data).logits)
    (row,) = after.info.scores
    assert (row["model"], row["kind"], row["score"]) == (
        "routed, vocabulary trimmed",
        "routed",
        told["score"],
    )
    assert after.info.usage == before.info.usage
    assert f"Its vocabulary has {kept} of {len(PIECES)} tokens: those that texts.csv" in made(after)
    line = summary_line(after.info, 3, 4)
    assert f"vocabulary of {kept} instead of {len(PIECES)} tokens" in line
    assert ("vocabulary", f"{kept} of {len(PIECES)} tokens, needed by texts.csv") in training_facts(
        after.info.training
    )


def test_the_command_speaks_to_people_too_and_trims_what_is_pruned(shrp, saved):
    code, _, err = shrp("prune", saved / "routed", "--per-layer", 1, "--out", saved / "pruned")
    assert code == 0, err
    code, out, err = trim(shrp, saved, "--out", saved / "small", "--common", 2, source="pruned")
    assert code == 0, err
    assert "of the dense one's parameters instead of" in " ".join(out.split())
    assert "20.0% of its tokens are not kept" in " ".join(out.split())
    (row,) = checkpoint.load(saved / "small").info.scores
    assert (row["model"], row["kind"], row["budget"]) == ("static, 2 in all, vocabulary trimmed", "static", 2)
    code, _, err = trim(shrp, saved, "--out", saved / "smaller", source="small")
    assert code == 1
    assert "has a trimmed vocabulary already" in err
    assert not (saved / "smaller").exists()


def test_rare_tokens_and_another_column_by_their_options(shrp, saved, tokenizer):
    pd.read_csv(saved / "texts.csv").rename(columns={"sentence": "review"}).to_csv(
        saved / "texts.csv", index=False
    )
    options = ("--texts-column", "review", "--min-count", 2, "--full-precision")
    code, _, err = trim(shrp, saved, "--out", saved / "small", *options)
    assert code == 0, err
    after = checkpoint.load(saved / "small")
    assert set(after.tokenizer.get_vocab()) == kept_of(tokenizer, min_count=2)[1]
    assert after.info.training["vocabulary"]["min_count"] == 2


def test_data_without_labels_tell_of_answers_alone(shrp, saved):
    pd.read_csv(saved / "data.csv").drop(columns="label").to_csv(saved / "data2.csv", index=False)
    (saved / "data.csv").unlink()
    (saved / "data2.csv").rename(saved / "data.csv")
    code, out, err = trim(shrp, saved, "--out", saved / "small")
    assert code == 0, err
    assert "no labels" in out
    assert checkpoint.load(saved / "small").info.scores == ()


def test_rows_of_a_table_without_a_text_are_left_out_where_asked(shrp, saved):
    table = saved / "texts.csv"
    table.write_text("sentence,kind\nthe film never drags,x\n,y\njoy,z\n")
    asked = ("trim-vocabulary", saved / "routed", "--texts", table, "--out")
    code, _, err = shrp(*asked, saved / "small")
    assert code == 1
    assert "row 2, column 'sentence'" in err
    assert "--skip-incomplete leaves out all rows that lack a text" in " ".join(err.split())
    for scored in (
        (),
        ("--data", saved / "data.csv"),
    ):  # the probe set, of which no row is left out, and a file
        out = saved / f"small{len(scored)}"
        code, told, err = shrp(*asked, out, *scored, "--skip-incomplete", "--json")
        assert code == 0, err
        assert (json.loads(told)["counted_on"], json.loads(told)["counted_n"]) == ("texts.csv", 2)
        assert "left out 1 of 3 rows of texts.csv, without a text" in " ".join(err.split())
    (saved / "texts.txt").write_text("joy\n")
    code, _, err = shrp(*asked[:3], saved / "texts.txt", "--out", saved / "other", "--skip-incomplete")
    assert code == 1
    assert "--skip-incomplete is for a file of your own" in " ".join(err.split())


def test_lines_of_a_text_file_will_do(shrp, saved):
    (saved / "texts.txt").write_text("\n".join(["the film never drags", "", "joy"]), encoding="utf-8-sig")
    code, out, err = shrp(
        "trim-vocabulary",
        saved / "routed",
        "--texts",
        saved / "texts.txt",
        "--out",
        saved / "small",
        "--json",
    )
    assert code == 0, err
    assert (json.loads(out)["counted_on"], json.loads(out)["counted_n"]) == ("texts.txt", 2)
    kept = checkpoint.load(saved / "small").tokenizer.get_vocab()
    assert {"the", "joy"} <= kept.keys()
    assert "lock" not in kept
    for name, said in (("no.txt", "can't be read"), ("other.txt", "not in UTF-8")):
        (saved / "other.txt").write_bytes(b"\xff\xfe\x00")
        code, _, err = shrp(
            "trim-vocabulary", saved / "routed", "--texts", saved / name, "--out", saved / "more"
        )
        assert (code, said in err) == (1, True)


def test_the_teacher_stays_known_on_data_that_it_read_whole(shrp, saved, tokenizer, tiny_routed, tiny_info):
    data = load_file(saved / "data.csv", "sst2")
    row = {
        "model": "teacher",
        "kind": "teacher",
        "data": data.name,
        "metric": "accuracy",
        "score": 1.0,
        "n": 4,
    }
    row |= {"data_fingerprint": data.fingerprint, "interval": [0.5, 1.0], "max_length": 6}
    info = tiny_info(scores=(row,))
    checkpoint.save(tiny_routed(vocab_size=len(PIECES), pad_token_id=0), tokenizer, info, saved / "scored")
    code, _, err = trim(shrp, saved, "--out", saved / "small", source="scored")
    assert code == 0, err
    small = checkpoint.load(saved / "small")
    assert max(token_counts(tokenizer, data.texts)) == 6 < max(token_counts(small.tokenizer, data.texts))
    code, out, err = shrp("evaluate", saved / "small", "--data", saved / "data.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["teacher"] == 1.0


def test_an_own_task_needs_texts_of_its_own(shrp, saved, tokenizer, tiny_routed, tiny_info):
    from shrp.data.tasks import custom_task

    info = replace(tiny_info(), task=custom_task("moods", ("sentence",), ("bad", "good")))
    checkpoint.save(tiny_routed(vocab_size=len(PIECES), pad_token_id=0), tokenizer, info, saved / "own")
    code, _, err = shrp("trim-vocabulary", saved / "own", "--out", saved / "small")
    assert code == 1
    assert "give its texts with --texts" in err
    code, out, err = shrp(
        "trim-vocabulary", saved / "own", "--texts", saved / "texts.csv", "--out", saved / "small", "--json"
    )
    assert code == 0, err
    assert "score" not in json.loads(out)
    assert "there is no probe set for moods, so nothing is scored: --data takes a file" in err


def test_facts_from_anywhere_are_checked_and_told(tokenizer):
    facts = {"kept": 10, "size": 1000, "min_count": 3, "common": 5, "counted_on": "mine", "counted_n": 7}
    assert trimmed({}) == ""
    assert trimmed({"vocabulary": facts}) == (
        "Its vocabulary has 10 of 1,000 tokens: those that mine (n = 7) has 3 times or more, the first 5 words and "
        "pieces of the whole, "
        "special ones and single characters."
    )
    assert check_training({"vocabulary": facts})["vocabulary"] == facts
    for wrong in ({"kept": "many"}, {"size": None}):
        with pytest.raises(CheckpointError):
            check_training({"vocabulary": facts | wrong})
