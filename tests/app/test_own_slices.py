"""Slices by words, typed in the sidebar, on the pages."""

from collections import Counter
from dataclasses import replace
from urllib.parse import parse_qs

from shrp import checkpoint as checkpoints
from shrp import evaluate as evaluate_module
from shrp import reference, usage
from shrp.data import load_probe
from shrp.evaluate import evaluate
from shrp.live import LiveEvaluator
from shrp.slices import REST, parse_slices, sliced_by_words
from ui import own_slices
from ui.lab_reference import teacher_on
from ui.own_slices import SLICES

from .helpers import texts_of

RULES = "negation: not, *n't, never\ncontrast: but"
NAMES = ("negation", "contrast", REST)


def sliced():
    return sliced_by_words(load_probe("sst2"), parse_slices(RULES))


def groups(at):
    return [one for one in at.selectbox(key="group").options if one.startswith("slice: ")]


def test_they_take_the_place_of_the_datas_own_until_the_box_is_emptied(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    own = groups(at)
    assert len(own) == len(set(load_probe("sst2").slices))
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert groups(at) == [f"slice: {name}" for name in dict.fromkeys(sliced().slices)]
    counts = Counter(sliced().slices)
    assert min(counts[name] for name in NAMES) > 0  # else it is no test of them
    said = ", ".join(f"{name} {counts[name]}" for name in NAMES)
    assert f"Slices of your own (n = 480): {said}." in texts_of(at)
    at.text_area(key=SLICES).set_value("negation:").run()
    assert not at.exception
    assert (
        "Slices of your own are not in use: 'negation:' is no slice; write a name, a colon and words"
        in texts_of(at)
    )
    assert groups(at) == own
    at.text_area(key=SLICES).set_value("").run()
    assert "Slices of your own (" not in texts_of(at)
    assert groups(at) == own


def test_a_link_has_them_and_the_lab_scores_by_them_beside_the_teacher(open_page, tiny_checkpoint):
    loaded, probe = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    found = evaluate(loaded.model, loaded.tokenizer, probe)
    reference.write(tiny_checkpoint, {probe.fingerprint: reference.from_evaluation(found, "t")})
    at = open_page("pruning_lab", tiny_checkpoint, word_slices=RULES, budget=3)
    assert not at.exception
    tables = [one.value for one in at.dataframe if "slice" in one.value]
    assert any(set(NAMES) == set(table["slice"]) for table in tables)
    teacher = teacher_on(checkpoints.load(tiny_checkpoint), sliced())
    assert (teacher.score, tuple(teacher.slices)) == (found.score, sliced().slices)
    links = [one.proto for one in at.get("page_link")]
    assert links
    assert all(parse_qs(link.query_string)[SLICES] == [RULES] for link in links)


def test_a_link_with_what_is_no_slice_says_so(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint, word_slices="negation:")
    assert not at.exception
    assert "Slices of your own are not in use: 'negation:' is no slice" in texts_of(at)


def test_what_does_not_hang_on_slices_is_not_measured_again(open_page, tiny_checkpoint, monkeypatch):
    at = open_page("pruning_lab", tiny_checkpoint, budget=3)
    assert not at.exception
    tried = set(at.session_state["lab-tried"])
    assert len(tried) == 1

    def fail(*_, **__):
        raise AssertionError("it is measured again")

    for where, name in (
        (usage, "measure_usage"),
        (evaluate_module, "evaluate_stream"),
        (LiveEvaluator, "_run"),
    ):
        monkeypatch.setattr(where, name, fail)
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert set(at.session_state["lab-tried"]) == tried


def test_pairs_that_are_given_later_are_there_with_the_same_slices(tiny_data, monkeypatch):
    one = tiny_data(4)
    monkeypatch.setattr(own_slices.st, "session_state", {SLICES: "some: w1"})
    assert own_slices.applied(one).pairs is None
    paired = replace(one, pairs=("a", "a", "b", "b"))
    assert own_slices.applied(paired).pairs == paired.pairs
    assert own_slices.applied(paired).slices == own_slices.applied(one).slices


def test_the_picked_example_stays_as_slices_change(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, layer=2, expert=1, example=7, parts="attention")
    assert at.number_input(key="example").value == 7
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert at.number_input(key="example").value == 7
