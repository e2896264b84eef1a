"""`python -m shrp explain` says of typed texts what the library finds, and refuses what is no input."""

import json

import numpy as np
import pytest

from shrp.analysis.attribution.instance import prepare
from shrp.analysis.attribution.tokens import ablate_words
from shrp.analysis.explore import explore
from shrp.analysis.patching import patch
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig

TEXTS = ("w1 w2 w3 w4", "w5 [b] w1")


@pytest.fixture
def save(tmp_path, tiny_model, tiny_routed, tiny_tokenizer):
    """`save(kind, task)`: the folder of a `routed` or a `dense` checkpoint of a task."""

    def made(kind, task="sst2", top_k=1):
        layers = (1, 2) if kind == "routed" else ()
        labels = TASKS[task].num_labels
        model = tiny_routed(num_labels=labels, top_k=top_k) if layers else tiny_model(num_labels=labels)
        config = ShrpConfig(layers, top_k=top_k, expander_gain=1.0)
        info = CheckpointInfo(config, TASKS[task], base_model="tiny")
        return checkpoints.save(model, tiny_tokenizer, info, tmp_path / f"{kind}-{task}")

    return made


@pytest.fixture
def folder(save):
    return save("routed")


def asked(*texts):
    return [part for text in texts for part in ("--text", text)]


def test_what_is_told_is_what_the_library_finds(shrp, folder):
    code, out, err = shrp("explain", folder, *asked(*TEXTS), "--json")
    assert code == 0, err
    told, loaded = json.loads(out), checkpoints.load(folder)
    task = loaded.info.task
    expected = explore(loaded.model, loaded.tokenizer, task, [(text,) for text in TEXTS])
    assert told["provenance"]["checkpoint_fingerprint"] == loaded.fingerprint
    for one, e in zip(told["inputs"], expected, strict=True):
        assert (one["answer"], one["tokens_read"]) == (e.answer, len(e.tokens))
        assert list(one["probabilities"].values()) == pytest.approx(e.probabilities.tolist())
        assert [(row["layer"], row["expert"]) for row in one["route"]] == [(n, e.choice(n)) for n in e.layers]
        instance = prepare(loaded.model, loaded.tokenizer, task, e.text)
        scores = ablate_words(instance, e.prediction)
        assert one["words"]["of"] == e.answer
        assert one["words"]["replaced_by"] == "mask"
        assert "with_it" not in one["route"][0]
        assert [row["text"] for row in one["words"]["scores"]] == [word.text for word in instance.words]
        np.testing.assert_allclose([row["score"] for row in one["words"]["scores"]], scores.scores, atol=1e-5)


def test_another_class_and_no_words_can_be_asked_for(shrp, folder):
    _, out, _ = shrp("explain", folder, *asked(TEXTS[0]), "--output", "negative", "--json")
    assert json.loads(out)["inputs"][0]["words"]["of"] == "negative"
    _, out, _ = shrp("explain", folder, *asked(TEXTS[0]), "--no-words", "--json")
    assert "words" not in json.loads(out)["inputs"][0]
    code, _, err = shrp("explain", folder, *asked(TEXTS[0]), "--output", "good")
    assert code == 1
    assert "'good' is no class of 'sst2'; its classes are negative, positive" in err


def test_one_class_rather_than_another(shrp, save):
    folder, pair = save("routed", "mnli"), "w1 w2 w3 ||| w4"
    asked_for = [*asked(pair), "--output", "neutral", "--rather-than", "entailment"]
    code, out, err = shrp("explain", folder, *asked_for, "--json")
    assert code == 0, err
    words = json.loads(out)["inputs"][0]["words"]
    assert (words["of"], words["rather_than"]) == ("neutral", "entailment")
    loaded = checkpoints.load(folder)
    one = prepare(loaded.model, loaded.tokenizer, TASKS["mnli"], ("w1 w2 w3", "w4"))
    of_one, of_other = (
        ablate_words(one, TASKS["mnli"].label_names.index(words[k])) for k in ("of", "rather_than")
    )
    expected = of_one.scores - of_other.scores
    np.testing.assert_allclose([row["score"] for row in words["scores"]], expected, atol=1e-5)
    _, out, _ = shrp("explain", folder, *asked_for)
    assert "what the logit of neutral less that of entailment, " in out
    code, _, err = shrp("explain", folder, *asked(pair), "--output", "neutral", "--rather-than", "neutral")
    assert (code, "'neutral' has no lead over itself" in err) == (1, True)
    code, _, err = shrp("explain", folder, *asked(pair), "--rather-than", "good")
    assert (code, "'good' is no class of 'mnli'" in err) == (1, True)
    _, out, _ = shrp("explain", folder, *asked(pair), "--json")
    assert json.loads(out)["inputs"][0]["words"]["rather_than"] is None
    answer = json.loads(out)["inputs"][0]["answer"]
    _, out, err = shrp("explain", folder, *asked(pair), "--rather-than", answer, "--json")
    assert f"is answered {answer}, which has no lead over itself" in " ".join(err.split())
    assert json.loads(out)["inputs"][0]["words"]["rather_than"] is None
    _, _, err = shrp("explain", folder, *asked(pair), "--rather-than", answer, "--no-words")
    assert "--no-words leaves these out" in err
    assert "no lead over itself" not in err


def test_states_of_one_text_are_put_into_the_other(shrp, folder):
    code, out, err = shrp(
        "explain", folder, *asked("w1 w2 w3", "w1 w9 w3"), "--patched", "--no-words", "--json"
    )
    assert code == 0, err
    told, loaded = json.loads(out)["patched"], checkpoints.load(folder)
    expected = patch(loaded.model, loaded.tokenizer, loaded.info.task, ("w1 w2 w3",), ("w1 w9 w3",))
    assert (told["into"], told["from"]) == (1, 2)
    names = loaded.info.task.label_names
    assert (told["of"], told["rather_than"]) == tuple(names[label] for label in expected.contrast)
    assert told["other"] - told["own"] == pytest.approx(expected.gap, abs=1e-5)
    np.testing.assert_allclose([row["change"] for row in told["states"]], expected.moved.ravel(), atol=1e-5)
    assert told["left_out"] == []
    logits = [list(row["logits"].values()) for row in told["states"]]
    np.testing.assert_allclose(logits, expected.logits.reshape(-1, 2), atol=1e-5)
    assert list(told["states"][0]["logits"]) == list(names)
    assert [row["layers_rerouted"] for row in told["states"]] == expected.rerouted.ravel().tolist()
    assert told["states"][2] | {"token": "w2", "from": "w9", "layer": 0, "position": 2} == told["states"][2]
    code, out, err = shrp("explain", folder, *asked("w1 w2 w3", "w1 w9 w3"), "--patched", "--no-words")
    assert code == 0, err
    heading = "moves it furthest" if np.isnan(expected.parts).all() else "brings it furthest towards that"
    assert f"put into text 1, {heading}:" in " ".join(out.split())
    table = out[out.index("furthest") :].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line.count("│") == 7]
    best = expected.strongest()
    assert [row[:4] for row in rows] == [
        [str(layer), str(place), expected.tokens[place], expected.donors[place]]
        for layer, place in enumerate(best)
    ]
    assert rows[0][4] == f"{expected.moved[0, best[0]]:+.2f}"
    assert "not put in" not in out
    _, out, _ = shrp("explain", folder, *asked("w1 w2", "w1 w9 w2"), "--patched", "--no-words")
    assert "of text 2 not put in, as text 1 has no place for it: w9" in out
    code, _, err = shrp("explain", folder, *asked(TEXTS[0]), "--patched")
    assert (code, "give --text twice, not 1 times" in " ".join(err.split())) == (1, True)


def test_it_is_printed_as_it_was_typed(shrp, folder):
    code, out, err = shrp("explain", folder, *asked(*TEXTS))
    assert code == 0, err
    assert "2. w5 [b] w1" in out
    assert "layers routed anew" in out
    assert "what the logit of" in out


def test_a_pair_has_a_number_or_a_class_and_both_its_texts(shrp, save):
    folder = save("routed", "stsb")
    code, out, err = shrp("explain", folder, *asked("w1 w2 ||| w3"), "--json")
    assert code == 0, err
    (one,) = json.loads(out)["inputs"]
    assert one["text"] == ["w1 w2", "w3"]
    assert one["answer"] == pytest.approx(one["outputs"]["output"])
    assert {row["part"] for row in one["words"]["scores"]} == {1, 2}
    code, out, err = shrp("explain", folder, *asked("w1 w2 ||| w2"))
    assert code == 0, err
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines() if " w2 " in line]
    assert sorted(row for row in rows if row) == [["2", "sentence1", "w2"], ["3", "sentence2", "w2"]]
    code, _, err = shrp("explain", folder, *asked("w1 w2"))
    assert code == 1
    assert "give a sentence1 and a sentence2, with ||| between them" in err


def test_all_experts_that_fire_are_told(shrp, save):
    folder = save("routed", top_k=2)
    code, out, err = shrp("explain", folder, *asked(TEXTS[0]), "--no-words", "--json")
    assert code == 0, err
    loaded = checkpoints.load(folder)
    (e,) = explore(loaded.model, loaded.tokenizer, loaded.info.task, [(TEXTS[0],)])
    for row in json.loads(out)["inputs"][0]["route"]:
        assert {row["expert"], *row["with_it"]} == set(np.flatnonzero(e.fires(row["layer"])[0]))
        assert len(row["with_it"]) == 1
    assert "with it" in shrp("explain", folder, *asked(TEXTS[0]), "--no-words")[1]


def test_a_model_without_routers_has_words_alone(shrp, save):
    code, out, err = shrp("explain", save("dense"), *asked(TEXTS[0]), "--json")
    assert code == 0, err
    (one,) = json.loads(out)["inputs"]
    assert "route" not in one
    assert "layers_rerouted" not in one["words"]["scores"][0]


def test_what_is_no_text_is_refused(shrp, folder):
    code, _, err = shrp("explain", folder, *asked("\u200b "))
    assert code == 1
    assert "is no input of 'sst2': give some text" in err
    assert shrp("explain", folder)[0] == 2
    assert "At most 32 inputs" in shrp("explain", folder, *asked(*TEXTS * 17))[2]


def test_it_says_where_more_is_read_than_was_scored(shrp, folder, monkeypatch):
    monkeypatch.setattr("shrp.checkpoints.info.EVALUATED_TOKENS", 7)
    long = " ".join(f"w{i % 20}" for i in range(20))
    _, _, err = shrp("explain", folder, *asked(TEXTS[0], long))
    assert "1 of 2 texts is read beyond 7 tokens, where this checkpoint's scores and usage cut" in err
    code, _, err = shrp("explain", folder, *asked(TEXTS[0]))
    assert code == 0, err
    assert "beyond" not in err
